"""A world whose uploads have events, and whose time can be moved."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from tests.integration.conftest import World, soon
from tests.integration.stores import PostgresStores
from tests.support.fakes import FakeClock
from tus_server.core.upload import Upload
from tus_server.engine.deliver import Delivery
from tus_server.ports import Event, JobTarget, Letters

TIMEOUT_S = 30.0


def make_world(kind: str, folder: Path, url: str | None) -> World:
    """Give a world over fakes, over SQLite and local disk, or over Postgres at `url`."""
    if kind == "postgres":
        assert url is not None
        world = World(stores=PostgresStores(url, FakeClock()))
        world.clock.moment = datetime.now(UTC)
        return world
    return World(folder if kind == "disk" else None)


class Outbox:
    """The events of a world, and the deliveries of its processes."""

    def __init__(self, world: World) -> None:
        self.world = world

    def delivery(
        self, *targets: JobTarget, timeout_s: float = TIMEOUT_S, world: World | None = None
    ) -> Delivery:
        """Give what delivers to `targets`, without chance; world: of another process."""
        engine = (world or self.world).engine
        return Delivery(engine, targets, timeout_s=timeout_s, chance=lambda: 0.5)

    async def deliver(self, *targets: JobTarget, timeout_s: float = TIMEOUT_S) -> int:
        """Deliver what is due; tell how many attempts that took."""
        return await soon(self.delivery(*targets, timeout_s=timeout_s).deliver_due())

    async def finish_uploads(self, count: int) -> list[Upload]:
        """Make uploads with one event each: verified."""
        return [(await self.world.create(length=0)).upload for _ in range(count)]

    async def end_upload(self) -> Upload:
        """Make an upload with two events: verified, deleted."""
        (upload,) = await self.finish_uploads(1)
        await self.world.terminate(upload)
        return upload

    async def wait(self, seconds: float) -> None:
        """Let so much time pass for the events, on whichever clock the state store looks."""
        if not isinstance(self.world.stores, PostgresStores):
            self.world.clock.advance(seconds)
            return
        connection = await asyncpg.connect(self.world.stores.url)
        earlier = "make_interval(secs => $1)"
        await connection.execute(
            f"UPDATE outbox SET claimed_until = claimed_until - {earlier},"
            f" due_at = CASE WHEN due_at > now() THEN due_at - {earlier} ELSE due_at END",
            seconds,
        )
        await connection.close()

    async def letters(self, kind: Letters) -> Sequence[Event]:
        """Give the events of a kind, oldest first."""
        return (await self.world.real_state.list_events(kind, 10_000))[::-1]

    async def count(self) -> dict[str, int]:
        """Count the events of each kind there are."""
        found = {kind.value: len(await self.letters(kind)) for kind in Letters}
        return {kind: number for kind, number in found.items() if number}
