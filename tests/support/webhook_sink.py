"""A receiver of webhooks beside the test that checks every signature.

    with WebhookSink() as sink:
        job = {"name": sink.url, "kwargs": {}}      # of a server that has `sink.environment`
        held = sink.hold(upload_id)                 # the next one of that upload is not answered
        held.wait_arrived()
        sink.of(upload_id)                          # what has come of an upload, in its order

What has no signature, or another one, is answered with 401 and noted in `refused`.
"""

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.sink import HANGS, OK, Received, Reply, SinkThread
from tests.support.waiting import DEADLINE_S

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Told:
    """A webhook. id: of the message, the same however often it comes."""

    id: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body["type"])

    @property
    def outcome(self) -> str:
        return str(self.body["data"]["outcome"])

    @property
    def upload_id(self) -> str:
        return str(self.body["data"]["upload"]["id"])


@dataclass(eq=False)
class HeldWebhook:
    """A webhook that gets no answer."""

    upload_id: str
    arrived: threading.Event = field(default_factory=threading.Event)

    def wait_arrived(self) -> None:
        assert self.arrived.wait(DEADLINE_S), "no webhook came to be held"


class WebhookSink:
    """See the module. told: everything, in the order it came, also what was not answered."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.refused: list[str] = []
        self._verifier = Webhook(SECRET)
        self._holds: list[HeldWebhook] = []
        self._stack = ExitStack()
        self.url = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs to send webhooks here."""
        return {"TUS_WEBHOOK_SECRET": SECRET, "TUS_WEBHOOK_ALLOW_PRIVATE": "true"}

    def __enter__(self) -> Self:
        sink = self._stack.enter_context(SinkThread())
        sink.decide = self._take
        self.url = sink.url("/done")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    def hold(self, upload_id: str) -> HeldWebhook:
        """Let the next one of an upload wait for its answer for ever."""
        held = HeldWebhook(upload_id)
        self._holds.append(held)
        return held

    def of(self, upload_id: str) -> list[Told]:
        """Give what came of an upload."""
        return [one for one in list(self.told) if one.upload_id == upload_id]

    def _take(self, request: Received) -> Reply:
        """Receive one, on the loop of the sink."""
        try:
            self._verifier.verify(request.body, dict(request.fields))
        except WebhookVerificationError as exc:
            self.refused.append(f"{request.path}: {exc}")
            return Reply(401)
        told = Told(request.fields["webhook-id"], request.document)
        self.told.append(told)
        for held in self._holds:
            if held.upload_id == told.upload_id:
                self._holds.remove(held)
                held.arrived.set()
                return HANGS
        return OK
