"""An upload as `tus-server uploads` shows it: a JSON document or cells of a table."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tus_server.cli.output import render_size, render_time
from tus_server.core.direct import part_count
from tus_server.core.errors import MalformedMetadata
from tus_server.core.jobs import Outcome, outcome_of
from tus_server.core.upload import Part, Tail, Upload
from tus_server.ports import StatusChange
from tus_server.printable import printable
from tus_server.wire.metadata import find_text, parse_metadata


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
        "kind": upload.protocol.value,
        "file_id": upload.file_id,
        "progress": _progress(upload),
        "content_type": _claimed_type(upload),
        "detected_type": upload.content_type,
        "part_size_bytes": upload.part_size if upload.is_direct else None,
        "part_count": _count_parts(upload),
        "completed_at": None if upload.completed_at is None else upload.completed_at.isoformat(),
    }


def render_more(
    upload: Upload, history: Sequence[StatusChange], parts: Sequence[Part]
) -> dict[str, Any]:
    """Give what the document of a single upload has beside."""
    outcome, wanted = find_outcome(upload, history), upload.instructions
    jobs = {"success": wanted.success_job, "failure": wanted.failure_job}
    return {
        "parts_arrived": _count_arrived(parts) if upload.is_direct else None,
        "outcome": None if outcome is None else outcome.value,
        "require_acceptance": wanted.require_acceptance,
        "jobs": {name: None if job is None else job.name for name, job in jobs.items()},
        "history": [render_change(change) for change in history],
    }


def render_facts(
    upload: Upload, history: Sequence[StatusChange], parts: Sequence[Part]
) -> list[tuple[str, str]]:
    facts = [
        ("ID", upload.id),
        ("kind", upload.protocol.value),
        ("state", f"{upload.state.value} since {render_time(upload.state_on)}"),
        ("progress", _progress(upload)),
        ("received", render_received(upload)),
        ("bytes", f"{upload.offset} of {'?' if upload.length is None else upload.length}"),
        ("created", f"{render_time(upload.created_at)} by {upload.protocol.value}"),
    ]
    if upload.file_id is not None:
        facts.append(("file_id", printable(upload.file_id)))
    if upload.is_direct:
        size = render_size(upload.part_size or 0)
        arrived = f"{_count_arrived(parts)} of {_count_parts(upload)}"
        facts.append(("parts", f"{arrived} have arrived, of {size} each"))
    if upload.content_type is not None:
        facts.append(("detected type", printable(upload.content_type)))
    outcome = find_outcome(upload, history)
    if outcome is not None and upload.completed_at is not None:
        facts.append(("outcome", f"{outcome.value} at {render_time(upload.completed_at)}"))
    for name, job in (
        ("success job", upload.instructions.success_job),
        ("failure job", upload.instructions.failure_job),
    ):
        if job is not None:
            facts.append((name, printable(job.name)))
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


def find_outcome(upload: Upload, history: Sequence[StatusChange]) -> Outcome | None:
    """Tell what was decided at completed_at; None: nothing yet. history: newest first."""
    if upload.completed_at is None:
        return None
    wanted = upload.instructions.require_acceptance
    outcomes = (outcome_of(change.state, require_acceptance=wanted) for change in history[::-1])
    # The first one stays: what is deleted later has been a success all the same.
    return next((outcome for outcome in outcomes if outcome is not None), None)


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


def _progress(upload: Upload) -> str:
    # Here, for the models it comes with take longer to import than --help to print.
    from tus_server.wire.upload_view import find_progress

    return find_progress(upload, datetime.now(UTC))


def _claimed_type(upload: Upload) -> str | None:
    try:
        return find_text(parse_metadata(upload.metadata), "filetype", "type", "contentType")
    except MalformedMetadata:
        return None


def _count_parts(upload: Upload) -> int | None:
    """Give the number of parts that a direct upload was cut into."""
    if not upload.is_direct or upload.length is None or not upload.part_size:
        return None
    return part_count(upload.length, upload.part_size)


def _count_arrived(parts: Sequence[Part]) -> int:
    return sum(part.etag is not None for part in parts)


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
