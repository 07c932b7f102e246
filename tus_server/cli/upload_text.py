"""An upload as `tus-server uploads` shows it: a JSON document or cells of a table."""

from typing import Any

from tus_server.cli.output import render_size, render_time
from tus_server.core.errors import MalformedMetadata
from tus_server.core.upload import Tail, Upload
from tus_server.ports import StatusChange
from tus_server.printable import printable
from tus_server.wire.metadata import parse_metadata


def render_document(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "state": upload.state.value,
        "protocol": upload.protocol.value,
        "offset": upload.offset,
        "length": upload.length,
        "committed_bytes": upload.committed_bytes,
        "tail": None if upload.tail is None else _tail_document(upload.tail),
        "object_key": upload.object_key,
        "multipart_id": upload.multipart_id,
        "created_at": upload.created_at.isoformat(),
        "state_on": upload.state_on.isoformat(),
        "expires_at": None if upload.expires_at is None else upload.expires_at.isoformat(),
        "owner": upload.owner,
        "metadata": _metadata(upload),
        "error_code": upload.error_code,
        "error_message": upload.error_message,
    }


def render_facts(upload: Upload) -> list[tuple[str, str]]:
    facts = [
        ("ID", upload.id),
        ("state", f"{upload.state.value} since {render_time(upload.state_on)}"),
        ("received", render_received(upload)),
        ("bytes", f"{upload.offset} of {'?' if upload.length is None else upload.length}"),
        ("created", f"{render_time(upload.created_at)} by {upload.protocol.value}"),
    ]
    if upload.expires_at is not None:
        facts.append(("expires", render_time(upload.expires_at)))
    if upload.object_key is not None:
        facts.append(("object", printable(upload.object_key)))
    if upload.tail is not None:
        facts += [
            ("in the store", f"{upload.committed_bytes} bytes"),
            ("tail", _render_tail(upload.tail)),
        ]
    if upload.owner is not None:
        facts.append(("owner", printable(upload.owner)))
    if upload.error_code is not None:
        message = printable(upload.error_message or "")
        facts.append(("error", f"{printable(upload.error_code)} {message}"))
    facts += [(f"metadata {key}", printable(value)) for key, value in _metadata(upload).items()]
    return facts


def render_change(change: StatusChange) -> dict[str, Any]:
    return {"state": change.state.value, "at": change.at.isoformat(), "note": change.note}


def render_received(upload: Upload) -> str:
    if upload.length is None:
        return f"{render_size(upload.offset)} of ?"
    if upload.offset == upload.length:
        return render_size(upload.length)
    return f"{render_size(upload.offset)} of {render_size(upload.length)}"


def render_name(upload: Upload) -> str:
    metadata = _metadata(upload)
    return printable(metadata.get("filename") or metadata.get("name") or "")


def _tail_document(tail: Tail) -> dict[str, Any]:
    return {"length": tail.length, "generation": tail.generation, "node": tail.node}


def _render_tail(tail: Tail) -> str:
    place = "parked in the store" if tail.node is None else f"on the disk of node {tail.node}"
    return f"{tail.length} bytes, generation {tail.generation}, {printable(place)}"


def _metadata(upload: Upload) -> dict[str, str]:
    try:
        found = parse_metadata(upload.metadata)
    except MalformedMetadata:
        return {}
    return {printable(key): value.decode("utf-8", "replace") for key, value in found.items()}
