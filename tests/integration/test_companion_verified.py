"""What Uppy's S3 plugin is told is complete has been verified."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tus_server.app import create_app
from tus_server.app.asgi import App
from tus_server.core.upload import Upload
from tus_server.http import companion
from tus_server.ports import OpenStream, Verdict
from tus_server.settings import load_settings

BASE = "http://127.0.0.1:8080"


class Check:
    """A check of the application, which takes its time."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.may_end = asyncio.Event()

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        await self.may_end.wait()
        return self.verdict


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    app = create_app(load_settings(data_dir=tmp_path))
    async with app.lifespan():
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        yield client


@pytest.fixture
def check(app: App) -> Check:
    check = Check()
    app.engine.verifiers = (check,)
    return check


async def complete(client: httpx.AsyncClient, upload_id: str, etag: str) -> httpx.Response:
    return await client.post(
        f"/companion/s3/multipart/{upload_id}/complete",
        params={"key": upload_id},
        json={"parts": [{"PartNumber": 1, "ETag": etag}]},
    )


async def send(client: httpx.AsyncClient, content: bytes) -> tuple[str, str]:
    """Send an upload of one part, without completing it; give its id and the ETag."""
    told = {"filename": "a.txt", "metadata": {"size": len(content)}}
    upload_id = (await client.post("/companion/s3/multipart", json=told)).json()["uploadId"]
    path = f"/companion/s3/multipart/{upload_id}"
    signed = await client.get(f"{path}/1", params={"key": upload_id})
    sent = await client.put(signed.json()["url"], content=content)
    return upload_id, sent.headers["etag"]


async def test_the_answer_waits_for_the_verification(
    client: httpx.AsyncClient, check: Check
) -> None:
    upload_id, etag = await send(client, b"hello")

    completing = asyncio.create_task(complete(client, upload_id, etag))
    await asyncio.wait({completing}, timeout=0.05)
    assert not completing.done()
    check.may_end.set()

    answer = await completing
    assert answer.status_code == 200
    assert (await client.get(answer.json()["location"])).content == b"hello"


async def test_a_verification_that_takes_long_can_be_asked_for_again(
    client: httpx.AsyncClient, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "COMPLETE_WAIT_S", 0.01)
    upload_id, etag = await send(client, b"hello")

    early = await complete(client, upload_id, etag)
    check.may_end.set()
    monkeypatch.undo()
    late = await complete(client, upload_id, etag)

    assert (early.status_code, early.json()["code"]) == (503, "still_finishing")
    assert early.headers["retry-after"]
    assert late.status_code == 200


async def test_what_the_application_refuses_is_not_complete(
    client: httpx.AsyncClient, check: Check
) -> None:
    check.verdict = Verdict("virus_found", "The file has a virus.")
    check.may_end.set()
    upload_id, etag = await send(client, b"hello")

    refused = await complete(client, upload_id, etag)
    again = await complete(client, upload_id, etag)

    for answer in (refused, again):
        assert (answer.status_code, answer.json()["state"]) == (409, "error")
        assert answer.json()["detail"] == "The upload is error: The file has a virus."
    listed = await client.get(f"/companion/s3/multipart/{upload_id}", params={"key": upload_id})
    assert listed.status_code == 409


async def test_a_form_is_answered_when_it_is_verified(
    client: httpx.AsyncClient, check: Check
) -> None:
    check.verdict = Verdict("virus_found", "The file has a virus.")
    check.may_end.set()
    params = (await client.get("/companion/s3/params", params={"filename": "a.txt"})).json()

    refused = await client.post(
        params["url"], data=params["fields"], files={"file": ("blob", b"hello")}
    )

    assert (refused.status_code, refused.json()["code"]) == (400, "virus_found")
