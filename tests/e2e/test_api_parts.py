"""The JSON API: parts are signed, sent in any order, looked at, and completed."""

import random
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.api import PART_SIZE, Api, code_of, state_of, states_of
from tests.support.server import ServerProcess
from tests.support.tus import pattern
from tests.support.waiting import wait_until
from tus_server.core.checksums import crc64


def checksum(content: bytes) -> str:
    return b64encode(crc64(content).to_bytes(8, "big")).decode()


def piece(content: bytes, number: int) -> bytes:
    return content[(number - 1) * PART_SIZE : number * PART_SIZE]


# --- the whole way


def test_parts_come_in_any_order_in_parallel_and_some_twice(api: Api) -> None:
    content = pattern(9 * PART_SIZE + 17)
    view = api.begin("multipart", len(content), filename="big.bin")
    upload_id = view["id"]
    numbers = list(range(1, view["multipart"]["part_count"] + 1))
    order = [*numbers, *random.sample(numbers, 4)]
    random.shuffle(order)
    signed = {one["part_number"]: one for one in api.sign(upload_id, numbers)}

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda n: (n, api.send(signed[n], piece(content, n))), order))

    # Of two that send one part at once the earlier is told that it was interrupted.
    assert {reply.status_code for _, reply in replies} <= {200, 409}
    for number in {n for n, reply in replies if reply.status_code != 200}:
        replies.append((number, api.send(signed[number], piece(content, number))))
    etags = {n: reply.headers["etag"] for n, reply in replies if reply.status_code == 200}
    report = [
        {"part_number": n, "etag": etags[n], "checksum": checksum(piece(content, n))}
        for n in numbers
    ]
    reply = api.post(upload_id, "complete", {"parts": report}, fields={"Prefer": "wait=30"})
    assert (reply.status_code, state_of(reply.json())) == (200, "verified")
    assert states_of(reply.json()) == ["initiated", "receiving", "completed", "verified"]
    assert httpx.get(reply.json()["object"]["url"]).content == content


def test_a_client_that_starts_again_sends_what_is_missing(api: Api) -> None:
    content = pattern(4 * PART_SIZE)
    upload_id = api.begin("multipart", len(content))["id"]
    for signed in api.sign(upload_id, [3, 1]):
        api.send(signed, piece(content, signed["part_number"]))

    parts = api.parts(upload_id)
    assert [part["arrived"] for part in parts] == [True, False, True, False]
    assert api.find(upload_id)["committed_bytes"] == 2 * PART_SIZE
    missing = api.sign(upload_id)

    assert [one["part_number"] for one in missing] == [2, 4]
    for signed in missing:
        api.send(signed, piece(content, signed["part_number"]))
    reply = api.post(upload_id, "complete", fields={"Prefer": "wait=30"})
    assert state_of(reply.json()) == "verified"
    assert httpx.get(reply.json()["object"]["url"]).content == content


def test_parts_tell_where_they_are_and_what_has_arrived(api: Api) -> None:
    content = pattern(2 * PART_SIZE + 5)
    upload_id = api.begin("multipart", len(content))["id"]
    (signed,) = api.sign(upload_id, [2])
    etag = api.send(signed, piece(content, 2)).headers["etag"]

    reply = api.request("GET", f"/uploads/{upload_id}/parts").json()

    assert (reply["id"], reply["length"], reply["committed_bytes"]) == (
        upload_id, len(content), PART_SIZE,
    )  # fmt: skip
    nothing = {"arrived": False, "etag": None, "checksum": None}
    assert reply["parts"] == [
        {"part_number": 1, "start": 0, "size": PART_SIZE} | nothing,
        {
            "part_number": 2,
            "start": PART_SIZE,
            "size": PART_SIZE,
            "arrived": True,
            "etag": etag,
            "checksum": checksum(piece(content, 2)),
        },
        {"part_number": 3, "start": 2 * PART_SIZE, "size": 5} | nothing,
    ]


def test_the_last_part_completes_an_upload_that_is_to_complete_by_itself(api: Api) -> None:
    content = pattern(2 * PART_SIZE)
    upload_id = api.begin("multipart", len(content), auto_complete=True)["id"]

    api.send_all(upload_id, content)

    view = api.wait_for(upload_id, "verified")
    assert httpx.get(view["object"]["url"]).content == content


# --- signing


def test_what_is_signed_is_bound_to_its_method_place_and_size(api: Api) -> None:
    upload_id = api.begin("multipart", 2 * PART_SIZE)["id"]
    other = api.begin("multipart", 2 * PART_SIZE)["id"]
    (signed,) = api.sign(upload_id, [1])
    content = pattern(PART_SIZE)

    refused = [
        httpx.post(signed["url"], content=content),
        httpx.put(signed["url"].replace("/1?", "/2?"), content=content),
        httpx.put(signed["url"].replace(upload_id, other), content=content),
        httpx.put(signed["url"][:-1], content=content),
        httpx.put(signed["url"], content=content + b"x"),
    ]

    assert {reply.status_code for reply in refused} <= {400, 403, 404, 405, 413}
    assert not any(part["arrived"] for part in [*api.parts(upload_id), *api.parts(other)])
    assert api.send(signed, content).status_code == 200


def test_many_parts_are_signed_at_once_each_once_in_the_order_asked_for(api: Api) -> None:
    upload_id = api.begin("multipart", 1000 * PART_SIZE)["id"]

    signed = api.sign(upload_id, [7, 3, 7, *range(990, 1001)])

    assert [one["part_number"] for one in signed] == [7, 3, *range(990, 1001)]
    assert len(api.sign(upload_id, range(1, 1001))) == 1000
    assert len({one["url"] for one in signed}) == 13


def test_without_numbers_the_first_thousand_that_are_missing_are_signed(api: Api) -> None:
    upload_id = api.begin("multipart", 1001 * PART_SIZE)["id"]

    for body in (None, {}, {"part_numbers": None}):
        reply = api.post(upload_id, "parts/sign", body)
        assert [one["part_number"] for one in reply.json()["parts"]] == list(range(1, 1001))


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([3], "unknown_part"),
        ([0], "malformed_request"),
        ([-1], "malformed_request"),
        ([10_001], "malformed_request"),
        (["1"], "malformed_request"),
        ([1.5], "malformed_request"),
        (list(range(1, 1002)), "malformed_request"),
        ("all", "malformed_request"),
    ],
)
def test_parts_that_are_none_are_not_signed(numbers: object, code: str, api: Api) -> None:
    upload_id = api.begin("multipart", 2 * PART_SIZE)["id"]

    assert code_of(api.post(upload_id, "parts/sign", {"part_numbers": numbers})) == (400, code)


def test_a_single_upload_is_signed_again(api: Api) -> None:
    view = api.begin("single", 5)

    (signed,) = api.post(view["id"], "sign").json()["parts"]

    assert signed["part_number"] == 1
    for request in (view["put"], signed):
        assert api.send(request, b"hello").status_code == 200


def test_signing_as_one_is_not_for_uploads_of_many_parts(api: Api) -> None:
    upload_id = api.begin("multipart", 5)["id"]

    assert code_of(api.post(upload_id, "sign")) == (400, "no_direct_upload")


@pytest.mark.parametrize("verb", ["sign", "parts/sign", "complete"])
def test_a_session_takes_no_signed_requests(verb: str, api: Api) -> None:
    upload_id = api.begin("tus", 5)["id"]

    assert code_of(api.post(upload_id, verb)) == (400, "no_direct_upload")
    assert code_of(api.request("GET", f"/uploads/{upload_id}/parts")) == (400, "no_direct_upload")


# --- completing


def test_completing_answers_at_once(api: Api) -> None:
    upload_id = api.begin("single", 5)["id"]
    report = api.send_all(upload_id, b"hello")

    reply = api.post(upload_id, "complete", {"parts": report})

    assert reply.status_code == 202
    assert state_of(reply.json()) in ("completed", "verified")
    assert "preference-applied" not in reply.headers
    assert api.wait_for(upload_id, "verified")["completed_at"]


def test_completing_again_gives_the_same_answer(api: Api) -> None:
    upload_id = api.begin("single", 5)["id"]
    report = {"parts": api.send_all(upload_id, b"hello")}
    first = [api.post(upload_id, "complete", report) for _ in range(3)]
    api.wait_for(upload_id, "verified")

    again = [api.post(upload_id, "complete", report), api.post(upload_id, "complete")]
    waited = [api.post(upload_id, "complete", fields={"Prefer": "wait=5"}) for _ in range(2)]

    assert {reply.status_code for reply in [*first, *again]} == {202}
    assert {reply.status_code for reply in waited} == {200}
    assert len({reply.text for reply in [*again, *waited]}) == 1
    assert states_of(waited[0].json()) == ["initiated", "receiving", "completed", "verified"]


def test_many_may_complete_at_once(api: Api) -> None:
    content = pattern(3 * PART_SIZE)
    upload_id = api.begin("multipart", len(content))["id"]
    report = {"parts": api.send_all(upload_id, content)}

    with ThreadPoolExecutor(8) as pool:
        replies = list(
            pool.map(
                lambda _: api.post(upload_id, "complete", report, fields={"Prefer": "wait=30"}),
                range(8),
            )
        )

    assert {reply.status_code for reply in replies} == {200}
    assert states_of(api.find(upload_id)) == ["initiated", "receiving", "completed", "verified"]


def test_waiting_is_capped_and_told(api: Api) -> None:
    upload_id = api.begin("single", 5)["id"]
    api.send_all(upload_id, b"hello")

    reply = api.post(upload_id, "complete", fields={"Prefer": "respond-async, wait=3600"})

    assert (reply.status_code, reply.headers["preference-applied"]) == (200, "wait=30")


@pytest.mark.parametrize(
    ("report", "status", "code"),
    [
        ([1], 409, "parts_differ"),
        ([1, 2, 3], 400, "unknown_part"),
        ([1, 1, 2], 400, "malformed_request"),
        ([], 409, "parts_differ"),
    ],
)
def test_every_part_is_to_be_reported_once(
    report: list[int], status: int, code: str, api: Api
) -> None:
    content = pattern(2 * PART_SIZE)
    upload_id = api.begin("multipart", len(content))["id"]
    etags = {one["part_number"]: one["etag"] for one in api.send_all(upload_id, content)}
    parts = [{"part_number": n, "etag": etags.get(n, '"x"')} for n in report]

    reply = api.post(upload_id, "complete", {"parts": parts})

    assert code_of(reply) == (status, code)
    assert state_of(api.find(upload_id)) == "receiving"
    assert api.post(upload_id, "complete").status_code == 202


def test_a_part_that_is_missing_is_named(api: Api) -> None:
    upload_id = api.begin("multipart", 3 * PART_SIZE)["id"]
    for signed in api.sign(upload_id, [1, 3]):
        api.send(signed, bytes(PART_SIZE))

    reply = api.post(upload_id, "complete")

    assert code_of(reply) == (409, "parts_differ")
    assert reply.json()["part"] == 2
    assert state_of(api.find(upload_id)) == "receiving"


def test_a_part_of_another_etag_or_checksum_is_named(api: Api) -> None:
    upload_id = api.begin("multipart", 2 * PART_SIZE)["id"]
    (first, second) = api.send_all(upload_id, bytes(2 * PART_SIZE))

    wrong_etag = api.post(
        upload_id, "complete", {"parts": [first, second | {"etag": '"0123456789abcdef"'}]}
    )
    wrong_checksum = api.post(
        upload_id, "complete", {"parts": [first | {"checksum": checksum(b"other")}, second]}
    )

    assert (code_of(wrong_etag), wrong_etag.json()["part"]) == ((409, "parts_differ"), 2)
    assert (code_of(wrong_checksum), wrong_checksum.json()["part"]) == ((409, "parts_differ"), 1)
    assert state_of(api.find(upload_id)) == "receiving"
    assert api.post(upload_id, "complete", {"parts": [second, first]}).status_code == 202


def test_a_checksum_of_another_length_is_refused(api: Api) -> None:
    upload_id = api.begin("single", 5)["id"]
    (part,) = api.send_all(upload_id, b"hello")

    reply = api.post(upload_id, "complete", {"parts": [part | {"checksum": "AAAA"}]})

    assert code_of(reply) == (400, "malformed_request")


def test_content_of_another_checksum_ends_in_an_error_that_says_so(api: Api) -> None:
    promised = {"algorithm": "crc64nvme", "value": checksum(b"other")}
    upload_id = api.begin("single", 5, checksum=promised)["id"]
    report = {"parts": api.send_all(upload_id, b"hello")}

    reply = api.post(upload_id, "complete", report, fields={"Prefer": "wait=30"})

    view = reply.json()
    assert (reply.status_code, state_of(view), view["progress"]) == (200, "error", "expired")
    assert view["error"]["code"] == "digest_mismatch"
    assert view["error"]["message"]
    assert view["object"] is None
    # The call took effect: who repeats it hears the same.
    for prefer in ({}, {"Prefer": "wait=1"}):
        again = api.post(upload_id, "complete", report, fields=prefer)
        assert again.json() == view


def test_content_of_the_promised_checksum_has_it(api: Api) -> None:
    promised = {
        "algorithm": "sha256",
        "value": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    }

    view = api.find(api.upload(b"hello", checksum=promised))

    assert view["checksum"] == promised


@pytest.mark.parametrize("verb", ["sign", "parts/sign", "complete"])
def test_of_a_canceled_upload_no_part_can_be_sent(verb: str, api: Api) -> None:
    view = api.begin("single", 5)
    api.delete(view["id"])

    reply = api.post(view["id"], verb)

    assert code_of(reply) == (409, "illegal_step")
    assert reply.json()["state"] == "canceled"
    assert api.send(view["put"], b"hello").status_code in (404, 409, 410)


def test_when_its_time_is_over_no_part_can_be_sent(api: Api) -> None:
    view = api.begin("single", 5, expires_in_s=0.05)
    wait_until(lambda: api.find(view["id"])["progress"] == "expired", "its time is over")

    for verb in ("sign", "complete"):
        reply = api.post(view["id"], verb)
        assert code_of(reply) in [(410, "upload_gone"), (409, "illegal_step")]


# --- waiting, and the end of the server


@pytest.fixture
def slow(tmp_path: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose check of finished uploads takes its time."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow_checks.py").write_text(
        "import asyncio\n"
        "from tus_server.ports import Verdict\n"
        "async def check(upload, open_stream):\n"
        "    await asyncio.sleep(3600)\n"
        "    return Verdict()\n"
    )
    with ServerProcess(
        folder / "data",
        PYTHONPATH=str(folder),
        TUS_VERIFIER="slow_checks.check",
        TUS_JOB_PREFIXES="slow_checks",
        TUS_SHUTDOWN_TIMEOUT_S="20",
    ) as process:
        yield process


def test_a_wait_that_is_over_tells_the_state_so_far(slow: ServerProcess) -> None:
    with Api(slow.port) as api:
        upload_id = api.begin("single", 5)["id"]
        api.send_all(upload_id, b"hello")

        reply = api.post(upload_id, "complete", fields={"Prefer": "wait=1"})

        assert (reply.status_code, state_of(reply.json())) == (202, "completed")
        assert reply.headers["preference-applied"] == "wait=1"
        assert api.find(upload_id)["progress"] == "in_progress"


def test_a_server_that_stops_answers_those_who_wait(slow: ServerProcess) -> None:
    with Api(slow.port) as api, ThreadPoolExecutor(1) as pool:
        upload_id = api.begin("single", 5)["id"]
        api.send_all(upload_id, b"hello")
        waiting = pool.submit(lambda: api.post(upload_id, "complete", fields={"Prefer": "wait=30"}))
        wait_until(lambda: state_of(api.find(upload_id)) == "completed", "it is completed")
        began_s = time.monotonic()
        assert slow.process is not None
        slow.process.terminate()

        reply = waiting.result()

        assert (reply.status_code, state_of(reply.json())) == (202, "completed")
        assert time.monotonic() - began_s < 10
