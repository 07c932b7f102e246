"""Rows of small requests from many clients at once: post-patch, post-body and head."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

from bench.job import Outcome
from bench.load.closed_loop import ClosedLoop, Script
from bench.load.replies import expect
from bench.load.session import Session


class Tally:
    """How many times a row's clients have finished what they repeat."""

    def __init__(self) -> None:
        self.done = 0


def post_patch(session: Session) -> Outcome:
    """Every client creates an upload, sends its bytes in one PATCH, and starts over."""
    tally = Tally()
    size = session.sizes.small_bytes
    post = session.requests.post(length=size)
    patch_tail = session.requests.patch_tail(offset=0, size=size) + os.urandom(size)

    def client() -> Script:
        while True:
            path = session.note_created((yield post))
            expect((yield b"PATCH " + path + patch_tail), 204, offset=size)
            tally.done += 1

    return measure(session, tally, (client() for _ in range(session.sizes.clients)))


def post_body(session: Session) -> Outcome:
    """Every client creates uploads whose bytes come with the POST."""
    tally = Tally()
    size = session.sizes.small_bytes
    post = session.requests.post(length=size, body=os.urandom(size))

    def client() -> Script:
        while True:
            reply = yield post
            session.note_created(expect(reply, 201, offset=size))
            tally.done += 1

    return measure(session, tally, (client() for _ in range(session.sizes.clients)))


def head(session: Session) -> Outcome:
    """Every client asks for the offsets of half-received uploads, a different one each time."""
    tally = Tally()
    sizes = session.sizes
    size = sizes.small_bytes
    paths = session.create_many(sizes.head_uploads, size * 2)
    patch_tail = session.requests.patch_tail(offset=0, size=size) + os.urandom(size)

    def fill(share: list[bytes]) -> Script:
        for path in share:
            expect((yield b"PATCH " + path + patch_tail), 204, offset=size)

    session.run_all(fill(paths[i :: sizes.clients]) for i in range(sizes.clients))
    requests = [session.requests.head(path) for path in paths]

    def client(first: int) -> Script:
        # Each starts elsewhere, so that no two ask for the same upload at once.
        for request in itertools.cycle(requests[first:] + requests[:first]):
            expect((yield request), 200, offset=size)
            tally.done += 1

    apart = len(requests) // sizes.clients
    return measure(session, tally, (client(i * apart) for i in range(sizes.clients)))


def measure(session: Session, tally: Tally, clients: Iterable[Script]) -> Outcome:
    """Let clients repeat what they do for the row's time."""
    loop = ClosedLoop(session.address, clients)
    try:
        loop.run(session.sizes.warmup_s)
        before = tally.done
        meter = session.meter()
        loop.run(session.sizes.window_s)
        meter.stop()
    finally:
        loop.close()
    done = tally.done - before
    return Outcome(
        figure=done / meter.wall_s,
        cpu=meter.cpu_per(done, scale=1000),
        load_cpu=meter.load_cpu,
    )
