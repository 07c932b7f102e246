"""The row s3-reap: the command that ends expired uploads, on many of them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time

from bench.extension_rows import REAPED
from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.replies import RowFailed, expect
from bench.load.session import Session

_POLL_S = 0.1
_TIMEOUT_S = 120.0


def reap(session: Session) -> Outcome:
    """Half of the uploads are empty, half have a tail; the clock begins when all have expired."""
    if session.reap is None:
        raise RowFailed("this server has no such command")
    size, count = session.sizes.small_bytes, session.sizes.expired_uploads
    connection = session.connect()
    paths = session.create_many(count, 2 * size)
    body = os.urandom(size)
    for path in paths[::2]:
        head = session.requests.patch(path, offset=0, size=size)
        expect(connection.exchange(head + body), 204, offset=size)
    # In the order in which they expire, so that the last one decides.
    for path in (*paths[1::2], *paths[::2]):
        _wait_expired(session, connection, path)
    command = [*session.reap.command, "--json"]
    start_s = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, **session.reap.environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    took_s = time.perf_counter() - start_s
    if done.returncode:
        raise RowFailed(f"reap ended with {done.returncode}: {done.stderr[-500:]}")
    told = json.loads(done.stdout)
    faults = [] if told["expired"] == count else [f"{told['expired']} of {count} uploads ended"]
    if told["postponed"]:
        faults.append(f"{told['postponed']} uploads were put off")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Outcome(
        figure=took_s,
        cpu=(used.ru_utime + used.ru_stime) * 1000 / count,
        load_cpu=0.0,
        faults=tuple(faults),
        beside={REAPED: told["expired"]},
    )


def _wait_expired(session: Session, connection: Connection, path: bytes) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while (status := connection.exchange(session.requests.head(path)).status) != 410:
        if status != 200 or time.monotonic() > deadline_s:
            raise RowFailed(f"waiting for an upload to expire: HEAD is answered {status}")
        time.sleep(_POLL_S)
