"""Named queries from .sql files: `-- name: claim_lease` begins one, the next name ends it."""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(package: str, file_name: str) -> dict[str, str]:
    """Read the queries of `file_name` beside `package` into a dict by name."""
    text = files(package).joinpath(file_name).read_text(encoding="utf-8")
    pieces = _NAME.split(text)[1:]
    return {name: _without_comments(body) for name, body in zip(*[iter(pieces)] * 2, strict=True)}


def _without_comments(body: str) -> str:
    lines = (line for line in body.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().rstrip(";")
