"""Run one job, given as JSON on standard input; its outcome goes to standard output."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from bench.job import Job, Outcome
from bench.load.calls import calls
from bench.load.checked import checked_patch
from bench.load.concatenation import concatenation
from bench.load.crowd import crowd
from bench.load.direct import direct_books, direct_upload
from bench.load.large import one_patch, patches_of_1mib, patches_of_5mib, small_patches
from bench.load.reap import reap
from bench.load.replies import RowFailed
from bench.load.rufh import rufh_one_patch, rufh_patches
from bench.load.session import Session
from bench.load.slow import slow, slow_s3
from bench.load.small import head, post_body, post_patch
from bench.load.takeover import takeover
from bench.load.webhooks import webhooks

_ROWS: dict[str, Callable[[Session], Outcome]] = {
    "one-patch": one_patch,
    "small-patches": small_patches,
    "post-patch": post_patch,
    "post-body": post_body,
    "head": head,
    "slow": slow,
    "takeover": takeover,
    "s3-one-patch": one_patch,
    "s3-5mib": patches_of_5mib,
    "s3-1mib": patches_of_1mib,
    "s3-post-body": post_body,
    "s3-head": head,
    "s3-slow": slow_s3,
    "s3-takeover": takeover,
    "s3-connections": crowd,
    "s3-calls": calls,
    "checked-patch": checked_patch,
    "concatenation": concatenation,
    "rufh-one-patch": rufh_one_patch,
    "rufh-patches": rufh_patches,
    "s3-reap": reap,
    "direct-upload": direct_upload,
    "s3-direct-books": direct_books,
    "webhooks": webhooks,
    "s3-webhooks": webhooks,
}


def main() -> None:
    job = Job.from_json(sys.stdin.read())
    # A collection would only add noise: a run is short and makes no cycles.
    gc.disable()
    session = Session(job)
    try:
        outcome = _ROWS[job.row](session)
        if job.delete_after:
            session.delete_created()
    except (RowFailed, OSError) as exc:
        # OSError covers TimeoutError and connections refused, reset or cut.
        outcome = Outcome(error=str(exc) or type(exc).__name__)
    sys.stdout.write(outcome.to_json())


if __name__ == "__main__":
    main()
