"""The rows webhooks and s3-webhooks: how fast a backlog of events is delivered."""

from __future__ import annotations

import json
import os
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from bench.job import Outcome
from bench.load.closed_loop import Script
from bench.load.replies import RowFailed, expect
from bench.load.session import Session

_POLL_S = 0.05
_TIMEOUT_S = 120.0


def webhooks(session: Session) -> Outcome:
    """The receiver holds its answers while uploads are made; the clock begins when it opens."""
    if session.counts_url is None:
        raise RowFailed("nobody receives the webhooks of this server")
    address = urlsplit(session.counts_url)
    receiver = HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
    wanted = session.sizes.webhooks
    _upload(session, wanted)
    meter = session.meter()
    _ask(receiver, "POST", "/__open")
    deadline_s = time.monotonic() + _TIMEOUT_S
    while (arrived := json.loads(_ask(receiver, "GET", "/__counts"))["webhooks"]) < wanted:
        if time.monotonic() > deadline_s:
            raise RowFailed(f"{arrived} of {wanted} webhooks have arrived")
        time.sleep(_POLL_S)
    meter.stop()
    # Settled means told once; what was told twice would come within the next look at the outbox.
    time.sleep(1.0)
    arrived = json.loads(_ask(receiver, "GET", "/__counts"))["webhooks"]
    return Outcome(
        figure=wanted / meter.wall_s,
        cpu=meter.cpu_per(wanted, scale=1000),
        load_cpu=meter.load_cpu,
        faults=() if arrived == wanted else (f"{arrived} webhooks for {wanted} uploads",),
    )


def _upload(session: Session, count: int) -> None:
    size, clients = session.sizes.small_bytes, session.sizes.clients
    post = session.requests.post(length=size, body=os.urandom(size))

    def client(share: int) -> Script:
        for _ in range(share):
            session.note_created(expect((yield post), 201, offset=size))

    session.run_all(client(count // clients + (i < count % clients)) for i in range(clients))


def _ask(receiver: HTTPConnection, method: str, path: str) -> bytes:
    receiver.request(method, path)
    answer = receiver.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RowFailed(f"the receiver of webhooks answers {answer.status}")
    return content
