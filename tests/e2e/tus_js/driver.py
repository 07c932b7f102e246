"""tus-js-client as a program that a test starts: install it once, run one upload, tell all."""

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.once import one_at_a_time
from tests.support.tus import pattern

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
SCRIPT = HERE / "client.mjs"
# What browsers run today, and what comes next.
STABLE, NEXT = "4.3.1", "5.0.0-pre2"
INSTALL_TIMEOUT_S = 110.0
RUN_TIMEOUT_S = 60.0
MIB = 1024 * 1024

TUS = "tus-v1"
DRAFTS = ("ietf-draft-03", "ietf-draft-05")
# The interop version each of them names.
INTEROP = {"ietf-draft-03": "5", "ietf-draft-05": "6"}


def installed_script(version: str) -> Path:
    """Give the client script beside a tus-js-client of that version, or skip and say why not."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = CACHE / f"tus-js-{version}"
    with one_at_a_time(folder):
        return _install(version, folder)


def _install(version: str, folder: Path) -> Path:
    package = {"name": "tus-js", "private": True, "dependencies": {"tus-js-client": version}}
    wanted = json.dumps(package)
    marker = folder / "installed"
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(wanted)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock"]
        try:
            subprocess.run(
                command, cwd=folder, capture_output=True, check=True, timeout=INSTALL_TIMEOUT_S
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            pytest.skip(f"npm cannot install tus-js-client {version}: {exc}")
        marker.write_text(wanted)
    # node looks for packages beside the script, not in the current folder
    script = folder / SCRIPT.name
    if not script.exists() or script.read_bytes() != SCRIPT.read_bytes():
        shutil.copy(SCRIPT, script)
    return script


@dataclass(frozen=True)
class Asked:
    """One request that was answered, and what the answer said; concat: of the request."""

    method: str
    path: str
    status: int
    offset: int | None
    complete: str | None
    concat: str | None


@dataclass(frozen=True)
class Journey:
    """What the client did. path: of the upload. decided: the statuses onShouldRetry was shown."""

    path: str
    requests: list[Asked]
    decided: list[int]
    error: str | None

    def to(self, method: str) -> list[Asked]:
        """Give the requests with that method."""
        return [one for one in self.requests if one.method == method]

    def statuses(self, method: str) -> list[int]:
        return [one.status for one in self.to(method)]

    def partials(self) -> list[str]:
        """Give the paths in the last creation of a final upload, in order."""
        finals = [one.concat for one in self.to("POST") if (one.concat or "").startswith("final;")]
        return [_path(url) for url in (finals[-1] or "").removeprefix("final;").split(" ")]


@dataclass(frozen=True)
class TusJs:
    """tus-js-client with one file."""

    script: Path
    file: Path
    content: bytes
    options: dict[str, Any]

    def speaking(self, protocol: str) -> Self:
        """Give the same in another protocol."""
        return replace(self, options=self.options | {"protocol": protocol})

    def enlarged(self, size: int = 16 * MIB) -> Self:
        """Give the same with another file; this large no socket buffer can hold."""
        content = pattern(size)
        self.file.write_bytes(content)
        return replace(self, content=content)

    def start(
        self, port: int, *, options: dict[str, Any] | None = None, **job: Any
    ) -> "subprocess.Popen[str]":
        """Start the script, for finished(); `options` go to tus.Upload, `job`: see the script."""
        text = json.dumps(
            {
                "file": str(self.file),
                "endpoint": f"http://127.0.0.1:{port}/files/",
                "options": self.options | (options or {}),
            }
            | job
        )
        return subprocess.Popen(
            ["node", str(self.script), text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, port: int, **job: Any) -> Journey:
        """Run the script to its end; arguments as for start()."""
        return finished(self.start(port, **job))


def finished(running: "subprocess.Popen[str]") -> Journey:
    """Wait for the script, and give what it printed."""
    with running:
        try:
            told, complaint = running.communicate(timeout=RUN_TIMEOUT_S)
        finally:
            running.kill()
    assert running.returncode == 0, complaint[-3000:]
    journey = json.loads(told)
    requests = [Asked(**one) for one in journey["requests"]]
    return Journey(_path(journey["url"] or ""), requests, journey["asked"], journey["error"])


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3] if url else ""


RETRY = {"retryDelays": [0, 20, 50, 100, 200, 500, 1000, 3000]}


@pytest.fixture(scope="session")
def tus_js_script() -> Path:
    """The client script beside an installed tus-js-client."""
    return installed_script(STABLE)


@pytest.fixture
def tus_js(tus_js_script: Path, tmp_path: Path) -> TusJs:
    """A client with a file of 3 MiB and a bit."""
    content = pattern(3 * MIB + 17)
    file = tmp_path / "file.bin"
    file.write_bytes(content)
    return TusJs(tus_js_script, file, content, RETRY)
