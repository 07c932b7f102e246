"""The files of deploy/ pass the tools that know them, and the image is built from what is there."""

import json
import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import ServerFactory
from tests.deploy.balancers import DEPLOY, need
from tests.deploy.files import DEFAULTS, DOCKERFILE, REPOSITORY, UNIT, run


@pytest.mark.needs_apt
def test_haproxy_takes_its_file() -> None:
    said = run(need("haproxy"), "-c", "-f", DEPLOY / "haproxy.cfg")

    assert "WARNING" not in said, said


@pytest.mark.needs_apt
def test_nginx_takes_its_files(tmp_path: Path) -> None:
    said = run(need("nginx"), "-p", tmp_path, "-c", DEPLOY / "nginx.conf", "-t")

    assert "[warn]" not in said, said


def test_compose_file_follows_the_schema() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    run(tool, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_dockerfile_passes_hadolint() -> None:
    run(Path(sys.executable).with_name("hadolint"), DEPLOY / "Dockerfile")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    unit = tmp_path / "tus-server.service"
    command = Path(sys.executable).with_name("tus-server")  # it must be there to be executed
    unit.write_text(UNIT.replace("/opt/tus-server/bin/tus-server", str(command)))

    assert "tus-server.service" not in run(tool, "verify", unit)


@pytest.mark.needs_apt
def test_haproxy_starts_before_the_names_of_its_nodes_are_known() -> None:
    names = {"TUS_NODE_A": "node-a.invalid:8080", "TUS_NODE_B": "node-b.invalid:8080"}
    run(need("haproxy"), "-c", "-f", DEPLOY / "haproxy.cfg", env=names)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignore if line.startswith("!")]

    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_image_has_every_file_the_package_is_built_from() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    for named in re.findall(r'^(?:readme|license-files) = \[?"([^"]+)"', project, re.MULTILINE):
        assert named in DOCKERFILE


def test_the_image_s_settings_exist() -> None:
    for name in re.findall(r"^ {4}TUS_(\w+)=", DOCKERFILE, re.MULTILINE):
        assert name.lower() in DEFAULTS


def test_the_image_s_health_check_tells_a_living_server(
    fresh_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (.+)$", DOCKERFILE, re.MULTILINE)
    assert found
    _, *arguments = json.loads(found[1])
    server = fresh_server()
    monkeypatch.setenv("TUS_PORT", str(server.port))

    run(sys.executable, *arguments)
    server.kill()
    with pytest.raises(AssertionError, match="refused"):
        run(sys.executable, *arguments)
