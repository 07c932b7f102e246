"""haproxy and nginx as processes, with the files of deploy/ as they are.

haproxy takes the addresses from the environment. nginx has none: nginx.conf is used unchanged, and
the two files it includes get other ports, as a site would write them.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def need(program: str) -> str:
    """Give the path of a program from the distribution, or skip the test and say why."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Balancer:
    """One of the two, in front of nodes given as label -> port; `port` is the one to ask."""

    program: str

    def __init__(self, folder: Path, nodes: Mapping[str, int]) -> None:
        self.executable = need(self.program)
        self.folder = folder
        self.nodes = nodes
        self.port = free_port()
        self.log_path = folder / f"{self.program}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def start(self) -> Self:
        """Start, and wait until it listens."""
        command, environment = self.prepare()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, f"{self.program} listens")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def restart(self) -> None:
        """Start again with the files as they are now, on the same port."""
        self.stop()
        self.start()

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        """Give the command and the environment that run it."""
        raise NotImplementedError

    def retire(self, label: str, heir: str) -> None:
        """Apply the one documented line that gives the uploads of a node to another one."""
        raise NotImplementedError

    def reinstate(self) -> None:
        """Take back what retire() did."""
        raise NotImplementedError

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.program} ended: {self.log[-2000:]}"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


class Haproxy(Balancer):
    program = "haproxy"

    def __init__(self, folder: Path, nodes: Mapping[str, int]) -> None:
        super().__init__(folder, nodes)
        self.config = DEPLOY / "haproxy.cfg"

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        environment = {"TUS_BIND": f"127.0.0.1:{self.port}"} | {
            f"TUS_NODE_{label.upper()}": f"127.0.0.1:{port}" for label, port in self.nodes.items()
        }
        return [self.executable, "-f", str(self.config)], environment

    def retire(self, label: str, heir: str) -> None:
        text = self.config.read_text()
        rule = f"http-request set-var(txn.node) str({heir}) if {{ var(txn.node) -m str {label} }}\n"
        assert text.count(f"    #{rule}") == 1
        self.config = self.folder / "haproxy.cfg"
        self.config.write_text(text.replace(f"#{rule}", rule))

    def reinstate(self) -> None:
        self.config = DEPLOY / "haproxy.cfg"


class Nginx(Balancer):
    program = "nginx"

    def __init__(self, folder: Path, nodes: Mapping[str, int]) -> None:
        super().__init__(folder, nodes)
        shutil.copy(DEPLOY / "nginx.conf", folder)
        self.reinstate()
        (folder / "nginx-listen.conf").write_text(f"listen 127.0.0.1:{self.port};\n")

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        return [self.executable, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")], {}

    def retire(self, label: str, heir: str) -> None:
        path = self.folder / "nginx-nodes.conf"
        text, count = re.subn(
            rf"^(    {label} +)tus_node_{label};$",
            rf"\g<1>tus_node_{heir};",
            path.read_text(),
            flags=re.MULTILINE,
        )
        assert count == 1
        path.write_text(text)

    def reinstate(self) -> None:
        text = (DEPLOY / "nginx-nodes.conf").read_text()
        for at, port in zip((8081, 8082), self.nodes.values(), strict=True):
            text = text.replace(f"127.0.0.1:{at}", f"127.0.0.1:{port}")
        (self.folder / "nginx-nodes.conf").write_text(text)


BALANCERS = {"haproxy": Haproxy, "nginx": Nginx}
