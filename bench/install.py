"""Peers from the package registries, installed once into bench/.cache/."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

_BENCH = Path(__file__).resolve().parent
CACHE = _BENCH / ".cache"
APPS = _BENCH / "apps"
_TIMEOUT_S = 600.0

TUSPYSERVER_PINS = ("tuspyserver==4.4.3", "fastapi==0.165.0", "uvicorn[standard]==0.54.0")
NODE_PINS = {"@tus/server": "2.4.5", "@tus/file-store": "2.1.1"}


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
    """The server script, beside a node_modules that has @tus/server.

    Raises: CannotInstall.
    """
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is not installed")
    folder = CACHE / "node"
    package = {"name": "bench-peer", "private": True, "dependencies": NODE_PINS}
    wanted = json.dumps(package, indent=2)
    if not _is_installed(folder, wanted):
        _clear(folder)
        (folder / "package.json").write_text(wanted)
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder)
        _mark_installed(folder, wanted)
    # Node looks for packages beside the script, not in the current folder.
    return Path(shutil.copy(APPS / "tus_node_server.mjs", folder))


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
