"""compose.yaml: its services fit each other, the image and the server."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.balancers import free_port
from tests.deploy.files import COMPOSE, DEFAULTS, DOCKERFILE, HAPROXY, SERVICES, run
from tests.support.s3 import versitygw_binary
from tests.support.waiting import wait_until


def test_compose_settings_exist() -> None:
    for service in ("node-a", "node-b", "migrate", "bucket"):
        for name in SERVICES[service]["environment"]:
            assert name.startswith("AWS_") or name.removeprefix("TUS_").lower() in DEFAULTS


def test_compose_nodes_have_names_disks_and_no_way_around_haproxy() -> None:
    nodes = [SERVICES["node-a"], SERVICES["node-b"]]

    assert [node["environment"]["TUS_NODE_NAME"] for node in nodes] == ["a", "b"]
    assert len({node["volumes"][0].split(":")[0] for node in nodes}) == 2
    for node in nodes:
        assert "ports" not in node
        assert node["volumes"][0].endswith(re.findall(r"^VOLUME (\S+)", DOCKERFILE, re.M)[0])
        assert {wait["condition"] for wait in node["depends_on"].values()} == {
            "service_completed_successfully"
        }


def test_compose_waits_for_services_that_exist_and_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_completed_successfully":
                assert SERVICES[name]["restart"] == "no"
            elif "build" not in SERVICES[name]:  # those have the check of the image
                assert "healthcheck" in SERVICES[name]


def test_compose_tells_haproxy_where_the_nodes_are() -> None:
    addresses = SERVICES["haproxy"]["environment"]
    presets = re.findall(r"^ +presetenv (\w+)", HAPROXY, re.MULTILINE)

    assert set(addresses) == set(presets)
    for name, address in addresses.items():
        if name != "TUS_BIND":
            assert address.split(":")[0] in SERVICES


def test_compose_passwords_can_be_replaced() -> None:
    assert COMPOSE.count("only-on-this-machine") == len(
        re.findall(r"\$\{\w*(?:PASSWORD|KEY|KEY_ID):-only-on-this-machine\}", COMPOSE)
    )


def test_compose_s_s3_server_starts_and_gets_its_bucket(tmp_path: Path) -> None:
    binary = versitygw_binary()
    if binary is None:
        pytest.skip("no versitygw binary (set VERSITYGW, or put it on PATH)")
    address = f"127.0.0.1:{free_port()}"
    places = {":7070": address, "/data": str(tmp_path)}
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    server = subprocess.Popen(
        [binary, *(places.get(word, word) for word in SERVICES["s3"]["command"])],
        env=os.environ | {"ROOT_ACCESS_KEY": "key", "ROOT_SECRET_KEY": "secret"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_healthy(f"http://{address}/health"), "the S3 server is healthy")
        for _ in range(2):
            run(
                sys.executable,
                "-c",
                *SERVICES["bucket"]["command"],
                env=keys
                | {
                    "TUS_S3_ENDPOINT_URL": f"http://{address}",
                    "TUS_S3_REGION": "us-east-1",
                    "TUS_STORE_URL": "s3://uploads/",
                },
            )
            assert (tmp_path / "uploads").is_dir()
    finally:
        server.kill()
        server.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
