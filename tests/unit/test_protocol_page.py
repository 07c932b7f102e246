"""docs/protocol.md stays true: a row for every requirement, and what it names exists."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| ([TC][0-9]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
FOUND = [match for match in map(ROW.fullmatch, PAGE.splitlines()) if match]
ROWS = {match[1]: match for match in FOUND}

# Core, creation, deferred length, creation with upload; termination; open cases; client rules.
OFFERED = [*range(1, 70), *range(93, 98), *range(119, 132)]
NEEDED = [f"T{number}" for number in OFFERED] + [f"C{number}" for number in (1, 2, 3, 5, 6, 7)]


def names_in(path: Path) -> set[str]:
    """Give the names of everything a module defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_every_requirement_has_one_row() -> None:
    assert sorted(match[1] for match in FOUND) == sorted(NEEDED)


@pytest.mark.parametrize("requirement", NEEDED)
def test_the_tests_of_a_requirement_exist(requirement: str) -> None:
    named = re.findall(r"`([^`]+\.py)::([^`]+)`", ROWS[requirement][4])

    assert named
    for path, test in named:
        assert test in names_in(REPOSITORY / "tests" / path), f"{path}::{test}"


@pytest.mark.parametrize("requirement", NEEDED)
def test_the_place_where_a_requirement_is_decided_exists(requirement: str) -> None:
    places = re.findall(r"`([^`:]+\.py): ([^`]+)`", ROWS[requirement][3])

    assert places
    for path, name in places:
        assert name in names_in(REPOSITORY / "tus_server" / path), f"{path}: {name}"


@pytest.mark.parametrize("extension", ["checksum", "expiration", "concatenation"])
def test_what_is_not_offered_is_said_in_a_line(extension: str) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"- {extension}"))

    assert "not offered yet, not advertised" in line
