"""The rows for servers that keep uploads on the local disk."""

from __future__ import annotations

from bench.row import Row, Target, times

PEER = "tuspyserver"

DISK_ROWS: tuple[Row, ...] = (
    Row(
        name="one-patch",
        title="1 GiB in one PATCH",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        targets=(
            times(1.4, PEER, "tusd: 1.38"),
            Target(
                text="cpu <= 0.65 x tuspyserver (tusd: 0.85)",
                bound=0.65,
                at_least=False,
                of_cpu=True,
                peer=PEER,
            ),
        ),
    ),
    Row(
        name="small-patches",
        title="256 x 1 MiB PATCHes, one connection",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        targets=(times(1.5, PEER),),
    ),
    Row(
        name="post-patch",
        title="POST + PATCH of 4 KiB, 16 clients",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        targets=(times(3.2, PEER, "aim: 4"),),
    ),
    Row(
        name="post-body",
        title="POST with a 4 KiB body, 16 clients",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        targets=(times(3.0, PEER),),
    ),
    Row(
        name="head",
        title="HEAD, 16 clients",
        figure_unit="requests/s",
        cpu_unit="ms/request",
        targets=(times(4.0, PEER),),
    ),
    Row(
        name="slow",
        title="2,000 uploads at 16 KiB/s",
        figure_unit="MiB resident",
        cpu_unit="% of a core",
        of_memory=True,
        targets=(Target(text="<= 160 MiB", bound=160, at_least=False),),
    ),
    Row(
        name="takeover",
        title="HEAD takes over a stalled PATCH",
        figure_unit="ms (median)",
        cpu_unit="ms/take-over",
        targets=(Target(text="<= 50 ms", bound=50, at_least=False),),
    ),
)
