"""An engine with a Broker over it: parts go to a fake store, or to this server and its disk."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import PATIENCE_S, World, soon
from tests.support.fake_direct import FakeDirect
from tests.support.fakes import Failing, FakeBody
from tus_server.broker import Broker, Reported, UploadView
from tus_server.core.errors import StoreUnavailable, TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.direct.receive import PartRequest, receive_part

BASE_URL = "https://uploads.test/files/"
ORIGIN = "https://uploads.test"


class BrokerWorld(World):
    """See World. With a folder this server receives the parts, else a store that is looked at."""

    broker: Broker
    fake_direct: FakeDirect | None = None

    async def open(self) -> None:
        await super().open()
        if self.engine.direct is None:
            if self.fake_direct is None:
                self.fake_direct = FakeDirect(self.stores.disk, self.clock)
            self.direct = Failing(self.fake_direct)
            self.engine.direct = self.direct
        self.engine.direct_part_size = 4
        self.broker = Broker(self.engine, base_url=BASE_URL, origin=ORIGIN)

    async def find(self, upload_id: str) -> Upload:
        row = await self.real_state.find_upload(UploadId(upload_id))
        assert row is not None
        return row

    async def send(self, upload_id: str, number: int, content: bytes) -> Reported:
        """Sign a part, and send it as a client does; give what the client reports."""
        signed = await soon(self.broker.sign_multipart_part(upload_id, number))
        if self.fake_direct is not None:
            return Reported(number, await self.fake_direct.put(signed.url, content))
        assert signed.url.startswith(f"{ORIGIN}/direct/{upload_id}/{number}?")
        request = PartRequest(UploadId(upload_id), number, len(content))
        part = await soon(receive_part(self.engine, request, FakeBody(content)))
        return Reported(number, part.etag)

    async def send_all(self, upload_id: str, content: bytes) -> list[Reported]:
        row = await self.find(upload_id)
        assert row.part_size is not None
        starts = range(0, max(1, len(content)), row.part_size)
        return [
            await self.send(upload_id, number, content[start : start + row.part_size])
            for number, start in enumerate(starts, 1)
        ]

    async def settle(self) -> None:
        """Let what goes on behind the answers end."""
        await soon(self.engine.drain(PATIENCE_S))

    async def reach(self, state: UploadState) -> str:
        """Give an upload that is in a state, by whatever way leads there."""
        S = UploadState
        broker = self.broker
        view = await broker.initiate("multipart", size=6)
        if state is S.INITIATED:
            return view.id
        if state is S.CANCELED:
            await broker.cancel_resumable_session(view.id)
            return view.id
        await self.send_all(view.id, b"abcdef")
        if state is S.RECEIVING:
            await broker.find_parts(view.id)
            return view.id
        if state in (S.ERROR, S.EXPIRED):
            await self._end(view.id, state)
            return view.id
        if state is S.COMPLETED:
            self.objects.fail("complete", StoreUnavailable())
        await broker.complete_multipart_upload(view.id)
        await self.settle()
        if state is S.ACCEPTED:
            await broker.accept(view.id)
        elif state is S.REJECTED:
            await broker.reject(view.id)
        elif state is S.DELETED:
            await broker.cancel_resumable_session(view.id)
        assert (await self.find(view.id)).state is state
        return view.id

    async def _end(self, upload_id: str, state: UploadState) -> None:
        """Let an unfinished upload end, as the reaper or a defect of the store would."""
        lease, row = await self.engine.leases.acquire(UploadId(upload_id), lambda: None)
        after = row.stepped(state, on=self.clock.now())
        if state is UploadState.ERROR:
            after = replace(after, error_code="bytes_missing", error_message="They are gone.")
        await self.engine.state.commit(lease, row, after, steps=(state,), release=True)
        await self.engine.leases.release(lease)


async def refused(call: Any) -> str | None:
    """Give the code that a call is refused with; None: it is not."""
    try:
        await soon(call)
    except TusServerError as exc:
        return exc.code
    return None


def states(view: UploadView) -> list[str]:
    """Give all states of an upload, oldest first."""
    return [one.state for one in [*reversed(view.status.prior), view.status.current]]


@pytest.fixture(params=["store", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerWorld]:
    """A Broker over a store that clients send to, and over this server; at rest at the end."""
    async with AsyncExitStack() as stack:
        folder = tmp_path if request.param == "disk" else None
        yield await stack.enter_async_context(BrokerWorld(folder))
