"""The application without `tus-server serve`: under uvicorn as it comes, and inside FastAPI.

`python -m tests.support.stock KIND HTTP PORT_FILE` serves until a signal, settings from TUS_*.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
READY_TIMEOUT_S = 60.0


class StockServer:
    """The application under plain uvicorn in a process of its own; env adds TUS_* settings.

    kind: bare (create_app alone), mounted (below /api in a FastAPI application), guarded (with
    gate.Gate). http: what uvicorn takes (httptools, h11), or `fast` for our protocol class.
    """

    def __init__(self, kind: str, http: str, data_dir: Path, **env: str) -> None:
        self.kind = kind
        self.http = http
        self.data_dir = data_dir
        self.env = env
        self.port = 0
        self.log_path = data_dir.parent / f"{data_dir.name}.log"

    @property
    def base(self) -> str:
        return "/api/files/" if self.kind == "mounted" else "/files/"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TUS_")}
        environment |= {"TUS_DATA_DIR": str(self.data_dir)} | self.env
        port_file = self.data_dir.parent / f"{self.data_dir.name}.port"
        port_file.unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.stock", self.kind, self.http, str(port_file)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
            )
        wait_until(
            lambda: port_file.exists() or self.process.poll() is not None,
            "the server listens",
            timeout_s=READY_TIMEOUT_S,
        )
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self.log[-2000:]}")
        self.port = int(port_file.read_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Ask the server to stop; give its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def make_application(kind: str) -> Any:
    """Give the ASGI application of a kind; settings come from the environment."""
    from tests.support.gate import Gate
    from tus_server.app import create_app

    if kind == "bare":
        return create_app()
    if kind == "guarded":
        return create_app(authorizer=Gate())
    from fastapi import FastAPI

    uploads = create_app()
    outer = FastAPI(lifespan=uploads.lifespan)
    outer.mount("/api", uploads)

    @outer.get("/")
    async def home() -> dict[str, str]:
        return {"application": "outer"}

    return outer


def serve(kind: str, http: str, port_file: Path) -> None:
    """Serve on a free port and write its number to `port_file` once the server answers."""
    import uvicorn

    protocol: Any = http
    if http == "fast":
        from tus_server.http.uvicorn_protocol import find_protocol

        protocol = find_protocol(fast=True)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                part = port_file.with_suffix(".part")
                part.write_text(str(listener.getsockname()[1]))
                part.rename(port_file)

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        make_application(kind), http=protocol, log_level="warning", timeout_graceful_shutdown=1
    )
    Announcing(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
