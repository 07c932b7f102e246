"""Which node this is: a file in the data directory, made once, so that tails are found again."""

import json
import os
import re
import secrets
import string
from pathlib import Path
from typing import Final

from tus_server.core.errors import DataDirUnusable
from tus_server.folders import make_lasting_folder, sync_folder
from tus_server.ports import Node

FILE_NAME: Final = "node.json"
_LABEL_CHARS: Final = string.ascii_lowercase + string.digits
_RANDOM_LABEL_LENGTH: Final = 6


def is_node(data_dir: Path) -> bool:
    """Tell whether a data directory belongs to a node already."""
    return (data_dir / FILE_NAME).exists()


def load_node(data_dir: Path, name: str | None) -> Node:
    """Give the node a data directory belongs to; `name` stands for the label it was made with.

    For the holder of the directory's lock, and for processes it starts once this has returned.
    Raises: DataDirUnusable (also for a damaged file: a new identity would lose sight of the
    tails that rows say this node has).
    """
    path = data_dir.absolute() / FILE_NAME
    try:
        text = path.read_bytes() if path.exists() else _make(path)
    except OSError as exc:
        raise DataDirUnusable(
            f"{path} cannot be read or made ({exc.strerror}): change its owner or rights, or set"
            " TUS_DATA_DIR to another folder."
        ) from exc
    node = _parse(text)
    if node is None:
        raise DataDirUnusable(
            f"{path} is damaged: restore it; if that cannot be done, remove it, and what is in"
            " tails/ counts as lost."
        )
    return Node(node.id, name or node.label)


def _make(path: Path) -> bytes:
    # No host name in the label: it is part of public ids.
    label = "".join(secrets.choice(_LABEL_CHARS) for _ in range(_RANDOM_LABEL_LENGTH))
    text = json.dumps({"id": secrets.token_hex(16), "label": label}).encode()
    make_lasting_folder(path.parent)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return text


def _parse(text: bytes) -> Node | None:
    try:
        found = json.loads(text)
        node = Node(found["id"], found["label"])
        whole = re.fullmatch(r"[0-9a-f]{32}", node.id) and re.fullmatch(
            r"[a-z0-9-]{1,16}", node.label
        )
    except (ValueError, TypeError, KeyError):
        return None
    return node if whole else None
