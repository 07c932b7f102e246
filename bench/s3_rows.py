"""The rows for servers that keep uploads in S3."""

from __future__ import annotations

from functools import partial

from bench.row import Mode, Row, Target, times

# Ours, by what is behind it: a real S3 server for what users see, a sink that throws bodies away
# for what we cost ourselves.
REAL, SINK, PAIR, COUNTED = "ours-s3", "ours-s3-sink", "ours-s3-nodes", "ours-s3-counted"
# As with the sink, but what gets no byte expires within seconds.
EXPIRING = "ours-s3-expiring"
PEER = "tus-node-s3"

# What `s3-calls` counts, and what it may come to: S3 requests and state round trips of one.
POST_BODY, HEAD = "POST with 4 KiB", "HEAD"
S3_REQUESTS, ROUND_TRIPS = "S3 requests", "state round trips"
DATABASE_CONNECTIONS = "database connections"

_s3_row = partial(Row, mode=Mode.S3, ours=(REAL,))


def _count(what: str, kind: str, bound: float) -> Target:
    count = f"{what}: {kind}"
    return Target(text=f"{count} <= {bound:g}", bound=bound, at_least=False, of_count=count)


S3_ROWS: tuple[Row, ...] = (
    _s3_row(
        name="s3-one-patch",
        title="1 GiB in one PATCH",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        ours=(REAL, SINK),
        is_bulk=True,
        targets=(
            times(3, PEER, "tusd: 2.7"),
            Target(
                text=f"cpu of {SINK} <= 1.1 s/GB (tusd: 2.3-3.0)",
                bound=1.1,
                at_least=False,
                of_cpu=True,
                server=SINK,
            ),
        ),
    ),
    _s3_row(
        name="s3-5mib",
        title="one upload in PATCHes of 5 MiB, one connection",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        ours=(REAL, SINK),
        is_bulk=True,
        targets=(times(4.5, PEER, "tusd: 2.9"),),
    ),
    _s3_row(
        name="s3-1mib",
        title="one upload in PATCHes of 1 MiB, one connection",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        ours=(REAL, SINK),
        is_bulk=True,
        targets=(times(15, PEER, "tusd: 2.9"),),
    ),
    _s3_row(
        name="s3-post-body",
        title="POST with a 4 KiB body, 16 clients",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        ours=(REAL, SINK),
    ),
    _s3_row(
        name="s3-head",
        title="HEAD, 16 clients",
        figure_unit="requests/s",
        cpu_unit="ms/request",
        targets=(times(10, PEER),),
    ),
    _s3_row(
        name="s3-slow",
        title="1,000 uploads at 64 KiB/s",
        figure_unit="MiB resident",
        cpu_unit="% of a core",
        of_memory=True,
        targets=(Target(text="<= 200 MiB", bound=200, at_least=False),),
    ),
    _s3_row(
        name="s3-takeover",
        title="HEAD on one node takes over a stalled PATCH on another",
        figure_unit="ms (median)",
        cpu_unit="ms/take-over",
        ours=(PAIR,),
        alone=True,
        targets=(Target(text="<= 200 ms", bound=200, at_least=False),),
    ),
    _s3_row(
        name="s3-connections",
        title="1,000 PATCHes in flight at once with a pool of 10",
        figure_unit="PATCHes/s",
        cpu_unit="ms/PATCH",
        ours=(SINK,),
        alone=True,
        # The pool, and the one connection that listens.
        targets=(
            Target(
                text=f"{DATABASE_CONNECTIONS} <= 11",
                bound=11,
                at_least=False,
                of_count=DATABASE_CONNECTIONS,
            ),
        ),
    ),
    _s3_row(
        name="s3-calls",
        title="what one request costs in calls",
        figure_unit="round trips/POST",
        cpu_unit="ms/POST",
        ours=(COUNTED,),
        alone=True,
        targets=(
            _count(POST_BODY, S3_REQUESTS, 1),
            _count(POST_BODY, ROUND_TRIPS, 2),
            _count(HEAD, S3_REQUESTS, 0),
            _count(HEAD, ROUND_TRIPS, 1),
        ),
    ),
)
