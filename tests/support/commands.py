"""The command line as processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.server import ServerProcess

TIMEOUT_S = 60


class Commands:
    """Runs `tus-server ...` in a folder and an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TUS_") and name not in ("FORCE_COLOR", "GITHUB_ACTIONS")
        }
        self.env |= {
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "NO_PROXY": "*",
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tus_server", *map(str, arguments)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, status: int = 0) -> tuple[str, str]:
        """Run to the end; give stdout and stderr."""
        return self.finish(self.start(*arguments), status=status)

    def finish(self, process: subprocess.Popen[str], *, status: int = 0) -> tuple[str, str]:
        with process:
            out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == status, err
        assert "Traceback" not in err
        return out, err

    def put(self, *arguments: object, status: int = 0) -> list[dict[str, Any]]:
        """Run `put --json`; give its results."""
        out, _ = self.run("put", "--json", *arguments, status=status)
        return [json.loads(line) for line in out.splitlines()]

    def uploads(self, *arguments: object, server: ServerProcess) -> list[dict[str, Any]]:
        """Run `uploads ... --json`; give what it lists."""
        out, _ = self.run("uploads", *arguments, "--json", "--data-dir", server.data_dir)
        return [json.loads(line) for line in out.splitlines()]
