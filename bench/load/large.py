"""Rows with large bodies on one connection: one PATCH, or many."""

from __future__ import annotations

from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.meter import Meter
from bench.load.replies import expect
from bench.load.session import Session

WARMUP_BYTES = 32 << 20
MB = 1e6
GB = 1e9


def one_patch(session: Session) -> Outcome:
    """One upload in one PATCH. The clock runs from the PATCH's head to its reply."""
    connection = session.connect()
    _upload(session, connection, size=WARMUP_BYTES, count=1)
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
    _upload(session, connection, size=size, count=max(1, WARMUP_BYTES // size))
    meter = _upload(session, connection, size=size, count=count)
    return _outcome(meter, size * count)


def _upload(session: Session, connection: Connection, *, size: int, count: int) -> Meter:
    """Upload count bodies of size bytes to one new upload; the meter covers the PATCHes."""
    length = size * count
    path = session.create(connection, length)
    heads = [
        session.requests.patch(path, offset=offset, size=size) for offset in range(0, length, size)
    ]
    meter = send_bodies(session, connection, heads, size=size, statuses=[204] * count)
    expect(connection.exchange(session.requests.head(path)), 200, offset=length)
    return meter


def send_bodies(
    session: Session, connection: Connection, heads: list[bytes], *, size: int, statuses: list[int]
) -> Meter:
    """Send each head with size bytes behind it, when the one before was answered as it should be.

    The meter covers all of it.
    """
    meter = session.meter()
    offset = 0
    for head, status in zip(heads, statuses, strict=True):
        connection.send(head)
        connection.send_body(size)
        offset += size
        expect(connection.wait_reply(), status, offset=offset)
    meter.stop()
    return meter


def _outcome(meter: Meter, sent_bytes: int) -> Outcome:
    return Outcome(
        figure=sent_bytes / MB / meter.wall_s,
        cpu=meter.cpu_per(sent_bytes / GB),
        load_cpu=meter.load_cpu,
    )
