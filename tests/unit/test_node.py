"""The identity of a node: made once, kept, never guessed."""

import json
import re
from pathlib import Path

import pytest

from tus_server.core.errors import DataDirUnusable
from tus_server.core.ids import find_upload_id, new_upload_id
from tus_server.node import load_node


def test_a_node_keeps_its_identity(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "data"

    first = load_node(data_dir, None)

    assert load_node(data_dir, None) == first
    assert re.fullmatch(r"[0-9a-f]{32}", first.id)
    assert re.fullmatch(r"[a-z0-9]{6}", first.label)
    assert find_upload_id(new_upload_id(first.label)) is not None
    assert [path.name for path in data_dir.iterdir()] == ["node.json"]


def test_two_data_directories_are_two_nodes(tmp_path: Path) -> None:
    one, other = load_node(tmp_path / "1", None), load_node(tmp_path / "2", None)

    assert one.id != other.id
    assert one.label != other.label


def test_a_name_stands_for_the_label_and_changes_nothing_else(tmp_path: Path) -> None:
    made = load_node(tmp_path, "node-1")

    assert made.label == "node-1"
    assert load_node(tmp_path, None).id == made.id
    assert load_node(tmp_path, None).label != "node-1"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"id": "x", "label": "a"}',
        json.dumps({"id": "0" * 32}).encode(),
        json.dumps({"id": "0" * 32, "label": "A b"}).encode(),
        json.dumps({"id": 1, "label": "a"}).encode(),
    ],
)
def test_a_damaged_identity_is_refused_and_kept(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_bytes(text)

    with pytest.raises(DataDirUnusable, match=r"node\.json is damaged: restore it; .*\.$"):
        load_node(tmp_path, "name")

    assert file.read_bytes() == text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataDirUnusable, match=r"file/data/node\.json .*TUS_DATA_DIR"):
        load_node(tmp_path / "file" / "data", None)


def test_what_a_crash_left_half_made_is_no_identity(tmp_path: Path) -> None:
    (tmp_path / "node.new").write_bytes(b'{"id"')

    node = load_node(tmp_path, None)

    assert load_node(tmp_path, None) == node
