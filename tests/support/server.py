"""The real server as a process: start, stop, kill -9, start again on the same port and data."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

READY_TIMEOUT_S = 60.0  # generous: it only bounds how long a failing test takes
REPOSITORY = Path(__file__).parents[2]


class ServerProcess:
    """`tus-server serve` on a free port over `data_dir`; env adds TUS_* settings.

    command: what the next start runs, for a test that has it go through a module of its own.
    """

    def __init__(self, data_dir: Path, **env: str) -> None:
        self.data_dir = data_dir
        self.env = env
        # Ours also while no server runs: bound, and never listened at, so that it can have it.
        reserved = socket.socket()
        weakref.finalize(self, reserved.close)  # many a server is expected not to start
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        self.port: int = reserved.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "tus_server", "serve"]
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = data_dir.parent / f"{data_dir.name}.log"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start and wait until the server listens."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TUS_")}
        environment |= {
            "TUS_DATA_DIR": str(self.data_dir),
            "TUS_PORT": str(self.port),
            "TUS_LOG_FORMAT": "json",
        } | self.env
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
            )
        self._wait_for_url()
        return self

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Ask the server to stop; give its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once, as a power cut would as far as processes go."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _wait_for_url(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log[-2000:]}")
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                owner = json.loads((self.data_dir / "server.lock").read_text())
                if owner["pid"] == self.process.pid and owner["url"]:
                    self.port = int(owner["url"].split(":")[2].split("/")[0])
                    return
            time.sleep(0.01)
        raise RuntimeError(f"not ready after {READY_TIMEOUT_S} s: {self.log[-2000:]}")
