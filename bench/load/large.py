"""Rows with large bodies on one connection: one PATCH, or many."""

from __future__ import annotations

from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.meter import Meter
from bench.load.replies import expect
from bench.load.session import Session

_WARMUP_BYTES = 32 << 20
_MB = 1e6
_GB = 1e9


def one_patch(session: Session) -> Outcome:
    """One upload in one PATCH. The clock runs from the PATCH's head to its reply."""
    connection = session.connect()
    _upload(session, connection, size=_WARMUP_BYTES, count=1)
    meter = _upload(session, connection, size=session.sizes.big_bytes, count=1)
    return _outcome(meter, session.sizes.big_bytes)


def small_patches(session: Session) -> Outcome:
    return _patches(session, size=session.sizes.patch_bytes, count=session.sizes.patch_count)


def patches_of_5mib(session: Session) -> Outcome:
    return _patches(session, size=5 << 20, count=session.sizes.s3_patches_5mib)


def patches_of_1mib(session: Session) -> Outcome:
    return _patches(session, size=1 << 20, count=session.sizes.s3_patches_1mib)


def _patches(session: Session, *, size: int, count: int) -> Outcome:
    """One upload in many PATCHes, each sent when the one before was answered."""
    connection = session.connect()
    _upload(session, connection, size=size, count=max(1, _WARMUP_BYTES // size))
    meter = _upload(session, connection, size=size, count=count)
    return _outcome(meter, size * count)


def _upload(session: Session, connection: Connection, *, size: int, count: int) -> Meter:
    """Upload count bodies of size bytes to one new upload; the meter covers the PATCHes."""
    length = size * count
    path = session.create(connection, length)
    heads = [
        session.requests.patch(path, offset=offset, size=size) for offset in range(0, length, size)
    ]
    meter = session.meter()
    offset = 0
    for head in heads:
        connection.send(head)
        connection.send_body(size)
        offset += size
        expect(connection.wait_reply(), 204, offset=offset)
    meter.stop()
    expect(connection.exchange(session.requests.head(path)), 200, offset=length)
    return meter


def _outcome(meter: Meter, sent_bytes: int) -> Outcome:
    return Outcome(
        figure=sent_bytes / _MB / meter.wall_s,
        cpu=meter.cpu_per(sent_bytes / _GB),
        load_cpu=meter.load_cpu,
    )
