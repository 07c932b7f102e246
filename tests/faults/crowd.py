"""Patient clients on threads, each with one upload after the other until told to finish."""

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.faults.fleet import KIB, MIB, PatientClient

# Every content is a slice of this, so that a misplaced byte shows.
POOL = random.Random(20161).randbytes(32 * MIB)


class Crowd:
    """See the module. clients: all there ever were, those at work included."""

    def __init__(self, ports: Sequence[int], *, count: int, seed: int) -> None:
        self.clients: list[PatientClient] = []
        self.failures: list[BaseException] = []
        self._ports = ports
        self._count = count
        self._seed = seed
        self._finishing = threading.Event()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let the clients work; at the end they finish what they began."""
        with ThreadPoolExecutor(self._count) as threads:
            running = [
                threads.submit(self._work, random.Random(f"{self._seed}/{number}"))
                for number in range(self._count)
            ]
            try:
                yield
            finally:
                self._finishing.set()
        for client in running:
            client.result()

    def _work(self, rng: random.Random) -> None:
        try:
            while not (self._finishing.is_set() or self.failures):
                client = draw_client(rng, self._ports)
                self.clients.append(client)
                client.finish()
        except BaseException as exc:
            self.failures.append(exc)
            raise


def draw_client(rng: random.Random, ports: Sequence[int]) -> PatientClient:
    """Draw what the next upload is like: its length, and how much goes into one PATCH."""
    length = rng.choice(
        (rng.randrange(1, 64 * KIB), rng.randrange(MIB, 5 * MIB), rng.randrange(5 * MIB, 20 * MIB))
    )
    step = rng.choice((length, rng.randrange(MIB // 4, 2 * MIB), rng.randrange(5 * MIB, 9 * MIB)))
    start = rng.randrange(len(POOL) - length)
    return PatientClient(ports, POOL[start : start + length], step=step)
