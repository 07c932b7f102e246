"""The guard of what belongs to the application: tokens, this machine, pages."""

import json
from typing import Any

import pytest

from tus_server.http.body import Message
from tus_server.http.guard import Guard, GuardOptions
from tus_server.wire.cors import Origins

TOKEN = "a-token-of-many-letters"
PAGE = "https://app.example.com"
LOCAL = {"host": "127.0.0.1:8080"}


class Answer:
    """What a guarded application, or its guard, has answered."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.fields = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    @property
    def passed(self) -> bool:
        return self.body == b"secret"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"1"')]})
    await send({"type": "http.response.body", "body": b"secret"})


async def nothing() -> Message:
    return {"type": "http.disconnect"}


async def ask(
    fields: dict[str, str] | None = None,
    *,
    token: str | None = TOKEN,
    origins: tuple[str, ...] = ("*",),
    is_fronted: bool = False,
    method: str = "GET",
    client: tuple[str, int] | None = ("127.0.0.1", 50000),
) -> Answer:
    guard = Guard(
        application,
        GuardOptions(
            token=token,
            is_fronted=is_fronted,
            origins=Origins(origins),
            credentials=False,
            max_header_bytes=4096,
            allow_headers=("X-Mine",),
        ),
    )
    answer = Answer()
    scope = {
        "type": "http",
        "method": method,
        "path": "/api/uploads",
        "scheme": "http",
        "http_version": "1.1",
        "client": client,
        "server": ("127.0.0.1", 8080),
        "headers": [
            (name.encode(), value.encode("latin-1"))
            for name, value in (LOCAL | (fields or {})).items()
        ],
    }
    await guard(scope, nothing, answer.take)
    return answer


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_opens_from_anywhere(scheme: str) -> None:
    fields = {"authorization": f"{scheme} {TOKEN}", "host": "x.example", "via": "1.1 proxy"}

    assert (await ask(fields, is_fronted=True, client=("10.0.0.7", 1))).passed


@pytest.mark.parametrize(
    "authorization",
    ["", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
     f"Bearer {TOKEN} {TOKEN}", "Bearer \xff\xfe", f"Bearer {TOKEN.upper()}"],
)  # fmt: skip
async def test_anything_else_is_refused_with_a_challenge(authorization: str) -> None:
    answer = await ask({"authorization": authorization})

    assert (answer.status, answer.passed) == (401, False)
    assert answer.fields["www-authenticate"] == "Bearer"
    assert answer.fields["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["code"] == "unauthenticated"
    assert TOKEN not in str(json.loads(answer.body))


async def test_with_a_token_being_on_this_machine_is_not_enough() -> None:
    assert (await ask()).status == 401


async def test_without_a_token_this_machine_may() -> None:
    assert (await ask(token=None)).passed


@pytest.mark.parametrize(
    "how",
    [
        {"client": ("10.0.0.7", 1)},
        {"is_fronted": True},
        {"fields": {"host": "evil.example:8080"}},
        {"fields": {"origin": "https://evil.example"}},
        {"fields": {"sec-fetch-site": "cross-site"}},
        {"fields": {"x-forwarded-for": "10.0.0.7"}},
    ],
)
async def test_without_a_token_all_others_are_told_to_set_one(how: dict[str, Any]) -> None:
    answer = await ask(how.pop("fields", None), token=None, **how)

    assert (answer.status, answer.passed) == (403, False)
    assert "TUS_API_TOKEN" in json.loads(answer.body)["detail"]


async def test_any_origin_for_uploads_is_no_origin_here() -> None:
    fields = {"origin": "https://evil.example", "authorization": f"Bearer {TOKEN}"}

    answer = await ask(fields)

    assert answer.passed
    assert "access-control-allow-origin" not in answer.fields
    assert answer.fields["vary"] == "Origin"


async def test_a_page_of_a_named_origin_may_read_answers_and_refusals() -> None:
    fields = {"origin": PAGE, "authorization": f"Bearer {TOKEN}"}

    for answer in (
        await ask(fields, origins=(PAGE,)),
        await ask({"origin": PAGE}, origins=(PAGE,)),
    ):
        assert answer.fields["access-control-allow-origin"] == PAGE
        exposed = answer.fields["access-control-expose-headers"].split(", ")
        assert {"Location", "Preference-Applied", "Retry-After", "ETag"} <= set(exposed)


@pytest.mark.parametrize("token", [TOKEN, None])
async def test_preflights_are_answered_before_the_token_is_asked_for(token: str | None) -> None:
    fields = {"origin": PAGE, "access-control-request-method": "POST"}

    answer = await ask(fields, token=token, origins=(PAGE,), method="OPTIONS")

    assert (answer.status, answer.body) == (204, b"")
    allowed = answer.fields["access-control-allow-headers"].split(", ")
    assert {"Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Mine"} <= set(allowed)
    assert "DELETE" in answer.fields["access-control-allow-methods"]


@pytest.mark.parametrize("origins", [("*",), (PAGE,)])
async def test_a_preflight_of_a_page_nobody_named_allows_nothing(origins: tuple[str, ...]) -> None:
    fields = {"origin": "https://evil.example", "access-control-request-method": "POST"}

    answer = await ask(fields, origins=origins, method="OPTIONS")

    assert not [name for name in answer.fields if name.startswith("access-control-")]


async def test_an_options_request_of_another_kind_needs_the_token_too() -> None:
    assert (await ask(method="OPTIONS")).status == 401


async def test_large_heads_are_refused() -> None:
    fields = {"authorization": f"Bearer {TOKEN}", "x-much": "x" * 5000}

    assert (await ask(fields)).status == 431
