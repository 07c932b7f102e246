"""The real server, killed while it delivers: no job and no event is lost, or doubled in the outbox.

In what is told, an event may come twice: what was on its way when the server ended.
"""

import os
import random
import threading
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.sink import Reply, SinkThread
from tests.support.told import Makers, answers, check_told
from tests.support.waiting import wait_until
from tus_server.engine.deliver import CONCURRENCY

FULL = os.environ.get("TUS_TEST_FULL") == "1"
KILLS = 200 if FULL else 8


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@pytest.mark.timeout(2400 if FULL else 300)
def test_no_job_is_lost_or_doubled_over_many_kills(tmp_path: Path, seed: int) -> None:
    rng, moment = random.Random(seed), threading.Event()
    with SinkThread() as sink:
        sink.decide = answers(seed)
        server = ServerProcess(
            tmp_path / "data",
            TUS_SUCCESS_JOB=sink.url("/job"),
            TUS_FAILURE_JOB=sink.url("/job"),
            TUS_WEBHOOK_ALLOW_PRIVATE="true",
            TUS_HOOKS_URL=sink.url("/hooks"),
            TUS_HOOKS_EVENTS="post-create,post-receive,post-finish,post-terminate",
        )
        records = Records(server.data_dir)
        with server:
            with Makers([server.port], count=4, seed=seed):
                for _ in range(KILLS):
                    moment.wait(rng.uniform(0, 0.4))  # never set: a random moment
                    server.kill()
                    server.start()
            sink.decide = lambda got: Reply()
            # What has failed often is tried again in a quarter of an hour.
            server.kill()
            records.make_due()
            server.start()
            pending = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
            wait_until(lambda: records.query(pending) == [(0,)], "all is told", timeout_s=120)
        check_log(server.log)

        assert records.query("SELECT count(*) FROM outbox WHERE given_up_at IS NOT NULL") == [(0,)]
        events = records.query("SELECT upload_id, kind, outcome FROM outbox ORDER BY id")
        assert len(events) > 10 * KILLS
        check_told(sink.received, events, kills=KILLS, most_lost=2 * CONCURRENCY)
