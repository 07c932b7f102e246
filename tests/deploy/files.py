"""What the files of deploy/ say, as text, and a way to run the tools that check them."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.deploy.balancers import DEPLOY
from tus_server.settings import Settings

REPOSITORY = DEPLOY.parent
OPERATIONS = REPOSITORY / "docs" / "operations.md"
HAPROXY = (DEPLOY / "haproxy.cfg").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text() + (DEPLOY / "nginx-nodes.conf").read_text()
UNIT = (DEPLOY / "tus-server.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
SERVICES: dict[str, Any] = YAML(typ="safe").load(COMPOSE)["services"]
DEFAULTS: dict[str, Any] = {name: field.default for name, field in Settings.model_fields.items()}


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed; give what it said."""
    environment = os.environ | dict(env or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
