"""tusd's HTTP hooks: asked before something happens, told after it did.

Told from the outbox, so at least once and in order; tusd tells at most once and in any order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from tus_server.core.errors import (
    CheckPostponed,
    DeliveryFailed,
    MalformedMetadata,
    RefusedByHook,
)
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Upload
from tus_server.jobs.outgoing import Answer, NoAnswer, Outgoing
from tus_server.jobs.tusd_wire import (
    AnswerUnclear,
    Hook,
    HookAnswer,
    parse_answer,
    render_hook,
)
from tus_server.ports import (
    Credentials,
    Event,
    OpenStream,
    Principal,
    StatusChange,
    Verdict,
)
from tus_server.wire.metadata import render_metadata

log = structlog.get_logger(__name__)

REFUSED = "refused_by_hook"
_TOLD = {
    UploadState.INITIATED: Hook.POST_CREATE,
    UploadState.RECEIVING: Hook.POST_RECEIVE,
    UploadState.VERIFIED: Hook.POST_FINISH,
    # tusd ends uploads by DELETE alone; who frees what belongs to one wants to hear of every end.
    **dict.fromkeys(TERMINAL, Hook.POST_TERMINATE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TusdHooks:
    """What all hooks share. events: which there are; headers: of requests, that are passed on.

    path: of the creation URL. find_storage: tells where the object of an upload is.
    """

    outgoing: Outgoing
    url: str
    events: frozenset[Hook]
    headers: tuple[str, ...]
    path: str
    find_storage: Callable[[Upload], Mapping[str, str]]

    async def post(self, hook: Hook, upload: Upload, request: Credentials | None) -> Answer:
        """Send what a hook is told. Raises: NoAnswer."""
        body = render_hook(
            hook,
            upload,
            request=request,
            path=f"{self.path}{upload.id}",
            storage=self.find_storage(upload),
        )
        shown = request.headers if request else {}
        passed = {name: shown[name.lower()] for name in self.headers if name.lower() in shown}
        fields = {**passed, "Content-Type": "application/json"}
        return await self.outgoing.post(self.url, body, fields, reads=True)

    async def ask(
        self, hook: Hook, upload: Upload, request: Credentials | None = None
    ) -> HookAnswer:
        """Give what a hook says to what is about to happen. Raises: CheckPostponed."""
        try:
            answer = await self.post(hook, upload, request)
        except NoAnswer as exc:
            raise self._postponed(hook, upload, str(exc)) from exc
        try:
            said = parse_answer(answer.body)
        except AnswerUnclear as exc:
            why = f"cannot be understood, {exc}" if answer.is_success else str(answer)
            raise self._postponed(hook, upload, why) from exc
        # As in tusd a failure of the hook is no verdict; unless it says one.
        if not (answer.is_success or said.rejects_upload or said.rejects_termination):
            raise self._postponed(hook, upload, str(answer))
        if said.unknown:
            log.warning("hooks.ignored", hook=hook, upload=upload.id, what=", ".join(said.unknown))
        return said

    def _postponed(self, hook: Hook, upload: Upload, why: str) -> CheckPostponed:
        log.warning("hooks.no_answer", hook=hook, upload=upload.id, detail=why)
        return CheckPostponed(f"The hook {hook} gave no answer.")


@dataclass(frozen=True, slots=True)
class HookGate:
    """See ports.Gate."""

    hooks: TusdHooks

    async def before_create(self, upload: Upload, principal: Principal) -> Upload:
        if Hook.PRE_CREATE not in self.hooks.events:
            return upload
        said = await self.hooks.ask(Hook.PRE_CREATE, upload, principal.request)
        if said.rejects_upload:
            raise _refused(said, "The upload was rejected.")
        if said.metadata is None:
            return upload
        try:
            return replace(upload, metadata=render_metadata(said.metadata))
        except MalformedMetadata as exc:
            log.error("hooks.metadata", upload=upload.id, detail=exc.detail)
            raise CheckPostponed("The metadata that the hook pre-create gives are wrong.") from exc

    async def before_terminate(self, upload: Upload, principal: Principal) -> None:
        if Hook.PRE_TERMINATE not in self.hooks.events:
            return
        said = await self.hooks.ask(Hook.PRE_TERMINATE, upload, principal.request)
        if said.rejects_termination:
            raise _refused(said, "The termination was rejected.")


@dataclass(frozen=True, slots=True)
class HookVerifier:
    """See ports.Verifier."""

    hooks: TusdHooks

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        said = await self.hooks.ask(Hook.PRE_FINISH, upload)
        if said.rejects_upload or said.status is not None:
            return Verdict(REFUSED, said.body or "The upload was rejected.")
        return Verdict()


@dataclass(frozen=True, slots=True)
class HookTarget:
    """See ports.JobTarget."""

    hooks: TusdHooks

    @property
    def name(self) -> str:
        return "hooks"

    def wants(self, event: Event) -> bool:
        return _TOLD.get(event.kind) in self.hooks.events

    async def deliver(
        self, event: Event, upload: Upload | None, history: list[StatusChange]
    ) -> None:
        hook = _TOLD[event.kind]
        if upload is None:
            raise DeliveryFailed("the row of the upload was removed.", is_final=True)
        try:
            answer = await self.hooks.post(hook, upload, None)
        except NoAnswer as exc:
            raise DeliveryFailed(f"{hook}: {exc}.") from exc
        if not answer.is_success:
            raise DeliveryFailed(f"{hook} {answer}.")
        self._look_at(hook, upload, answer)

    def _look_at(self, hook: Hook, upload: Upload, answer: Answer) -> None:
        """Say what is not done of what the hook wants; it has been told in any case."""
        try:
            unknown = parse_answer(answer.body).unknown
        except AnswerUnclear:
            return
        if unknown:
            log.warning("hooks.ignored", hook=hook, upload=upload.id, what=", ".join(unknown))


def _refused(said: HookAnswer, detail: str) -> RefusedByHook:
    return RefusedByHook(detail, status=said.status or 400, body=said.body, fields=said.fields)
