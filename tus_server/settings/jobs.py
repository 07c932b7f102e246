"""Settings of what the application is told and asked: jobs, webhooks, checks, tusd's hooks."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, InstanceOf
from pydantic_settings import NoDecode

from tus_server.core.jobs import Job
from tus_server.settings import job_values, values
from tus_server.settings.fields import OPTIONAL, CommaList, seconds, setting

_Job = Annotated[InstanceOf[Job] | None, NoDecode, BeforeValidator(job_values.parse_job), OPTIONAL]
_Path = Annotated[str, AfterValidator(job_values.check_path)]
_HooksUrl = Annotated[str, AfterValidator(job_values.check_hooks_url)]
_JOB_EXPECTS = 'give the name of a job, or {"name": "...", "kwargs": {...}} as JSON'


class JobSettings(BaseModel):
    """Completion jobs, and what is asked before an upload is created, verified or ended."""

    success_job: _Job = setting(
        "Job for uploads that succeed and name none: the https:// URL of a webhook,"
        " `procrastinate:QUEUE/TASK`, a dotted path; or JSON with `name` and `kwargs`",
        _JOB_EXPECTS,
        default=None,
        shown="none",
    )
    failure_job: _Job = setting(
        "The same for uploads that fail, expire, are canceled or rejected",
        _JOB_EXPECTS,
        default=None,
        shown="none",
    )
    job_prefixes: Annotated[CommaList, AfterValidator(job_values.check_paths)] = setting(
        "Modules whose Python callables may be jobs and checks, such as `myapp.jobs`",
        "give dotted names of modules, such as myapp.jobs, with commas between",
        default=(),
        shown="none",
    )
    job_timeout_s: float = seconds(
        "Seconds a Python callable may take for a job before it counts as failed", default=60.0
    )
    webhook_secret: Annotated[CommaList, AfterValidator(job_values.check_secrets)] = setting(
        "Secrets that sign webhooks (Standard Webhooks); several while they are changed",
        "give whsec_ and 24 to 64 bytes in Base64; several with commas between",
        default=(),
        shown="none: not signed",
        secret=True,
    )
    webhook_timeout_s: float = seconds("Seconds a webhook has to answer", default=15.0)
    webhook_allow_private: bool = setting(
        "Whether webhooks may go to addresses of private networks, and by http://",
        "give true or false",
        default=False,
    )
    verifier: Annotated[_Path | None, OPTIONAL] = setting(
        "Check of finished uploads: dotted path of a coroutine function that gives a Verdict",
        "give the dotted path of a coroutine function, such as myapp.checks.scan",
        default=None,
        shown="none",
    )
    verifier_timeout_s: float = seconds(
        "Seconds that check may take before it is begun again later", default=600.0
    )
    hooks_url: Annotated[_HooksUrl | None, OPTIONAL] = setting(
        "URL that tusd's HTTP hooks are sent to",
        "give an http:// or https:// URL",
        default=None,
        shown="none",
        repr=False,
    )
    hooks_events: Annotated[CommaList, AfterValidator(job_values.check_hooks)] = setting(
        "Which of them: pre-create, post-create, post-receive, pre-finish, post-finish,"
        " pre-terminate, post-terminate",
        "give names of tusd's hooks, such as pre-create,post-finish, with commas between",
        default=job_values.HOOKS,
        shown="all",
    )
    hooks_timeout_s: float = seconds("Seconds a hook has to answer", default=15.0)
    hooks_forward_headers: Annotated[CommaList, AfterValidator(values.check_field_names)] = setting(
        "Header fields of clients' requests that are passed on to blocking hooks",
        "give names of header fields with commas between",
        default=(),
        shown="none",
    )
