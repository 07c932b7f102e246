"""The rows rufh-*: appends of the IETF draft beside PATCHes of tus, in turn on one connection."""

from __future__ import annotations

from urllib.parse import urlsplit

from bench.extension_rows import RUFH_SHARE, TUS_CPU, TUS_RATE
from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.large import GB, MB, WARMUP_BYTES, send_bodies
from bench.load.meter import Meter
from bench.load.session import Session

# What iOS and macOS speak, with interim replies; they answer an append that leaves something 201.
_VERSION = b"Upload-Draft-Interop-Version: 6\r\n"
_BODY_TYPE = b"Content-Type: application/partial-upload\r\n"


class _Draft:
    """Renders requests of the draft to a creation URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path.encode("ascii")
        self._common = b" HTTP/1.1\r\nHost: " + parts.netloc.encode("ascii") + b"\r\n" + _VERSION

    def post(self, length: int) -> bytes:
        head = b"POST " + self._path + self._common + b"Upload-Complete: ?0\r\n"
        return head + b"Upload-Length: %d\r\nContent-Length: 0\r\n\r\n" % length

    def patch(self, path: bytes, *, offset: int, size: int, completes: bool) -> bytes:
        head = b"PATCH " + path + self._common + _BODY_TYPE
        head += b"Upload-Complete: ?%d\r\nUpload-Offset: %d\r\n" % (completes, offset)
        return head + b"Content-Length: %d\r\n\r\n" % size


def rufh_one_patch(session: Session) -> Outcome:
    return _beside_tus(session, size=session.sizes.big_bytes, count=1)


def rufh_patches(session: Session) -> Outcome:
    return _beside_tus(session, size=session.sizes.patch_bytes, count=session.sizes.patch_count)


def _beside_tus(session: Session, *, size: int, count: int) -> Outcome:
    """There and back, so that a drift hits both alike."""
    connection = session.connect()
    ways = (_send_tus, _send_draft)
    for way in ways:
        way(session, connection, size=min(size, WARMUP_BYTES), count=1)
    tus: list[Meter] = []
    draft: list[Meter] = []
    for way in (*ways, *reversed(ways)):
        done = draft if way is _send_draft else tus
        done.append(way(session, connection, size=size, count=count))
    sent = size * count * len(draft)
    tus_s, draft_s = (sum(one.wall_s for one in done) for done in (tus, draft))
    tus_cpu, draft_cpu = (_cpu_per_gb(done, sent) for done in (tus, draft))
    beside = {TUS_RATE: sent / MB / tus_s, RUFH_SHARE: tus_s / draft_s}
    if tus_cpu is not None:
        beside[TUS_CPU] = tus_cpu
    return Outcome(
        figure=sent / MB / draft_s,
        cpu=draft_cpu,
        load_cpu=max(one.load_cpu for one in draft),
        beside=beside,
    )


def _cpu_per_gb(meters: list[Meter], sent: int) -> float | None:
    used_s = [one.server_cpu_s for one in meters if one.server_cpu_s is not None]
    return sum(used_s) * GB / sent if used_s else None


def _send_tus(session: Session, connection: Connection, *, size: int, count: int) -> Meter:
    path = session.create(connection, size * count)
    heads = [session.requests.patch(path, offset=at * size, size=size) for at in range(count)]
    meter = send_bodies(session, connection, heads, size=size, statuses=[204] * count)
    session.terminate(connection, path)
    return meter


def _send_draft(session: Session, connection: Connection, *, size: int, count: int) -> Meter:
    draft = _Draft(session.url)
    path = session.note_created(connection.exchange(draft.post(size * count)))
    heads = [
        draft.patch(path, offset=at * size, size=size, completes=at == count - 1)
        for at in range(count)
    ]
    meter = send_bodies(session, connection, heads, size=size, statuses=[201] * count)
    session.terminate(connection, path)
    return meter
