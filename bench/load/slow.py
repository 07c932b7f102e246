"""The rows slow: very many uploads that arrive slowly, paced by one epoll loop."""

from __future__ import annotations

import os
import select
import time

from bench import proc
from bench.job import Outcome
from bench.load.connection import Connection
from bench.load.replies import RowFailed, upload_offset
from bench.load.session import Session

_ROUND_S = 0.25
_TICKS_PER_ROUND = 50
_CONNECTS_PER_TICK = 5
_UNREAD_LIMIT = 0.1
_CHECKED_UPLOADS = 16
_SETTLE_S = 10.0


class _SlowUpload:
    """One PATCH whose body comes piece by piece and never ends."""

    __slots__ = ("connection", "path", "sent_bytes")

    def __init__(self, session: Session, path: bytes, length: int) -> None:
        self.path = path
        self.sent_bytes = 0
        self.connection = session.connect()
        self.connection.send(session.requests.patch(path, offset=0, size=length))


class _Pacer:
    """Sends one piece of every upload in each round; uploads are spread over a round's ticks."""

    def __init__(self, session: Session, piece: bytes, length: int) -> None:
        self._session = session
        self._length = length
        self._piece = piece
        self._epoll = select.epoll()
        self._ticks: list[list[_SlowUpload]] = [[] for _ in range(_TICKS_PER_ROUND)]
        self._tick = 0
        self._due_s = time.monotonic()
        self.uploads: list[_SlowUpload] = []
        self.late_pieces = 0

    def add(self, path: bytes) -> None:
        upload = _SlowUpload(self._session, path, self._length)
        self._epoll.register(upload.connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        self._ticks[len(self.uploads) % _TICKS_PER_ROUND].append(upload)
        self.uploads.append(upload)

    def tick(self) -> None:
        """Wait for the next tick and send what is due.

        Raises: RowFailed, when the server answers or closes any of the unfinished requests.
        """
        self._due_s += _ROUND_S / _TICKS_PER_ROUND
        while (wait_s := self._due_s - time.monotonic()) > 0:
            for fd, _ in self._epoll.poll(wait_s):
                self._fail(fd)
        piece = self._piece
        for upload in self._ticks[self._tick]:
            try:
                sent = upload.connection.sock.send(piece)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                self._fail(upload.connection.fileno())
                raise
            upload.sent_bytes += sent
            self.late_pieces += sent < len(piece)
        self._tick = (self._tick + 1) % _TICKS_PER_ROUND

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / _ROUND_S * _TICKS_PER_ROUND)):
            self.tick()

    def close(self) -> None:
        for upload in self.uploads:
            upload.connection.close()
        self._epoll.close()

    def _fail(self, fd: int) -> None:
        upload = next(one for one in self.uploads if one.connection.fileno() == fd)
        reply = upload.connection.receive_nowait()
        raise RowFailed(f"answered an unfinished PATCH {upload.sent_bytes} bytes in: {reply}")


def slow(session: Session) -> Outcome:
    """Uploads whose pieces are far smaller than what a disk likes to be given."""
    sizes = session.sizes
    return _trickle(session, sizes.slow_uploads, sizes.slow_bytes_per_s, length=8 << 20)


def slow_s3(session: Session) -> Outcome:
    """Uploads of several parts, none of which gets full while the row lasts."""
    sizes = session.sizes
    return _trickle(session, sizes.s3_slow_uploads, sizes.s3_slow_bytes_per_s, length=64 << 20)


def _trickle(session: Session, count: int, bytes_per_s: int, *, length: int) -> Outcome:
    """Many PATCHes at a steady trickle; the bench samples the server's memory meanwhile."""
    sizes = session.sizes
    piece = os.urandom(round(bytes_per_s * _ROUND_S))
    paths = session.create_many(count, length)
    pacer = _Pacer(session, piece, length)
    try:
        for i, path in enumerate(paths):
            pacer.add(path)
            if i % _CONNECTS_PER_TICK == 0:
                pacer.tick()
        pacer.run(1.0)
        meter = session.meter()
        pacer.run(sizes.slow_s)
        meter.stop()
        unread = proc.unread_bytes(session.address[1])
    finally:
        pacer.close()
    faults = _find_faults(session, pacer, unread)
    return Outcome(
        cpu=meter.cpu_per(meter.wall_s, scale=100),
        load_cpu=meter.load_cpu,
        faults=tuple(faults),
    )


def _find_faults(session: Session, pacer: _Pacer, unread: int) -> list[str]:
    """What shows that the server did not really take the load."""
    faults = []
    sent = sum(upload.sent_bytes for upload in pacer.uploads)
    if pacer.late_pieces:
        faults.append(f"{pacer.late_pieces} pieces could not be sent in time")
    # Bytes that wait in the kernel cost the server no memory: they would flatter the figure.
    if unread > sent * _UNREAD_LIMIT:
        faults.append(f"{unread >> 20} of {sent >> 20} MiB were still unread at the end")
    checked = pacer.uploads[:: max(1, len(pacer.uploads) // _CHECKED_UPLOADS)]
    wrong = _wrong_offsets(session, checked)
    if wrong:
        faults.append(f"{len(wrong)} of {len(checked)} offsets after the cut wrong: {wrong[0]}")
    return faults


def _wrong_offsets(session: Session, uploads: list[_SlowUpload]) -> list[str]:
    """Uploads whose offset does not come to what was sent before their connections were cut."""
    deadline_s = time.monotonic() + _SETTLE_S
    connection: Connection = session.connect()
    wrong = []
    for upload in uploads:
        while True:
            reply = connection.exchange(session.requests.head(upload.path))
            if reply.status == 200 and upload_offset(reply) == upload.sent_bytes:
                break
            if time.monotonic() > deadline_s:
                wrong.append(f"sent {upload.sent_bytes}, got {upload_offset(reply)} with {reply}")
                break
            time.sleep(0.1)
    connection.close()
    return wrong
