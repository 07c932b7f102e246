"""`tus-server uploads rm` and `rewind`: what changes uploads, one by one."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from tus_server.cli.arguments import parse_upload_id
from tus_server.cli.lookup import AsJson, Config, DataDir, Ids, Yes, load, read
from tus_server.cli.output import EXIT_FAILED, complain, refuse, render_size
from tus_server.cli.replies import find_detail
from tus_server.core.errors import TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL
from tus_server.core.upload import Upload

if TYPE_CHECKING:
    from tus_server.settings import Settings


class _Refused(Exception):
    """The upload stays as it is; the message is the sentence about it."""


def remove_uploads(
    ids: Ids,
    yes: Yes = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove uploads and their files: through the running server if there is one."""
    upload_ids = [parse_upload_id(text) for text in ids]
    settings = load(config, data_dir)
    what = _named(upload_ids)
    _confirm(yes, "remove them", f"Remove {what} and what was received?")

    def remove(upload_id: UploadId) -> dict[str, Any]:
        _remove(settings, upload_id)
        if not as_json:
            typer.echo(upload_id)
        return {"removed": True}

    _change_each(upload_ids, remove, {"removed": False}, as_json=as_json)


def rewind_uploads(
    ids: Ids,
    yes: Yes = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give up the tails of uploads, when the disk they were on is lost.

    A tail is the last bytes that were received, too few for a part in S3. The offset goes back to
    what S3 has, the client sends the rest again, and the history says so.
    """
    upload_ids = [parse_upload_id(text) for text in ids]
    settings = load(config, data_dir)
    what = _named(upload_ids)
    _confirm(yes, "give up bytes", f"Give up acknowledged bytes of {what} that only a node has?")

    def rewind(upload_id: UploadId) -> dict[str, Any]:
        before, after = _rewind(settings, upload_id)
        given_up = before.offset - after.offset
        if not as_json:
            typer.echo(
                f"{upload_id}  {given_up} bytes ({render_size(given_up)}) given up; goes on at"
                f" {after.offset}"
            )
        return {"rewound": True, "offset": after.offset, "given_up_bytes": given_up}

    otherwise = {"rewound": False, "offset": None, "given_up_bytes": 0}
    _change_each(upload_ids, rewind, otherwise, as_json=as_json)


def _named(ids: list[UploadId]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} uploads"


def _confirm(yes: bool, what: str, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise refuse(f"there is nobody to ask whether to {what}; give --yes.")
    typer.confirm(question, abort=True, err=True)


def _change_each(
    ids: list[UploadId],
    change: Callable[[UploadId], dict[str, Any]],
    otherwise: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Change one upload after the other; one that cannot be changed does not stop the others."""
    failed = False
    for upload_id in ids:
        facts, error = otherwise, None
        try:
            facts = change(upload_id)
        except (TusServerError, _Refused) as exc:
            failed, error = True, str(exc)
            complain(f"{upload_id}: {error}")
        if as_json:
            typer.echo(json.dumps({"id": upload_id, **facts, "error": error}))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _remove(settings: "Settings", upload_id: UploadId) -> None:
    from tus_server.app import find_running, terminate_offline

    upload = _find(settings, upload_id)
    if upload.state in TERMINAL:
        raise _Refused(f"it is {upload.state} already.")
    base_url = find_running(settings)
    if base_url is None:
        _log_to_stderr(settings)
        asyncio.run(terminate_offline(settings, upload_id))
    elif upload.is_direct:
        # Only the application may; /files/ is for whoever knows an id.
        origin = base_url.removesuffix(settings.base_path)
        _delete(f"{origin}/api/uploads/{upload_id}", _authorization(settings))
    else:
        _delete(f"{base_url}{upload_id}", {"Tus-Resumable": "1.0.0"})


def _rewind(settings: "Settings", upload_id: UploadId) -> tuple[Upload, Upload]:
    """Give the upload before and after."""
    from tus_server.app import rewind_offline

    _find(settings, upload_id)
    _log_to_stderr(settings)
    return asyncio.run(rewind_offline(settings, upload_id))


def _find(settings: "Settings", upload_id: UploadId) -> Upload:
    # Before anything is opened for writing: a slip in the id or the settings makes no folders.
    upload = read(settings, lambda reader: reader.find_upload(upload_id))
    if upload is None:
        raise _Refused("there is no such upload.")
    return upload


def _log_to_stderr(settings: "Settings") -> None:
    # The engine now runs in this process, and stdout is for results.
    from tus_server.logs import configure_logging

    configure_logging(settings.log_format, settings.log_level)


def _authorization(settings: "Settings") -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.api_token}"} if settings.api_token else {}


def _delete(url: str, headers: dict[str, str]) -> None:
    import requests

    # No proxy: the server is on this machine.
    with requests.Session() as session:
        session.trust_env = False
        try:
            reply = session.delete(url, headers=headers, timeout=60, allow_redirects=False)
        except requests.RequestException as exc:
            raise _Refused(f"the running server does not answer at {url}.") from exc
    if reply.status_code not in (requests.codes.no_content, requests.codes.ok):
        detail = find_detail(reply.headers, reply.content) or reply.reason
        raise _Refused(f"the running server answered {reply.status_code}: {detail}.")
