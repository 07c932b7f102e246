"""One bench at a time on a checkout: two at once would measure each other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from bench.install import CACHE


@contextmanager
def own_turn(console: Console) -> Iterator[None]:
    """Hold the checkout's turn, waiting (and saying so) while another bench has it."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "turn.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("[yellow]another bench runs here; waiting for it to end[/yellow]")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
