"""URLs for parts are those that botocore signs, and end when they shall."""

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import botocore.auth
import botocore.crt.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import FakeClock, make_upload, planned_parts
from tests.support.s3_backend import SWIFT
from tests.support.s3_store import PLAIN
from tus_server.core.errors import StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.core.upload import Protocol, Upload
from tus_server.objects.s3 import S3Options
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.client import open_client
from tus_server.objects.s3.direct import LONGEST_S, S3Direct, open_direct
from tus_server.objects.s3.signing import Address, Keys, PartSigner

# In the middle of a second, of which a URL knows the beginning only.
MOMENT = datetime(2026, 2, 28, 23, 59, 58, 700_000, tzinfo=UTC)
HOUR = timedelta(hours=1)
ODD_KEYS = [
    "plain",
    "up/loads/a b",
    "a+b&c=d?e#f",
    "100%/%41%2F",
    "~*'()!$,;:@[]",
    "größe/日本語/🎈",
    "a//b/./c",
    'quo"te\\back`tick^|{}<>',
]
SERVICES = {
    "virtual host": {"region": "eu-west-1"},
    "first region": {"region": "us-east-1"},
    "path": {"endpoint_url": "http://s3.test:9000", "region": "us-east-1"},
    "usual port": {"endpoint_url": "https://s3.test:443", "region": "garage"},
    "other port": {"endpoint_url": "http://s3.test:443"},
    "virtual host of an endpoint": {"endpoint_url": "https://s3.test:8443", "path_style": False},
    "capitals": {"endpoint_url": "http://S3.Test:8080"},
    "below a path": {"endpoint_url": "http://s3.test/gateway/"},
    "IPv6": {"endpoint_url": "http://[::1]:9000"},
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "us:er/+")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sec/ret+=")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore sign at MOMENT."""

    def now(remove_tzinfo: bool = True) -> datetime:
        return MOMENT.replace(tzinfo=None) if remove_tzinfo else MOMENT

    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(module, "get_current_datetime", now)


@asynccontextmanager
async def opened(bucket: str = "buck-et", **options: Any) -> AsyncIterator[tuple[Bucket, S3Direct]]:
    """Open what signs at MOMENT; no service is asked for anything."""
    chosen = S3Options(bucket=bucket, **options)
    async with open_client(chosen) as client:
        place = Bucket(client, chosen, SWIFT, lambda upload: PLAIN)
        direct = await open_direct(place)
        yield place, S3Direct(place, direct._address, lambda: MOMENT)


def make_row(key: str = "key", *, length: int = 40 * MIB, multipart_id: str = "id") -> Upload:
    return make_upload(
        FakeClock(),
        protocol=Protocol.MULTIPART,
        length=length,
        part_size=16 * MIB,
        object_key=key,
        multipart_id=multipart_id,
        crc64=None,
    )


async def signed_by_botocore(
    place: Bucket, upload: Upload, number: int, size: int, expires_s: int
) -> str:
    return await place.client.presign(
        "upload_part",
        expires_s=expires_s,
        Bucket=place.options.bucket,
        Key=upload.object_key,
        UploadId=upload.multipart_id,
        PartNumber=number,
        ContentLength=size,
    )


def taken_apart(url: str) -> tuple[str, list[tuple[str, str]]]:
    """Give a URL without the order of its query, which means nothing."""
    return url.partition("?")[0], sorted(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def fields(url: str) -> dict[str, str]:
    return dict(taken_apart(url)[1])


# --- they are botocore's


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("token", [None, "to/ken+=="])
async def test_every_url_is_the_one_that_botocore_signs(
    frozen: None, monkeypatch: pytest.MonkeyPatch, service: str, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    async with opened(**SERVICES[service]) as (place, direct):
        for key in ODD_KEYS:
            upload = make_row(key, multipart_id="2~a/b+c=.d_")
            parts = planned_parts(upload)

            requests = await direct.sign_parts(upload, parts, expires_at=MOMENT + HOUR)

            for part, request in zip(parts, requests, strict=True):
                expected = await signed_by_botocore(
                    place, upload, part.number, part.size, expires_s=3600
                )
                assert taken_apart(request.url) == taken_apart(expected)
                assert fields(request.url).get("X-Amz-Security-Token") == token


@pytest.mark.parametrize("bucket", ["with.dots", "arn:aws:s3:us-west-2:123456789012:accesspoint/a"])
async def test_a_bucket_that_is_elsewhere_is_signed_for_there(frozen: None, bucket: str) -> None:
    upload = make_row("a b")
    async with opened(bucket, region="us-east-1") as (place, direct):
        first = (await direct.sign_parts(upload, planned_parts(upload), expires_at=MOMENT + HOUR))[
            0
        ]
        expected = await signed_by_botocore(place, upload, 1, 16 * MIB, expires_s=3600)

    assert taken_apart(first.url) == taken_apart(expected)


texts = st.text(st.characters(codec="utf-8", min_codepoint=1), min_size=1, max_size=30)
plain = st.text("abcXYZ019-_.~+/=", min_size=1, max_size=40)


@given(
    key=texts,
    multipart_id=texts,
    secret=plain,
    token=st.none() | plain,
    number=st.integers(1, 10_000),
    size=st.integers(0, 5 * 1024**3),
    expires_s=st.integers(1, LONGEST_S),
    moment_s=st.integers(0, 2**32),
)
def test_the_signature_is_the_one_of_botocore(
    key: str,
    multipart_id: str,
    secret: str,
    token: str | None,
    number: int,
    size: int,
    expires_s: int,
    moment_s: int,
) -> None:
    base, moment = "https://s3.test:9000/bucket/", datetime.fromtimestamp(moment_s, UTC)
    signer = PartSigner(
        Address(base, "eu-central-2"),
        Keys("access", secret, token),
        key=key,
        multipart_id=multipart_id,
        signed_at=moment,
        expires_s=expires_s,
    )
    request = AWSRequest(
        "PUT",
        base + quote(key, safe="/~"),
        headers={"Content-Length": str(size)},
        params={"partNumber": str(number), "uploadId": multipart_id},
    )
    theirs = botocore.auth.S3SigV4QueryAuth(
        ReadOnlyCredentials("access", secret, token), "s3", "eu-central-2", expires=expires_s
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: moment.replace(tzinfo=None))
        theirs.add_auth(request)

    assert taken_apart(signer.sign(number, size)) == taken_apart(request.url)


# --- until when


@pytest.mark.parametrize(
    ("asked_s", "expires_s"),
    [(3600, 3600), (3600.2, 3600), (3600.3, 3601), (1, 1), (0.1, 1), (-5, 1), (10**7, LONGEST_S)],
)
async def test_a_url_ends_with_the_last_whole_second_it_may_live(
    asked_s: float, expires_s: int
) -> None:
    expires_at = MOMENT + timedelta(seconds=asked_s)
    upload = make_row()
    async with opened(region="us-east-1") as (_, direct):
        first = (await direct.sign_parts(upload, planned_parts(upload), expires_at=expires_at))[0]

    told = fields(first.url)
    assert told["X-Amz-Expires"] == str(expires_s)
    begins_at = datetime.strptime(told["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert first.expires_at == begins_at + timedelta(seconds=expires_s)
    assert begins_at <= MOMENT
    assert first.expires_at <= expires_at or expires_s == 1


class Issuer:
    """A program that gives credentials for a time, as tools of companies are."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "issued.json"
        script = folder / "issuer.py"
        script.write_text(f"print(open({str(self._path)!r}).read())")
        (folder / "config").write_text(
            f"[default]\ncredential_process = {sys.executable} {script}\n"
        )

    def issue(self, name: str, expires_at: datetime) -> None:
        issued = {"Version": 1, "AccessKeyId": name, "SecretAccessKey": f"secret of {name}"}
        issued |= {"SessionToken": f"token of {name}", "Expiration": expires_at.isoformat()}
        self._path.write_text(json.dumps(issued))

    def stop(self) -> None:
        self._path.unlink()


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issuer:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    return Issuer(tmp_path)


async def test_credentials_are_renewed_and_no_url_is_said_to_outlive_them(
    issuer: Issuer,
) -> None:
    upload = make_row()
    parts = planned_parts(upload)
    now = datetime.now(UTC)
    # So soon that botocore renews them before each use.
    issuer.issue("one", now + timedelta(seconds=90))
    async with opened(region="us-east-1") as (place, found):
        direct = S3Direct(place, found._address)
        first = (await direct.sign_parts(upload, parts, expires_at=now + HOUR))[0]
        issuer.issue("two", now + 9 * HOUR)
        second = (await direct.sign_parts(upload, parts, expires_at=now + HOUR))[0]

    assert fields(first.url)["X-Amz-Credential"].startswith("one/")
    assert first.expires_at <= now + timedelta(seconds=90)
    assert fields(second.url)["X-Amz-Credential"].startswith("two/")
    assert fields(second.url)["X-Amz-Security-Token"] == "token of two"
    assert first.expires_at < second.expires_at <= now + HOUR


async def test_without_credentials_nothing_is_signed(
    issuer: Issuer,
) -> None:
    upload = make_row()
    issuer.issue("one", datetime.now(UTC) + timedelta(seconds=90))
    async with opened(region="us-east-1") as (_, direct):
        issuer.stop()
        with pytest.raises(StoreUnavailable):
            await direct.sign_parts(upload, planned_parts(upload), expires_at=MOMENT + HOUR)


def test_keys_do_not_show_what_is_secret() -> None:
    shown = repr(Keys("who", "hidden", "hidden"))

    assert "who" in shown
    assert "hidden" not in shown


# --- what it costs


async def test_a_thousand_urls_cost_a_tenth_of_a_second_at_most() -> None:
    upload = make_row(length=1000 * 16 * MIB)
    parts = planned_parts(upload)
    costs_s = []
    async with opened(region="us-east-1") as (_, direct):
        for _ in range(5):
            begin_s = time.process_time()
            requests = await direct.sign_parts(upload, parts, expires_at=MOMENT + HOUR)
            costs_s.append(time.process_time() - begin_s)

    assert len({request.url for request in requests}) == 1000
    assert statistics.median(costs_s) < 0.1
