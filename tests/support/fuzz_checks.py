"""What schemathesis does and checks beside its own: loaded by `st` through SCHEMATHESIS_HOOKS.

By itself it would never get behind the door: an id that it makes up names no upload, and a body
with everything in it that may be is refused for the name of its job. TUS_FUZZ_IDS: of uploads in
many states, with commas between; those that it begins itself are used too.
"""

import itertools
import os
import re
from typing import Any

import schemathesis

CREATION = "POST /api/uploads"
ID = re.compile(r"[0-9a-f]{32}(\.[a-z0-9-]{1,16})?")
IDS = [text for text in os.environ.get("TUS_FUZZ_IDS", "").split(",") if text]
_numbers = itertools.count()


@schemathesis.check
def well_formed_is_taken(ctx: Any, response: Any, case: Any) -> None:
    """What the document allows is never refused as malformed, field by field.

    It may still be refused for what it says: a cursor of another server, parts of a tus session.
    """
    if response.status_code == 400 and _is_positive(case):
        assert "errors" not in response.json(), response.json()


@schemathesis.check
def refusals_are_problems(ctx: Any, response: Any, case: Any) -> None:
    """Every refusal has a title, its own status and a code, also where nothing is described."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    assert response.headers["content-type"] == ["application/problem+json"]
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["code"]


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    if case.operation.label == CREATION and response.status_code == 201:
        IDS.append(response.json()["id"])


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Put ids of uploads in the place of ids that name none, and mend bodies that may be taken."""
    parameters = case.path_parameters
    if IDS and parameters and ID.fullmatch(str(parameters.get("upload_id"))):
        parameters["upload_id"] = IDS[next(_numbers) * 7 % len(IDS)]
    if case.operation.label == CREATION and _is_positive(case) and isinstance(case.body, dict):
        _mend(case.body)
    return case


def _mend(body: dict[str, Any]) -> None:
    for name in ("success_job", "failure_job"):
        if body.get(name):
            body[name]["name"] = "https://app.example.com/done"
    for name in ("filename", "content_type", "file_id"):
        if body.get(name):
            body[name] = body[name].replace("\0", "_")
    if body.get("file_id"):
        body["file_id"] = f"{body['file_id'][:400]}-{next(_numbers)}"
    if body.get("metadata"):
        body["metadata"] = {"a": next(iter(body["metadata"].values())).replace("\0", "_")}
    body.pop("checksum", None)  # of the length of its algorithm: not in a schema
    if body.get("kind") != "multipart" or next(_numbers) % 2:
        body.pop("part_size_bytes", None)
    if body.get("size") is None:
        body["size"] = 5
    elif body["size"] > 2**40:
        body["size"] %= 2**40


def _is_positive(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive
