"""The row s3-calls: how often one request makes the server ask S3 and Postgres."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.job import Outcome
from bench.load.connection import IDLE_TIMEOUT_S
from bench.load.replies import RowFailed, expect
from bench.load.session import Session
from bench.s3_rows import HEAD, POST_BODY, ROUND_TRIPS, S3_REQUESTS

# A heartbeat falls into one batch or another: the median has none.
_BATCHES = 5
_BIG_BYTES = 32 << 20


class _Counts(NamedTuple):
    """What the server has asked for so far."""

    s3_requests: int
    round_trips: int


def calls(session: Session) -> Outcome:
    """Send every kind of request a few times, one after another, and count."""
    connection = session.connect()
    requests = session.requests
    size = session.sizes.small_bytes
    body = os.urandom(size)
    fresh: list[bytes] = []

    def post(length: int, content: bytes = b"") -> None:
        reply = connection.exchange(requests.post(length=length, body=content))
        fresh.append(session.note_created(reply))

    def patch(content: bytes) -> None:
        head = requests.patch(fresh.pop(), offset=0, size=size)
        expect(connection.exchange(head + content), 204, offset=size)

    def big_patch() -> None:
        connection.send(requests.patch(fresh.pop(), offset=0, size=_BIG_BYTES))
        connection.send_body(_BIG_BYTES)
        expect(connection.wait_reply(), 204, offset=_BIG_BYTES)

    def head() -> None:
        expect(connection.exchange(requests.head(fresh[-1])), 200)

    post(size, body)
    meter = session.meter()
    counts: dict[str, float] = {}

    def count(kind: str, act: Callable[[], None], *, before: Callable[[], None] | None) -> None:
        found = [_batch(session, act, before) for _ in range(_BATCHES)]
        counts[f"{kind}: {S3_REQUESTS}"] = statistics.median(one[0] for one in found)
        counts[f"{kind}: {ROUND_TRIPS}"] = statistics.median(one[1] for one in found)

    count(POST_BODY, lambda: post(size, body), before=None)
    meter.stop()
    count("POST", lambda: post(size), before=None)
    count(HEAD, head, before=None)
    count("PATCH that completes 4 KiB", lambda: patch(body), before=lambda: post(size))
    count("PATCH of the first 4 KiB", lambda: patch(body), before=lambda: post(size * 2))
    count("PATCH of 32 MiB", big_patch, before=lambda: post(_BIG_BYTES))
    return Outcome(
        figure=counts[f"{POST_BODY}: {ROUND_TRIPS}"],
        cpu=meter.cpu_per(session.sizes.calls * _BATCHES, scale=1000),
        load_cpu=meter.load_cpu,
        counts=counts,
    )


def _batch(
    session: Session, act: Callable[[], None], before: Callable[[], None] | None
) -> tuple[float, float]:
    """S3 requests and round trips of one act, over as many as the row says."""
    times = session.sizes.calls
    for _ in range(times if before is not None else 0):
        assert before is not None
        before()
    start = _read_counts(session)
    for _ in range(times):
        act()
    end = _read_counts(session)
    return (
        (end.s3_requests - start.s3_requests) / times,
        (end.round_trips - start.round_trips) / times,
    )


def _read_counts(session: Session) -> _Counts:
    if session.counts_url is None:
        raise RowFailed("nothing counts the calls of this server")
    parts = urlsplit(session.counts_url)
    connection = HTTPConnection(parts.netloc, timeout=IDLE_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        found = json.load(connection.getresponse())
    finally:
        connection.close()
    return _Counts(sum(found["s3"].values()), found["round_trips"])
