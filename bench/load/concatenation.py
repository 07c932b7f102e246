"""The row concatenation: a final upload of large partial ones."""

from __future__ import annotations

import time

from bench import proc
from bench.extension_rows import COPY_RATE, READ_CALLS
from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.large import GB, send_bodies
from bench.load.replies import RowFailed, expect, upload_offset
from bench.load.session import Session

_POLL_S = 0.1
_TIMEOUT_S = 120.0


def concatenation(session: Session) -> Outcome:
    """Send the partial uploads; then the clock runs until HEAD of the final one has an offset."""
    size, count = session.sizes.partial_bytes, session.sizes.partials
    connection = session.connect()
    paths = [_partial(session, connection, size) for _ in range(count)]
    calls = 0 if session.pid is None else proc.read_calls(session.pid)
    meter = session.meter()
    path = session.note_created(connection.exchange(session.requests.join(paths)))
    _wait_joined(session, connection, path, size * count)
    meter.stop()
    total = size * count / GB
    beside = {COPY_RATE: total / meter.wall_s}
    if session.pid is not None:
        beside[READ_CALLS] = proc.read_calls(session.pid) - calls
    return Outcome(
        figure=meter.wall_s, cpu=meter.cpu_per(total), load_cpu=meter.load_cpu, beside=beside
    )


def _partial(session: Session, connection: Connection, size: int) -> bytes:
    post = session.requests.post(length=size, more=b"Upload-Concat: partial\r\n")
    path = session.note_created(connection.exchange(post))
    head = session.requests.patch(path, offset=0, size=size)
    send_bodies(session, connection, [head], size=size, statuses=[204])
    return path


def _wait_joined(session: Session, connection: Connection, path: bytes, length: int) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        reply = expect(connection.exchange(session.requests.head(path)), 200)
        if (offset := upload_offset(reply)) is not None:
            if offset != length:
                raise RowFailed(f"joined to {offset} bytes, not {length}: {reply}")
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not joined within {_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
