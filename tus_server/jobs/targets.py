"""Where events go: completion jobs to where their names say, all of them to a callback."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from tus_server.core.errors import DeliveryFailed, JobRefused
from tus_server.core.jobs import Job, Outcome
from tus_server.core.upload import Upload
from tus_server.jobs.calls import Calls, answering
from tus_server.jobs.message import Message, View, make_message, message_id, render_message
from tus_server.jobs.names import (
    CallJob,
    JobRules,
    QueuedJob,
    WebhookJob,
    check_kwargs,
    parse_job_name,
)
from tus_server.jobs.webhook import Webhooks
from tus_server.ports import Event, JobQueue, StatusChange

OnEvent = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionJobs:
    """See ports.JobTarget: the job of an event that decided the outcome of its upload.

    defaults: for uploads that name none. queue: None where there is none.
    """

    rules: JobRules
    defaults: Mapping[Outcome, Job]
    view: View
    webhooks: Webhooks
    calls: Calls
    queue: JobQueue | None

    @property
    def name(self) -> str:
        return "job"

    def wants(self, event: Event) -> bool:
        return self._find_job(event) is not None

    async def deliver(
        self, event: Event, upload: Upload | None, history: list[StatusChange]
    ) -> None:
        job = self._find_job(event)
        assert job is not None
        try:
            where = parse_job_name(job.name, self.rules)
        except JobRefused as exc:  # the settings are others than when it was named
            raise DeliveryFailed(exc.detail, is_final=True) from exc
        if isinstance(where, QueuedJob):
            assert self.queue is not None
            # What it is about; of a default job nothing else tells.
            about = {"upload_id": event.upload_id, "outcome": event.outcome}
            # One after the other of one upload, in the queue too.
            await self.queue.defer(
                replace(event, job=replace(job, kwargs={**about, **job.kwargs})),
                self.name,
                queue=where.queue,
                task=where.task,
                lock=event.upload_id,
            )
            return
        view = None if upload is None else self.view(upload, history)
        if isinstance(where, WebhookJob):
            body = render_message(event, job, view)
            await self.webhooks.deliver(where.url, body, message_id=message_id(event))
        else:
            await self.calls.call(where.path, make_message(event, job, view), **job.kwargs)

    def check(self, job: Job) -> None:
        """Raise JobRefused for a job that leads nowhere, or cannot be kept: engine.check_job."""
        where = parse_job_name(job.name, self.rules)
        check_kwargs(job.kwargs)
        if isinstance(where, CallJob):
            self.calls.find(where.path)

    def _find_job(self, event: Event) -> Job | None:
        if event.outcome is None:
            return None
        return event.job or self.defaults.get(event.outcome)


@dataclass(frozen=True, slots=True)
class Callback:
    """See ports.JobTarget: a coroutine function of the application in this process."""

    on_event: OnEvent
    view: View
    timeout_s: float

    @property
    def name(self) -> str:
        return "on_event"

    def wants(self, event: Event) -> bool:
        return True

    async def deliver(
        self, event: Event, upload: Upload | None, history: list[StatusChange]
    ) -> None:
        view = None if upload is None else self.view(upload, history)
        message = make_message(event, event.job, view)
        async with answering(self.timeout_s, "the callback"):
            await self.on_event(message)
