"""An application around ours: told of every event by a callback, in its own process."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import eventually
from tus_server import Settings, create_app
from tus_server.app import App

TUS = {"Tus-Resumable": "1.0.0"}


class Listener:
    """What the callback was given; `failures` times it raises first."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.failures = 0

    async def __call__(self, message: dict[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.told.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.told]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def app(tmp_path: Path, listener: Listener) -> AsyncIterator[App]:
    settings = Settings(data_dir=tmp_path / "data", public_url="https://files.example.com")
    app = create_app(settings, on_event=listener)
    async with app.lifespan():
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=TUS) as client:
        yield client


async def test_the_life_of_an_upload_is_told_in_order(
    client: httpx.AsyncClient, listener: Listener
) -> None:
    created = await client.post("/files/", headers={"Upload-Length": "3"})
    url = created.headers["location"]
    kind = {"Content-Type": "application/offset+octet-stream"}
    await client.patch(url, headers={"Upload-Offset": "0", **kind}, content=b"abc")
    await client.delete(url)

    await eventually(lambda: "upload.deleted" in listener.kinds, "all is told")

    assert listener.kinds == [
        "upload.initiated",
        "upload.receiving",
        "upload.verified",
        "upload.deleted",
    ]
    outcomes = [message["data"]["outcome"] for message in listener.told]
    assert outcomes == [None, None, "success", None]
    assert {message["data"]["upload"]["id"] for message in listener.told} == {
        url.rpartition("/")[2]
    }
    assert listener.told[0]["data"]["upload"]["tus"]["url"] == url


async def test_a_callback_that_raises_is_called_again(
    client: httpx.AsyncClient, listener: Listener
) -> None:
    listener.failures = 1

    await client.post("/files/", headers={"Upload-Length": "0"})

    await eventually(lambda: "upload.verified" in listener.kinds, "it was told after all")
    assert listener.kinds == ["upload.initiated", "upload.verified"]


async def test_what_was_not_told_is_told_by_the_next_process(
    tmp_path: Path, listener: Listener
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    refusing = Listener()
    refusing.failures = 1000
    app = create_app(settings, on_event=refusing)
    async with app.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            await client.post("/files/", headers={**TUS, "Upload-Length": "0"})
        await eventually(lambda: refusing.failures < 1000, "it was tried")

    async with create_app(settings, on_event=listener).lifespan():
        await eventually(lambda: "upload.verified" in listener.kinds, "it was told after all")

    assert listener.kinds == ["upload.initiated", "upload.verified"]


async def test_without_a_callback_creations_are_no_events(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"))
    async with app.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            await client.post("/files/", headers={**TUS, "Upload-Length": "3"})

        assert await app.engine.state.pending_events(10) == []
