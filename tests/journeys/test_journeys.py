"""Direct uploads from their beginning to the job that tells of them, over each pair of stores.

Where there are two nodes, what one has signed is completed on the other: nothing of an upload is in
a process.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.journeys.sent import sha256, webhook
from tests.journeys.site import Site
from tests.support.api import state_of, states_of
from tests.support.tus import pattern

SENDERS = 4


def piece_of(content: bytes, part: dict[str, Any]) -> bytes:
    return content[part["start"] : part["start"] + part["size"]]


def check_told(site: Site, upload_id: str, **kwargs: Any) -> None:
    """Check the one webhook that tells of a success."""
    (told,) = site.sink.of(upload_id)
    assert told.kind == "upload.verified"
    data = told.body["data"]
    assert data["outcome"] == "success"
    assert data["job"] == {"name": site.sink.url, "kwargs": kwargs}
    view = site.api().find(upload_id)
    assert {name: data["upload"][name] for name in view if name not in ("object", "tus")} == {
        name: view[name] for name in view if name not in ("object", "tus")
    }, "it tells what the API tells"


def test_parts_in_any_order_some_twice_over_a_client_that_starts_again(site: Site) -> None:
    content = pattern(3 * site.part_size + 1000, seed=1)
    begun = site.api("a").begin(
        "multipart",
        len(content),
        filename="film.mp4",
        content_type="video/mp4",
        file_id="film",
        checksum=sha256(content),
        success_job=webhook(site, film=7),
        failure_job=webhook(site, film="lost"),
    )
    upload_id = begun["id"]
    assert begun["multipart"]["part_count"] == 4
    rng = random.Random(7)

    def send(number: int, *, twice: bool) -> None:
        """Send a part; twice: other bytes first, which it then replaces."""
        client = site.api(rng.choice("ab"))
        (part,) = [one for one in client.parts(upload_id) if one["part_number"] == number]
        (signed,) = client.sign(upload_id, [number])
        if twice:
            assert client.send(signed, bytes(part["size"])).status_code == 200
        assert client.send(signed, piece_of(content, part)).status_code == 200

    with ThreadPoolExecutor(SENDERS) as threads:  # the first run of the client ends half-way
        list(threads.map(lambda number: send(number, twice=number == 4), [4, 2]))
    # The client that starts again knows the id, and nothing else.
    client = site.api("b")
    missing = [one["part_number"] for one in client.parts(upload_id) if not one["arrived"]]
    assert missing == [1, 3]
    found = client.find(upload_id)
    assert (state_of(found), found["progress"]) == ("receiving", "in_progress")
    with ThreadPoolExecutor(SENDERS) as threads:
        list(threads.map(lambda number: send(number, twice=number != 2), [3, 1, 2]))
    parts = client.parts(upload_id)
    report = [{"part_number": one["part_number"], "etag": one["etag"]} for one in parts]
    rng.shuffle(report)

    reply = client.post(upload_id, "complete", {"parts": report})

    assert reply.status_code == 202
    view = site.api("a").wait_for(upload_id, "verified")
    assert states_of(view) == ["initiated", "receiving", "completed", "verified"]
    assert view["committed_bytes"] == view["length"] == len(content)
    assert (view["progress"], view["error"]) == ("complete", None)
    assert view["checksum"] == sha256(content)
    site.check_verified_once(upload_id, content)
    check_told(site, upload_id, film=7)
    assert site.download(upload_id, "b") == content
    assert client.delete(upload_id).status_code == 200


def test_one_put(site: Site) -> None:
    content = pattern(100_000, seed=2)
    begun = site.api("a").begin(
        "single", len(content), filename="photo.jpg", success_job=webhook(site)
    )
    upload_id = begun["id"]
    assert site.api("a").send(begun["put"], bytes(len(content))).status_code == 200
    # What the client has forgotten is signed again, by the other node.
    (signed,) = site.api("b").post(upload_id, "sign").json()["parts"]
    assert site.api("b").send(signed, content).status_code == 200

    reply = site.api("b").post(upload_id, "complete", fields={"Prefer": "wait=30"})

    assert (reply.status_code, state_of(reply.json())) == (200, "verified")
    site.check_verified_once(upload_id, content)
    check_told(site, upload_id)


def test_a_tus_session(site: Site) -> None:
    content = pattern(site.part_size + 70_000, seed=3)
    begun = site.api("a").begin(
        "tus",
        len(content),
        metadata={"album": "summer"},
        checksum=sha256(content),
        success_job=webhook(site, album="summer"),
    )
    upload_id, url = begun["id"], begun["tus"]["url"]
    tus = site.tus("a")
    half = site.part_size + 10

    assert tus.append(url, 0, content[:half]) == half
    seen = site.api("b").find(upload_id)
    assert (seen["committed_bytes"], state_of(seen)) == (half, "receiving")
    # A client that starts again asks for the offset.
    assert site.tus("a").offset(url) == half
    assert site.tus("a").append(url, half, content[half:]) == len(content)

    view = site.api("b").wait_for(upload_id, "verified")
    assert view["checksum"] == sha256(content)
    site.check_verified_once(upload_id, content, name="b")
    check_told(site, upload_id, album="summer")


def test_an_upload_that_completes_by_itself(site: Site) -> None:
    content = pattern(site.part_size + 1, seed=4)
    begun = site.api("a").begin(
        "multipart", len(content), auto_complete=True, success_job=webhook(site)
    )
    upload_id = begun["id"]

    site.api("a").send_all(upload_id, content)
    # Only a look tells what has arrived in another store; this is one.
    site.api("b").parts(upload_id)

    site.api("b").wait_for(upload_id, "verified")
    site.check_verified_once(upload_id, content)


def test_a_verdict_decides_where_acceptance_is_required(site: Site) -> None:
    jobs = {"success_job": webhook(site, is_good=True), "failure_job": webhook(site, is_good=False)}
    accepted = site.api("a").upload(b"good", require_acceptance=True, **jobs)
    rejected = site.api("a").upload(b"bad", require_acceptance=True, **jobs)
    site.wait_delivered(accepted)
    assert site.sink.of(accepted) == []

    assert site.api("b").post(accepted, "accept").status_code == 200
    assert site.api("b").post(rejected, "reject", {"note": "a virus"}).status_code == 200

    for upload_id, outcome in ((accepted, "success"), (rejected, "failure")):
        site.wait_delivered(upload_id, count=2)
        (told,) = site.sink.of(upload_id)
        assert told.body["data"]["outcome"] == outcome
        assert told.body["data"]["job"]["kwargs"] == {"is_good": outcome == "success"}
        assert [one.outcome for one in site.letters(upload_id)] == [None, outcome]
    assert site.download(accepted) == b"good"
    assert site.tus().get(f"/files/{rejected}").status == 404
    for upload_id in (accepted, rejected):
        assert site.api().delete(upload_id).status_code == 200


def test_a_cancellation_is_told_of_as_a_failure(site: Site) -> None:
    begun = site.api("a").begin("multipart", 1000, failure_job=webhook(site, why="gone"))
    upload_id = begun["id"]
    site.api("a").send_all(upload_id, bytes(1000))

    assert site.api("b").delete(upload_id).status_code == 200

    site.wait_delivered(upload_id)
    (told,) = site.sink.of(upload_id)
    assert (told.kind, told.body["data"]["outcome"]) == ("upload.canceled", "failure")
    assert told.body["data"]["job"]["kwargs"] == {"why": "gone"}
    assert site.api("a").find(upload_id)["progress"] == "expired"
    assert site.api("b").delete(upload_id).status_code == 200, "repeating it gives the same answer"
    assert len(site.letters(upload_id)) == 1
