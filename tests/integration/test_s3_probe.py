"""What the probe concludes of stores that keep less than S3, or refuse what they do not know."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from tus_server.core.errors import SettingsInvalid, StoreUnavailable
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3 import Capabilities, ChecksumMode, S3Options
from tus_server.objects.s3.bucket import multipart_etag
from tus_server.objects.s3.client import S3Client
from tus_server.objects.s3.failures import Refused
from tus_server.objects.s3.probe import probe
from tus_server.objects.s3.tries import CRC

FULL, PART, NONE = ChecksumMode.FULL_OBJECT, ChecksumMode.PART, ChecksumMode.NONE
RIGHT = CRC["ChecksumCRC64NVME"]
PART_ETAG = '"%s"' % ("ab" * 16)
MOST_REQUESTS = 14
ALL = ("put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload")


@dataclass
class ToyStore:
    """Keeps everything S3 keeps, but what it `ignores`; and answers 4xx to what it `refuses`.

    Each is a set of pairs of an operation and one of its fields; refuses: with the status.
    Takes the place of a client.
    """

    ignores: set[tuple[str, str]] = field(default_factory=set)
    refuses: dict[tuple[str, str], int] = field(default_factory=dict)
    silent: str = ""  # this operation never gets an answer
    kept: bool = True  # the checksum of the whole, and told
    cut: bool = False  # the first put is repeated by the driver
    sent: list[str] = field(default_factory=list)
    there: dict[str, Any] | None = None
    open_id: int = 0
    uploads: set[int] = field(default_factory=set)

    async def send(
        self, operation: str, make_body: object, *, accept: object, **fields: Any
    ) -> dict[str, Any]:
        return await self.call(operation, accept=accept, **fields)

    async def call(self, operation: str, *, accept: object, **fields: Any) -> dict[str, Any]:
        self.sent.append(operation)
        if operation == self.silent:
            raise StoreUnavailable("no answer") from TimeoutError()
        for name in fields:
            status = self.refuses.get((operation, name))
            if status is not None and status >= 500:
                failure = _refused(operation, "NotImplementedHere", status)
                raise StoreUnavailable("still no") from failure
            if status is not None:
                raise _refused(operation, "NotKnown", status)
        for name in fields.copy():
            if (operation, name) in self.ignores:
                del fields[name]
        answer: dict[str, Any] = getattr(self, f"_{operation}")(fields)
        return answer

    def _put_object(self, fields: dict[str, Any]) -> dict[str, Any]:
        self._check("put_object", fields)
        self.there = {"ETag": PART_ETAG}
        if self.cut:
            self.cut = False
            self._check("put_object", fields)
        return self.there

    def _create_multipart_upload(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.open_id += 1
        self.uploads.add(self.open_id)
        return {"UploadId": self.open_id}

    def _upload_part(self, fields: dict[str, Any]) -> dict[str, Any]:
        assert fields["UploadId"] in self.uploads
        self._check("upload_part", fields)
        return {"ETag": PART_ETAG}

    def _complete_multipart_upload(self, fields: dict[str, Any]) -> dict[str, Any]:
        assert fields["UploadId"] in self.uploads
        self._check("complete_multipart_upload", fields)
        self.uploads.discard(fields["UploadId"])
        self.there = {"ETag": f'"{multipart_etag([PART_ETAG])}"'}
        if self.kept:
            self.there["ChecksumCRC64NVME"] = fields.get("ChecksumCRC64NVME")
        return self.there

    def _abort_multipart_upload(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.uploads.discard(fields["UploadId"])
        return {}

    def _head_object(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.there is None:
            raise _refused("head_object", "404", 404)
        return self.there

    def _delete_object(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.there = None
        return {}

    def _check(self, operation: str, fields: dict[str, Any]) -> None:
        if "IfNoneMatch" in fields and self.there is not None:
            raise _refused(operation, "PreconditionFailed", 412)
        if fields.get("ChecksumCRC64NVME", RIGHT) != RIGHT:
            raise _refused(operation, "BadDigest", 400)


def _refused(operation: str, code: str, status: int) -> Refused:
    meta: Any = {"HTTPStatusCode": status}
    return Refused(
        operation, ClientError({"Error": {"Code": code}, "ResponseMetadata": meta}, operation)
    )


async def found(store: ToyStore, checksum: str = "auto") -> Capabilities:
    """Probe, and see that nothing is left, and that it took few requests."""
    with FileThreads(1) as threads:
        options = S3Options("bucket", checksum=checksum)
        result = await probe(cast(S3Client, store), options, threads)
    assert store.uploads == set()
    assert store.there is None
    assert len(store.sent) <= MOST_REQUESTS
    return result


def every(name: str, status: int = 400) -> dict[tuple[str, str], int]:
    return {(operation, name): status for operation in ALL}


async def test_a_store_that_keeps_everything_is_trusted_with_eleven_requests() -> None:
    store = ToyStore()

    assert await found(store) == Capabilities(FULL, True, True)
    assert len(store.sent) == 11


@pytest.mark.parametrize(
    ("ignores", "expected"),
    [
        ({("put_object", "IfNoneMatch")}, Capabilities(FULL, False, True)),
        ({("complete_multipart_upload", "IfNoneMatch")}, Capabilities(FULL, True, False)),
        ({("complete_multipart_upload", "ChecksumCRC64NVME")}, Capabilities(PART, True, True)),
        ({("upload_part", "ChecksumCRC64NVME")}, Capabilities(NONE, True, True)),
        (
            {(operation, "IfNoneMatch") for operation in ALL}
            | {(operation, "ChecksumCRC64NVME") for operation in ALL},
            Capabilities(NONE, False, False),
        ),
    ],
)
async def test_what_a_store_takes_without_looking_is_not_trusted(
    ignores: set[tuple[str, str]], expected: Capabilities
) -> None:
    assert await found(ToyStore(ignores)) == expected


@pytest.mark.parametrize("status", [400, 501])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["IfNoneMatch"], Capabilities(FULL, False, False)),
        (["ChecksumCRC64NVME"], Capabilities(NONE, True, True)),
        (["ChecksumAlgorithm"], Capabilities(NONE, True, True)),
        (["IfNoneMatch", "ChecksumCRC64NVME"], Capabilities(NONE, False, False)),
    ],
)
async def test_what_a_store_refuses_is_not_sent_to_it_and_stops_no_start(
    names: list[str], expected: Capabilities, status: int
) -> None:
    refuses: dict[tuple[str, str], int] = {}
    for name in names:
        refuses |= every(name, status)

    assert await found(ToyStore(refuses=refuses)) == expected


@pytest.mark.parametrize(
    ("operation", "name", "expected"),
    [
        ("put_object", "IfNoneMatch", Capabilities(FULL, False, True)),
        ("complete_multipart_upload", "IfNoneMatch", Capabilities(FULL, True, False)),
        ("upload_part", "ChecksumCRC64NVME", Capabilities(NONE, True, True)),
        ("create_multipart_upload", "ChecksumType", Capabilities(NONE, True, True)),
        # What cannot be told apart from a refusal of another field is not trusted.
        ("complete_multipart_upload", "MpuObjectSize", Capabilities(PART, True, False)),
        ("complete_multipart_upload", "ChecksumType", Capabilities(PART, True, False)),
    ],
)
async def test_what_one_operation_refuses_costs_no_more_than_that(
    operation: str, name: str, expected: Capabilities
) -> None:
    assert await found(ToyStore(refuses={(operation, name): 400})) == expected


async def test_a_checksum_that_is_not_told_again_is_not_of_the_whole() -> None:
    assert await found(ToyStore(kept=False)) == Capabilities(PART, True, True)


async def test_a_put_that_met_its_own_first_attempt_was_taken() -> None:
    assert await found(ToyStore(cut=True)) == Capabilities(FULL, True, True)


@pytest.mark.parametrize("mode", list(ChecksumMode))
async def test_a_checksum_that_an_operator_has_chosen_is_not_tried(mode: ChecksumMode) -> None:
    for refuses in ({}, every("ChecksumCRC64NVME")):
        store = ToyStore(refuses=refuses)

        assert await found(store, mode) == Capabilities(mode, True, True)
        assert len(store.sent) <= 8

    store = ToyStore(refuses=every("IfNoneMatch"))
    assert await found(store, mode) == Capabilities(mode, False, False)


@pytest.mark.parametrize("operation", ALL)
@pytest.mark.parametrize("checksum", ["auto", "none"])
async def test_a_call_that_is_refused_whatever_it_carries_stops_the_start(
    operation: str, checksum: str
) -> None:
    store = ToyStore(refuses={(operation, "Key"): 403})

    with pytest.raises(SettingsInvalid, match=operation):
        await found(store, checksum)

    assert store.uploads == set()
    assert store.there is None


async def test_a_store_that_does_not_answer_is_not_called_one_that_refuses() -> None:
    with pytest.raises(SettingsInvalid, match="no answer"):
        await found(ToyStore(silent="upload_part"))
