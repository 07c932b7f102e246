"""The lock of a data directory: one holder, who tells others where it serves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tus_server.core.errors import DataDirInUse, DataDirUnusable
from tus_server.datadir import DataDir, find_server

URL = "http://127.0.0.1:1/files/"


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    with DataDir(tmp_path / "a" / "b") as held:
        with pytest.raises(DataDirInUse, match=rf"in use .*\(process {os.getpid()}\)"):
            DataDir(held.path).__enter__()

    with DataDir(held.path):
        pass


def test_the_holder_is_found_where_it_announced_itself(tmp_path: Path) -> None:
    assert find_server(tmp_path) is None
    with DataDir(tmp_path) as held:
        with pytest.raises(DataDirInUse):
            find_server(tmp_path)
        held.announce(URL)

        assert find_server(tmp_path) == URL
        owner = json.loads((tmp_path / "server.lock").read_text())
        assert owner == {"pid": os.getpid(), "url": URL}

    assert find_server(tmp_path) is None


def test_processes_the_holder_starts_do_not_keep_the_lock(tmp_path: Path) -> None:
    with DataDir(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )

    with child, DataDir(tmp_path):
        child.communicate()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataDirUnusable, match=r"/file/data cannot be written .*TUS_DATA_DIR"):
        DataDir(tmp_path / "file" / "data").__enter__()
