"""Webhooks, signed as https://www.standardwebhooks.com has it."""

from collections.abc import Sequence

from standardwebhooks import Webhook

from tus_server.core.errors import DeliveryFailed
from tus_server.jobs.outgoing import NoAnswer, Outgoing
from tus_server.ports import Clock

GONE = 410


class Webhooks:
    """Sends messages to URLs. secrets: `whsec_...`; each signs, so that they can be changed."""

    def __init__(self, outgoing: Outgoing, clock: Clock, secrets: Sequence[str]) -> None:
        self._outgoing = outgoing
        self._clock = clock
        self._signers = [Webhook(secret) for secret in secrets]

    async def deliver(self, url: str, body: bytes, *, message_id: str) -> None:
        """Deliver; any 2xx says that it has arrived. Raises: DeliveryFailed, final for a 410."""
        try:
            answer = await self._outgoing.post(url, body, self._sign(body, message_id))
        except NoAnswer as exc:
            raise DeliveryFailed(f"the webhook: {exc}.") from exc
        if not answer.is_success:
            raise DeliveryFailed(f"the webhook {answer}.", is_final=answer.status == GONE)

    def _sign(self, body: bytes, message_id: str) -> dict[str, str]:
        # The time of this attempt: receivers refuse what is older than a few minutes.
        now = self._clock.now()
        headers = {"webhook-id": message_id, "webhook-timestamp": str(int(now.timestamp()))}
        if self._signers:
            text = body.decode()
            signed = (
                one.sign(msg_id=message_id, timestamp=now, data=text) for one in self._signers
            )
            headers["webhook-signature"] = " ".join(signed)
        return headers
