"""What deploy/README.md and docs/operations.md say is what the files and the server say."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ByteSize, TypeAdapter

from tests.deploy.balancers import DEPLOY
from tests.deploy.files import COMPOSE, DEFAULTS, HAPROXY, NGINX, OPERATIONS, SERVICES, UNIT
from tus_server.core.parts import plan_part_size
from tus_server.ports import StoreLimits
from tus_server.settings import Settings


@pytest.mark.parametrize("page", [DEPLOY / "README.md", OPERATIONS], ids=lambda page: page.name)
def test_settings_on_the_page_exist(page: Path) -> None:
    balancer_s = {"TUS_BIND", "TUS_NODE_A", "TUS_NODE_B"}
    for name in set(re.findall(r"\bTUS_[A-Z0-9_]+\b", page.read_text())) - balancer_s:
        assert name.removeprefix("TUS_").lower() in DEFAULTS, name


@pytest.mark.parametrize("page", [DEPLOY / "README.md", OPERATIONS], ids=lambda page: page.name)
def test_links_on_the_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_policy_on_the_page_is_json() -> None:
    found = re.search(r"```json\n(\{\n.+?)```", OPERATIONS.read_text(), re.DOTALL)
    assert found

    assert [list(s) for s in json.loads(found[1])["Statement"]] == [
        ["Effect", "Action", "Resource"]
    ] * 2


def test_part_sizes_on_the_page_are_the_planner_s() -> None:
    units = {"GiB": 1 << 30, "TiB": 1 << 40}
    row = re.compile(r"^\| (\d+) ([GT]iB) \| (\d+) MiB \| (\d+) MiB \|$", re.MULTILINE)
    rows = row.findall(OPERATIONS.read_text())

    assert len(rows) == 4
    for number, unit, usual, equal in rows:
        for size, equal_parts in ((usual, False), (equal, True)):
            limits = StoreLimits(
                min_part_size=5 << 20,
                max_part_size=5 << 30,
                max_parts=10_000,
                preferred_part_size=8 << 20,
                max_object_size=5 << 40,
                equal_parts=equal_parts,
                reserved_numbers=0 if equal_parts else 16,
            )
            planned = plan_part_size(
                limits, length=int(number) * units[unit], start=0, number=1, first_size=None
            )
            assert planned == int(size) << 20


def numbers(pattern: str, text: str) -> set[float]:
    """Give every number that `pattern` captures; there must be one."""
    found = {float(number) for number in re.findall(pattern, text, re.MULTILINE)}
    assert found, pattern
    return found


def table() -> list[list[str]]:
    """Give the cells of the table "Numbers that must agree" in deploy/README.md, row by row."""
    text = (DEPLOY / "README.md").read_text().split("## Numbers that must agree")[1]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[1:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_the_table_says_what_the_files_say(row: list[str]) -> None:
    name, haproxy, nginx, server, elsewhere, rule = row

    assert name
    for directive in quoted(haproxy):
        assert re.search(rf"^ +{re.escape(directive)}(?:\s|$)", HAPROXY, re.MULTILINE), directive
    for directive in quoted(nginx):
        assert re.search(rf"^ *{re.escape(directive)};", NGINX, re.MULTILINE), directive
    for setting in quoted(server) + quoted(rule):
        if setting.startswith("TUS_"):
            check_default(*setting.partition("=")[::2])
    for directive in quoted(elsewhere):
        if "=" in directive:
            assert directive in UNIT.splitlines()
        elif ":" in directive:
            assert directive in COMPOSE


def check_default(setting: str, value: str) -> None:
    field = setting.removeprefix("TUS_").lower()
    assert field in DEFAULTS, setting
    if not value:
        return
    if field == "part_size_bytes":  # its default goes by the store
        default = Settings(store_url="s3://bucket/").part_size
    else:
        default = DEFAULTS[field]
    if value[0].isdigit():  # else a word, which the rule is about
        size = " " in value
        assert default == (TypeAdapter(ByteSize).validate_python(value) if size else float(value))


def test_proxies_wait_longer_for_a_body_than_the_server() -> None:
    limit = DEFAULTS["body_idle_timeout_s"]

    assert min(numbers(r"timeout client (\d+)s", HAPROXY)) > limit
    assert min(numbers(r"client_body_timeout (\d+)s", NGINX)) > limit


def test_proxies_wait_for_the_server_as_long_as_it_may_take() -> None:
    limit = (
        DEFAULTS["s3_timeout_s"] * DEFAULTS["s3_attempts"]
        + DEFAULTS["state_retry_s"]
        + DEFAULTS["lease_wait_s"]
    )

    assert limit >= 300
    assert min(numbers(r"^    timeout server (\d+)s", HAPROXY)) > limit
    assert min(numbers(r"^ {8}proxy_(?:read|send)_timeout (\d+)s", NGINX)) > limit


def test_proxies_wait_for_a_head_as_long_as_a_sound_node_takes() -> None:
    limit = DEFAULTS["state_timeout_s"] + DEFAULTS["lease_wait_s"]

    assert min(numbers(r"set-timeout server (\d+)s", HAPROXY)) > limit
    assert min(numbers(r"^ {12}proxy_read_timeout (\d+)s", NGINX)) > limit


def test_proxies_close_idle_connections_first() -> None:
    limit = DEFAULTS["keep_alive_timeout_s"]

    assert max(numbers(r"timeout http-keep-alive (\d+)s", HAPROXY)) < limit
    assert max(numbers(r"keepalive_timeout (\d+)s", NGINX)) < limit


def test_proxies_take_the_largest_head_the_server_takes() -> None:
    limit = DEFAULTS["max_header_bytes"]
    (size,) = numbers(r"tune\.bufsize (\d+)", HAPROXY)
    (reserve,) = numbers(r"tune\.maxrewrite (\d+)", HAPROXY)

    assert size - reserve >= limit
    assert min(numbers(r"large_client_header_buffers 4 (\d+)k", NGINX)) * 1024 >= limit


def test_whoever_kills_the_server_lets_it_store_what_arrived() -> None:
    limit = DEFAULTS["shutdown_timeout_s"]

    assert DEFAULTS["state_retry_s"] <= limit
    assert min(numbers(r"^TimeoutStopSec=(\d+)$", UNIT)) > limit
    for node in ("node-a", "node-b"):
        assert min(numbers(r"(\d+)s", SERVICES[node]["stop_grace_period"])) > limit
