"""Signed URLs of direct uploads on local disk: PUT of one part, and what browsers ask before."""

from tus_server.core.errors import BodyStopped, ClientGone, MethodNotAllowed
from tus_server.core.ids import UploadId
from tus_server.engine.direct.receive import PartRequest, receive_part
from tus_server.engine.engine import Engine
from tus_server.http.exchange import Exchange
from tus_server.http.uploads import NO_STORE
from tus_server.wire.direct import parse_signed_query

METHODS = "PUT, OPTIONS"


class DirectHandler:
    """Answers requests to the URL of a part. The signature is all that anybody has to show."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, exchange: Exchange, upload_id: UploadId, number: int) -> None:
        """Answer. Raises: every TusServerError; the reply has not begun then."""
        if exchange.method == "OPTIONS":
            await exchange.reply(204, [(b"allow", METHODS.encode())])
            return
        if exchange.method != "PUT":
            raise MethodNotAllowed(METHODS)
        part_files = self._engine.part_files
        assert part_files is not None
        size = part_files.check_signature(
            upload_id,
            number,
            method=exchange.method,
            query=parse_signed_query(exchange.scope["query_string"]),
            now=self._engine.clock.now(),
        )
        try:
            part = await receive_part(
                self._engine, PartRequest(upload_id, number, size), exchange.body()
            )
        except ClientGone:
            exchange.answered = True
            return
        except BodyStopped:
            exchange.gave_up_body = True
            raise
        assert part.etag is not None
        await exchange.reply(200, [(b"etag", part.etag.encode()), NO_STORE])
