"""The `companionEndpoint` of Uppy's S3 plugin, over the Broker.

Many parts: a direct upload, whose parts the plugin sends to the store. One request: the plugin
knows forms only, which name the object they make and no part of one; so this server receives the
form (http/form.py), as any upload. Both `uploadId` and `key` are the id of the upload.
"""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tus_server.broker import About, Broker, Reported, UploadView
from tus_server.core.errors import (
    IllegalStep,
    MalformedRequest,
    StillFinishing,
    TusServerError,
    UnsupportedMediaType,
    UploadNotFound,
)
from tus_server.core.states import FINISHED, TERMINAL
from tus_server.engine.form import new_form_key
from tus_server.http.api.replies import NO_STORE, refuse, refuse_request
from tus_server.http.bounded import Bounded
from tus_server.http.errors import Defect
from tus_server.http.exchange import Scope
from tus_server.http.form import KEY, SIGNATURE
from tus_server.http.places import COMPANION
from tus_server.wire import companion
from tus_server.wire.companion import Beginning
from tus_server.wire.headers import media_type

# The plugin asks once, and proxies wait for a minute.
COMPLETE_WAIT_S = 50.0
_JSON = b"application/json"
_NO_SIZE = (
    "The size of the file is not known. The plugin sends what is in the metadata of a file, so that"
    " the page has to put it there: uppy.addPreProcessor(async (ids) => ids.forEach((id) =>"
    " uppy.setFileMeta(id, { size: uppy.getFile(id).size })))"
)


def companion_app(broker_of: Callable[[Scope], Broker], *, idle_timeout_s: float) -> ASGIApp:
    """Give the application; only within a http.guard.Guard.

    broker_of: gives the Broker of a request. idle_timeout_s: of a body.
    """
    answers = Companion(broker_of)
    multipart = f"{COMPANION}s3/multipart"
    upload = f"{multipart}/{{upload_id}}"
    app = Starlette(
        routes=[
            Route(f"{COMPANION}s3/params", answers.params, methods=["GET"]),
            Route(multipart, answers.begin, methods=["POST"]),
            Route(upload, answers.list_parts, methods=["GET"]),
            Route(upload, answers.cancel, methods=["DELETE"]),
            Route(f"{upload}/complete", answers.complete, methods=["POST"]),
            Route(f"{upload}/{{number}}", answers.sign, methods=["GET"]),
        ],
        exception_handlers={
            TusServerError: refuse_request,
            HTTPException: refuse_request,
            Exception: _defect,
        },
    )
    app.router.redirect_slashes = False
    return Bounded(app, idle_timeout_s=idle_timeout_s)


class Companion:
    """The answers, as @uppy/aws-s3 wants them."""

    def __init__(self, broker_of: Callable[[Scope], Broker]) -> None:
        self._broker_of = broker_of

    async def params(self, request: Request) -> Response:
        """Begin an upload that comes as one form. Its size need not be known."""
        told = companion.parse_params(request.scope["query_string"])
        signature = new_form_key()
        about: About = {**_about(told), "idempotency_key": signature}
        view = await self._broker_of(request.scope).initiate("tus", size=told.size, **about)
        assert view.tus is not None
        return _shown(
            {
                "method": "POST",
                # The plugin makes the location of the upload of it, by adding the key.
                "url": view.tus.url.removesuffix(view.id),
                "fields": {KEY: view.id, SIGNATURE: signature},
                "headers": {},
            }
        )

    async def begin(self, request: Request) -> Response:
        told = companion.parse_beginning(await _read(request))
        if told.size is None:
            raise MalformedRequest(_NO_SIZE)
        about: About = {**_about(told), "part_size_bytes": told.planned_part_size()}
        broker = self._broker_of(request.scope)
        view = await broker.initiate_multipart_session(size=told.size, **about)
        return _shown({"uploadId": view.id, "key": view.id})

    async def sign(self, request: Request) -> Response:
        number = companion.parse_part_number(request.path_params["number"])
        broker = self._broker_of(request.scope)
        signed = await broker.sign_multipart_part(_upload_id(request), number)
        return _shown({"url": signed.url})

    async def list_parts(self, request: Request) -> Response:
        found = await self._broker_of(request.scope).find_parts(_upload_id(request))
        _check_alive(found.upload)
        return _shown(
            [
                {"PartNumber": part.number, "Size": part.size, "ETag": part.etag}
                for part in found.parts
                if part.etag is not None
            ]
        )

    async def complete(self, request: Request) -> Response:
        """Answer when the upload is verified: what Uppy then calls complete is."""
        told = companion.parse_completion(await _read(request))
        reported = [Reported(number, etag) for number, etag in told]
        view = await self._broker_of(request.scope).complete_multipart_upload(
            _upload_id(request), reported, wait_s=COMPLETE_WAIT_S
        )
        _check_alive(view)
        if view.status.current.state not in FINISHED or view.object is None:
            raise StillFinishing
        return _shown({"location": view.object.url, "key": view.id})

    async def cancel(self, request: Request) -> Response:
        """Give up an unfinished upload. As in S3 a finished one is no more to be given up."""
        broker = self._broker_of(request.scope)
        await broker.cancel_resumable_session(_upload_id(request), keeps_finished=True)
        return _shown({})


def _shown(answer: object) -> Response:
    return JSONResponse(answer, headers=NO_STORE)  # it has what lets others send


def _about(told: Beginning) -> About:
    return {
        "filename": told.filename,
        "content_type": told.content_type,
        "metadata": told.metadata,
    }


def _upload_id(request: Request) -> str:
    upload_id: str = request.path_params["upload_id"]
    if request.query_params.get("key") != upload_id:
        raise UploadNotFound("The key is not that of the upload.")
    return upload_id


def _check_alive(view: UploadView) -> None:
    """Raise IllegalStep for an upload that has ended without a file."""
    state = view.status.current.state
    if state in TERMINAL:
        why = "." if view.error is None else f": {view.error.message}"
        raise IllegalStep(f"The upload is {state}{why}", state=state)


async def _read(request: Request) -> bytes:
    """Read a body. Raises: UnsupportedMediaType: what a page may send without asking (Fetch, 2.2.2)
    is not taken.
    """
    if media_type(request.headers.get("content-type", "").encode("latin-1")) != _JSON:
        raise UnsupportedMediaType("Send application/json.")
    return await request.body()


async def _defect(request: Request, exc: Exception) -> Response:
    return refuse(Defect(type(exc).__name__))
