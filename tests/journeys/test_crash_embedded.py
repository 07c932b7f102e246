"""kill -9 between every two steps from the client's word to the settled delivery, on one disk.

Uploads stand still in one server, each at another moment (tests/journeys/standstill.py); then it is
killed, and started again as it is: every one is verified once, its job is in the outbox once, and
is delivered.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.journeys.sent import Sent
from tests.journeys.site import Embedded, open_embedded
from tests.support.api import state_of
from tests.support.waiting import wait_until

# In an order in which none keeps later ones from their moment: whoever settles or claims does so
# for all, and who is frozen is the last.
MOMENTS = [
    "before commit completed",
    "before complete",  # and behind the commit: nothing durable is between the two
    "after complete",
    "before read",
    "before commit verified",
    "once it is settled",
    "before deliver",
    "while it is delivered",
    "after deliver",
    "before settle",
    "after claim",
    "freeze after commit verified",
]
TOLD_TWICE = ("while it is delivered", "after deliver", "before settle")


@dataclass
class Crash:
    """What came over a crash: the uploads, by the moment at which it came."""

    site: Embedded
    sent: dict[str, Sent]


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crash]:
    """A server that was killed with an upload at each moment, and started again."""
    folder = tmp_path_factory.mktemp("crash")
    orders = folder / "orders"
    orders.mkdir()
    with open_embedded(folder) as site, ThreadPoolExecutor(len(MOMENTS)) as threads:
        server = site.server()
        usual = server.command
        server.stop()
        server.command = [sys.executable, "-m", "tests.journeys.standstill", str(orders), "serve"]
        server.start()
        sent = {}
        for moment in MOMENTS:
            upload = sent[moment] = Sent(site, 1, 2)
            _reach(upload, moment, orders, threads)
        server.kill()
        letters = {moment: site.letters(one.id) for moment, one in sent.items()}
        assert [len(letters[moment]) for moment in MOMENTS] == [0] * 5 + [1] * 7
        server.command = usual
        server.start()
        yield Crash(site, sent)
        assert site.sink.refused == []
        site.check_clean()
    check_log(server.log)


def _reach(upload: Sent, moment: str, orders: Path, threads: ThreadPoolExecutor) -> None:
    """Complete an upload until the server stands still in it."""
    site, order = upload.site, orders / upload.id
    if moment == "once it is settled":
        upload.complete()
        site.wait_delivered(upload.id)
        return
    if moment == "while it is delivered":
        held = site.sink.hold(upload.id)
        threads.submit(upload.try_complete)
        held.wait_arrived()
        return
    new = order.with_suffix(".new")
    new.write_text(moment)
    new.rename(order)  # never seen half-written
    threads.submit(upload.try_complete)
    wait_until(Path(f"{order}.reached").exists, f"it is at {moment}")


@pytest.mark.parametrize("moment", MOMENTS)
def test_wherever_the_server_is_killed_an_upload_is_verified_and_told_of_once(
    crash: Crash, moment: str
) -> None:
    upload = crash.sent[moment]
    if moment == "before commit completed":
        assert state_of(crash.site.api().find(upload.id)) == "receiving"
        crash.site.api().post(upload.id, "complete")

    crash.site.api().wait_for(upload.id, "verified")

    crash.site.check_verified_once(upload.id, upload.content)
    # At least once: what nobody has written down is told again.
    assert len(crash.site.sink.of(upload.id)) == (2 if moment in TOLD_TWICE else 1)
