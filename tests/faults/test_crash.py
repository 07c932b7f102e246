"""A node that ends in the middle of its work, Postgres and S3 stay: what it acknowledged is there.

Its data directory stays too, so that its tails are there when it is back.
"""

import os
import random
import threading
import time

import pytest

from tests.faults.crowd import Crowd
from tests.faults.fleet import MIB, Fleet, PatientClient
from tests.support.tus import pattern

FULL = os.environ.get("TUS_TEST_FULL") == "1"
CLIENTS = 6
# Between a start and the next end, now and again and usually: at least then much is done.
LONG_RUN_S = 2.0
SHORT_RUN_S = 0.3


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@pytest.mark.timeout(1200 if FULL else 180)
def test_a_node_killed_again_and_again_loses_nothing_it_acknowledged(
    fleet: Fleet, seed: int
) -> None:
    rng = random.Random(seed)
    node = fleet.node()
    crowd = Crowd([node.port], count=CLIENTS, seed=seed)
    moment = threading.Event()

    with crowd.working():
        for number in range(200 if FULL else 20):
            most_s = LONG_RUN_S if number % 10 == 9 else SHORT_RUN_S
            moment.wait(rng.uniform(0, most_s))  # never set: a random moment
            node.kill()
            assert not crowd.failures
            node.start()

    assert sum(len(client.content) for client in crowd.clients) > MIB
    fleet.check_whole(*crowd.clients)


def test_a_node_told_to_stop_keeps_what_arrived_and_goes_on_when_it_is_back(fleet: Fleet) -> None:
    node = fleet.node(TUS_SHUTDOWN_TIMEOUT_S="10")
    crowd = Crowd([node.port], count=CLIENTS, seed=1)
    held = PatientClient([node.port], pattern(9 * MIB))
    url = held.create()

    with crowd.working():
        for _ in range(3 if FULL else 1):
            # One that sends nothing for now; the server has all it sent before.
            start = held.look()
            with held.tus.hold(url, start, held.content[start : start + MIB]):
                began_s = time.monotonic()
                assert node.stop() == 0
                assert time.monotonic() - began_s < 10
            node.start()
            assert held.look() == start + MIB
            held.acknowledged = start + MIB

    held.finish()
    fleet.check_whole(held, *crowd.clients)
