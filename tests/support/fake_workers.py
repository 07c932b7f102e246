"""A supervisor over workers that answer every connection with their process id: run with -m.

Arguments: data directory, port, number of workers, what the workers do.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from tus_server import supervisor
from tus_server.core.errors import SettingsInvalid
from tus_server.logs import configure_logging
from tus_server.settings import Settings


def prepare(settings: Settings) -> str:
    """Give what the workers do, from the command line; they get it pickled."""
    return sys.argv[4]


def run_worker(
    settings: Settings, listener: socket.socket, prepared: str, ready: Callable[[], None]
) -> int:
    """Serve process ids, or do as `prepared` says."""
    first = (Path(settings.data_dir) / "first").exists()
    if prepared == "refuse" or (prepared == "refuse-later" and first):
        raise SettingsInvalid("TUS_STATE_URL is wrong: give another one.")
    if prepared == "crash":
        os._exit(7)
    asyncio.run(_serve(listener, ready, stubborn=prepared == "stubborn"))
    return 0


async def _serve(listener: socket.socket, ready: Callable[[], None], *, stubborn: bool) -> None:
    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(os.getpid()).encode())
        writer.close()

    told = asyncio.Event()
    tell = (lambda: None) if stubborn else told.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, tell)
    async with await asyncio.start_server(answer, sock=listener):
        ready()
        await told.wait()


if __name__ == "__main__":
    configure_logging("json", "info")
    supervisor.BIND_WAIT_S = 1.0  # type: ignore[misc]
    settings = Settings(
        data_dir=Path(sys.argv[1]),
        port=int(sys.argv[2]),
        workers=int(sys.argv[3]),
        state_url="postgresql://db",
        store_url="s3://bucket",
    )
    try:
        sys.exit(supervisor.supervise(settings, prepare=prepare, run_worker=run_worker))
    except SettingsInvalid as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
