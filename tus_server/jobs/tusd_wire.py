"""The JSON of tusd's HTTP hooks (tusd 2, pkg/hooks). Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tus_server.core.ids import find_upload_id
from tus_server.core.upload import Upload
from tus_server.ports import Credentials
from tus_server.wire.concat import parse_concat
from tus_server.wire.metadata import parse_metadata


class Hook(StrEnum):
    """The hooks, by tusd's names for them."""

    PRE_CREATE = "pre-create"
    POST_CREATE = "post-create"
    POST_RECEIVE = "post-receive"
    PRE_FINISH = "pre-finish"
    POST_FINISH = "post-finish"
    PRE_TERMINATE = "pre-terminate"
    POST_TERMINATE = "post-terminate"


# What frames a reply, belongs to the connection, or is in every reply already.
_OURS = frozenset(
    {
        "cache-control",
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "tus-resumable",
        "transfer-encoding",
        "upgrade",
    }
)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class AnswerUnclear(Exception):
    """What a hook says cannot be understood; the message says what of it."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What a hook wants. metadata None: as it is. unknown: what it wants that is not done here.

    status None: it names none that a refusal can have; fields: of the reply, by lower-case name.
    """

    rejects_upload: bool = False
    rejects_termination: bool = False
    status: int | None = None
    body: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] | None = None
    unknown: tuple[str, ...] = ()


def render_hook(
    hook: Hook,
    upload: Upload,
    *,
    request: Credentials | None,
    path: str,
    storage: Mapping[str, str],
) -> bytes:
    """Give the body of the request to the hook.

    request: None behind it, when nobody keeps it any more: then nothing but its path is told.
    path: of the upload. storage: where its object is, or will be.
    """
    is_new = hook is Hook.PRE_CREATE
    document = {
        "Type": hook,
        "Event": {
            "Upload": {
                "ID": "" if is_new else upload.id,
                "Size": upload.length or 0,
                "SizeIsDeferred": upload.length is None,
                # It is told later than it happened.
                "Offset": 0 if hook in (Hook.PRE_CREATE, Hook.POST_CREATE) else upload.offset,
                "MetaData": {
                    key: value.decode("utf-8", errors="replace")
                    for key, value in parse_metadata(upload.metadata).items()
                },
                "IsPartial": upload.is_partial,
                "IsFinal": upload.is_final,
                "PartialUploads": _find_partials(upload),
                "Storage": None if is_new else dict(storage),
            },
            "HTTPRequest": {
                "Method": request.method if request else "",
                "URI": request.path if request else path,
                "RemoteAddr": _render_address(request.client) if request else "",
                "Header": {_canonical(name): [value] for name, value in request.headers.items()}
                if request
                else {},
            },
        },
    }
    return json.dumps(document).encode()


def parse_answer(content: bytes) -> HookAnswer:
    """Read what the hook says; nothing is an empty object. Raises: AnswerUnclear."""
    try:
        found = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError) as exc:
        raise AnswerUnclear("it is no JSON") from exc
    if not isinstance(found, dict):
        raise AnswerUnclear("it is no JSON object")
    answer = _member(found, "HTTPResponse", dict) or {}
    changes = _member(found, "ChangeFileInfo", dict) or {}
    status = _member(answer, "StatusCode", int) or 0
    unknown = [f"ChangeFileInfo.{name}" for name in ("ID", "Storage") if _find(changes, name)]
    if _find(found, "StopUpload"):
        unknown.append("StopUpload")
    metadata = _member(changes, "MetaData", dict)
    return HookAnswer(
        rejects_upload=bool(_member(found, "RejectUpload", bool)),
        rejects_termination=bool(_member(found, "RejectTermination", bool)),
        status=status if 400 <= status <= 599 else None,
        body=_member(answer, "Body", str) or None,
        fields=_checked_fields(_member(answer, "Header", dict) or {}),
        metadata=None if metadata is None else _texts(metadata),
        unknown=tuple(unknown),
    )


def _find(document: Mapping[str, Any], name: str) -> Any:
    """Find a member as Go does: in whatever case it is written."""
    if name in document:
        return document[name]
    return next((one for key, one in document.items() if key.lower() == name.lower()), None)


def _member(document: Mapping[str, Any], name: str, kind: type) -> Any:
    found = _find(document, name)
    is_bool = isinstance(found, bool)
    if found is not None and (not isinstance(found, kind) or is_bool is not (kind is bool)):
        raise AnswerUnclear(f"its {name} is no {kind.__name__}")
    return found


def _texts(document: Mapping[str, Any]) -> dict[str, str]:
    for name, value in document.items():
        if not isinstance(value, str):
            raise AnswerUnclear(f"{name!r} is not text")
    return dict(document)


def _checked_fields(document: Mapping[str, Any]) -> dict[str, str]:
    fields = _texts(document)
    for name, value in fields.items():
        if not (_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
            raise AnswerUnclear(f"{name!r} is no header field")
    lower = {name.lower(): value for name, value in fields.items()}
    return {
        name: value
        for name, value in lower.items()
        if name not in _OURS and not name.startswith("access-control-")
    }


def _find_partials(upload: Upload) -> list[str] | None:
    if not upload.is_final:
        return None
    assert upload.concat is not None
    ids = (
        find_upload_id(url.rstrip("/").rpartition("/")[2])
        for url in parse_concat(upload.concat) or ()
    )
    return [found for found in ids if found is not None]


def _render_address(client: str | None) -> str:
    """Give host and port, as Go has them; the port is not known."""
    if client is None:
        return ""
    return f"[{client}]:0" if ":" in client else f"{client}:0"


def _canonical(name: str) -> str:
    return "-".join(piece.capitalize() for piece in name.split("-"))
