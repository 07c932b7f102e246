"""The OpenAPI document: made of the routes, with every refusal as the problem document it is."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tus_server.http.api import examples
from tus_server.http.api.models import Problem
from tus_server.wire.upload_view import Moved, UploadView

Responses = dict[int | str, dict[str, Any]]

# The application's hook chooses the status of its refusal.
ANY_STATUS = "default"
_SCHEMAS = "#/components/schemas/"
_ALWAYS = (400, 401, 403, 431, 500, 503)
_REFUSALS: dict[int | str, str] = {
    400: "A field is missing, unknown or wrong: `errors` says which, where it is one of the body or"
    " query. Or the request does not fit the kind of the upload.",
    401: "The token is missing or wrong.",
    403: "No token is set, and the request did not come from this machine.",
    404: "There is no such upload.",
    409: "Another upload of the file_id is active, parts differ from what was reported, or the"
    " upload is in a state from which this is not possible. Nothing was changed.",
    410: "The upload has expired.",
    413: "The body, or the upload, is larger than what is taken.",
    415: "The body is not application/json.",
    422: "The Idempotency-Key was used for another request.",
    423: "Another request holds the upload. Try again.",
    431: "The header fields are too large.",
    500: "A defect of the server.",
    503: "Database or store do not answer, or the server stops. Try again.",
    507: "There is no space left.",
    ANY_STATUS: "The application's hook refused it.",
}
# An event as a client takes it from the stream.
EVENT: dict[str, Any] = {
    "type": "object",
    "title": "Event",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["status", "progress"]},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": f"{_SCHEMAS}{UploadView.__name__}"},
                    {"$ref": f"{_SCHEMAS}{Moved.__name__}"},
                ]
            },
        },
    },
}
_RETRIED = {423, 503, 507}
_RETRY_AFTER = {
    "Retry-After": {"description": "In seconds.", "schema": {"type": "integer", "minimum": 0}}
}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}
_DESCRIPTION = """\
Uploads and sessions for applications. Refusals are problem documents (RFC 9457) with a stable
`code`. Bodies are I-JSON (RFC 7493) of at most 2 MiB. Every call may be repeated: one that took
effect gives the same answer again. POSTs take an `Idempotency-Key`; it makes a difference only
where an upload is begun, for repeating the others gives the same answer by itself.
"""


def describe(*statuses: int | str) -> Responses:
    """Describe refusals: `statuses`, and those that every operation has."""
    described: Responses = {}
    for status in sorted({*_ALWAYS, *statuses}, key=str):
        kind = "application/problem+json"
        content = {kind: {"schema": {"$ref": f"{_SCHEMAS}{Problem.__name__}"}}}
        if status == ANY_STATUS:
            content["text/plain"] = {"schema": {}}  # the hook's own
        described[status] = {"description": _REFUSALS[status], "content": content}
        if status in _RETRIED:
            described[status]["headers"] = _RETRY_AFTER
        elif status == 401:
            described[status]["headers"] = _CHALLENGE
    return described


def make_document(app: FastAPI, *, version: str, has_token: bool) -> dict[str, Any]:
    """Make the document, but for its servers, which depend on the request."""
    document = get_openapi(
        title="tus_server",
        version=version,
        openapi_version="3.1.0",
        description=_DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        routes=app.routes,
    )
    for path in document["paths"].values():
        for operation in path.values():
            _correct(operation)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    # Not with the model: FastAPI leaves out what is null.
    schemas[UploadView.__name__]["examples"] = [examples.UPLOAD]
    for model in (Problem, Moved):
        schema = model.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "TUS_API_TOKEN."}
    }
    document["security"] = [{"token": []}] if has_token else [{"token": []}, {}]
    return document


def _correct(operation: dict[str, Any]) -> None:
    """Take out what FastAPI writes and this API does not do."""
    automatic = operation["responses"].get("422", {})
    if "application/json" in automatic.get("content", {}):  # its own form of refusal
        del operation["responses"]["422"]
    for parameter in operation.get("parameters", ()):
        # A query or a header field has no null: it is left out.
        schema = parameter["schema"]
        kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            schema |= kinds[0]
