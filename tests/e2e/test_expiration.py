"""Expiration: unfinished uploads are given up, and clients are told when (T70-T77)."""

import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.conftest import ServerFactory
from tests.support.checksums import checksum
from tests.support.http import Reply
from tests.support.records import Records
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

WEEK = timedelta(days=7)
# What a moved expiry may lie behind what was asked for, and the requests of a test take.
SLACK = timedelta(minutes=5)
METHODS = ["HEAD", "PATCH", "DELETE", "GET"]
# RFC 9110, 5.6.7.
IMF_FIXDATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} "
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)


def expires(reply: Reply) -> datetime:
    """Give the moment a reply tells."""
    value = reply["upload-expires"]
    assert IMF_FIXDATE.fullmatch(value), value
    return parsedate_to_datetime(value)


def ask(tus: Tus, method: str, url: str) -> Reply:
    if method == "PATCH":
        return tus.patch(url, 0, b"x")
    return tus.request(method, url, {"Tus-Resumable": None} if method == "GET" else None)


def wait_gone(tus: Tus, url: str) -> None:
    wait_until(lambda: tus.head(url).status == 410, "the upload has expired")


# --- what clients are told


def test_expiration_is_advertised(tus: Tus) -> None:
    """T70."""
    assert "expiration" in tus.options().names("tus-extension")


def test_every_reply_about_an_unfinished_upload_tells_when_it_expires(tus: Tus) -> None:
    """T71, T72, T74: refusals included."""
    now = datetime.now(UTC).replace(microsecond=0)
    created = tus.create(10)
    url = created["location"]
    replies = {
        "201": created,
        "201 with bytes": tus.create(10, body=b"hello"),
        "201 deferred": tus.create(),
        "204": tus.patch(url, 0, b"hello"),
        "204 empty": tus.patch(url, 5),
        "200": tus.head(url),
        "400": tus.patch(url, 5, b"x", length=11),
        "400 malformed": tus.patch(url, "x", b"x"),
        "409": tus.patch(url, 0, b"x"),
        "413": tus.patch(url, 5, b"worlds"),
        "413 chunked": tus.patch(url, 5, b"worlds", chunked=True),
        "460": tus.patch(url, 5, b"x", fields={"Upload-Checksum": checksum("sha1", b"y")}),
    }

    for name, reply in replies.items():
        assert reply.status == int(name[:3])
        assert now + WEEK <= expires(reply) <= now + WEEK + SLACK, name


def test_what_is_complete_does_not_expire(tus: Tus) -> None:
    """T71, T77: in no reply."""
    url = tus.new(5)

    for reply, status in (
        (tus.patch(url, 0, b"hello"), 204),
        (tus.patch(url, 5), 204),
        (tus.head(url), 200),
        (tus.get(url), 200),
        (tus.patch(url, 3, b"lo"), 409),
        (tus.patch(url, 5, b"!"), 413),
        (tus.create(5, body=b"hello"), 201),
        (tus.create(0), 201),
    ):
        assert reply.status == status
        assert "upload-expires" not in reply


def test_nothing_is_told_of_what_is_not_there(tus: Tus) -> None:
    """T71."""
    url = tus.new(5)
    assert tus.delete(url).status == 204

    for method in METHODS:
        reply = ask(tus, method, url)
        assert reply.status == 404
        assert "upload-expires" not in reply


def test_a_finished_partial_upload_waits_for_its_use_for_a_while(tus: Tus) -> None:
    """T71, T107: the reply that completes it tells that too."""
    created = tus.create(5, fields={"Upload-Concat": "partial"})
    url = created["location"]

    for reply in (created, tus.patch(url, 0, b"hello"), tus.patch(url, 5), tus.head(url)):
        assert expires(reply) > datetime.now(UTC) + WEEK - SLACK


def test_bytes_extend_the_life_and_empty_bodies_do_not(tus: Tus) -> None:
    """T73."""
    created = tus.create(10)
    url = created["location"]

    empty = expires(tus.patch(url, 0))
    first = expires(tus.patch(url, 0, b"h"))
    again = expires(tus.patch(url, 1))
    second = expires(tus.patch(url, 1, b"e"))

    assert empty == expires(created)
    assert first > expires(created)
    assert again == first
    assert second >= first
    assert expires(tus.head(url)) == second


def test_no_refusal_extends_the_life(tus: Tus) -> None:
    """T73, T87."""
    created = tus.create(10)
    url = created["location"]
    wrong = {"Upload-Checksum": checksum("sha1", b"y")}

    for reply in (tus.patch(url, 1, b"x"), tus.patch(url, 0, b"x", fields=wrong), tus.head(url)):
        assert expires(reply) == expires(created)


def test_the_age_of_an_upload_is_capped(fresh_server: ServerFactory) -> None:
    """T73."""
    server = fresh_server(TUS_EXPIRES_AFTER_S="1000", TUS_EXPIRES_AT_MOST_S="1005")
    tus = Tus(server.port)
    created = tus.create(100)
    url = created["location"]
    latest = expires(created)

    for offset in range(20):
        told = expires(tus.patch(url, offset, b"x"))
        assert told >= latest
        latest = told

    assert latest - expires(created) <= timedelta(seconds=6)


def test_nothing_expires_where_that_is_off(fresh_server: ServerFactory) -> None:
    """T70."""
    server = fresh_server(TUS_EXPIRES_AFTER_S="0")
    tus = Tus(server.port)
    created = tus.create(10)
    url = created["location"]

    assert "expiration" not in tus.options().names("tus-extension")
    for reply in (created, tus.patch(url, 0, b"x"), tus.patch(url, 0, b"x"), tus.head(url)):
        assert "upload-expires" not in reply


# --- what expires


def test_an_expired_upload_is_410_from_the_second_it_expires(fresh_server: ServerFactory) -> None:
    """T75, T76: not before, not later, swept or not, and after a restart."""
    server = fresh_server(TUS_EXPIRES_AFTER_S="2")
    tus = Tus(server.port)
    finished = tus.stored(b"hello")
    created = tus.create(10)
    url, started = created["location"], time.time()
    with_bytes = tus.stored(b"hello", length=10)

    last_ok = started
    while True:
        asked = time.time()
        reply = tus.head(url)
        if reply.status == 410:
            break
        assert reply.status == 200
        last_ok = asked
    told = expires(created).timestamp()
    assert time.time() >= told
    assert last_ok < told + 1  # a date has no fractions

    for method in METHODS:
        reply = ask(tus, method, url)
        assert reply.status == 410, method
        assert "upload-expires" not in reply
        assert "upload-offset" not in reply
    wait_gone(tus, with_bytes)
    assert ask(tus, "PATCH", with_bytes).status == 410
    server.stop()
    server.start()
    for gone in (url, with_bytes):
        assert [ask(tus, method, gone).status for method in METHODS] == [410] * 4
    assert tus.content(finished) == b"hello"
    assert tus.head(finished).status == 200


def test_an_upload_that_expires_is_an_event_and_leaves_nothing(
    fresh_server: ServerFactory,
) -> None:
    """T75: once swept."""
    server = fresh_server(TUS_EXPIRES_AFTER_S="1")
    tus, records = Tus(server.port), Records(server.data_dir)
    url = tus.stored(pattern(100_000), length=200_000)
    assert records.files(url)

    wait_gone(tus, url)
    server.stop()
    server.start()

    wait_until(lambda: records.state(url) == "expired", "it is swept", timeout_s=100)
    wait_until(lambda: not records.files(url), "its files are removed")
    assert records.events(url) == ["expired"]
    assert tus.head(url).status == 410


def test_what_is_being_received_does_not_expire(fresh_server: ServerFactory) -> None:
    """T73, T77: a slow sender's upload lives as long as its request."""
    tus = Tus(fresh_server(TUS_EXPIRES_AFTER_S="1").port)
    created = tus.create(10)
    url = created["location"]
    over = expires(created).timestamp() + 2

    with tus.hold(url, 0, b"hello", declared=10) as connection:
        wait_until(lambda: time.time() > over, "its time is over")
        connection.send(b"world")
        reply = connection.read_reply()

    assert (reply.status, reply["upload-offset"]) == (204, "10")
    assert tus.content(url) == b"helloworld"


def test_an_expired_partial_can_be_part_of_nothing(fresh_server: ServerFactory) -> None:
    """T105, T107, T115: and a final upload that waits for it is as gone as it."""
    tus = Tus(fresh_server(TUS_EXPIRES_AFTER_S="2").port)
    fields = {"Upload-Concat": "partial"}
    done = tus.create(5, body=b"hello", fields=fields)["location"]
    waited_for = tus.create(5, fields=fields)["location"]
    # It has no time of its own: it ends with what it waits for.
    final = tus.request("POST", tus.base, {"Upload-Concat": f"final;{waited_for}"})["location"]

    for url in (done, waited_for, final):
        wait_gone(tus, url)

    for url in (done, waited_for):
        reply = tus.request("POST", tus.base, {"Upload-Concat": f"final;{url}"})
        assert reply.status == 400
        assert reply.problem()["code"] == "unusable_partial"
    assert tus.patch(waited_for, 0, b"hello").status == 410
    assert tus.get(final).status == 410
    assert tus.patch(final, 0, b"x").status in (403, 410)


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_finished_final_upload_outlives_its_partials(
    fresh_server: ServerFactory, order: str
) -> None:
    """T77, T107."""
    tus = Tus(fresh_server(TUS_EXPIRES_AFTER_S="2").port)
    fields = {"Upload-Concat": "partial"}
    if order == "before":
        partial = tus.create(5, body=b"hello", fields=fields)["location"]
        final = tus.request("POST", tus.base, {"Upload-Concat": f"final;{partial}"})["location"]
    else:
        partial = tus.create(5, fields=fields)["location"]
        final = tus.request("POST", tus.base, {"Upload-Concat": f"final;{partial}"})["location"]
        tus.append(partial, 0, b"hello")
    wait_until(lambda: tus.get(final).status == 200, "it is done")

    wait_gone(tus, partial)

    assert tus.content(final) == b"hello"
    assert tus.offset(final) == 5
