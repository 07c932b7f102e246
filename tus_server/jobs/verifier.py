"""A check of the application on the content of uploads: a coroutine function by its dotted path."""

import asyncio
from typing import Any

from tus_server.core.errors import CheckPostponed
from tus_server.core.upload import Upload
from tus_server.ports import OpenStream, Verdict, Verifier


class TimedVerifier:
    """See ports.Verifier: `check` for at most timeout_s, and what it gives is a Verdict."""

    def __init__(self, check: Verifier, *, name: str, timeout_s: float) -> None:
        self._check = check
        self._name = name
        self._timeout_s = timeout_s

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        try:
            async with asyncio.timeout(self._timeout_s) as timer:
                verdict: Any = await self._check(upload, open_stream)
        except TimeoutError as exc:
            if not timer.expired():
                raise
            raise CheckPostponed(f"{self._name} has no end after {self._timeout_s:g} s.") from exc
        if not isinstance(verdict, Verdict):
            # Neither: what it means nobody knows.
            raise CheckPostponed(f"{self._name} gave a {type(verdict).__name__}, no Verdict.")
        return verdict
