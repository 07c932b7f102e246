"""Stores of other kinds for a World."""

from contextlib import AsyncExitStack

from tests.integration.conftest import Stores
from tests.support.fakes import FakeClock, FakeObjects, toy_limits
from tus_server.engine.buffers import BlockPool
from tus_server.ports import Node, ObjectStore, StateStore
from tus_server.state.postgres import PostgresOptions, PostgresState


class PostgresStores(Stores):
    """State in Postgres, whose clock is its own; objects in memory."""

    def __init__(self, url: str, clock: FakeClock) -> None:
        super().__init__(None, clock, part_size_bytes=4, limits=None)
        self.url = url

    async def open(
        self, stack: AsyncExitStack, blocks: BlockPool, process: str | None
    ) -> tuple[StateStore, ObjectStore]:
        state = PostgresState(
            PostgresOptions(self.url),
            node=Node("0" * 32, "a"),
            process=process or "alone",
            has_ended=lambda process: True,
        )
        await stack.enter_async_context(state)
        limits = toy_limits(4, parallel_parts=4)
        return state, FakeObjects(limits, self.disk, blocks=blocks)
