"""What an application was told of uploads, compared with what became of them."""

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from tests.support.http import ConnectionEnded
from tests.support.sink import Received, Reply
from tests.support.tus import Tus

ORDER = ("post-create", "post-receive", "post-finish", "post-terminate")


class Makers:
    """Clients that make small uploads on threads until they are stopped, whatever happens.

    Some are deleted, finished or not. Without a server there is nothing to do but try again.
    """

    def __init__(self, ports: Sequence[int], *, count: int, seed: int) -> None:
        self._ports = ports
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._make, args=(random.Random(f"{seed}/{number}"),))
            for number in range(count)
        ]
        self.failures: list[BaseException] = []

    def __enter__(self) -> "Makers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for failure in self.failures:
            raise failure

    def _make(self, rng: random.Random) -> None:
        try:
            while not self._stop.is_set():
                with suppress(OSError, ConnectionEnded):
                    self._make_one(Tus(rng.choice(self._ports)), rng)
                self._stop.wait(rng.uniform(0, 0.1))
        except BaseException as exc:
            self.failures.append(exc)
            raise

    def _make_one(self, tus: Tus, rng: random.Random) -> None:
        kind = rng.choice(("whole", "whole", "whole", "half", "deleted", "stepped"))
        if kind == "half":
            reply = tus.create(6)
        else:
            reply = tus.create(3, body=b"" if kind == "stepped" else b"abc")
        if reply.status != 201:
            return
        url = reply["location"]
        if kind == "stepped":
            tus.patch(url, 0, b"abc")
        elif kind in ("half", "deleted"):
            tus.delete(url)


def answers(seed: int) -> Callable[[Received], Reply]:
    """Answer as an application does on a bad day: mostly well."""
    rng = random.Random(seed)

    def decide(got: Received) -> Reply:
        return rng.choices((Reply(), Reply(500), Reply(cuts=True)), (95, 4, 1))[0]

    return decide


def check_told(
    received: Sequence[Received],
    events: Iterable[tuple[str, str, str | None]],
    *,
    kills: int,
    most_lost: int,
) -> None:
    """Check that every event has arrived, in order, and little more than once.

    events: upload, kind and outcome of every row of the outbox, oldest first. most_lost: what an
    end may leave on its way, to be told again.
    """
    rows = list(events)
    decided = [(upload, kind) for upload, kind, outcome in rows if outcome is not None]
    assert len({upload for upload, _ in decided}) == len(decided), "an outcome was decided twice"
    ended = {upload for upload, kind, _ in rows if kind not in ("initiated", "receiving")}
    assert {upload for upload, _ in decided} == ended, "an outcome was not decided"
    jobs = [got for got in received if got.path == "/job"]
    hooks = [got for got in received if got.path == "/hooks"]
    assert {got.fields["webhook-id"] for got in jobs} == {f"{one}.{kind}" for one, kind in decided}
    told = defaultdict(list)
    for got in hooks:
        told[got.document["Event"]["Upload"]["ID"]].append(ORDER.index(got.document["Type"]))
    assert set(told) == {upload for upload, _, _ in rows}
    for upload, kinds in told.items():
        assert kinds == sorted(kinds), f"{upload} was told in the order {kinds}"
    # Each target of each event, tries that were answered by a failure apart.
    answered = len(received)
    wanted = len(decided) + len(rows)
    assert answered - wanted <= 0.15 * answered + kills * most_lost
