"""What is wrong with the settings of the store, in one sentence that names the setting."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from tus_server.core.errors import SettingsInvalid, StorageFull, StoreUnavailable
from tus_server.objects.s3.client import Answer, S3Client
from tus_server.objects.s3.failures import ANY, Refused
from tus_server.objects.s3.options import S3Options

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of the instance"
_UNKNOWN_KEY = frozenset({"InvalidAccessKeyId", "XAdminUserNotFound", "InvalidTokenId"})
_EXPIRED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect"})
# A wrong address shall be told soon, and a store that answers once is there.
_ANSWER_S = 6.0
_SIGNED_FOR = re.compile(r"/\d{8}/([^/]+)/s3/aws4_request")


async def check_bucket(client: S3Client, options: S3Options) -> None:
    """Return if the bucket can be listed. Raises: SettingsInvalid."""
    # A HEAD has no body to say why it was refused: so the objects are listed.
    with settings_errors(options), _signed_regions(client) as regions:
        answer = await client.call(
            "list_objects_v2",
            accept=ANY,
            timeout_s=_ANSWER_S,
            attempts=min(2, options.attempts),
            Bucket=options.bucket,
            Prefix=options.prefix,
            MaxKeys=1,
        )
    ours = client.driver.meta.region_name
    _check_region(options, ours, _find_region(options, answer) or regions[-1])


@contextmanager
def _signed_regions(client: S3Client) -> Iterator[list[str]]:
    """Give the regions that requests are signed for from now on, in a list that grows.

    To one that is told a wrong region botocore sends a second one, and nobody hears of it.
    """
    events, regions = client.driver.meta.events, [str(client.driver.meta.region_name)]

    def note(request: Any, **_: object) -> None:
        signed = _SIGNED_FOR.search(str(request.headers.get("Authorization", "")))
        if signed:
            regions.append(signed[1])

    events.register("before-send.s3", note)
    try:
        yield regions
    finally:
        events.unregister("before-send.s3", note)


def _find_region(options: S3Options, answer: Answer) -> str | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    # Servers other than Amazon's may say anything here.
    return headers.get("x-amz-bucket-region") if options.endpoint_url is None else None


def _check_region(options: S3Options, ours: str, of_bucket: str) -> None:
    """Refuse a region that is not the bucket's: URLs for downloads would be signed for it."""
    if of_bucket != ours:
        raise SettingsInvalid(
            f"The bucket {options.bucket} is in {of_bucket}, not in {ours}: set TUS_S3_REGION, or"
            " AWS_DEFAULT_REGION."
        )


@contextmanager
def settings_errors(options: S3Options) -> Iterator[None]:
    """Turn every failure into SettingsInvalid."""
    try:
        yield
    except Refused as exc:
        raise SettingsInvalid(_explained(exc, options)) from exc
    except (StoreUnavailable, StorageFull) as exc:
        raise SettingsInvalid(_unreachable(exc, options)) from exc


def _explained(exc: Refused, options: S3Options) -> str:
    bucket = options.bucket
    if exc.code == "NoSuchBucket":
        return f"The bucket {bucket} does not exist: create it, or correct TUS_STORE_URL."
    if exc.code in _UNKNOWN_KEY:
        return f"S3 does not know the access key: see {_KEYS}."
    if exc.code == "SignatureDoesNotMatch":
        return f"S3 refuses the secret of the access key: see {_KEYS}."
    if exc.code in _EXPIRED:
        return f"The session token for S3 has expired or is wrong: see AWS_SESSION_TOKEN, {_KEYS}."
    if exc.code == "RequestTimeTooSkewed":
        return "The clock of this machine differs too much from that of S3: set it (NTP)."
    if exc.code in _REGION or exc.status == 301:
        region = exc.headers.get("x-amz-bucket-region", "another region")
        return f"The bucket {bucket} is in {region}: set TUS_S3_REGION, or AWS_DEFAULT_REGION."
    if exc.status == 403:
        return (
            f"The bucket {bucket} may not be listed with these credentials ({exc.code}): give them"
            f" s3:ListBucket, or see {_KEYS}."
        )
    return f"S3 refuses to list the bucket {bucket} ({exc.code}): see TUS_STORE_URL and TUS_S3_*."


def _unreachable(exc: StoreUnavailable | StorageFull, options: S3Options) -> str:
    where = options.endpoint_url or "Amazon S3"
    cause = exc.__cause__
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return f"There are no credentials for S3: set {_KEYS}."
    if isinstance(cause, ParamValidationError):
        return f"{options.bucket!r} is no name of a bucket: see TUS_STORE_URL."
    if isinstance(cause, SSLError) and "CERTIFICATE_VERIFY_FAILED" not in str(cause):
        return (
            f"TLS with {where} fails: correct TUS_S3_ENDPOINT_URL, which may have to begin with"
            " http://, or the TLS of the store."
        )
    if isinstance(cause, SSLError):
        return (
            f"The certificate of {where} is not trusted: correct TUS_S3_ENDPOINT_URL, or name the"
            " file of the authority in AWS_CA_BUNDLE."
        )
    reason = "no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__
    return f"{where} does not answer ({reason}): see TUS_S3_ENDPOINT_URL and the network."
