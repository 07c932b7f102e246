"""`tus-server reap`: end what has expired, now."""

import asyncio
import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tus_server.cli.arguments import parse_duration
from tus_server.cli.lookup import Config, DataDir, load
from tus_server.cli.output import EXIT_FAILED, complain, refuse, render_size, render_time
from tus_server.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tus_server.app import Reapable
    from tus_server.engine.reap import Reaped
    from tus_server.settings import Settings


def reap(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be ended, and change nothing.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Also end unfinished uploads that got no byte for so long: 36h, 2d. Reckoned with"
            " TUS_EXPIRES_AFTER_S, so not soon after that was changed.",
        ),
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with --dry-run one per line.")
    ] = False,
) -> None:
    """End uploads that have expired, and remove what was kept for long enough.

    Servers do so by themselves every minute, one at a time; this does it now. Uploads that are
    being written to stay. With state in SQLite it does the work of a server that does not run.
    """
    idle_s = None if older_than is None else parse_duration("--older-than", older_than)
    settings = load(config, data_dir)
    if idle_s is not None and not settings.expires_after_s:
        raise refuse("--older-than needs uploads that expire, and TUS_EXPIRES_AFTER_S is 0.")
    if dry_run:
        from tus_server.app import find_reapable

        _show(asyncio.run(find_reapable(settings, idle_s=idle_s)), as_json=as_json)
        return
    _leave_to_server(settings, idle_s)

    from tus_server.app import reap_now
    from tus_server.logs import configure_logging

    # What is done is printed, once.
    configure_logging(settings.log_format, "warning")
    reaped = asyncio.run(reap_now(settings, idle_s=idle_s))
    typer.echo(json.dumps(asdict(reaped)) if as_json else _render(reaped))


def _leave_to_server(settings: "Settings", idle_s: float | None) -> None:
    """End the command where a server has the only state there is for itself."""
    from tus_server.app import find_running

    if settings.uses_postgres or find_running(settings) is None:
        return
    where = f"the server that runs on {settings.data_dir}"
    if idle_s is not None:
        complain(f"{where} cannot be told --older-than: stop it, or use `tus-server uploads rm`.")
        raise typer.Exit(EXIT_FAILED)
    complain(f"nothing to do, {where} ends what has expired every minute.")
    raise typer.Exit


def _show(found: "Reapable", *, as_json: bool) -> None:
    for document in _documents(found):
        typer.echo(json.dumps(document) if as_json else _line(document))
    if not as_json:
        uploads = [upload for upload, _ in found.expired + found.kept]
        size = render_size(sum(upload.offset for upload in uploads))
        complain(f"would end {len(uploads)} uploads of {size}; nothing was changed.")


def _documents(found: "Reapable") -> "Iterator[dict[str, Any]]":
    for action, uploads in (("expire", found.expired), ("delete", found.kept)):
        for upload, due_at in uploads:
            yield {
                "action": action,
                "id": upload.id,
                "state": upload.state.value,
                "bytes": upload.offset,
                "created_at": upload.created_at.isoformat(),
                "due_at": due_at.isoformat(),
            }
    for seen in found.nodes:
        yield {
            "action": "forget",
            "node": seen.node.label,
            "node_id": seen.node.id,
            "silent_s": round(seen.silent_s),
        }


def _line(document: dict[str, Any]) -> str:
    action = document["action"]
    if action == "forget":
        return printable(
            f"{action}  node {document['node']}  silent for {document['silent_s'] // 86400} days"
        )
    due_at = render_time(datetime.fromisoformat(document["due_at"]))
    size = render_size(document["bytes"])
    return f"{action}  {document['id']}  {document['state']}  {size}  due {due_at}"


def _render(reaped: "Reaped") -> str:
    text = (
        f"Uploads: {reaped.expired} expired, {reaped.deleted} kept for long enough;"
        f" {render_size(reaped.freed_bytes)} freed. Forgotten: {reaped.purged} uploads that ended"
        f" long ago, {reaped.events} delivered events, {reaped.nodes} nodes."
    )
    if reaped.postponed:
        text += f" Postponed, being held or not freed yet: {reaped.postponed}."
    return text
