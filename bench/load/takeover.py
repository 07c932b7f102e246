"""The rows takeover: how soon a HEAD is answered while a stalled PATCH holds the upload."""

from __future__ import annotations

import statistics
import time

from bench.job import Outcome
from bench.load.replies import RowFailed, expect, upload_offset
from bench.load.session import Session

_TRY_TIMEOUT_S = 3.0
_MOST_TIMEOUTS = 3


def takeover(session: Session) -> Outcome:
    """Stall a PATCH half-way, ask with HEAD on another connection, and check its offset.

    Where the server has another node, that one is asked.
    """
    sizes = session.sizes
    creating = session.connect()
    asking = session.connect_other()
    waits_ms: list[float] = []
    wrong: list[int | None] = []
    timeouts = 0
    total = session.meter()
    for _ in range(sizes.takeover_tries):
        path = session.create(creating, sizes.takeover_sent_bytes * 2)
        stalled = session.connect()
        stalled.send(session.requests.patch(path, offset=0, size=sizes.takeover_sent_bytes * 2))
        stalled.send_body(sizes.takeover_sent_bytes)
        time.sleep(sizes.takeover_stall_s)
        start_s = time.perf_counter()
        asking.send(session.other.head(path))
        try:
            reply = expect(asking.wait_reply(_TRY_TIMEOUT_S), 200)
        except TimeoutError:
            timeouts += 1
            waits_ms.append(_TRY_TIMEOUT_S * 1000)
            asking.close()
            asking = session.connect_other()
        else:
            waits_ms.append((time.perf_counter() - start_s) * 1000)
            if upload_offset(reply) != sizes.takeover_sent_bytes:
                wrong.append(upload_offset(reply))
        stalled.close()
        if timeouts == _MOST_TIMEOUTS:
            raise RowFailed(f"timeout: {timeouts} HEADs had no reply within {_TRY_TIMEOUT_S:g} s")
    total.stop()
    faults = []
    if timeouts:
        faults.append(f"{timeouts} of {len(waits_ms)} HEADs had no reply in {_TRY_TIMEOUT_S:g} s")
    if wrong:
        faults.append(
            f"{len(wrong)} of {len(waits_ms)} HEADs carried a wrong offset: "
            f"{wrong[0]}, though {sizes.takeover_sent_bytes} had been sent"
        )
    return Outcome(
        figure=statistics.median(waits_ms),
        cpu=total.cpu_per(len(waits_ms), scale=1000),
        load_cpu=total.load_cpu,
        faults=tuple(faults),
    )
