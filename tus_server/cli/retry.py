"""`tus-server jobs retry`: another try for what was given up."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.lookup import Config, DataDir, load, read
from tus_server.cli.output import EXIT_FAILED, complain, refuse
from tus_server.ports import Letters

if TYPE_CHECKING:
    from tus_server.ports import StateReader
    from tus_server.settings import Settings

PAGE = 1000


def retry_jobs(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", help="As `jobs ls` lists them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Whatever was given up.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per event.")
    ] = False,
) -> None:
    """Try events again that were given up, as if they were new.

    With state in SQLite a server that runs is asked to do so, at its JSON API.
    """
    if bool(ids) == every:
        raise refuse("name events, or give --all.")
    settings = load(config, data_dir)
    # Before anything is opened for writing: a slip in an id or the settings makes no folders.
    faults = read(settings, lambda reader: _look_at(reader, ids))
    if every and not faults:
        complain("nothing was given up.")
    retried = _retry(settings, [event_id for event_id, fault in faults.items() if fault is None])
    faults |= retried
    for event_id, fault in faults.items():
        if as_json:
            typer.echo(json.dumps({"id": event_id, "retried": fault is None, "error": fault}))
        elif fault is None:
            typer.echo(event_id)
        if fault is not None:
            complain(f"{event_id}: {fault}.")
    if any(faults.values()):
        raise typer.Exit(EXIT_FAILED)


async def _look_at(reader: "StateReader", ids: list[int] | None) -> dict[int, str | None]:
    """Give the events to retry, each with why that cannot be; ids None: all dead letters."""
    found: dict[int, str | None] = {}
    for event_id in ids or ():
        event = await reader.find_event(event_id)
        if event is None:
            found[event_id] = "there is no such event"
        else:
            found[event_id] = None if event.given_up_at is not None else "it was not given up"
    before = None
    while ids is None:
        page = await reader.list_events(Letters.DEAD, PAGE, before)
        if not page:
            break
        before = page[-1].id
        found.update((event.id, None) for event in page)
    return found


def _retry(settings: "Settings", ids: list[int]) -> dict[int, str | None]:
    """Retry dead letters; give why it failed for each."""
    if not ids:
        return {}
    from tus_server.app import find_running, retry_offline

    base_url = None if settings.uses_postgres else find_running(settings)
    if base_url is not None:
        return _ask_server(settings, base_url, ids)
    from tus_server.logs import configure_logging

    # The state is now opened in this process, and stdout is for results.
    configure_logging(settings.log_format, settings.log_level)
    were_dead = asyncio.run(retry_offline(settings, ids))
    return {
        event_id: None if was_dead else "it was not given up any more"
        for event_id, was_dead in zip(ids, were_dead, strict=True)
    }


def _ask_server(settings: "Settings", base_url: str, ids: list[int]) -> dict[int, str | None]:
    """Ask the server that has the SQLite file for itself."""
    import requests

    from tus_server.cli.asking import ask
    from tus_server.cli.replies import TransferFailed, plain_refusal

    origin = base_url.removesuffix(settings.base_path)
    headers = {"Accept": "application/json"}
    if settings.api_token is not None:
        headers["Authorization"] = f"Bearer {settings.api_token}"
    faults: dict[int, str | None] = {}
    # No proxy: the server is on this machine.
    with requests.Session() as session:
        session.trust_env = False
        for event_id in ids:
            url = f"{origin}/api/jobs/{event_id}/retry"
            try:
                reply = ask(session, "POST", url, headers)
                if reply.status != requests.codes.ok:
                    raise plain_refusal("POST", url, reply)
            except TransferFailed as exc:
                faults[event_id] = f"{exc} (or stop the server)"
            else:
                faults[event_id] = None
    return faults
