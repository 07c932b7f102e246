"""What the routes of the API share: the Broker, ids in paths, header fields."""

from typing import Annotated

from fastapi import Depends, Header, Path, Request

from tus_server.broker import Broker
from tus_server.broker.request import KEY_PATTERN


async def _find_broker(request: Request) -> Broker:
    broker: Broker = request.app.state.brokers(request.scope)
    return broker


def _key(description: str) -> object:
    return Header(alias="Idempotency-Key", pattern=f"^{KEY_PATTERN}$", description=description)


BrokerOfRequest = Annotated[Broker, Depends(_find_broker)]
AnUploadId = Annotated[
    str,
    Path(
        description="The id of an upload.",
        examples=["0123456789abcdef0123456789abcdef"],
        json_schema_extra={"pattern": r"^[0-9a-f]{32}(\.[a-z0-9-]{1,16})?$"},
    ),
]
CreationKey = Annotated[
    str | None,
    _key(
        "The same key with the same request gives the upload that the first one began; with another"
        " request it is refused."
    ),
]
AnyKey = Annotated[
    str | None,
    _key("Taken, and not needed: repeating this call gives the same answer by itself."),
]
