"""What the application is asked and told, as the settings have it: checks, hooks, jobs, events."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from tus_server import __version__
from tus_server.core.errors import JobRefused, SettingsInvalid
from tus_server.core.jobs import Job, Outcome
from tus_server.core.states import EARLY_EVENTS, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.deliver import delivering
from tus_server.engine.engine import Engine
from tus_server.jobs.addresses import open_public_socket
from tus_server.jobs.calls import Calls, find_callable, is_async
from tus_server.jobs.message import View
from tus_server.jobs.outgoing import Outgoing
from tus_server.jobs.targets import Callback, CompletionJobs, OnEvent
from tus_server.jobs.tusd import HookGate, HookTarget, HookVerifier, TusdHooks
from tus_server.jobs.tusd_wire import Hook
from tus_server.jobs.verifier import TimedVerifier
from tus_server.jobs.webhook import Webhooks
from tus_server.objects.paths import Paths
from tus_server.ports import Clock, JobQueue, JobTarget, StatusChange, Verifier
from tus_server.settings import Settings
from tus_server.wire.upload_view import UploadView, view_upload

# Beyond the time that targets give themselves.
TIMEOUT_MARGIN_S = 5.0
AGENT = f"tus-server/{__version__}"


@dataclass(frozen=True, slots=True)
class Checks:
    """What is asked about uploads. hooks: None where there are none."""

    hooks: TusdHooks | None
    verifiers: tuple[Verifier, ...]


async def open_checks(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Checks:
    """Give what every process needs that finishes uploads. Raises: SettingsInvalid."""
    verifiers: list[Verifier] = []
    if settings.verifier is not None:
        verifiers.append(_find_verifier(settings.verifier, settings.verifier_timeout_s))
    hooks = None
    if settings.hooks_url is not None:
        outgoing = Outgoing(clock, agent=AGENT, timeout_s=settings.hooks_timeout_s)
        hooks = TusdHooks(
            outgoing=await stack.enter_async_context(outgoing),
            url=settings.hooks_url,
            events=frozenset(map(Hook, settings.hooks_events)),
            headers=settings.hooks_forward_headers,
            path=settings.base_path,
            find_storage=_make_find_storage(settings),
        )
        if Hook.PRE_FINISH in hooks.events:
            verifiers.append(HookVerifier(hooks))
    return Checks(hooks, tuple(verifiers))


def find_early_events(settings: Settings, on_event: OnEvent | None) -> frozenset[UploadState]:
    """Tell which events are wanted of those that are rows only where somebody wants them."""
    if on_event is not None:
        return EARLY_EVENTS
    if settings.hooks_url is None:
        return frozenset()
    early = {Hook.POST_CREATE: UploadState.INITIATED, Hook.POST_RECEIVE: UploadState.RECEIVING}
    return frozenset(early[hook] for hook in early if hook in settings.hooks_events)


async def start_delivery(
    settings: Settings,
    engine: Engine,
    checks: Checks,
    stack: AsyncExitStack,
    on_event: OnEvent | None,
    *,
    mounted_at: str = "",
) -> None:
    """Let the application be told and asked for the life of `stack`.

    mounted_at: see create_app. Raises: SettingsInvalid.
    """
    view = _make_view(settings, engine, mounted_at)
    jobs = await _open_jobs(settings, engine, stack, view)
    targets: list[JobTarget] = [jobs]
    if checks.hooks is not None:
        engine.gate = HookGate(checks.hooks)
        targets.append(HookTarget(checks.hooks))
    if on_event is not None:
        targets.append(Callback(on_event, view, settings.job_timeout_s))
    engine.check_job = jobs.check
    longest_s = max(settings.job_timeout_s, settings.webhook_timeout_s, settings.hooks_timeout_s)
    timeout_s = longest_s + TIMEOUT_MARGIN_S
    await stack.enter_async_context(delivering(engine, targets, timeout_s=timeout_s))


async def _open_jobs(
    settings: Settings, engine: Engine, stack: AsyncExitStack, view: View
) -> CompletionJobs:
    outgoing = Outgoing(
        engine.clock,
        agent=AGENT,
        timeout_s=settings.webhook_timeout_s,
        open_socket=None if settings.webhook_allow_private else open_public_socket,
    )
    await stack.enter_async_context(outgoing)
    queue: JobQueue | None = getattr(engine.state, "job_queue", None)  # of Postgres alone
    defaults = {Outcome.SUCCESS: settings.success_job, Outcome.FAILURE: settings.failure_job}
    rules = replace(settings.job_rules, has_queue=queue is not None)
    jobs = CompletionJobs(
        rules=rules,
        defaults={outcome: job for outcome, job in defaults.items() if job is not None},
        view=view,
        webhooks=Webhooks(outgoing, engine.clock, settings.webhook_secret),
        calls=Calls(rules, timeout_s=settings.job_timeout_s),
        queue=queue,
    )
    for name, job in (("SUCCESS", settings.success_job), ("FAILURE", settings.failure_job)):
        _check_default(jobs, f"TUS_{name}_JOB", job)
    return jobs


def _check_default(jobs: CompletionJobs, name: str, job: Job | None) -> None:
    if job is None:
        return
    try:
        jobs.check(job)
    except JobRefused as exc:
        raise SettingsInvalid(f"{name}: {exc.detail}") from exc


def _find_verifier(path: str, timeout_s: float) -> Verifier:
    try:
        found = find_callable(path)
    except JobRefused as exc:
        raise SettingsInvalid(f"TUS_VERIFIER: {exc.detail}") from exc
    if not is_async(found):
        raise SettingsInvalid(f"TUS_VERIFIER is {path!r}: it is no coroutine function (async def).")
    return TimedVerifier(found, name=path, timeout_s=timeout_s)


def _make_view(settings: Settings, engine: Engine, mounted_at: str) -> View:
    base_url = f"{settings.public_url or ''}{mounted_at}{settings.base_path}"

    def view(upload: Upload, history: Sequence[StatusChange]) -> UploadView:
        return view_upload(upload, history, base_url=base_url, now=engine.state.now())

    return view


def _make_find_storage(settings: Settings) -> Callable[[Upload], Mapping[str, str]]:
    """Tell where objects are, in tusd's words for its own stores."""
    if settings.uses_s3:
        bucket = settings.s3_bucket
        return lambda upload: {
            "Type": "s3store",
            "Bucket": bucket,
            "Key": upload.object_key or "",
        }
    paths = Paths(settings.store_path)
    return lambda upload: {"Type": "filestore", "Path": paths.final(upload.id)}
