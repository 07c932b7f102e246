"""Settings of jobs, webhooks, checks and hooks: what they take, and what they refuse in words."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from tus_server.core.errors import SettingsInvalid
from tus_server.core.jobs import Job
from tus_server.jobs.tusd_wire import Hook
from tus_server.settings import idle_settings, load_settings

SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
POSTGRES = {"state_url": "postgresql://me@db/tus", "store_url": "s3://bucket/prefix"}
URL = "https://example.com/done"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TUS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(**flags: Any) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(**flags)
    (line,) = str(caught.value).splitlines()
    return line


def test_nothing_is_told_and_nobody_is_asked_unless_configured() -> None:
    settings = load_settings()

    assert (settings.success_job, settings.failure_job) == (None, None)
    assert (settings.verifier, settings.hooks_url) == (None, None)
    assert settings.job_prefixes == settings.webhook_secret == ()
    assert not settings.webhook_allow_private
    assert settings.hooks_events == tuple(Hook)


@pytest.mark.parametrize(
    ("text", "job"),
    [
        (URL, Job(URL)),
        (f"  {URL} ", Job(URL)),
        (f'{{"name": "{URL}"}}', Job(URL)),
        (f'{{"name": "{URL}", "kwargs": {{"n": [1]}}}}', Job(URL, {"n": [1]})),
        ("", None),
        ("  ", None),
    ],
)
def test_a_job_is_a_name_or_json(text: str, job: Job | None, monkeypatch: Any) -> None:
    monkeypatch.setenv("TUS_SUCCESS_JOB", text)

    assert load_settings().success_job == job


def test_a_job_in_the_file_may_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "tus-server.toml").write_text(
        f'failure_job = "{URL}"\n[success_job]\nname = "{URL}"\nkwargs = {{ n = 1 }}\n'
    )

    settings = load_settings()

    assert settings.success_job == Job(URL, {"n": 1})
    assert settings.failure_job == Job(URL)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"name": 3}',
        '{"kwargs": {}}',
        f'{{"name": "{URL}", "kwargs": []}}',
        f'{{"name": "{URL}", "queue": "q"}}',
        f'{{"name": "{URL}", "kwargs": {{"a": "\\u0000"}}}}',
        f'{{"name": "{URL}", "kwargs": {{"a": NaN}}}}',
    ],
)
def test_what_is_no_job_is_refused(text: str) -> None:
    assert refusal(failure_job=text).endswith(
        ': give the name of a job, or {"name": "...", "kwargs": {...}} as JSON.'
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"success_job": "app.jobs.run"}, "a dotted path, and TUS_JOB_PREFIXES allows none"),
        ({"success_job": "app.run", "job_prefixes": "other"}, "TUS_JOB_PREFIXES allows"),
        ({"success_job": "procrastinate:x"}, "needs procrastinate in the Postgres"),
        ({"success_job": "http://example.com/"}, "is not encrypted"),
        ({"success_job": "https://10.0.0.1/"}, "names a private address"),
        ({"success_job": "nonsense"}, "is no name of a job"),
    ],
)
def test_a_job_that_leads_nowhere_is_refused(flags: dict[str, str], words: str) -> None:
    said = refusal(**flags)

    assert said.startswith(f"TUS_SUCCESS_JOB is '{flags['success_job']}', by --success-job: it ")
    assert words in said


def test_what_other_settings_allow_leads_somewhere() -> None:
    local = load_settings(success_job="http://127.0.0.1:1/", webhook_allow_private=True)
    python = load_settings(success_job="app.jobs.run", job_prefixes="other, app.jobs.")
    queued = load_settings(success_job="procrastinate:slow/run", **POSTGRES)

    assert local.success_job == Job("http://127.0.0.1:1/")
    assert python.job_prefixes == ("other", "app.jobs")
    assert queued.job_rules.has_queue


@pytest.mark.parametrize("path", ["app..x", "app/x", "1app", "app.x-y", "app x"])
def test_prefixes_and_checks_are_dotted_names(path: str) -> None:
    assert "give dotted names of modules" in refusal(job_prefixes=path)
    assert "give the dotted path of a coroutine function" in refusal(verifier=path)


def test_a_check_needs_an_allowed_prefix() -> None:
    assert refusal(verifier="app.scan") == (
        "TUS_VERIFIER is 'app.scan', by --verifier:"
        " it is not in what TUS_JOB_PREFIXES allows; add its module there."
    )
    assert load_settings(verifier="app.scan", job_prefixes="app").verifier == "app.scan"


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_not base64" + "A" * 40,
        base64.b64encode(bytes(24)).decode(),
        "whpk_" + base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        f"{SECRET},whsec_x",
    ],
)
def test_a_secret_has_the_form_of_the_standard_and_is_never_shown(secret: str) -> None:
    assert refusal(webhook_secret=secret) == (
        "TUS_WEBHOOK_SECRET is '***', by --webhook-secret: give whsec_ and 24 to 64 bytes in"
        " Base64; several with commas between."
    )


def test_secrets_are_a_list_and_no_part_of_what_settings_show() -> None:
    unpadded = "whsec_" + base64.b64encode(bytes(25)).decode().rstrip("=")

    settings = load_settings(webhook_secret=f"{SECRET}, {unpadded}")

    assert settings.webhook_secret == (SECRET, unpadded)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    "url", ["ftp://a/", "example.com/hooks", "http://", "http://a:0/", "http://a/#b", "http://a b/"]
)
def test_hooks_go_to_an_http_url(url: str) -> None:
    assert refusal(hooks_url=url).endswith(": give an http:// or https:// URL.")


def test_the_url_of_hooks_may_hold_secrets_that_are_not_shown() -> None:
    settings = load_settings(hooks_url="http://me:s3cret@10.0.0.1/hooks?token=s3cret")

    assert settings.hooks_url == "http://me:s3cret@10.0.0.1/hooks?token=s3cret"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in refusal(hooks_url="ftp://me:s3cret@a/hooks?token=s3cret")


def test_hooks_are_named_as_tusd_names_them() -> None:
    named = load_settings(hooks_url=URL, hooks_events="pre-create,post-finish")

    assert named.hooks_events == ("pre-create", "post-finish")
    assert "'pre-start' is no hook of tusd; give some of pre-create" in refusal(
        hooks_url=URL, hooks_events="pre-create,pre-start"
    )


@pytest.mark.parametrize(
    "name", ["job_timeout_s", "webhook_timeout_s", "verifier_timeout_s", "hooks_timeout_s"]
)
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_timeouts_are_above_0(name: str, text: str) -> None:
    assert refusal(**{name: text}).endswith(": give a number of seconds above 0.")


def test_settings_without_effect_are_listed() -> None:
    settings = load_settings(hooks_timeout_s="3", hooks_events="pre-create", verifier_timeout_s="3")

    assert idle_settings(settings) == [
        "TUS_VERIFIER_TIMEOUT_S has no effect: TUS_VERIFIER is not set.",
        "TUS_HOOKS_EVENTS has no effect: TUS_HOOKS_URL is not set.",
        "TUS_HOOKS_TIMEOUT_S has no effect: TUS_HOOKS_URL is not set.",
    ]
