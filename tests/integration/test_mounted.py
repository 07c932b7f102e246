"""Uploads inside another application, begun in Python: their URLs lead to where it has them."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.integration.conftest import soon
from tus_server import Settings, create_app

ORIGIN = "https://app.test"


@pytest.mark.parametrize("public_url", [None, ORIGIN])
@pytest.mark.parametrize("base_path", ["/files/", "/"])
async def test_what_is_mounted_elsewhere_gives_urls_that_lead_there(
    tmp_path: Path, public_url: str | None, base_path: str
) -> None:
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    settings = Settings(data_dir=tmp_path / "data", base_path=base_path, public_url=public_url)
    uploads = create_app(settings, on_event=told.put, mounted_at="/up/")
    outer = Starlette(routes=[Mount("/up", uploads)])
    origin = public_url or ""

    async with uploads.lifespan():
        transport = httpx.ASGITransport(outer)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            view = await uploads.broker.initiate_session(size=5)
            assert view.put is not None
            assert view.put.url.startswith(f"{origin}/up/direct/{view.id}/1?")
            assert (await client.put(view.put.url, content=b"hello")).status_code == 200
            done = await soon(uploads.broker.verify_completion(view.id))

            assert done.object is not None
            assert done.object.url == f"{origin}/up{base_path}{view.id}"
            assert (await client.get(done.object.url)).content == b"hello"
            while (message := await soon(told.get()))["type"] != "upload.verified":
                pass
            assert message["data"]["upload"]["object"]["url"] == done.object.url
