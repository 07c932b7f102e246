"""Peers from the package registries, installed once into bench/.cache/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_BENCH = Path(__file__).resolve().parent
CACHE = _BENCH / ".cache"
APPS = _BENCH / "apps"
_TIMEOUT_S = 600.0

TUSPYSERVER_PINS = ("tuspyserver==4.4.3", "fastapi==0.165.0", "uvicorn[standard]==0.54.0")
NODE_PINS = {"@tus/server": "2.4.5", "@tus/file-store": "2.1.1"}
NODE_S3_PINS = {"@tus/server": "2.4.5", "@tus/s3-store": "2.0.7"}


class CannotInstall(Exception):
    """A peer is not to be had here. The message says why."""


def install_tuspyserver() -> Path:
    """The Python interpreter of a virtual environment that has tuspyserver.

    Raises: CannotInstall.
    """
    folder = CACHE / "tuspyserver"
    python = folder / "bin" / "python"
    wanted = "\n".join((f"python {sys.version}", *TUSPYSERVER_PINS))
    if not _is_installed(folder, wanted):
        _clear(folder)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *TUSPYSERVER_PINS])
        _mark_installed(folder, wanted)
    return python


def install_tus_node() -> Path:
    """The server script, beside a node_modules that has @tus/server and its file store.

    Raises: CannotInstall.
    """
    return _install_node("node", NODE_PINS, "tus_node_server.mjs")


def install_tus_node_s3() -> Path:
    """The server script, beside a node_modules that has @tus/server and its S3 store.

    Raises: CannotInstall.
    """
    return _install_node("node-s3", NODE_S3_PINS, "tus_node_s3_server.mjs")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """A program that `go` can build: a package of a module at a version."""

    name: str
    module: str
    version: str
    package: str


VERSITYGW = GoProgram(
    name="versitygw",
    module="github.com/versity/versitygw",
    version="v1.8.0",
    package="cmd/versitygw",
)
TUSD = GoProgram(name="tusd", module="github.com/tus/tusd/v2", version="v2.9.0", package="cmd/tusd")


def install_go_program(program: GoProgram) -> Path:
    """The binary: named by the environment (VERSITYGW, TUSD), on PATH, or built here.

    Raises: CannotInstall.
    """
    named = os.environ.get(program.name.upper()) or shutil.which(program.name)
    if named:
        return Path(named)
    folder = CACHE / program.name
    binary = folder / program.name
    # A module of its own and not `go install`: that asks for the list of all versions, which not
    # every module proxy has.
    wanted = f"module bench\n\ngo 1.25\n\nrequire {program.module} {program.version}\n"
    if not _is_installed(folder, wanted):
        if shutil.which("go") is None:
            raise CannotInstall(f"neither {program.name} nor go to build it is installed")
        _clear(folder)
        (folder / "go.mod").write_text(wanted)
        package = f"{program.module}/{program.package}"
        _run(["go", "build", "-mod=mod", "-o", str(binary), package], cwd=folder)
        _mark_installed(folder, wanted)
    return binary


def _install_node(name: str, pins: dict[str, str], script: str) -> Path:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is not installed")
    folder = CACHE / name
    package = {"name": "bench-peer", "private": True, "dependencies": pins}
    wanted = json.dumps(package, indent=2)
    if not _is_installed(folder, wanted):
        _clear(folder)
        (folder / "package.json").write_text(wanted)
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder)
        _mark_installed(folder, wanted)
    # Node looks for packages beside the script, not in the current folder.
    return Path(shutil.copy(APPS / script, folder))


def _is_installed(folder: Path, wanted: str) -> bool:
    marker = folder / "installed"
    return marker.exists() and marker.read_text() == wanted


def _mark_installed(folder: Path, wanted: str) -> None:
    (folder / "installed").write_text(wanted)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _run(command: list[str], *, cwd: Path | None = None) -> None:
    try:
        result = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotInstall(f"{command[0]} took over {_TIMEOUT_S:g} s") from exc
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise CannotInstall(f"{' '.join(command[:4])} failed: {' '.join(said[-3:])}")
