"""One run of one row on one server: start it, load it, watch its memory, stop it, clean up."""

from __future__ import annotations

import dataclasses
import select
import subprocess
import sys
import time
from pathlib import Path

from bench import proc
from bench.folder import touch_memory, upload_folder
from bench.job import Job, Outcome
from bench.row import Mode, Row
from bench.servers import REPOSITORY, Endpoint, Server
from bench.sizes import Sizes

_SAMPLE_INTERVAL_S = 0.05
_RUN_TIMEOUT_S = 240.0


def run_once(server: Server, row: Row, sizes: Sizes, parent: Path) -> Outcome:
    """The outcome of one run, in a folder under parent that is gone afterwards.

    Raises: CannotStart.
    """
    with upload_folder(parent) as folder:
        if row.is_bulk:
            # An S3 server has everything twice for a while, as parts and as an object.
            copies = 2 if row.mode is Mode.S3 else 1
            touch_memory(folder, sizes.big_bytes * copies)
        with server.running(folder) as endpoint:
            outcome = _load(endpoint, row, sizes)
        if outcome.error is None:
            return outcome
        return dataclasses.replace(outcome, error=outcome.error + _last_words(folder))


def _last_words(folder: Path) -> str:
    """How the logs of our servers or the peer end, on a line each; they are about to go."""
    logs = [*folder.glob("server.log"), *sorted(folder.glob("node-*.log"))]
    ends = [(log.stem, log.read_text(errors="replace").splitlines()[-1:]) for log in logs]
    return "".join(f"\n  {stem}: {lines[0]}" for stem, lines in ends if lines)


def _load(endpoint: Endpoint, row: Row, sizes: Sizes) -> Outcome:
    """Run the load generator against endpoint, sampling the server's memory until it ends."""
    job = Job(
        row=row.name,
        url=endpoint.url,
        pid=endpoint.pid,
        delete_after=not endpoint.owns_folder,
        sizes=sizes,
        other_url=endpoint.other_url,
        counts_url=endpoint.counts_url,
        state_port=endpoint.state_port,
        reap=endpoint.reap,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        try:
            generator.stdin.write(job.to_json())
            generator.stdin.close()
            peak_mib = 0.0
            deadline_s = time.monotonic() + _RUN_TIMEOUT_S
            while not select.select([generator.stdout], [], [], _SAMPLE_INTERVAL_S)[0]:
                if endpoint.pid is not None:
                    peak_mib = max(peak_mib, proc.rss_mib(endpoint.pid))
                if time.monotonic() > deadline_s:
                    return Outcome(error=f"the load did not end within {_RUN_TIMEOUT_S:g} s")
            answer = generator.stdout.read()
        finally:
            generator.kill()
    if not answer:
        return Outcome(error="the load generator failed, see its message above")
    outcome = dataclasses.replace(Outcome.from_json(answer), peak_rss_mib=peak_mib or None)
    if row.of_memory and outcome.error is None:
        return dataclasses.replace(outcome, figure=outcome.peak_rss_mib)
    return outcome
