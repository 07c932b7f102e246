"""The parts of one direct upload on their way to the store, several at a time."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import IO, Final

import requests

from tus_server.cli.asking import ask, shown_url
from tus_server.cli.direct_api import SentPart, StoredPart, Ticket, open_session, plain_etag
from tus_server.cli.direct_tickets import Tickets
from tus_server.cli.file_section import SummedSection
from tus_server.cli.patience import Patience, Watcher
from tus_server.cli.replies import (
    Reply,
    TransferFailed,
    UploadGone,
    find_store_error,
    passes,
    plain_refusal,
)

# No such upload any more, or not one that takes parts: what the server says of it tells more.
_LOOK_AGAIN: Final = frozenset({404, 409, 410})
# 400s of S3, where the status tells too little:
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_S3_EXPIRED: Final = frozenset({"ExpiredToken"})
_S3_TOO_SLOW: Final = frozenset({"RequestTimeout", "IncompleteBody"})


class PartRefused(TransferFailed):
    """The store does not take the part; what the server says of the upload may tell why."""


class Stopped(Exception):
    """Another part has failed for good, or the person wants no more."""


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """Bytes [start, start + size) of the file. stored: what the store has of it already."""

    number: int
    start: int
    size: int
    stored: StoredPart | None = None


class Tally:
    """How many bytes there are, over all threads. moved: what is on its way counts too."""

    def __init__(self, watcher: Watcher, patience: Patience, arrived: int) -> None:
        self._watcher = watcher
        self._patience = patience
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}
        self._arrived = arrived

    def sent(self, part: PlannedPart, size: int) -> None:
        """Take note that `size` bytes of a part have been sent, 0 after a failure."""
        with self._lock:
            self._under_way[part.number] = size
            self._watcher.moved(self._arrived + sum(self._under_way.values()))

    def arrived(self, part: PlannedPart) -> None:
        with self._lock:
            self._under_way.pop(part.number, None)
            self._arrived += part.size
            self._watcher.moved(self._arrived + sum(self._under_way.values()))
            self._patience.reached(self._arrived)

    def lost(self, part: PlannedPart) -> None:
        """Take note that a part that was thought to have arrived has not."""
        with self._lock:
            self._arrived -= part.size

    def settle(self) -> None:
        """Tell what has arrived; what is under way is given up."""
        with self._lock:
            self._under_way.clear()
            self._watcher.moved(self._arrived)


class Sender:
    """Sends parts of an open file by several threads."""

    def __init__(
        self,
        file: IO[bytes],
        tickets: Tickets,
        tally: Tally,
        patience: Patience,
        stopped: threading.Event,
        sent: dict[int, SentPart],
    ) -> None:
        """stopped: set while threads are to end, and then the patience sleeps no longer.

        sent: by number, what this run has sent before and is still so; what is sent joins it.
        """
        self._file = file
        self._tickets = tickets
        self._tally = tally
        self._patience = patience
        self._stopped = stopped
        self._sent = sent

    def send(self, parts: Sequence[PlannedPart], *, parallel: int) -> list[SentPart]:
        """Send what has not arrived, sum up what has; give all of them when they are there.

        Raises: PartRefused, TransferFailed, UploadGone: some parts have arrived then. No thread is
        left, but after KeyboardInterrupt, when they end by themselves or with the process.
        """
        waiting: SimpleQueue[PlannedPart] = SimpleQueue()
        for part in parts:
            waiting.put(part)
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        threads = [
            # The process does not wait for them at its end.
            threading.Thread(target=self._work, args=(waiting, ended), daemon=True)
            for _ in range(min(parallel, len(parts)))
        ]
        failures = []
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                failure = ended.get()
                if failure is not None:
                    self._stopped.set()
                    failures.append(failure)
        except BaseException:
            self._stopped.set()
            raise
        finally:
            self._tally.settle()
        self._stopped.clear()
        for failure in failures:
            if not isinstance(failure, Stopped):
                raise failure
        return [self._sent[part.number] for part in parts]

    def _work(
        self, waiting: SimpleQueue[PlannedPart], ended: SimpleQueue[BaseException | None]
    ) -> None:
        try:
            with open_session() as session:
                while not self._stopped.is_set() and not waiting.empty():
                    with suppress(Empty):
                        self._bring(session, waiting.get_nowait())
        # Whatever it is, it is raised by send().
        except BaseException as exc:
            ended.put(exc)
        else:
            ended.put(None)

    def _bring(self, session: requests.Session, part: PlannedPart) -> None:
        if part.number in self._sent:
            return
        if part.stored is not None:
            assert part.stored.etag is not None
            section = SummedSection(self._file, part.start, part.size, self._check_stopped)
            deque(section, maxlen=0)
            if part.stored.crc64 in (None, section.crc64):
                self._sent[part.number] = SentPart(part.number, part.stored.etag, section.crc64)
                return
            self._tally.lost(part)
        while True:
            outages = self._patience.outages
            try:
                sent = self._put(session, part)
            except (PartRefused, UploadGone):
                raise
            except TransferFailed as failure:
                self._tally.sent(part, 0)
                self._patience.wait(failure, outages)
                self._check_stopped()
            else:
                self._tally.arrived(part)
                self._sent[part.number] = sent
                return

    def _put(self, session: requests.Session, part: PlannedPart) -> SentPart:
        def moved(position: int) -> None:
            self._check_stopped()
            self._tally.sent(part, position - part.start)

        ticket = self._tickets.take(part.number)
        for may_sign_again in (True, False):
            body = SummedSection(self._file, part.start, part.size, moved)
            # requests would send what is empty and has no length in chunks.
            content = body if part.size else b""
            reply = ask(session, ticket.method, ticket.url, ticket.headers, content)
            if 200 <= reply.status < 300:
                etag = reply.headers.get("etag")
                if not etag:
                    raise TransferFailed(f"{_where(part, ticket)} answered without an ETag")
                return SentPart(part.number, plain_etag(etag), body.crc64)
            if not (may_sign_again and _has_expired(reply)):
                break
            ticket = self._tickets.take(part.number)
        raise _refusal(part, ticket, reply)

    def _check_stopped(self, position: int = 0) -> None:
        if self._stopped.is_set():
            raise Stopped


def _has_expired(reply: Reply) -> bool:
    """Tell whether a request with a new signature may be taken."""
    return reply.status == HTTPStatus.FORBIDDEN or find_store_error(reply)[0] in _S3_EXPIRED


def _refusal(part: PlannedPart, ticket: Ticket, reply: Reply) -> TransferFailed:
    where = _where(part, ticket)
    if _has_expired(reply):
        # What was just signed is refused for another reason, but on a line so slow, or by a
        # server that signs for so short.
        had_ended = time.monotonic() >= ticket.ends_s
        return plain_refusal(ticket.method, where, reply, may_pass=had_ended)
    if reply.status in _LOOK_AGAIN:
        return PartRefused(str(plain_refusal(ticket.method, where, reply)), may_pass=True)
    too_slow = find_store_error(reply)[0] in _S3_TOO_SLOW
    return plain_refusal(ticket.method, where, reply, may_pass=too_slow or passes(reply.status))


def _where(part: PlannedPart, ticket: Ticket) -> str:
    return f"part {part.number} at {shown_url(ticket.url)}"
