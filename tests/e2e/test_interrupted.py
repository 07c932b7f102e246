"""Bodies that do not come to their end: what arrived is kept (T28, T30-T32)."""

import contextlib
from contextlib import ExitStack
from typing import Literal

import pytest

from tests.conftest import ServerFactory
from tests.support.fault_proxy import FaultProxy
from tests.support.http import Connection
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern
from tests.support.waiting import wait_until

KIB = 1024
MIB = 1024 * KIB
# What stock uvicorn may have in its own buffer when the client goes (T32): lost, sent again.
STOCK_BUFFER = 512 * KIB

How = Literal["reset", "close"]
Framing = Literal["sized", "chunked", "deferred"]


def begin(tus: Tus, framing: Framing, content: bytes, sent: int) -> tuple[str, Connection]:
    """Begin a PATCH with all of `content` and stop after `sent` bytes."""
    url = tus.new(None if framing == "deferred" else len(content))
    declared = len(content) if framing == "sized" else None
    return url, tus.hold(url, 0, content[:sent], declared=declared)


@pytest.mark.parametrize("framing", ["sized", "chunked", "deferred"])
@pytest.mark.parametrize("how", ["reset", "half-close", "close"])
@pytest.mark.parametrize("sent", [100 * KIB, 3 * MIB + 17])
def test_what_arrived_before_the_connection_ended_is_kept(
    tus: Tus, body_path: str, framing: Framing, how: str, sent: int
) -> None:
    """T28, T31, T32."""
    content = pattern(4 * MIB)
    url, connection = begin(tus, framing, content, sent)

    if how == "reset":
        connection.reset()
    elif how == "close":
        connection.close()
    else:
        connection.half_close()
        # A half-close is the end of the request; there is no reply to wait for.
        assert connection.read_until_closed() == b""
        connection.close()

    offset = tus.offset(url)
    if body_path == "fast":
        assert offset == sent
    else:
        assert sent - STOCK_BUFFER <= offset <= sent
    if framing == "deferred":
        assert tus.patch(url, offset, content[offset:], length=len(content)).status == 204
    assert tus.finish(url, content) == content


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_cut_on_the_way_loses_only_what_had_not_arrived(
    server: ServerProcess, tus: Tus, how: How, chunked: bool
) -> None:
    """T28, T32: through a proxy that cuts, again and again, until the upload is done."""
    content = pattern(6 * MIB)
    url = tus.new(len(content))

    offset = cuts = 0
    with FaultProxy(server.port) as proxy:
        through = Tus(proxy.port)
        while offset < len(content):
            if cuts < 3:
                proxy.up.cut_after(2 * MIB, how=how)
            cuts += 1
            with contextlib.suppress(Exception):
                through.patch(url, offset, content[offset:], chunked=chunked)
            reached = tus.offset(url)
            assert reached > offset
            offset = reached

    assert cuts == 4
    assert tus.content(url) == content


def test_an_answer_that_is_lost_does_no_harm(server: ServerProcess, tus: Tus) -> None:
    """T28: the bytes count, and the repetition is told so."""
    content = pattern(1000)
    url = tus.new(1000)

    with FaultProxy(server.port) as proxy:
        proxy.down.cut_after(0)
        assert Tus(proxy.port).try_patch(url, 0, content[:600]) is None

    repeated = tus.patch(url, 0, content[:600])
    assert repeated.status == 409
    assert repeated["upload-offset"] == "600"
    assert tus.finish(url, content) == content


def test_a_slow_link_is_no_interruption(limited_server: ServerProcess, limited: Tus) -> None:
    """T30: only a sender that sends nothing is stalled."""
    content = pattern(200 * KIB)
    url = limited.new(len(content))

    with FaultProxy(limited_server.port) as proxy:
        proxy.up.bytes_per_second = 250 * KIB
        reply = Tus(proxy.port).patch(url, 0, content)

    assert reply.status == 204
    assert limited.content(url) == content


def test_senders_that_stall_are_cut_off_and_what_arrived_is_kept(
    limited: Tus, limited_server: ServerProcess, body_path: str
) -> None:
    """T30, T31, T32, T69: never with 408 (C5). Many at once: one timeout does for all."""
    content = pattern(3 * MIB)
    framings: list[Framing] = ["sized", "chunked", "deferred"]
    cases = [(framing, sent) for framing in framings for sent in (0, 1, 100 * KIB, 2 * MIB + 17)]
    records = Records(limited_server.data_dir)
    before = records.count_uploads()

    with ExitStack() as stack:
        creation = stack.enter_context(limited.connect())
        fields = {"Upload-Length": "1000", "Content-Length": "1000", "Content-Type": BODY_TYPE}
        creation.send_head("POST", "/files/", limited.fields | fields)
        creation.send(b"x" * 100)
        urls, connections = [], [creation]
        for framing, sent in cases:
            url, connection = begin(limited, framing, content, sent)
            urls.append(url)
            connections.append(stack.enter_context(connection))

        for connection in connections:
            if body_path == "plain":
                reply = connection.read_reply()
                assert reply.status == 503
                assert reply.closes
                assert "location" not in reply
                assert reply.problem()["code"] == "body_stalled"
            assert connection.read_until_closed() == b""
    for (framing, sent), url in zip(cases, urls, strict=True):
        assert limited.offset(url) == sent
        if framing == "deferred":
            assert limited.patch(url, sent, content[sent:], length=len(content)).status == 204
        assert limited.finish(url, content) == content
    # The client of the creation never learned its URL, so that upload is taken back.
    wait_until(lambda: records.count_uploads() == before + len(cases), "it is gone")


def test_an_interrupted_body_of_a_known_length_is_no_complete_upload(
    tus: Tus, records: Records
) -> None:
    """T32: an orderly end before Content-Length is an interruption."""
    content = pattern(1000)
    url, connection = begin(tus, "sized", content, 999)

    connection.half_close()
    connection.read_until_closed()
    connection.close()

    assert tus.offset(url) == 999
    assert records.events(url) == []
    assert tus.finish(url, content) == content


@pytest.mark.parametrize(
    "cut", [b"", b"3", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"zz\r\n", b"3\r\nabcX"]
)
def test_a_chunk_that_is_cut_or_malformed_ends_the_body_where_it_is(tus: Tus, cut: bytes) -> None:
    """T28, T32."""
    url, connection = begin(tus, "chunked", b"hello abc", 6)

    with connection:
        connection.send(cut)
        connection.half_close()
        received = connection.read_until_closed()

    assert b" 204 " not in received
    offset = tus.offset(url)
    assert offset <= len(b"hello abc")
    assert tus.finish(url, b"hello abc") == b"hello abc"


def test_an_acknowledged_offset_survives_a_kill(fresh_server: ServerFactory) -> None:
    """T28: an offset is told only after it is durable."""
    server = fresh_server()
    tus = Tus(server.port)
    content = pattern(2 * MIB)
    urls = [tus.stored(content[:size], length=len(content)) for size in (1, 70_000, MIB + 5)]
    finished = tus.stored(content)
    held = tus.new(len(content))
    holder = tus.hold(held, 0, content[:1000], declared=len(content))

    server.kill()
    holder.close()
    server.start()

    assert [tus.offset(url) for url in urls] == [1, 70_000, MIB + 5]
    assert tus.offset(held) in (0, 1000)
    for url in [*urls, held, finished]:
        assert tus.finish(url, content) == content
