"""The signed requests for the parts that are to be sent: made in batches, used before they end."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from tus_server.cli.direct_api import DirectApi, Ticket
from tus_server.cli.replies import TransferFailed

_MOST_AT_ONCE: Final = 100
# A request that is signed has to reach the store before it ends, which looks at it at its start.
_TO_SPARE_S: Final = 2.0


class Tickets:
    """Threads share one. order: the parts in the order in which they will be asked for."""

    def __init__(self, api: DirectApi, id: str, order: Sequence[int], *, batch: int) -> None:
        """batch: how many to sign at once; each is to be used soon after."""
        self._api = api
        self._id = id
        self._order = order
        self._place = {number: place for place, number in enumerate(order)}
        self._batch = min(batch, _MOST_AT_ONCE)
        self._lock = threading.Lock()
        self._signed: dict[int, Ticket] = {}
        self._taken: set[int] = set()

    def take(self, number: int) -> Ticket:
        """Give a request for a part, a new one each time. Raises: TransferFailed, UploadGone."""
        with self._lock:
            self._taken.add(number)
            ticket = self._signed.pop(number, None)
            if ticket is None or time.monotonic() >= ticket.ends_s - _TO_SPARE_S:
                self._sign(number)
                ticket = self._signed.pop(number)
            return ticket

    def _sign(self, number: int) -> None:
        # A part that had arrived, and has to be sent again, has none.
        place = self._place.get(number, len(self._order))
        ahead = self._order[place + 1 : place + self._batch]
        known = self._taken | self._signed.keys()
        wanted = [number, *(one for one in ahead if one not in known)]
        self._signed |= self._api.sign(self._id, wanted)
        if number not in self._signed:
            raise TransferFailed(f"{self._api.endpoint} did not sign part {number}")
