"""What goes wrong with direct uploads, over each pair of stores: only what is right counts.

What can be mended is a conflict that changes nothing: the client mends it and completes. What
cannot ends in state error with a sentence, a failure job, and no bytes left.
"""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import pytest

from tests.journeys.sent import Put, Sent, sha256
from tests.journeys.site import Nodes, Site
from tests.support.api import code_of, state_of
from tests.support.http import Connection
from tests.support.waiting import wait_until
from tus_server.core.checksums import crc64


def check_refused(reply: httpx.Response, site: Site) -> None:
    """Check that a signed URL was refused, by this server or by S3."""
    assert reply.status_code == 403, reply.text
    if site.name == "embedded":
        assert code_of(reply) == (403, "signature_refused")


# --- what can be mended


def test_a_part_is_missing(site: Site) -> None:
    sent = Sent(site, 2)

    reply = sent.complete()

    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 1
    sent.check_unchanged()
    sent.check_mended()


def test_a_part_has_another_etag_than_reported(site: Site) -> None:
    sent = Sent(site, 1, 2)
    wrong = {"part_number": 2, "etag": sent.report[1]["etag"]}

    reply = sent.complete(sent.report[1], wrong)

    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 2
    sent.check_unchanged()
    sent.check_mended()


def test_a_part_that_was_replaced_has_another_etag(site: Site) -> None:
    sent = Sent(site, 1, 2)
    first = sent.report[1]
    assert site.api("a").send(sent.sign(1), bytes(site.part_size)).status_code == 200

    reply = sent.complete(first, sent.report[2])

    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 1
    sent.check_unchanged()
    sent.send(1)
    sent.check_mended()


def test_a_signed_url_takes_no_other_size(site: Site) -> None:
    sent = Sent(site, 1)
    for wrong in (sent.piece(2)[:-1], sent.piece(2) + b"!"):
        check_refused(site.api("a").send(sent.sign(2), wrong), site)

    assert sent.arrived() == [1]
    sent.check_mended()


def test_a_part_is_shorter_than_planned(site: Site) -> None:
    """As one who lies can send it: to a store with its keys, to this server by hanging up."""
    sent = Sent(site, 2)
    signed, short = sent.sign(1), sent.piece(1)[:-1]
    if isinstance(site, Nodes):
        key, multipart_id = site.field(sent.id, "object_key"), site.field(sent.id, "multipart_id")
        site.bucket.send_part(key, multipart_id, 1, short)
    else:
        with Connection(site.server().port) as connection:
            target = signed["url"].partition(str(site.server().port))[2]
            connection.send_head("PUT", target, {"Content-Length": str(len(short) + 1)})
            connection.send(short)
            connection.wait_taken()
            connection.reset()

    assert sent.arrived() == [2]
    reply = sent.complete()

    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 1
    if isinstance(site, Nodes):
        assert f"{len(short)} bytes, not {len(short) + 1}" in reply.json()["detail"]
    sent.check_unchanged()
    sent.check_mended()


def test_a_url_that_was_changed_anywhere(site: Site) -> None:
    sent = Sent(site, 2)
    signed = sent.sign(1)
    url = urlsplit(signed["url"])
    query = dict(parse_qsl(url.query))
    changed = [
        url._replace(query=urlencode(query | {name: _other(value)}))
        for name, value in query.items()
    ]
    changed.append(url._replace(path=f"{url.path[:-1]}{'2' if url.path[-1] != '2' else '3'}"))
    changed.append(url._replace(query=""))

    for one in changed:
        reply = site.api("a").send(signed | {"url": urlunsplit(one)}, sent.piece(1))
        assert reply.status_code in (400, 403, 404), (urlunsplit(one), reply.text)

    assert sent.arrived() == [2]
    sent.check_mended()


def _other(value: str) -> str:
    """Give a value like that, and another: a later time, another number, another signature."""
    return value[:-1] + ("1" if value[-1] != "1" else "2")


def test_a_signed_url_copies_nothing_else_into_a_part(site: Site) -> None:
    """S3 makes an UploadPartCopy of what has this field: of whatever the server may read."""
    if not isinstance(site, Nodes):
        pytest.skip("this server knows no such field")
    secret = Put(site, b"the secret of somebody else")
    key = site.field(secret.id, "object_key")
    assert secret.try_complete("a")
    sent = Sent(site, 2)

    for fields in (
        {"x-amz-copy-source": f"/{site.bucket.name}/{key}"},
        {"x-amz-copy-source": f"{site.bucket.name}/{key}", "x-amz-copy-source-range": "bytes=0-4"},
        {"x-amz-acl": "public-read"},
        {"x-amz-meta-filename": "other"},
    ):
        for body in (sent.piece(1), b""):
            signed = sent.sign(1)
            reply = site.api("a").send(signed | {"headers": fields}, body)
            assert reply.status_code == 403, (fields, reply.text)

    assert sent.arrived() == [2]
    sent.check_mended()


def test_a_url_of_another_upload(site: Site) -> None:
    sent, other = Sent(site, 2), Sent(site, 2)
    if isinstance(site, Nodes):
        names = [
            (site.field(one.id, "object_key"), site.field(one.id, "multipart_id"))
            for one in (sent, other)
        ]
    else:
        names = [(sent.id, ""), (other.id, "")]
    url = other.sign(1)["url"]
    for theirs, ours in zip(names[1], names[0], strict=True):
        url = url.replace(theirs, ours) if theirs else url

    check_refused(site.api("a").send(other.sign(1) | {"url": url}, sent.piece(1)), site)

    assert sent.arrived() == other.arrived() == [2]
    sent.check_mended()
    assert site.api("a").delete(other.id).status_code == 200


@pytest.mark.full
def test_a_url_that_has_expired(site: Site) -> None:
    if not isinstance(site, Nodes):
        pytest.skip("one server has one time: tests/contract/test_direct_parts.py")
    sent = Sent(site, 2)
    site.server("short", TUS_SIGN_EXPIRES_S="1")
    (signed,) = site.api("short").sign(sent.id, [1])
    last: list[httpx.Response] = []

    def is_refused() -> bool:
        last[:] = [site.api("a").send(signed, sent.piece(1))]
        return last[0].status_code != 200

    wait_until(is_refused, "it has expired")
    check_refused(last[0], site)
    sent.check_mended()


# --- more than one at a time


def test_completing_twice_is_completing_once(site: Site) -> None:
    sent = Sent(site, 1, 2)

    first = sent.complete(sent.report[1], sent.report[2])
    again = sent.complete(sent.report[1], sent.report[2], name="a")

    assert first.status_code == again.status_code == 200
    assert _told(first) == _told(again)
    site.check_verified_once(sent.id, sent.content)
    late = sent.complete(sent.report[2], sent.report[1])
    assert _told(late) == _told(first)


def _told(reply: httpx.Response) -> dict[str, Any]:
    """Give what an answer says, but for the URLs that follow the Host of the request."""
    return {key: value for key, value in reply.json().items() if key != "object"}


def test_completing_many_times_at_once_from_everywhere_is_completing_once(site: Site) -> None:
    sent = Sent(site, 1, 2)
    site.api("b")

    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda n: sent.complete(name="ab"[n % 2]), range(8)))

    # Who waits for a lease may be told to come again; nobody is told anything else.
    assert {reply.status_code for reply in replies} <= {200, 409, 423, 503}
    assert 200 in {reply.status_code for reply in replies}
    assert sent.complete().status_code == 200
    site.check_verified_once(sent.id, sent.content)


def test_completing_while_a_part_is_on_its_way(site: Site) -> None:
    sent = Sent(site, 1)
    signed, piece = sent.sign(2), sent.piece(2)
    url = urlsplit(signed["url"])
    assert url.port is not None
    with Connection(url.port) as connection:
        target = f"{url.path}?{url.query}"
        connection.send_head("PUT", target, {"Host": url.netloc, "Content-Length": str(len(piece))})
        connection.send(piece[:300])

        reply = sent.complete()

        assert code_of(reply) == (409, "parts_differ")
        assert reply.json()["part"] == 2
        sent.check_unchanged()
        connection.send(piece[300:])
        answer = connection.read_reply()
        assert answer.status == 200
        sent.report[2] = {"part_number": 2, "etag": answer["etag"]}
    sent.check_mended()


def test_parts_that_are_sent_again_while_it_is_completed_are_in_it_or_not(site: Site) -> None:
    """Whatever wins: the object is what was compared, or the completion is refused."""
    if site.name == "swift":
        pytest.skip("Swift lets a part that comes after Complete overwrite the object's data")
    sent = Sent(site, 1, 2)
    other = bytes(len(sent.piece(2)))
    signed = sent.sign(2)

    with ThreadPoolExecutor(2) as threads:
        sending = threads.submit(site.api("a").send, signed, other)
        reply = sent.complete(sent.report[1], sent.report[2])
        answered = sending.result().status_code

    if reply.status_code == 200 and state_of(reply.json()) == "verified":
        site.check_verified_once(sent.id, sent.content)
    elif reply.status_code == 409:
        assert answered == 200
        sent.send(2)
        sent.check_mended()
    else:
        # The store found that a part is no longer the one that was compared.
        assert state_of(reply.json()) == "error", reply.text
        site.wait_delivered(sent.id)
        assert [one.outcome for one in site.letters(sent.id)] == ["failure"]


@pytest.mark.parametrize("cancels_first", [True, False])
def test_canceling_while_it_completes_ends_in_one_way(site: Site, cancels_first: bool) -> None:
    sent = Sent(site, 1, 2)
    complete = partial(site.api("b").post, sent.id, "complete")
    cancel = partial(site.api("a").delete, sent.id)

    with ThreadPoolExecutor(2) as threads:
        steps = (cancel, complete) if cancels_first else (complete, cancel)
        statuses = {reply.status_code for reply in threads.map(lambda step: step(), steps)}

    assert statuses <= {200, 202, 409, 410, 423, 503}, statuses
    ways = ("verified", "canceled", "deleted")
    wait_until(lambda: state_of(site.api("a").find(sent.id)) in ways, "it is decided")
    if state_of(site.api("a").find(sent.id)) == "verified":
        assert site.api("a").delete(sent.id).status_code == 200
    outcomes = [one.outcome for one in site.letters(sent.id)]
    assert outcomes in (["failure"], ["success", None]), site.states(sent.id)
    site.wait_delivered(sent.id, count=len(outcomes))
    assert len(site.sink.of(sent.id)) == 1
    assert site.tus().head(f"/files/{sent.id}").status in (404, 410)


# --- what cannot be mended


def test_the_whole_has_another_checksum(site: Site) -> None:
    sent = Sent(site, 1, 2, checksum=sha256(b"other"), file_id="report")

    reply = sent.complete(sent.report[1], sent.report[2])

    assert reply.status_code == 200
    view = reply.json()
    assert state_of(view) == "error"
    assert (view["object"], view["progress"]) == (None, "expired")
    assert view["error"]["code"] == "digest_mismatch"
    assert "sha256" in view["error"]["message"]
    site.wait_delivered(sent.id)
    (told,) = site.sink.of(sent.id)
    assert (told.kind, told.body["data"]["outcome"]) == ("upload.error", "failure")
    assert told.body["data"]["upload"]["error"] == view["error"]
    assert site.tus().get(f"/files/{sent.id}").status == 404
    site.check_clean()
    again = site.api("a").begin("single", 1, file_id="report")
    assert site.api("a").delete(again["id"]).status_code == 200


def test_a_part_has_another_checksum_than_reported(site: Site) -> None:
    """Where this server received the parts it is a conflict; of another store the whole tells."""
    sent = Sent(site, 1, 2)
    wrong = sent.report[2] | {"checksum": b64encode(bytes(8)).decode()}

    reply = sent.complete(sent.report[1] | {"checksum": _crc64(sent.piece(1))}, wrong)

    if isinstance(site, Nodes):
        assert state_of(reply.json()) == "error"
        assert reply.json()["error"]["code"] == "digest_mismatch"
        site.wait_delivered(sent.id)
        return
    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 2
    sent.check_unchanged()
    for number in (1, 2):
        sent.report[number]["checksum"] = _crc64(sent.piece(number))
    sent.check_mended()


def _crc64(content: bytes) -> str:
    return b64encode(crc64(content).to_bytes(8, "big")).decode()


def test_urls_of_what_has_ended_are_good_for_nothing(site: Site) -> None:
    done, gone = Sent(site, 1, 2), Sent(site, 1)
    urls = {one.id: one.sign(1) for one in (done, gone)}
    assert state_of(done.complete().json()) == "verified"
    assert site.api("b").delete(gone.id).status_code == 200

    for one in (done, gone):
        if site.name == "swift" and one is done:
            continue  # it takes parts behind a Complete, here other bytes: S3 does not
        reply = site.api("a").send(urls[one.id], bytes(site.part_size))
        assert reply.status_code in (404, 409, 410), reply.text

    site.check_verified_once(done.id, done.content)
    assert site.api("a").find(gone.id)["committed_bytes"] in (0, site.part_size)
