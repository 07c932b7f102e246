"""Nodes that deliver and are killed meanwhile, or whose Postgres is: no job is lost or doubled."""

import os
import random
import threading

import pytest

from tests.faults.fleet import Fleet
from tests.support.sink import Reply, SinkThread
from tests.support.told import Makers, answers, check_told
from tests.support.waiting import wait_until
from tus_server.engine.deliver import CONCURRENCY

FULL = os.environ.get("TUS_TEST_FULL") == "1"
KILLS = 12 if FULL else 6  # tests/e2e/test_delivery_crash.py has 200, of one server
# A claim of a node that was killed runs out after the longest of these, 5 s and 30 s.
TIMEOUTS = {f"TUS_{name}_TIMEOUT_S": "2" for name in ("JOB", "WEBHOOK", "HOOKS")}


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@pytest.mark.timeout(3000 if FULL else 400)
def test_no_job_is_lost_or_doubled_while_nodes_are_killed(fleet: Fleet, seed: int) -> None:
    rng, moment = random.Random(seed), threading.Event()
    with SinkThread() as sink:
        sink.decide = answers(seed)
        fleet.environment |= TIMEOUTS | {
            "TUS_SUCCESS_JOB": sink.url("/job"),
            "TUS_FAILURE_JOB": sink.url("/job"),
            "TUS_WEBHOOK_ALLOW_PRIVATE": "true",
            "TUS_HOOKS_URL": sink.url("/hooks"),
            "TUS_HOOKS_EVENTS": "post-create,post-receive,post-finish,post-terminate",
        }
        nodes = [fleet.node("a"), fleet.node("b")]
        with Makers([node.port for node in nodes], count=4, seed=seed):
            for _ in range(KILLS):
                moment.wait(rng.uniform(0, 1.0))  # never set: a random moment
                node = rng.choice(nodes)
                node.kill()
                node.start()
        sink.decide = lambda got: Reply()
        pending = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
        wait_until(lambda: fleet.query(pending) == [(0,)], "all is told", timeout_s=180)

        events = fleet.query("SELECT upload_id, kind, outcome FROM outbox ORDER BY id")
        assert len(events) > 10 * KILLS
        check_told(sink.received, events, kills=KILLS, most_lost=2 * CONCURRENCY)
