"""A tus client that does not give up: it sends pieces, and after a failure asks for the offset."""

from dataclasses import dataclass, field

from tests.support.http import ConnectionEnded, Reply
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until


@dataclass(slots=True)
class Sender:
    """One upload of `content`, sent in pieces of `piece` bytes. seen: what went wrong, in order."""

    tus: Tus
    content: bytes
    piece: int
    url: str = ""
    offset: int = 0
    seen: list[Reply | None] = field(default_factory=list)

    @classmethod
    def make(cls, port: int, size: int, piece: int, seed: int) -> "Sender":
        return cls(Tus(port), pattern(size, seed), piece)

    @property
    def node(self) -> str:
        """The label of its node."""
        return self.url.rpartition(".")[2]

    @property
    def tails_missed(self) -> int:
        return sum(1 for r in self.seen if r is not None and r.find("tus-error") is not None)

    def create(self) -> None:
        def created() -> bool:
            try:
                reply = self.tus.create(len(self.content))
            except (ConnectionEnded, OSError):
                self.seen.append(None)
                return False
            if reply.status != 201:
                self.seen.append(reply)
                return False
            self.url = reply["location"]
            return True

        wait_until(created, "an upload was created")

    def send_until(self, end: int) -> None:
        """Send until `end` bytes are acknowledged, whatever fails on the way."""
        while self.offset < end:
            stop = min(self.offset + self.piece, end)
            try:
                reply = self.tus.patch(self.url, self.offset, self.content[self.offset : stop])
            except (ConnectionEnded, OSError):
                reply = None
            if reply is not None and reply.status == 204:
                self.offset = int(reply["upload-offset"])
                continue
            self.seen.append(reply)
            self.ask()

    def ask(self) -> None:
        """Learn the offset, as clients do: again after 423, and no other failure is expected."""

        def told() -> bool:
            try:
                reply = self.tus.head(self.url)
            except (ConnectionEnded, OSError):
                return False
            assert reply.status in (200, 423), reply
            if reply.status == 423:
                return False
            offset = int(reply["upload-offset"])
            # What was acknowledged once is never taken back.
            assert offset >= self.offset, f"{self.url} went from {self.offset} back to {offset}"
            self.offset = offset
            return True

        wait_until(told, f"HEAD {self.url} tells the offset")

    def finish(self) -> None:
        self.send_until(len(self.content))
