"""docs/protocol.md stays true: a row for every requirement, and what it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tus_server.wire.tus import EXTENSIONS

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| ([TCRD][0-9]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
FOUND = [match for match in map(ROW.fullmatch, PAGE.splitlines()) if match]
ROWS = {match[1]: match for match in FOUND}

# tus 1.0.0, what its clients need, RUFH, and what is decided where that leaves a choice.
NEEDED = [
    f"{kind}{number}"
    for kind, last in (("T", 131), ("C", 7), ("R", 87), ("D", 10))
    for number in range(1, last + 1)
]
# What there is nothing for: the row says why.
NOT_OURS = {"C4", "R14"}
OURS = [requirement for requirement in NEEDED if requirement not in NOT_OURS]
ID = re.compile(r"\b([TCRD])([1-9][0-9]*)\b")


@cache
def names_in(path: Path) -> frozenset[str]:
    """Give the names of everything a module defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def test_every_requirement_has_one_row() -> None:
    assert sorted(match[1] for match in FOUND) == sorted(NEEDED)


@pytest.mark.parametrize("requirement", OURS)
def test_the_tests_of_a_requirement_exist(requirement: str) -> None:
    named = re.findall(r"`([^`]+\.py)::([^`]+)`", ROWS[requirement][4])

    assert named
    for path, test in named:
        assert test in names_in(REPOSITORY / "tests" / path), f"{path}::{test}"


@pytest.mark.parametrize("requirement", OURS)
def test_the_place_where_a_requirement_is_decided_exists(requirement: str) -> None:
    places = re.findall(r"`([^`:]+\.py): ([^`]+)`", ROWS[requirement][3])

    assert places
    for path, name in places:
        assert name in names_in(REPOSITORY / "tus_server" / path), f"{path}: {name}"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_has_a_row_that_says_it_is_advertised(extension: str) -> None:
    assert any(f"`{extension}` is advertised" in match[2] for match in FOUND)


def test_every_id_that_a_test_or_the_page_names_is_a_requirement() -> None:
    texts = {"docs/protocol.md": PAGE}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                texts[f"{path.name}::{node.name}"] = ast.get_docstring(node) or ""

    known = set(NEEDED)
    unknown = {
        name: odd
        for name, text in texts.items()
        if (odd := [found[0] for found in ID.finditer(text) if found[0] not in known])
    }

    assert unknown == {}
