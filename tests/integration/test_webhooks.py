"""Webhooks to a real receiver: signed, within bounds, and never to where they must not go."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.integration.conftest import soon
from tests.support.fakes import FakeClock
from tests.support.sink import HANGS, OK, Reply, Sink
from tus_server.core.errors import DeliveryFailed
from tus_server.jobs.addresses import open_public_socket
from tus_server.jobs.outgoing import IGNORED_BYTES, SILENT_AFTER, SILENT_S, NoAnswer, Outgoing
from tus_server.jobs.webhook import Webhooks

BODY = b'{"type":"upload.verified","data":{"name":"\\u00fc"}}'
SECRET, OLD_SECRET = "whsec_" + "A" * 40, "whsec_" + "B" * 40
ID = "0123456789abcdef0123456789abcdef.verified"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.moment = datetime.now(UTC)
    return clock


@pytest.fixture
async def outgoing(clock: FakeClock) -> AsyncIterator[Outgoing]:
    """Requests that may go anywhere, and have a second."""
    async with Outgoing(clock, agent="tus-server/test", timeout_s=1.0) as outgoing:
        yield outgoing


@pytest.fixture
async def guarded(clock: FakeClock) -> AsyncIterator[Outgoing]:
    """Requests that go to public addresses alone."""
    options: dict[str, Any] = {"agent": "tus-server/test", "timeout_s": 5.0}
    async with Outgoing(clock, open_socket=open_public_socket, **options) as outgoing:
        yield outgoing


@pytest.fixture
def webhooks(outgoing: Outgoing, clock: FakeClock) -> Webhooks:
    return Webhooks(outgoing, clock, [SECRET])


async def deliver(webhooks: Webhooks, sink: Sink) -> None:
    await soon(webhooks.deliver(sink.url(), BODY, message_id=ID))


async def failure(webhooks: Webhooks, url: str) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        await soon(webhooks.deliver(url, BODY, message_id=ID))
    return caught.value


# --- what is sent


async def test_a_webhook_is_what_the_reference_library_verifies(
    webhooks: Webhooks, sink: Sink
) -> None:
    await deliver(webhooks, sink)

    (got,) = sink.received
    assert (got.method, got.path, got.body) == ("POST", "/hook", BODY)
    assert got.fields["content-type"] == "application/json"
    assert got.fields["user-agent"] == "tus-server/test"
    assert got.fields["webhook-id"] == ID
    assert Webhook(SECRET).verify(got.body, dict(got.fields)) == got.document


async def test_another_body_secret_or_id_is_not_verified(webhooks: Webhooks, sink: Sink) -> None:
    await deliver(webhooks, sink)

    (got,) = sink.received
    for secret, body, fields in (
        (OLD_SECRET, got.body, {}),
        (SECRET, got.body + b" ", {}),
        (SECRET, got.body, {"webhook-id": "another"}),
        (SECRET, got.body, {"webhook-timestamp": str(int(got.fields["webhook-timestamp"]) + 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, dict(got.fields) | fields)


async def test_it_is_signed_with_each_secret_while_they_are_changed(
    outgoing: Outgoing, clock: FakeClock, sink: Sink
) -> None:
    await deliver(Webhooks(outgoing, clock, [SECRET, OLD_SECRET]), sink)

    (got,) = sink.received
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(got.body, dict(got.fields))


async def test_without_a_secret_it_is_not_signed(
    outgoing: Outgoing, clock: FakeClock, sink: Sink
) -> None:
    await deliver(Webhooks(outgoing, clock, []), sink)

    (got,) = sink.received
    assert "webhook-signature" not in got.fields
    assert got.fields["webhook-id"] == ID


async def test_each_attempt_has_its_own_time_and_the_same_id(
    webhooks: Webhooks, clock: FakeClock, sink: Sink
) -> None:
    sink.script.append(Reply(500))
    await failure(webhooks, sink.url())
    clock.advance(200)
    await deliver(webhooks, sink)

    first, second = sink.received
    assert first.fields["webhook-id"] == second.fields["webhook-id"]
    times = [int(one.fields["webhook-timestamp"]) for one in (first, second)]
    assert times[1] - times[0] in (200, 201)
    assert abs(times[0] - time.time()) < 60
    Webhook(SECRET).verify(second.body, dict(second.fields))


async def test_one_connection_serves_many_webhooks(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.extend([OK, Reply(500, b"x" * 1000), Reply(204, b"", (("Content-Length", "0"),))])
    for _ in range(6):
        try:
            await deliver(webhooks, sink)
        except DeliveryFailed:
            pass

    assert {got.connection for got in sink.received} == {1}


# --- answers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_says_that_it_has_arrived(
    webhooks: Webhooks, sink: Sink, status: int
) -> None:
    sink.script.append(Reply(status, b""))

    await deliver(webhooks, sink)


@pytest.mark.parametrize("status", [300, 400, 401, 404, 408, 422, 429, 500, 503])
async def test_anything_else_is_a_failure_that_may_pass(
    webhooks: Webhooks, sink: Sink, status: int
) -> None:
    sink.script.append(Reply(status, b"sorry\nno \x1b[31mroom"))

    failed = await failure(webhooks, sink.url())

    assert not failed.is_final
    assert failed.detail == f"the webhook answered {status}: sorry\\nno \\x1b[31mroom."


async def test_a_410_is_final(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(Reply(410, b""))

    failed = await failure(webhooks, sink.url())

    assert failed.is_final
    assert failed.detail == "the webhook answered 410."


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(webhooks: Webhooks, sink: Sink, status: int) -> None:
    async with Sink() as elsewhere:
        sink.script.append(Reply(status, b"", (("Location", elsewhere.url()),)))

        failed = await failure(webhooks, sink.url())

        assert failed.detail == f"the webhook answered {status}."
        assert elsewhere.received == []
    assert len(sink.received) == 1


async def test_a_receiver_that_hangs_is_given_up(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(HANGS)

    failed = await failure(webhooks, sink.url())

    assert failed.detail == "the webhook: no answer within 1 s."


async def test_a_slow_receiver_is_waited_for(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(Reply(delay_s=0.3))

    await deliver(webhooks, sink)


async def test_a_cut_connection_is_a_failure(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(Reply(cuts=True))

    assert "disconnected" in (await failure(webhooks, sink.url())).detail


async def test_a_body_that_is_cut_changes_nothing_of_the_status(
    webhooks: Webhooks, sink: Sink
) -> None:
    sink.script.extend([Reply(200, b"x" * 100, cuts=True, after_head=True)])

    await deliver(webhooks, sink)
    await deliver(webhooks, sink)


async def test_an_endless_body_is_not_read(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(Reply(endless=True))

    await deliver(webhooks, sink)

    # What fills the buffers of both sockets, and no more.
    assert sink.sent_bytes < 64 * 1024 * 1024
    assert IGNORED_BYTES <= 64 * 1024
    await deliver(webhooks, sink)


async def test_nobody_at_the_address_is_a_failure(webhooks: Webhooks) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        failed = await failure(webhooks, f"http://127.0.0.1:{port}/")

    assert failed.detail == (
        f"the webhook: no connection, Connect call failed ('127.0.0.1', {port})."
    )


async def test_a_name_that_nobody_has_is_a_failure(webhooks: Webhooks) -> None:
    failed = await failure(webhooks, "http://nobody.invalid/")

    assert failed.detail.startswith("the webhook: no connection, ")


async def test_cookies_are_not_kept(webhooks: Webhooks, sink: Sink) -> None:
    sink.script.append(Reply(200, b"", (("Set-Cookie", "a=b"),)))
    await deliver(webhooks, sink)
    await deliver(webhooks, sink)

    assert all("cookie" not in got.fields for got in sink.received)


async def test_proxies_of_the_environment_are_not_used(
    webhooks: Webhooks, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sink() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))

        await deliver(webhooks, sink)

        assert proxy.received == []
    assert len(sink.received) == 1


# --- receivers that let requests run into their timeouts


async def test_of_a_silent_receiver_one_at_a_time_tries(
    outgoing: Outgoing, clock: FakeClock, sink: Sink
) -> None:
    sink.otherwise = HANGS
    silences = await asyncio.gather(
        *(outgoing.post(sink.url(), BODY, {}) for _ in range(SILENT_AFTER)), return_exceptions=True
    )
    assert ["within 1 s" in str(one) for one in silences] == [True] * SILENT_AFTER
    tried = len(sink.received)

    with pytest.raises(NoAnswer, match="not tried, for it did not answer"):
        await soon(outgoing.post(sink.url(), BODY, {}))
    assert len(sink.received) == tried
    clock.advance(SILENT_S)
    sink.otherwise = OK
    answers = await asyncio.gather(
        *(outgoing.post(sink.url(), BODY, {}) for _ in range(3)), return_exceptions=True
    )

    assert [isinstance(one, NoAnswer) for one in answers] == [False, True, True]
    assert (await soon(outgoing.post(sink.url(), BODY, {}))).is_success


async def test_other_receivers_are_tried_meanwhile(outgoing: Outgoing, sink: Sink) -> None:
    sink.otherwise = HANGS
    await asyncio.gather(
        *(outgoing.post(sink.url(), BODY, {}) for _ in range(SILENT_AFTER)), return_exceptions=True
    )
    async with Sink() as other:
        assert (await soon(outgoing.post(other.url(), BODY, {}))).is_success


async def test_failures_that_come_quickly_silence_nobody(outgoing: Outgoing, sink: Sink) -> None:
    sink.otherwise = Reply(500)

    for _ in range(SILENT_AFTER + 2):
        assert (await soon(outgoing.post(sink.url(), BODY, {}))).status == 500

    assert len(sink.received) == SILENT_AFTER + 2


# --- where nothing is sent to


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        # Other ways to write 127.0.0.1.
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
    ],
)
async def test_nothing_is_sent_to_this_machine(
    guarded: Outgoing, clock: FakeClock, sink: Sink, host: str
) -> None:
    failed = await failure(Webhooks(guarded, clock, []), sink.url(host=host))

    assert "private address" in failed.detail or "canonical" in failed.detail
    assert sink.received == []


async def test_a_name_is_judged_by_the_address_that_is_connected_to(
    guarded: Outgoing, clock: FakeClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name that leads to a public address at the first look, and here at the next one.
    asked = []

    async def rebind(self: Any, host: str, *args: Any, **named: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "203.0.113.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, sink.port))]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "getaddrinfo", rebind)

    failed = await failure(Webhooks(guarded, clock, []), sink.url(host="rebind.example.com"))

    assert "private address" in failed.detail
    assert asked
    assert sink.received == []


async def test_a_name_with_private_addresses_alone_leads_nowhere(
    guarded: Outgoing, clock: FakeClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ("127.0.0.1", "10.0.0.1", "192.168.0.1")

    async def several(self: Any, host: str, *args: Any, **named: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, sink.port)) for ip in addresses]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", several)

    failed = await failure(Webhooks(guarded, clock, []), sink.url(host="many.example.com"))

    assert "private address" in failed.detail
    assert sink.received == []


async def test_the_time_that_is_signed_is_utc(webhooks: Webhooks, sink: Sink) -> None:
    await deliver(webhooks, sink)

    moment = datetime.fromtimestamp(int(sink.received[0].fields["webhook-timestamp"]), UTC)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
