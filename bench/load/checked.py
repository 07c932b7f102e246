"""The row checked-patch: what it costs that the server looks at every byte."""

from __future__ import annotations

from bench.extension_rows import (
    SHA1,
    SHA1_CORE,
    SHA1_SHARE,
    SHA256,
    SHA256_CORE,
    SHA256_SHARE,
    UNCHECKED,
)
from bench.job import Outcome
from bench.load.blocks import checksum
from bench.load.connection import Connection
from bench.load.large import GB, MB, WARMUP_BYTES, send_bodies
from bench.load.meter import Meter
from bench.load.replies import expect
from bench.load.session import Session


def checked_patch(session: Session) -> Outcome:
    """PATCHes without and with a checksum, there and back, so that a drift hits all alike."""
    size = session.sizes.big_bytes
    connection = session.connect()
    for algorithm in ("sha256", "sha1"):
        _patch(session, connection, WARMUP_BYTES, checksum(algorithm, WARMUP_BYTES).field)
    _expect_mismatch(session, connection)
    sha256, sha1 = checksum("sha256", size), checksum("sha1", size)
    order = (b"", sha256.field, sha1.field)
    meters: dict[bytes, list[Meter]] = {field: [] for field in order}
    for field in (*order, *reversed(order)):
        meters[field].append(_patch(session, connection, size, field))
    rate = {
        field: size * len(done) / MB / sum(one.wall_s for one in done)
        for field, done in meters.items()
    }
    alone = {one.field: size / MB / one.took_s for one in (sha256, sha1)}
    possible = {field: min(rate[b""], alone[field]) for field in alone}
    checked = meters[sha256.field]
    cpu_s = [one.server_cpu_s for one in checked if one.server_cpu_s is not None]
    return Outcome(
        figure=rate[sha256.field],
        cpu=sum(cpu_s) * GB / size / len(cpu_s) if cpu_s else None,
        load_cpu=max(one.load_cpu for one in checked),
        beside={
            UNCHECKED: rate[b""],
            SHA256: rate[sha256.field],
            SHA1: rate[sha1.field],
            SHA256_CORE: alone[sha256.field],
            SHA1_CORE: alone[sha1.field],
            SHA256_SHARE: rate[sha256.field] / possible[sha256.field],
            SHA1_SHARE: rate[sha1.field] / possible[sha1.field],
        },
    )


def _expect_mismatch(session: Session, connection: Connection) -> None:
    """A server that does not look at the bytes is to have no figure."""
    path = session.create(connection, 2)
    field = checksum("sha256", 1).field
    request = session.requests.patch(path, offset=0, size=2, more=field) + b"no"
    expect(connection.exchange(request), 460)
    session.terminate(connection, path)


def _patch(session: Session, connection: Connection, size: int, field: bytes) -> Meter:
    """One upload in one PATCH with that header line, which is gone afterwards."""
    path = session.create(connection, size)
    head = session.requests.patch(path, offset=0, size=size, more=field)
    meter = send_bodies(session, connection, [head], size=size, statuses=[204])
    session.terminate(connection, path)
    return meter
