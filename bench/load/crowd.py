"""The row s3-connections: very many PATCHes in flight at once, all finished at once."""

from __future__ import annotations

import os
import select

from bench import proc
from bench.job import Outcome
from bench.load.connection import IDLE_TIMEOUT_S, Connection
from bench.load.replies import Reply, upload_offset
from bench.load.session import Session
from bench.s3_rows import DATABASE_CONNECTIONS


def crowd(session: Session) -> Outcome:
    """Ask for every body to be wanted, and send them when all are: each has its lease by then."""
    size = session.sizes.small_bytes
    body = os.urandom(size)
    paths = session.create_many(session.sizes.s3_connections, size)
    connections: list[Connection] = []
    try:
        meter = session.meter()
        for path in paths:
            connections.append(session.connect())
            head = session.requests.patch(path, offset=0, size=size, wait=True)
            connections[-1].send(head)
        for connection in connections:
            connection.wait_continue()
        busiest = _open_connections(session)
        for connection in connections:
            connection.send(body)
        replies = _gather(connections)
        busiest = max(busiest, _open_connections(session))
        meter.stop()
    finally:
        for connection in connections:
            connection.close()
    refused = [one for one in replies if one.status != 204 or upload_offset(one) != size]
    faults = []
    if refused:
        faults.append(f"{len(refused)} of {len(paths)} PATCHes failed: {refused[0]}")
    if len(replies) < len(paths):
        faults.append(f"{len(paths) - len(replies)} PATCHes had no reply")
    return Outcome(
        figure=len(replies) / meter.wall_s,
        cpu=meter.cpu_per(len(paths), scale=1000),
        load_cpu=meter.load_cpu,
        faults=tuple(faults),
        counts={DATABASE_CONNECTIONS: busiest} if session.state_port else {},
    )


def _open_connections(session: Session) -> int:
    return 0 if session.state_port is None else proc.connections_to(session.state_port)


def _gather(connections: list[Connection]) -> list[Reply]:
    """The replies to what is in flight, until all are there or nothing comes any more."""
    waiting = {connection.fileno(): connection for connection in connections}
    replies: list[Reply] = []
    with select.epoll() as epoll:
        for fd in waiting:
            epoll.register(fd, select.EPOLLIN)
        while waiting:
            events = epoll.poll(IDLE_TIMEOUT_S)
            if not events:
                break
            for fd, _ in events:
                reply = waiting[fd].receive_nowait()
                if reply is not None:
                    replies.append(reply)
                    epoll.unregister(fd)
                    del waiting[fd]
    return replies
