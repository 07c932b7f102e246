"""Names of jobs: where they lead, and which are refused with which words."""

from typing import Any

import pytest

from tus_server.core.errors import JobRefused
from tus_server.jobs.names import (
    MAX_KWARGS_BYTES,
    CallJob,
    JobRules,
    QueuedJob,
    WebhookJob,
    check_kwargs,
    find_fault,
    parse_job_name,
)

NONE = JobRules()
ALL = JobRules(prefixes=("app.jobs", "other"), has_queue=True)
LOCAL = JobRules(allow_private=True)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("https://example.com/done", WebhookJob("https://example.com/done")),
        ("https://example.com:8443/a?b=c", WebhookJob("https://example.com:8443/a?b=c")),
        ("HTTPS://EXAMPLE.com", WebhookJob("HTTPS://EXAMPLE.com")),
        ("https://8.8.8.8/", WebhookJob("https://8.8.8.8/")),
        ("https://[2606:4700:4700::1111]/", WebhookJob("https://[2606:4700:4700::1111]/")),
        ("procrastinate:thumbnails", QueuedJob("default", "thumbnails")),
        ("procrastinate:slow/app.tasks.thumbnails", QueuedJob("slow", "app.tasks.thumbnails")),
        ("procrastinate:app:tasks", QueuedJob("default", "app:tasks")),
        ("app.jobs", CallJob("app.jobs")),
        ("app.jobs.images.shrink", CallJob("app.jobs.images.shrink")),
        ("other.run", CallJob("other.run")),
    ],
)
def test_a_name_leads_somewhere(name: str, place: object) -> None:
    assert parse_job_name(name, ALL) == place


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:8000/done",
        "https://127.0.0.1/",
        "http://[::1]/",
        "http://intranet/done",
        "https://example.com/",
    ],
)
def test_where_private_addresses_are_allowed_http_is_too(name: str) -> None:
    assert parse_job_name(name, LOCAL) == WebhookJob(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is no name of a job: give the https:// URL of a webhook"),
        ("nonsense", "is no name of a job"),
        ("ftp://example.com/", "is no name of a job"),
        ("app.jobs.", "is no name of a job"),
        ("app..jobs", "is no name of a job"),
        ("app.jobs.a-b", "is no name of a job"),
        ("app.jöbs.a", "is no name of a job"),
        ("os.system", "is not in what TUS_JOB_PREFIXES allows"),
        ("app.jobsx.run", "is not in what TUS_JOB_PREFIXES allows"),
        ("app", "is no name of a job"),
        ("http://example.com/", "is not encrypted"),
        ("https://", "is no URL of a webhook"),
        ("https:///path", "is no URL of a webhook"),
        ("https://example.com:0/", "is no URL of a webhook"),
        ("https://example.com:port/", "is no URL of a webhook"),
        ("https://[::1/", "is no URL of a webhook"),
        ("https://me:secret@example.com/", "give one without user, password and fragment"),
        ("https://example.com/#top", "give one without user, password and fragment"),
        ("https://example.com/a b", "is no URL of a webhook"),
        ("https://example.com/\r\nX: y", "is no URL of a webhook"),
        ("https://exämple.com/", "is no URL of a webhook"),
        ("https://127.0.0.1/", "names a private address"),
        ("https://[::ffff:10.0.0.1]/", "names a private address"),
        ("https://169.254.169.254/latest", "names a private address"),
        ("procrastinate:", "names no task"),
        ("procrastinate:a/b/c", "names no task"),
        ("procrastinate:a b", "names no task"),
        ("https://example.com/" + 2048 * "a", "is too long"),
    ],
)
def test_what_leads_nowhere_is_refused_and_told_what_does(name: str, words: str) -> None:
    with pytest.raises(JobRefused, match=r"^'") as caught:
        parse_job_name(name, ALL)

    assert words in caught.value.detail
    assert find_fault(name, ALL) is not None


def test_without_prefixes_and_queue_only_webhooks_are_named() -> None:
    for name in ("app.jobs.run", "procrastinate:task"):
        with pytest.raises(JobRefused, match=r"give the https:// URL of a webhook\.$"):
            parse_job_name(name, NONE)


def test_what_is_allowed_is_named() -> None:
    assert str(ALL) == (
        "the https:// URL of a webhook, or procrastinate:TASK or procrastinate:QUEUE/TASK, or the"
        " dotted path of a Python callable in app.jobs, other"
    )


def test_a_prefix_with_a_dot_at_its_end_is_the_same() -> None:
    rules = JobRules(prefixes=("app.jobs.",))

    assert parse_job_name("app.jobs.run", rules) == CallJob("app.jobs.run")
    assert find_fault("app.jobsx.run", rules) is not None


def test_a_long_name_is_not_shown_in_full() -> None:
    with pytest.raises(JobRefused) as caught:
        parse_job_name("x" * 5000, NONE)

    assert len(caught.value.detail) < 250


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"n": 17, "tags": ["a", None, True, 1.5], "nested": {"ü": "\u2028 😀"}},
        {"text": "a" * (MAX_KWARGS_BYTES - 20)},
    ],
)
def test_kwargs_are_a_json_object_of_unicode_text(kwargs: dict[str, Any]) -> None:
    check_kwargs(kwargs)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"a": "x\0y"}, "no NUL"),
        ({"a": [{"b\0": 1}]}, "no NUL"),
        ({"a": "\ud800"}, "Unicode text"),
        ({"\udfff": 1}, "Unicode text"),
        ({"a": float("nan")}, "JSON object"),
        ({"a": float("inf")}, "JSON object"),
        ({"a": object()}, "JSON object"),
        ({"a": {1, 2}}, "JSON object"),
        ({"text": "a" * MAX_KWARGS_BYTES}, "at most 32768 bytes"),
        ({"text": "ü" * (MAX_KWARGS_BYTES // 2)}, "at most 32768 bytes"),
    ],
)
def test_kwargs_that_no_queue_could_keep_are_refused(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(JobRefused, match=words):
        check_kwargs(kwargs)


def test_kwargs_without_an_end_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless

    with pytest.raises(JobRefused):
        check_kwargs(endless)
