"""The JSON API over kill -9: what was answered is so, and a client goes on where it was."""

from uuid import uuid4

import httpx
import pytest

from tests.conftest import ServerFactory
from tests.support.api import PART_SIZE, Api, states_of
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import pattern

WHOLE = pattern(5 * PART_SIZE + 9)
WAYS = ["initiated", "receiving", "completed", "verified"]


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


@pytest.fixture
def server(fresh_server: ServerFactory) -> ServerProcess:
    return fresh_server(TUS_DIRECT_PART_SIZE=str(PART_SIZE))


def end_and_start(server: ServerProcess) -> None:
    server.kill()
    server.start()


def test_an_upload_survives_an_end_between_any_two_steps(server: ServerProcess) -> None:
    key, file_id = str(uuid4()), "file"
    about = {"file_id": file_id, "filename": "a.bin"}
    with Api(server.port) as api:
        first = api.begin("multipart", len(WHOLE), key=key, **about)
        upload_id = first["id"]
        end_and_start(server)

        assert api.begin("multipart", len(WHOLE), key=key, **about) == first
        assert api.try_to_begin("tus", 5, file_id=file_id).status_code == 409
        etags = {}
        for number in (4, 2):
            (signed,) = api.sign(upload_id, [number])
            piece = WHOLE[(number - 1) * PART_SIZE : number * PART_SIZE]
            etags[number] = api.send(signed, piece).headers["etag"]
        (early,) = api.sign(upload_id, [1])
        end_and_start(server)

        parts = api.parts(upload_id)
        assert {part["part_number"]: part["etag"] for part in parts if part["arrived"]} == etags
        assert api.find(upload_id)["committed_bytes"] == 2 * PART_SIZE
        # What was signed before is good after.
        assert api.send(early, WHOLE[:PART_SIZE]).status_code == 200
        report = api.send_all(upload_id, WHOLE)
        end_and_start(server)

        reply = api.post(upload_id, "complete", {"parts": report})
        end_and_start(server)

        assert reply.status_code == 202
        view = api.wait_for(upload_id, "verified")
        assert states_of(view) == WAYS
        assert httpx.get(view["object"]["url"]).content == WHOLE
        accepted = api.post(upload_id, "accept").json()
        end_and_start(server)

        assert api.find(upload_id) == accepted
        assert Records(server.data_dir).events(upload_id) == ["verified", "accepted"]


def test_a_list_goes_on_behind_its_cursor_after_an_end(server: ServerProcess) -> None:
    with Api(server.port) as api:
        begun = [api.begin("tus", 1)["id"] for _ in range(4)]
        page = api.page(limit=2)
        end_and_start(server)

        rest = api.page(limit=2, cursor=page["next_cursor"])

    found = [view["id"] for view in [*page["uploads"], *rest["uploads"]]]
    assert (found, rest["next_cursor"]) == (begun[::-1], None)
