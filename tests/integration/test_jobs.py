"""Completion jobs: to where their names lead, and what they are told there."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.conftest import soon
from tests.support import callables
from tests.support.fakes import FakeClock, make_upload
from tests.support.sink import Sink
from tus_server.core.errors import CheckPostponed, DeliveryFailed, JobRefused
from tus_server.core.jobs import Job, Outcome
from tus_server.core.states import UploadState as S
from tus_server.core.upload import Upload
from tus_server.jobs.calls import Calls, find_callable, is_async
from tus_server.jobs.message import make_message, render_message
from tus_server.jobs.names import JobRules
from tus_server.jobs.outgoing import Outgoing
from tus_server.jobs.targets import Callback, CompletionJobs
from tus_server.jobs.verifier import TimedVerifier
from tus_server.jobs.webhook import Webhooks
from tus_server.ports import Event, StatusChange, Verdict
from tus_server.wire.upload_view import UploadView, view_upload

HERE = "tests.support.callables"
RULES = JobRules(prefixes=(HERE,), allow_private=True, has_queue=True)


class FakeQueue:
    """See ports.JobQueue."""

    def __init__(self) -> None:
        self.deferred: list[tuple[Event, str, dict[str, str]]] = []
        self.failure: DeliveryFailed | None = None

    async def defer(self, event: Event, target: str, *, queue: str, task: str, lock: str) -> bool:
        if self.failure is not None:
            raise self.failure
        self.deferred.append((event, target, {"queue": queue, "task": task, "lock": lock}))
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def upload(clock: FakeClock) -> Upload:
    return make_upload(
        clock, state=S.VERIFIED, length=3, committed_bytes=3, metadata="filename YQ=="
    )


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture(autouse=True)
def _nothing_was_called() -> Iterator[None]:
    callables.CALLED.clear()
    callables.HOLD.clear()
    yield
    callables.HOLD.set()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


def view(upload: Upload, history: Sequence[StatusChange]) -> UploadView:
    now = datetime(2024, 1, 2, tzinfo=UTC)
    return view_upload(upload, history, base_url="https://files.example.com/files/", now=now)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def jobs(clock: FakeClock, queue: FakeQueue, stack: AsyncExitStack) -> CompletionJobs:
    return await make_jobs(clock, queue, stack, {})


async def make_jobs(
    clock: FakeClock,
    queue: FakeQueue,
    stack: AsyncExitStack,
    defaults: Mapping[Outcome, Job],
    rules: JobRules = RULES,
) -> CompletionJobs:
    outgoing = await stack.enter_async_context(Outgoing(clock, agent="a", timeout_s=5.0))
    return CompletionJobs(
        rules=rules,
        defaults=defaults,
        view=view,
        webhooks=Webhooks(outgoing, clock, []),
        calls=Calls(rules, timeout_s=0.2),
        queue=queue,
    )


def event_of(upload: Upload, job: Job | None = None, **fields: Any) -> Event:
    fields = {"outcome": Outcome.SUCCESS, "id": 7} | fields
    return Event(upload.id, upload.state, upload.state_on, job=job, **fields)


def history_of(upload: Upload) -> list[StatusChange]:
    return [StatusChange(state, upload.state_on) for state in (S.VERIFIED, S.INITIATED)]


async def failure(jobs: CompletionJobs, upload: Upload, job: Job) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        await soon(jobs.deliver(event_of(upload, job), upload, []))
    return caught.value


# --- which events have a job


async def test_only_an_event_that_decided_the_outcome_has_a_job(
    clock: FakeClock, queue: FakeQueue, stack: AsyncExitStack, upload: Upload
) -> None:
    success, failure = Job(f"{HERE}.plain"), Job(f"{HERE}.coroutine")
    defaults = {Outcome.SUCCESS: success, Outcome.FAILURE: failure}
    with_defaults = await make_jobs(clock, queue, stack, defaults)
    without = await make_jobs(clock, queue, stack, {})
    own = Job("procrastinate:own")

    assert not with_defaults.wants(event_of(upload, outcome=None))
    assert with_defaults.wants(event_of(upload))
    assert with_defaults.wants(event_of(upload, outcome=Outcome.FAILURE))
    assert not without.wants(event_of(upload))
    assert without.wants(event_of(upload, own))


async def test_without_a_job_of_its_own_it_is_the_default_of_the_outcome(
    clock: FakeClock, queue: FakeQueue, stack: AsyncExitStack, upload: Upload
) -> None:
    defaults = {
        Outcome.SUCCESS: Job(f"{HERE}.plain", {"n": 1}),
        Outcome.FAILURE: Job(f"{HERE}.coroutine"),
    }
    jobs = await make_jobs(clock, queue, stack, defaults)

    for event in (
        event_of(upload),
        event_of(upload, outcome=Outcome.FAILURE),
        event_of(upload, Job("procrastinate:own")),
    ):
        await soon(jobs.deliver(event, upload, []))

    assert [(name, kwargs) for name, _, kwargs, _ in callables.CALLED] == [
        ("plain", {"n": 1}),
        ("coroutine", {}),
    ]
    assert [given["task"] for _, _, given in queue.deferred] == ["own"]


# --- what is told


async def test_a_webhook_has_the_upload_as_the_api_shows_it(
    jobs: CompletionJobs, upload: Upload, sink: Sink
) -> None:
    job = Job(sink.url("/done"), {"n": 17, "text": "ü"})

    await soon(jobs.deliver(event_of(upload, job), upload, history_of(upload)))

    (got,) = sink.received
    shown = view(upload, history_of(upload)).model_dump(mode="json", exclude_unset=True)
    assert got.document == {
        "type": "upload.verified",
        "timestamp": upload.state_on.isoformat().replace("+00:00", "Z"),
        "data": {
            "outcome": "success",
            "job": {"name": job.name, "kwargs": {"n": 17, "text": "ü"}},
            "upload": shown,
        },
    }
    assert shown["id"] == upload.id
    assert shown["status"]["current"]["state"] == "verified"
    assert got.fields["webhook-id"] == f"{upload.id}.verified"


async def test_of_an_upload_that_was_removed_the_id_is_told(
    jobs: CompletionJobs, upload: Upload, sink: Sink
) -> None:
    await soon(jobs.deliver(event_of(upload, Job(sink.url())), None, []))

    (got,) = sink.received
    assert got.document["data"]["upload"] == {"id": upload.id}


def test_a_message_is_rendered_as_it_is_made(upload: Upload) -> None:
    job, shown = Job("x.y", {"text": '\u2028 " ü 😀'}), view(upload, history_of(upload))

    for one in (shown, None):
        rendered = json.loads(render_message(event_of(upload, job), job, one))
        assert rendered == make_message(event_of(upload, job), job, one)


async def test_a_task_gets_its_kwargs_and_what_it_is_about(
    jobs: CompletionJobs, queue: FakeQueue, upload: Upload
) -> None:
    event = event_of(upload, Job("procrastinate:slow/app.shrink", {"size": 3}))

    await soon(jobs.deliver(event, upload, []))

    ((given, target, place),) = queue.deferred
    assert (given.id, target) == (event.id, jobs.name)
    assert given.job is not None
    assert given.job.kwargs == {"upload_id": upload.id, "outcome": "success", "size": 3}
    assert place == {"queue": "slow", "task": "app.shrink", "lock": upload.id}


async def test_kwargs_of_the_job_go_before_what_is_added(
    jobs: CompletionJobs, queue: FakeQueue, upload: Upload
) -> None:
    await soon(jobs.deliver(event_of(upload, Job("procrastinate:t", {"upload_id": 3})), upload, []))

    ((given, _, _),) = queue.deferred
    assert given.job is not None
    assert given.job.kwargs["upload_id"] == 3


async def test_a_queue_that_refuses_is_a_failure(
    jobs: CompletionJobs, queue: FakeQueue, upload: Upload
) -> None:
    queue.failure = DeliveryFailed("no such table.")

    assert (await failure(jobs, upload, Job("procrastinate:t"))).detail == "no such table."


# --- callables


@pytest.mark.parametrize(
    ("path", "name", "is_main"),
    [
        ("plain", "plain", False),
        ("coroutine", "coroutine", True),
        ("instance", "object", True),
        ("instance.method", "method", True),
    ],
)
async def test_a_callable_gets_the_message_and_its_kwargs(
    jobs: CompletionJobs, upload: Upload, path: str, name: str, is_main: bool
) -> None:
    event = event_of(upload, Job(f"{HERE}.{path}", {"n": 1}))

    await soon(jobs.deliver(event, upload, history_of(upload)))

    message = make_message(event, event.job, view(upload, history_of(upload)))
    # What may block runs beside the loop.
    (called,) = callables.CALLED
    assert called == (name, message, {"n": 1}, is_main)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("failing", f"{HERE}.failing raised ValueError: no such\\nrow."),
        ("silent", f"{HERE}.silent raised KeyError."),
        ("exits", f"{HERE}.exits raised RuntimeError: it ended with SystemExit."),
    ],
)
async def test_what_a_callable_raises_is_a_failure_that_may_pass(
    jobs: CompletionJobs, upload: Upload, name: str, detail: str
) -> None:
    failed = await failure(jobs, upload, Job(f"{HERE}.{name}"))

    assert (failed.detail, failed.is_final) == (detail, False)


@pytest.mark.parametrize("name", ["hangs", "hangs_too"])
async def test_a_callable_that_hangs_is_given_up(
    jobs: CompletionJobs, upload: Upload, name: str
) -> None:
    failed = await failure(jobs, upload, Job(f"{HERE}.{name}"))

    assert failed.detail == f"{HERE}.{name} has no end after 0.2 s."


async def test_threads_that_hang_hold_up_no_coroutine(jobs: CompletionJobs, upload: Upload) -> None:
    hanging = [asyncio.create_task(failure(jobs, upload, Job(f"{HERE}.hangs"))) for _ in range(20)]
    await asyncio.sleep(0)

    await soon(jobs.deliver(event_of(upload, Job(f"{HERE}.coroutine")), upload, []))

    await soon(asyncio.gather(*hanging))
    callables.HOLD.set()
    await soon(jobs.deliver(event_of(upload, Job(f"{HERE}.plain")), upload, []))


async def test_a_callable_that_is_not_there_may_come_with_the_next_deployment(
    jobs: CompletionJobs, upload: Upload
) -> None:
    for name in ("missing", "missing.too", "NOT_CALLABLE"):
        failed = await failure(jobs, upload, Job(f"{HERE}.{name}"))
        assert not failed.is_final


def test_what_gives_something_to_await_is_told_from_what_blocks() -> None:
    asyncs = {"coroutine", "instance", "instance.method", "partial"}

    for name in (*asyncs, "plain", "failing", "Callable_"):
        assert is_async(find_callable(f"{HERE}.{name}")) is (name in asyncs), name


# --- what settings no longer allow


async def test_a_job_that_leads_nowhere_any_more_is_a_dead_letter(
    clock: FakeClock, queue: FakeQueue, stack: AsyncExitStack, upload: Upload
) -> None:
    jobs = await make_jobs(clock, queue, stack, {}, JobRules())

    for name in (f"{HERE}.plain", "procrastinate:t", "http://127.0.0.1:1/", "https://10.0.0.1/"):
        assert (await failure(jobs, upload, Job(name))).is_final
    assert callables.CALLED == queue.deferred == []


async def test_a_job_is_checked_when_it_is_named(jobs: CompletionJobs) -> None:
    for good in (f"{HERE}.plain", "procrastinate:t", "https://example.com/"):
        jobs.check(Job(good, {"n": 1}))

    for bad, words in (
        (Job("os.system"), "TUS_JOB_PREFIXES"),
        (Job(f"{HERE}.missing"), "cannot be imported: AttributeError"),
        (Job(f"{HERE}.NOT_CALLABLE"), "is not callable"),
        (Job(f"{HERE}.plain", {"a": "\0"}), "NUL"),
    ):
        with pytest.raises(JobRefused, match=words):
            jobs.check(bad)


@pytest.mark.parametrize(
    "path",
    [
        "asyncio.run",
        "threading.Thread",
        "functools.reduce",
        "Verdict",
        "CALLED.clear",
        "plain.__class__",
        "instance.__class__.__base__",
    ],
)
async def test_what_a_module_has_from_elsewhere_is_none_of_its_callables(
    jobs: CompletionJobs, upload: Upload, path: str
) -> None:
    """Or whoever may name jobs could call anything: most modules have `os` at some end."""
    with pytest.raises(JobRefused, match="is not in what TUS_JOB_PREFIXES allows"):
        jobs.check(Job(f"{HERE}.{path}"))

    await failure(jobs, upload, Job(f"{HERE}.{path}"))


@pytest.mark.parametrize("name", ["plain", "instance", "instance.method", "partial", "asyncio.run"])
async def test_what_is_named_as_such_may_be_from_anywhere(name: str) -> None:
    rules = JobRules(prefixes=(f"{HERE}.{name}",))

    assert callable(Calls(rules, timeout_s=1.0).find(f"{HERE}.{name}"))


# --- the callback


async def test_a_callback_is_told_of_every_event(upload: Upload) -> None:
    told: list[dict[str, Any]] = []

    async def on_event(message: dict[str, Any]) -> None:
        told.append(message)

    callback = Callback(on_event, view, 5.0)
    event = event_of(upload, outcome=None)

    assert callback.wants(event)
    await soon(callback.deliver(event, upload, history_of(upload)))
    await soon(callback.deliver(event, None, []))

    assert [one["type"] for one in told] == ["upload.verified"] * 2
    assert (told[0]["data"]["outcome"], told[0]["data"]["job"]) == (None, None)
    assert told[0]["data"]["upload"]["kind"] == "tus"
    assert told[1]["data"]["upload"] == {"id": upload.id}


async def test_what_a_callback_raises_and_that_it_hangs_are_failures(upload: Upload) -> None:
    async def broken(message: dict[str, Any]) -> None:
        raise LookupError("gone")

    async def hanging(message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    for on_event, words in (
        (broken, "the callback raised LookupError: gone."),
        (hanging, "the callback has no end after 0.05 s."),
    ):
        with pytest.raises(DeliveryFailed) as caught:
            await soon(Callback(on_event, view, 0.05).deliver(event_of(upload), upload, []))
        assert caught.value.detail == words


# --- checks


async def check(name: str, upload: Upload) -> Verdict:
    path = f"{HERE}.{name}"
    verifier = TimedVerifier(find_callable(path), name=path, timeout_s=0.05)
    return await soon(verifier(upload, lambda *args: iter(())))  # type: ignore[arg-type, return-value]


async def test_a_check_gives_its_verdict(upload: Upload) -> None:
    assert (await check("accepts", upload)).is_accepted


async def test_a_check_that_gives_none_or_takes_too_long_is_postponed(upload: Upload) -> None:
    for name, words in (("says_nothing", "gave a NoneType"), ("never_says", "has no end")):
        with pytest.raises(CheckPostponed, match=words):
            await check(name, upload)


async def test_a_timeout_of_the_checks_own_is_told_as_such(upload: Upload) -> None:
    with pytest.raises(TimeoutError, match="its own"):
        await check("is_late_itself", upload)
