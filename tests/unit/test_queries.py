import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tus_server.state.queries import load_queries


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "queries_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    sys.modules.pop(folder.name, None)


def write(tmp_path: Path, text: str) -> None:
    (tmp_path / "queries_package" / "q.sql").write_text(text, encoding="utf-8")


def test_a_query_ends_where_the_next_name_begins(package: str, tmp_path: Path) -> None:
    write(tmp_path, "-- name: one\nSELECT 1\n\n-- name: two\nSELECT\n  2;\n")

    assert load_queries(package, "q.sql") == {"one": "SELECT 1", "two": "SELECT\n  2"}


def test_comments_and_what_stands_before_the_first_name_are_left_out(
    package: str, tmp_path: Path
) -> None:
    write(tmp_path, "-- about the file\n\n-- name: one\n-- why\nSELECT 1\n  -- inside\nFROM x\n")

    assert load_queries(package, "q.sql") == {"one": "SELECT 1\nFROM x"}


def test_a_text_with_two_dashes_in_a_line_is_kept(package: str, tmp_path: Path) -> None:
    write(tmp_path, "-- name: one\nSELECT '--'\n")

    assert load_queries(package, "q.sql") == {"one": "SELECT '--'"}


def test_a_file_without_names_has_no_queries(package: str, tmp_path: Path) -> None:
    write(tmp_path, "SELECT 1;\n")

    assert load_queries(package, "q.sql") == {}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_query_of_a_state_store_is_one_statement(database: str) -> None:
    queries = load_queries(f"tus_server.state.{database}", "queries.sql")

    assert queries
    for name, text in queries.items():
        assert text, name
        assert ";" not in text, name
