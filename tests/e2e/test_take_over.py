"""Two requests on one upload: the later one takes over (T97, T125)."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from tests.support.http import Connection, ConnectionEnded
from tests.support.records import Records
from tests.support.tus import BODY_TYPE, Tus, pattern
from tests.support.waiting import wait_until

KIB = 1024
MIB = 1024 * KIB
Framing = Literal["sized", "chunked"]
# Small bodies and large ones are dropped in different ways.
SIZES = [1000, 4 * MIB]


def hold(tus: Tus, url: str, content: bytes, sent: int, framing: Framing) -> Connection:
    return tus.hold(url, 0, content[:sent], declared=len(content) if framing == "sized" else None)


def check_cut_off(holder: Connection, body_path: str) -> None:
    """Without a reply where that can be done; else the status that makes clients look again."""
    if body_path == "fast":
        assert holder.read_until_closed() == b""
        return
    reply = holder.read_reply()
    assert reply.status == 409
    assert reply.closes
    assert reply.problem()["code"] == "body_interrupted"
    assert holder.read_until_closed() == b""


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_head_takes_over_and_tells_the_final_offset(
    tus: Tus, body_path: str, size: int, framing: Framing
) -> None:
    """T125: everything the holder had sent is in it."""
    content = pattern(size)
    url = tus.new(size)

    with hold(tus, url, content, size // 2, framing) as holder:
        assert tus.offset(url) == size // 2

        check_cut_off(holder, body_path)
    assert tus.finish(url, content) == content


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_a_holder_that_never_asked_for_100_is_cut_off_too(
    tus: Tus, body_path: str, size: int, framing: Framing
) -> None:
    """T125, C6: whatever is left of its body, and however little."""
    content = pattern(size)
    url = tus.new(size)
    fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "0"}

    with tus.connect() as holder:
        if framing == "sized":
            holder.send_head("PATCH", url, tus.fields | fields | {"Content-Length": str(size)})
            holder.send(content[: size // 2])
        else:
            framed = fields | {"Transfer-Encoding": "chunked"}
            holder.send_head("PATCH", url, tus.fields | framed)
            holder.send_chunk(content[: size // 2])
        holder.wait_taken()
        wait_until(lambda: b'"leases":1' in tus.request("GET", "/readyz").body, "it holds")
        offset = tus.offset(url)

        check_cut_off(holder, body_path)
    assert offset == size // 2
    assert tus.finish(url, content) == content


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_patch_takes_over_and_goes_on_where_the_holder_was(
    tus: Tus, body_path: str, size: int, framing: Framing
) -> None:
    """T125."""
    content = pattern(size)
    url = tus.new(size)

    with hold(tus, url, content, size // 2, framing) as holder:
        reply = tus.patch(url, size // 2, content[size // 2 :])

        assert reply.status == 204
        assert reply["upload-offset"] == str(size)
        check_cut_off(holder, body_path)
    assert tus.content(url) == content


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_delete_takes_over(
    tus: Tus, records: Records, body_path: str, size: int, framing: Framing
) -> None:
    """T97, T125."""
    content = pattern(size)
    url = tus.new(size)

    with hold(tus, url, content, size // 2, framing) as holder:
        assert tus.delete(url).status == 204

        check_cut_off(holder, body_path)
    assert tus.head(url).status == 404
    assert records.files(url) == []
    assert records.events(url) == ["canceled"]


def test_an_overtaken_holder_that_sent_nothing_loses_nothing(tus: Tus, body_path: str) -> None:
    """T125."""
    url = tus.new(5)

    with hold(tus, url, b"hello", 0, "sized") as holder:
        assert tus.patch(url, 0, b"hello").status == 204

        check_cut_off(holder, body_path)
    assert tus.content(url) == b"hello"


def test_bytes_sent_after_the_take_over_do_not_count(tus: Tus, body_path: str) -> None:
    """T125: of an old sender that wakes up."""
    url = tus.new(10)

    with hold(tus, url, b"hello?????", 5, "sized") as holder:
        assert tus.offset(url) == 5
        try:
            holder.send(b"?????")
        except OSError:
            assert body_path == "fast"
        holder.read_until_closed()
    assert tus.offset(url) == 5
    assert tus.finish(url, b"helloworld") == b"helloworld"


def test_a_patch_at_the_wrong_offset_takes_over_too(tus: Tus, body_path: str) -> None:
    """T125: before the offset can be compared, the holder has to stop."""
    url = tus.new(10)

    with hold(tus, url, b"helloworld", 5, "sized") as holder:
        reply = tus.patch(url, 3, b"lo")

        assert reply.status == 409
        assert reply["upload-offset"] == "5"
        check_cut_off(holder, body_path)
    assert tus.finish(url, b"helloworld") == b"helloworld"


def test_get_and_options_disturb_nobody(tus: Tus) -> None:
    """T125: GET takes no lock."""
    url = tus.new(10)

    with hold(tus, url, b"helloworld", 5, "sized") as holder:
        assert tus.get(url).status == 404
        assert tus.options(url).status == 204
        assert tus.patch(url, 11, b"!").status == 409
        holder.send(b"world")

        assert holder.read_reply().status == 204
    assert tus.content(url) == b"helloworld"


def test_a_chain_of_take_overs_ends_with_the_last(tus: Tus, body_path: str) -> None:
    """T125."""
    content = pattern(5000)
    url = tus.new(5000)
    holders = []

    for offset in range(0, 4000, 1000):
        declared = 5000 - offset
        piece = content[offset : offset + 1000]
        holders.append(tus.hold(url, offset, piece, declared=declared))
    reply = tus.patch(url, 4000, content[4000:])

    assert reply.status == 204
    for holder in holders:
        with holder:
            check_cut_off(holder, body_path)
    assert tus.content(url) == content


def test_eight_patches_at_one_offset_have_one_outcome_for_every_byte(tus: Tus) -> None:
    """T24, T25, T125: each sender's bytes can be told from the others'."""
    size = 400_000
    url = tus.new(size)
    start = threading.Barrier(8)

    def send(number: int) -> tuple[int, int | None]:
        start.wait()
        reply = tus.try_patch(url, 0, bytes([number]) * size)
        return number, reply and reply.status

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(send, range(1, 9)))
    statuses = [status for _, status in outcomes]
    offset = tus.offset(url)

    assert set(statuses) <= {204, 409, 423, None}
    assert statuses.count(204) <= 1
    assert (offset == size) == (204 in statuses)
    if offset < size:
        tus.append(url, offset, bytes(size - offset))
    content = tus.content(url)
    (winner,) = set(content[:offset])
    assert winner in range(1, 9)
    assert not content[offset:].strip(b"\0")
    for number, status in outcomes:
        assert (status == 204) <= (number == winner)


def test_clients_that_insist_finish_together_and_none_is_kept_out(
    tus: Tus, records: Records
) -> None:
    """T22, T125: each looks at the offset and sends on from there, until the upload is complete.

    Every PATCH is short, so whoever waits for one to end must be woken when it does: 423 would
    mean that somebody slept through it.
    """
    content = pattern(300_000)

    def insist(url: str, number: int) -> Counter[int | None]:
        statuses: Counter[int | None] = Counter()
        while True:
            head = tus.head(url)
            statuses[head.status] += 1
            if head.status != 200:
                return statuses
            offset = int(head["upload-offset"])
            if offset == len(content):
                return statuses
            end = min(len(content), offset + 30_000 + number)
            try:
                reply = tus.patch(url, offset, content[offset:end], chunked=number % 2 == 0)
            except ConnectionEnded:
                statuses[None] += 1
            else:
                statuses[reply.status] += 1

    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            url = tus.new(len(content))
            statuses = sum(pool.map(lambda n, url=url: insist(url, n), range(8)), Counter())

            assert set(statuses) <= {200, 204, 409, None}
            assert tus.content(url) == content
            assert records.events(url) == ["verified"]


def test_concurrent_deletes_have_one_winner(tus: Tus) -> None:
    """T94, T97."""
    url = tus.stored(b"he", length=5)

    with ThreadPoolExecutor(4) as pool:
        statuses = [reply.status for reply in pool.map(lambda _: tus.delete(url), range(4))]

    assert sorted(statuses) == [204, 404, 404, 404]


@pytest.mark.parametrize("sent", [0, 2])
def test_an_empty_patch_with_a_length_takes_over_and_completes(
    tus: Tus, body_path: str, sent: int
) -> None:
    """T59, T125."""
    url = tus.new()

    with tus.hold(url, 0, b"hello"[:sent]) as holder:
        assert tus.patch(url, sent, length=sent).status == 204

        check_cut_off(holder, body_path)
    assert tus.content(url) == b"hello"[:sent]
