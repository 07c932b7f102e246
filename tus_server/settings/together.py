"""Settings that do not go together, and settings that have no effect beside the others."""

from typing import TYPE_CHECKING, Final

from tus_server.jobs.names import find_fault
from tus_server.settings.fields import MIB, variable

if TYPE_CHECKING:
    from tus_server.settings.model import Settings

# S3 has it so for every part but the last.
MIN_S3_PART_SIZE: Final = 5 * MIB
# Where this server answers by itself. At the root the uploads leave these alone.
OWN_PATHS: Final = ("/api/uploads/", "/companion/s3/", "/direct/")


def find_clashes(settings: "Settings") -> dict[str, str]:
    """Give for each setting that others make wrong the end of the sentence about it."""
    found = {}
    if settings.uses_postgres and not settings.uses_s3:
        found["state_url"] = (
            "Postgres needs an S3 store, for another node could not read this one's disk; set"
            " TUS_STORE_URL to s3://bucket/prefix"
        )
    if settings.workers > 1 and not settings.uses_postgres:
        found["workers"] = (
            "with SQLite one process serves a data directory; give 1, or set TUS_STATE_URL to a"
            " postgresql:// URL and TUS_STORE_URL to s3://bucket/prefix"
        )
    if settings.uses_s3 and settings.part_size < MIN_S3_PART_SIZE:
        found["part_size_bytes"] = "a part in S3 has at least 5 MiB; give 5 MiB to 5 GiB"
    if settings.uses_s3 and settings.direct_part_size < MIN_S3_PART_SIZE:
        found["direct_part_size"] = "a part in S3 has at least 5 MiB; give 5 MiB to 5 GiB"
    if settings.s3_sse_kms_key_id and settings.s3_sse in (None, "AES256"):
        found["s3_sse_kms_key_id"] = "a key needs TUS_S3_SSE=aws:kms; set that, or leave it out"
    if settings.downloads == "redirect" and not settings.uses_s3:
        found["downloads"] = (
            "there is no S3 store to redirect to; give proxy or off, or set TUS_STORE_URL to"
            " s3://bucket/prefix"
        )
    base = settings.base_path
    if base != "/" and any(own.startswith(base) or base.startswith(own) for own in OWN_PATHS):
        found["base_path"] = "the server itself answers there; give another path, such as /files/"
    return found | _find_job_clashes(settings)


def _find_job_clashes(settings: "Settings") -> dict[str, str]:
    found = {}
    rules = settings.job_rules
    for name in ("success_job", "failure_job"):
        job = getattr(settings, name)
        fault = None if job is None else find_fault(job.name, rules)
        if fault is not None:
            found[name] = f"it {fault}"
    if settings.verifier is not None and not rules.allows_path(settings.verifier):
        found["verifier"] = "it is not in what TUS_JOB_PREFIXES allows; add its module there"
    return found


def idle_settings(settings: "Settings") -> list[str]:
    """Give a sentence for each setting that was given and has no effect: likely a slip."""
    sentences = []
    for name, field in type(settings).model_fields.items():
        if name not in settings.model_fields_set or getattr(settings, name) == field.default:
            continue
        if not settings.uses_s3 and (name.startswith("s3_") or name == "tail_policy"):
            sentences.append(f"{variable(name)} has no effect: TUS_STORE_URL is no S3 store.")
        elif not settings.uses_postgres and name.startswith("state_") and name != "state_url":
            sentences.append(f"{variable(name)} has no effect: TUS_STATE_URL is not Postgres.")
        elif name.startswith("hooks_") and settings.hooks_url is None:
            sentences.append(f"{variable(name)} has no effect: TUS_HOOKS_URL is not set.")
        elif name == "verifier_timeout_s" and settings.verifier is None:
            sentences.append(f"{variable(name)} has no effect: TUS_VERIFIER is not set.")
        elif name == "expires_at_most_s" and settings.expires_after_s == 0:
            sentences.append(f"{variable(name)} has no effect: TUS_EXPIRES_AFTER_S is 0.")
    return sentences
