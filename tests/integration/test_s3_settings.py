"""Wrong settings of the S3 store: a sentence that names the setting; and what a doctor is told."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
from botocore.endpoint_provider import RuleSet

from tests.support.s3 import S3Service, make_certificate
from tests.support.s3_backend import SWIFT
from tests.support.s3_store import make_upload, open_store
from tus_server.core.errors import SettingsInvalid
from tus_server.disk.threads import FileThreads
from tus_server.findings import Finding
from tus_server.objects.s3 import S3Options
from tus_server.objects.s3.inspect import inspect
from tus_server.objects.s3.keys import escaped, find_tail_generation, make_key

BUCKET = "a-bucket"


@pytest.fixture(autouse=True)
def keys(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the environment's keys in the chain, so that no machine's own are found."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    service: S3Service = request.getfixturevalue("s3" if "s3" in request.fixturenames else "swift")
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)


async def refusal(service: S3Service, bucket: str, folder: Path, endpoint: str = "") -> str:
    with pytest.raises(SettingsInvalid) as caught:
        async with open_store(
            service,
            bucket,
            folder,
            endpoint=endpoint or None,
            attempts=1,
            connect_timeout_s=1,
            read_timeout_s=2,
        ):
            pass
    sentence = caught.value.detail
    assert "\n" not in sentence
    return sentence


async def test_a_bucket_that_is_not_there(s3: S3Service, tmp_path: Path) -> None:
    sentence = await refusal(s3, "no-such-bucket", tmp_path)

    assert "no-such-bucket does not exist" in sentence
    assert "TUS_STORE_URL" in sentence


async def test_the_endpoint_is_worked_out_once_and_not_for_every_key(
    swift: S3Service, swift_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []

    def evaluate(self: RuleSet, parameters: dict[str, object]) -> object:
        seen.append(parameters)
        return evaluated(self, parameters)

    evaluated = RuleSet.evaluate
    async with open_store(swift, swift_bucket, tmp_path, capabilities=SWIFT) as store:
        monkeypatch.setattr(RuleSet, "evaluate", evaluate)
        for _ in range(3):
            await store.free(make_upload(store))

    assert seen == []  # opening the store has asked for the bucket


async def test_a_name_no_bucket_can_have(swift: S3Service, tmp_path: Path) -> None:
    assert "TUS_STORE_URL" in await refusal(swift, "not a bucket!", tmp_path)


async def test_an_unknown_access_key(
    s3: S3Service, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody:nobody")

    assert "AWS_ACCESS_KEY_ID" in await refusal(s3, bucket, tmp_path)


async def test_a_wrong_secret(
    s3: S3Service, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    assert "AWS_SECRET_ACCESS_KEY" in await refusal(s3, bucket, tmp_path)


async def test_no_keys_at_all(
    swift: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in swift.environment:
        monkeypatch.delenv(name)

    assert "no credentials" in await refusal(swift, BUCKET, tmp_path)


async def test_no_region_for_amazon(
    swift: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    found = await findings(S3Options(bucket=BUCKET))

    assert "AWS_DEFAULT_REGION" in found["S3 bucket"].remedy


async def test_an_endpoint_nobody_listens_at(swift: S3Service, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    assert "TUS_S3_ENDPOINT_URL" in await refusal(
        swift, BUCKET, tmp_path, f"http://127.0.0.1:{port}"
    )


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "ftp//x"])
async def test_an_endpoint_that_is_no_url(swift: S3Service, tmp_path: Path, endpoint: str) -> None:
    assert "TUS_S3_ENDPOINT_URL" in await refusal(swift, BUCKET, tmp_path, endpoint)


async def test_a_certificate_nobody_knows(swift: S3Service, tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    if made is None:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                context.wrap_socket(connection, server_side=True)
            except OSError:
                pass
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        sentence = await refusal(swift, BUCKET, tmp_path, f"https://127.0.0.1:{port}")
        thread.join()

    assert "AWS_CA_BUNDLE" in sentence


# --- doctor


async def findings(options: S3Options) -> dict[str, Finding]:
    with FileThreads(1) as threads:
        return {found.what: found async for found in inspect(options, threads)}


async def listed(service: S3Service, bucket: str) -> tuple[list[str], list[str]]:
    """Give the keys of the objects and of the multipart uploads in a bucket."""
    async with service.client() as client:
        objects = await client.list_objects_v2(Bucket=bucket)
        uploads = await client.list_multipart_uploads(Bucket=bucket)
    return (
        [item["Key"] for item in objects.get("Contents", ())],
        [item["Key"] for item in uploads.get("Uploads", ())],
    )


async def test_a_healthy_store_has_no_fault(s3: S3Service, bucket: str) -> None:
    found = await findings(S3Options(bucket=bucket, endpoint_url=s3.endpoint, prefix="p/"))

    assert [one for one in found.values() if one.verdict not in ("ok", "note")] == []
    assert list(found) == [
        "S3 bucket",
        "S3 clock",
        "S3 ListObjects",
        "S3 ListMultipartUploads",
        "S3 PutObject",
        "S3 HeadObject",
        "S3 GetObject",
        "S3 DeleteObject",
        "S3 CreateMultipartUpload",
        "S3 UploadPart",
        "S3 ListParts",
        "S3 AbortMultipartUpload",
        "S3 parts",
        "S3 small parts",
        "S3 checksums",
        "S3 conditional writes",
        "S3 ETags",
        "S3 lifecycle",
    ]
    assert await listed(s3, bucket) == ([], [])


async def test_keys_of_others_are_left_alone(s3: S3Service, bucket: str) -> None:
    keys = ["p/tus-server-doctor-x", "p/other"]
    async with s3.client() as client:
        for key in keys:
            await client.put_object(Bucket=bucket, Key=key, Body=b"x")
            await client.create_multipart_upload(Bucket=bucket, Key=key)

    await findings(S3Options(bucket=bucket, endpoint_url=s3.endpoint, prefix="p/"))

    objects, uploads = await listed(s3, bucket)
    assert (sorted(objects), sorted(uploads)) == (sorted(keys), sorted(keys))


async def test_a_missing_bucket_ends_the_examination(s3: S3Service) -> None:
    found = await findings(S3Options(bucket="no-such-bucket", endpoint_url=s3.endpoint))

    assert [(what, one.verdict) for what, one in found.items()] == [
        ("S3 bucket", "FAILED"),
        ("all else in S3", "skipped"),
    ]


@pytest.mark.parametrize(
    ("rule", "what", "right"),
    [
        ({"method": "PUT"}, "S3 PutObject", "s3:PutObject"),
        ({"method": "HEAD"}, "S3 HeadObject", "s3:GetObject"),
        ({"method": "POST", "query": "uploads"}, "S3 CreateMultipartUpload", "s3:PutObject"),
        ({"method": "PUT", "query": "partNumber"}, "S3 UploadPart", "s3:PutObject"),
        ({"method": "GET", "query": "uploadId"}, "S3 ListParts", "s3:ListMultipartUploadParts"),
        (
            {"method": "DELETE", "query": "uploadId", "times": 2},
            "S3 AbortMultipartUpload",
            "s3:AbortMultipartUpload",
        ),
        (
            {"method": "GET", "query": "uploads", "times": 1},
            "S3 ListMultipartUploads",
            "s3:ListBucketMultipartUploads",
        ),
    ],
)
async def test_a_missing_right_is_named_and_nothing_stays(
    swift: S3Service, swift_bucket: str, rule: dict[str, object], what: str, right: str
) -> None:
    swift.set_faults({"times": 100} | rule | {"status": 403, "code": "AccessDenied"})

    found = await findings(S3Options(bucket=swift_bucket, endpoint_url=swift.endpoint))

    assert next(name for name, one in found.items() if one.verdict == "FAILED") == what
    assert right in found[what].remedy
    assert found["S3 parts and checksums"].verdict == "skipped"
    if what == "S3 AbortMultipartUpload":  # without that right something has to stay
        return
    assert await listed(swift, swift_bucket) == ([], [])


async def test_a_store_of_equal_parts_is_known(swift: S3Service, swift_bucket: str) -> None:
    complete = {"method": "POST", "query": "uploadId", "status": 400, "code": "InvalidPart"}
    swift.set_faults(complete)
    options = S3Options(bucket=swift_bucket, endpoint_url=swift.endpoint)

    found = await findings(options)

    assert found["S3 parts"].verdict == "FAILED"
    assert found["S3 parts"].remedy == "set TUS_S3_EQUAL_PARTS=true."
    swift.set_faults(complete | {"times": 2})
    found = await findings(options)
    assert "takes parts of this size" in found["S3 parts"].remedy
    assert await listed(swift, swift_bucket) == ([], [])


async def test_a_check_that_does_not_end_stops_no_other(
    swift: S3Service, swift_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.objects.s3.rights.TIMEOUT_S", 0.5)
    swift.set_faults({"method": "HEAD", "delay": 5})

    found = await findings(S3Options(bucket=swift_bucket, endpoint_url=swift.endpoint))

    assert found["S3 HeadObject"].verdict == "FAILED"
    assert "did not end within 0.5 s" in found["S3 HeadObject"].detail
    assert found["S3 GetObject"].verdict == "ok"


async def test_a_checksum_mode_the_store_does_not_keep(swift: S3Service, swift_bucket: str) -> None:
    options = S3Options(bucket=swift_bucket, endpoint_url=swift.endpoint, checksum="full-object")

    found = await findings(options)

    assert found["S3 checksums"].verdict == "FAILED"
    assert found["S3 checksums"].remedy == "set TUS_S3_CHECKSUM=auto."


@pytest.mark.parametrize(
    ("setting", "value"), [("acl", "private"), ("tags", "a=b"), ("storage_class", "STANDARD")]
)
async def test_settings_of_objects_are_tried(
    swift: S3Service, swift_bucket: str, setting: str, value: str
) -> None:
    options = S3Options(bucket=swift_bucket, endpoint_url=swift.endpoint, **{setting: value})

    found = await findings(options)

    (what,) = (name for name in found if name.startswith("S3 PutObject with TUS_S3_"))
    assert setting.upper() in what


async def test_a_store_that_may_not_be_written_stops_the_start(
    swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    swift.set_faults({"method": "PUT", "status": 403, "code": "AccessDenied", "times": 100})

    sentence = await refusal(swift, swift_bucket, tmp_path)

    assert "AccessDenied" in sentence
    assert "TUS_STORE_URL" in sentence


# --- keys


async def test_a_key_has_what_the_template_says(
    swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    template = "{prefix}{owner}/{year}-{month}-{day}/{date}/{id}"
    async with open_store(
        swift, swift_bucket, tmp_path, capabilities=SWIFT, prefix="p/", key_template=template
    ) as store:
        upload = make_upload(store, owner="ann/../b@x")
        options = S3Options(bucket=BUCKET, prefix="p/", key_template=template)
        date = upload.created_at.strftime("%Y-%m-%d")

        assert make_key(options, upload) == (f"p/ann%2F..%2Fb%40x/{date}/{date}/{upload.id}")
        assert (make_upload(store).object_key or "").startswith("p/anonymous/")


@pytest.mark.parametrize("owner", ["..", ".", "a/b", "ä" * 200, "~", "%7E", "a b"])
def test_an_owner_is_one_harmless_piece_of_a_key(owner: str) -> None:
    text = escaped(owner)

    assert "/" not in text
    assert text.strip(".")
    assert len(text) <= 160


def test_two_owners_never_share_a_piece() -> None:
    long = "x" * 500
    owners = ["~", "%7E", ".", "%2E", "..", long, long + "x", long[:-1] + "y", "a", "A"]

    assert len({escaped(owner) for owner in owners}) == len(owners)


@pytest.mark.parametrize(
    ("found", "generation"),
    [
        ("k.tail.0", 0),
        ("k.tail.12", 12),
        ("k.tail.x", None),
        ("k.tail.", None),
        ("kk.tail.1", None),
    ],
)
def test_parked_tails_are_known_by_their_key(found: str, generation: int | None) -> None:
    assert find_tail_generation("k", found) == generation
