"""The contract of ports.DirectParts, over every implementation, and what clients can do with it.

One that is added needs a backend of its own (tests.support.direct_backends) and its name in
BACKENDS; WITH_RECEIPTS are those whose objects are made of the parts that are listed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from tests.support.direct_backends import (
    DirectBackend,
    FakeBackend,
    PutAnswer,
    S3DirectBackend,
)
from tests.support.fakes import planned_parts
from tests.support.local_direct import LocalDirectBackend
from tests.support.s3 import S3Service
from tus_server.core.checksums import crc64
from tus_server.core.errors import PartsDiffer
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.ports import ObjectStore, SignedRequest

S3_BACKENDS = [pytest.param("swift", marks=pytest.mark.full), "versitygw"]
WITH_RECEIPTS = ["fake", *S3_BACKENDS]
BACKENDS = [*WITH_RECEIPTS, "local"]
HOUR = timedelta(hours=1)


@pytest.fixture(params=BACKENDS)
async def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DirectBackend]:
    if request.param == "fake":
        async with FakeBackend() as fake:
            yield fake
        return
    if request.param == "local":
        async with LocalDirectBackend(tmp_path) as local:
            yield local
        return
    service: S3Service = request.getfixturevalue(request.param)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    async with S3DirectBackend(service, tmp_path) as s3:
        yield s3


async def confirmed() -> None:
    """Confirm that the lease is still held."""


async def begun(backend: DirectBackend, length: int, **fields: Protocol) -> Upload:
    """Give the row of an upload that takes parts."""
    upload = await backend.create(length, **fields)
    return replace(upload, multipart_id=await backend.direct.begin(upload))


async def sign(
    backend: DirectBackend, upload: Upload, *numbers: int, lasts: timedelta = HOUR
) -> list[SignedRequest]:
    """Sign the requests for parts, without numbers for all."""
    parts = {part.number: part for part in planned_parts(upload)}
    wanted = [parts[number] for number in numbers] or list(parts.values())
    return await backend.direct.sign_parts(upload, wanted, expires_at=backend.now() + lasts)


async def send(backend: DirectBackend, upload: Upload, number: int, content: bytes) -> PutAnswer:
    """Send one part as a client does."""
    (request,) = await sign(backend, upload, number)
    return await backend.send(request.url, content, method=request.method)


async def look(backend: DirectBackend, upload: Upload) -> list[Part]:
    """Give the rows of the parts once somebody has looked at what has arrived."""
    found = await backend.find_stored(upload)
    return [
        replace(part, etag=found[part.number].etag, crc64=found[part.number].crc64)
        if part.number in found
        else part
        for part in planned_parts(upload)
    ]


async def complete(backend: DirectBackend, upload: Upload, parts: list[Part]) -> int | None:
    assert upload.length is not None
    row = replace(upload, state=UploadState.COMPLETED, committed_bytes=upload.length)
    return await backend.objects.complete(row, parts, confirm=confirmed)


async def read(objects: ObjectStore, upload: Upload) -> bytes:
    assert upload.length is not None
    return b"".join([block async for block in objects.read(upload, 0, upload.length)])


def pieces(backend: DirectBackend, count: int, *, seed: int = 1) -> list[bytes]:
    """Give the content of `count` parts, of which the last is shorter."""
    random = Random(seed)
    sizes = [backend.part_size] * (count - 1) + [3]
    return [random.randbytes(size) for size in sizes]


# --- sending


async def test_parts_arrive_in_any_order_and_make_the_whole(backend: DirectBackend) -> None:
    content = pieces(backend, 3)
    upload = await begun(backend, len(b"".join(content)))

    for number in (3, 1, 2):
        answer = await send(backend, upload, number, content[number - 1])
        assert answer.status == 200

    crc = await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == b"".join(content)
    assert crc in (None, crc64(b"".join(content)))


async def test_parts_arrive_in_parallel(backend: DirectBackend) -> None:
    content = pieces(backend, 6)
    upload = await begun(backend, len(b"".join(content)))
    requests = await sign(backend, upload)

    answers = await asyncio.gather(
        *(backend.send(one.url, piece) for one, piece in zip(requests, content, strict=True))
    )

    assert {answer.status for answer in answers} == {200}
    await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == b"".join(content)


async def test_a_client_is_told_the_etag_that_a_look_finds(backend: DirectBackend) -> None:
    content = pieces(backend, 2)
    upload = await begun(backend, len(b"".join(content)))

    told = {number: await send(backend, upload, number, content[number - 1]) for number in (1, 2)}

    found = await backend.find_stored(upload)
    assert {number: part.etag for number, part in found.items()} == {
        number: answer.etag for number, answer in told.items()
    }
    assert {number: part.size for number, part in found.items()} == {
        1: len(content[0]),
        2: len(content[1]),
    }


async def test_a_look_finds_what_has_arrived_and_nothing_else(backend: DirectBackend) -> None:
    content = pieces(backend, 3)
    created = await backend.create(len(b"".join(content)))
    assert await backend.find_stored(created) == {}
    upload = replace(created, multipart_id=await backend.direct.begin(created))
    assert await backend.find_stored(upload) == {}

    await send(backend, upload, 2, content[1])

    assert set(await backend.find_stored(upload)) == {2}


async def test_a_part_that_is_sent_again_replaces_the_first(backend: DirectBackend) -> None:
    content, others = pieces(backend, 2), pieces(backend, 2, seed=2)
    upload = await begun(backend, len(b"".join(content)))
    await send(backend, upload, 1, others[0])
    await send(backend, upload, 2, content[1])

    answer = await send(backend, upload, 1, content[0])

    parts = await look(backend, upload)
    assert parts[0].etag == answer.etag
    await complete(backend, upload, parts)
    assert await read(backend.objects, upload) == b"".join(content)


async def test_the_same_url_sends_a_part_again(backend: DirectBackend) -> None:
    (content,) = pieces(backend, 1)
    upload = await begun(backend, len(content), protocol=Protocol.SINGLE)
    (request,) = await sign(backend, upload)
    await backend.send(request.url, b"abc")

    assert (await backend.send(request.url, content)).status == 200

    await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == content


@pytest.mark.parametrize("content", [b"", b"a"])
async def test_a_single_upload_is_one_part_of_any_size(
    backend: DirectBackend, content: bytes
) -> None:
    upload = await begun(backend, len(content), protocol=Protocol.SINGLE)

    assert (await send(backend, upload, 1, content)).status == 200

    assert set(await backend.find_stored(upload)) == {1}
    await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == content


# --- what a URL is good for


async def test_a_request_says_how_to_send_it_and_until_when(backend: DirectBackend) -> None:
    upload = await begun(backend, 3, protocol=Protocol.SINGLE)
    before = backend.now()

    (request,) = await sign(backend, upload, lasts=timedelta(seconds=90))

    # A browser may set neither host nor content-length.
    assert (request.method, dict(request.headers)) == ("PUT", {})
    assert before < request.expires_at <= backend.now() + timedelta(seconds=90)
    assert request.expires_at > before + timedelta(seconds=80)


async def test_requests_are_given_in_the_order_they_were_asked_for(backend: DirectBackend) -> None:
    content = pieces(backend, 3)
    upload = await begun(backend, len(b"".join(content)))

    third, first = await sign(backend, upload, 3, 1)

    assert (await backend.send(third.url, content[2])).status == 200
    assert (await backend.send(first.url, content[0])).status == 200
    assert set(await backend.find_stored(upload)) == {1, 3}


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_body_of_another_size_is_refused(backend: DirectBackend, change: int) -> None:
    content = pieces(backend, 2)
    upload = await begun(backend, len(b"".join(content)))

    answer = await send(backend, upload, 2, bytes(len(content[1]) + change))

    assert answer.status == 403
    assert await backend.find_stored(upload) == {}


async def test_a_request_whose_time_is_over_is_refused(backend: DirectBackend) -> None:
    upload = await begun(backend, 3, protocol=Protocol.SINGLE)
    (request,) = await backend.sign_expired(upload, planned_parts(upload))

    answer = await backend.send(request.url, b"abc")

    assert answer.status == 403
    assert request.expires_at <= backend.now()
    assert await backend.find_stored(upload) == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_a_request_of_another_method_is_refused(backend: DirectBackend, method: str) -> None:
    upload = await begun(backend, 3, protocol=Protocol.SINGLE)
    (request,) = await sign(backend, upload)

    answer = await backend.send(request.url, b"abc", method=method)

    assert answer.status >= 400
    assert await backend.find_stored(upload) == {}


async def test_a_url_that_was_changed_anywhere_is_refused(backend: DirectBackend) -> None:
    content = pieces(backend, 2)
    upload = await begun(backend, len(b"".join(content)))
    (request,) = await sign(backend, upload, 2)
    for url in tampered(request.url):
        answer = await backend.send(url, content[1])

        assert 400 <= answer.status < 500, url
    assert await backend.find_stored(upload) == {}
    assert (await backend.send(request.url, content[1])).status == 200


def tampered(url: str) -> Iterator[str]:
    """Give the URL with each field of its query changed, with each left out, with another path."""
    parts = urlsplit(url)
    fields = parse_qsl(parts.query, keep_blank_values=True)
    for place, (name, value) in enumerate(fields):
        rest = [*fields[:place], *fields[place + 1 :]]
        last = str((int(value[-1], 16) + 1) % 10) if value[-1] in "0123456789abcdef" else "x"
        for changed in ([*rest, (name, value[:-1] + last)], rest):
            yield parts._replace(query=urlencode(changed, quote_via=quote)).geturl()
    yield parts._replace(path=parts.path[:-1] + ("b" if parts.path[-1] == "a" else "a")).geturl()


async def test_a_signature_is_good_for_no_other_upload(backend: DirectBackend) -> None:
    upload, other = [await begun(backend, 3, protocol=Protocol.SINGLE) for _ in range(2)]
    (ours,), (theirs,) = await sign(backend, upload), await sign(backend, other)
    name, signature = parse_qsl(urlsplit(ours.url).query)[-1]
    assert name.lower().endswith("signature")

    forged = theirs.url.replace(parse_qsl(urlsplit(theirs.url).query)[-1][1], signature)

    assert forged != theirs.url
    assert (await backend.send(forged, b"abc")).status == 403
    assert await backend.find_stored(other) == {}


async def test_a_url_of_an_upload_sends_nothing_to_another(backend: DirectBackend) -> None:
    upload, other = [await begun(backend, 3, protocol=Protocol.SINGLE) for _ in range(2)]

    await send(backend, upload, 1, b"abc")

    assert set(await backend.find_stored(upload)) == {1}
    assert await backend.find_stored(other) == {}


# --- the end


async def test_a_part_that_comes_after_the_object_is_made_changes_nothing(
    backend: DirectBackend,
) -> None:
    if not backend.refuses_late_parts:
        pytest.skip("this store takes parts of an object it has made already")
    content = pieces(backend, 2)
    upload = await begun(backend, len(b"".join(content)))
    requests = await sign(backend, upload)
    for request, piece in zip(requests, content, strict=True):
        await backend.send(request.url, piece)
    await complete(backend, upload, await look(backend, upload))

    # The small one: versitygw cuts the connection where it refuses a large body.
    answer = await backend.send(requests[1].url, bytes(len(content[1])))

    assert 400 <= answer.status < 500
    assert await read(backend.objects, upload) == b"".join(content)


async def test_an_upload_that_was_freed_takes_no_parts(backend: DirectBackend) -> None:
    upload = await begun(backend, 3, protocol=Protocol.SINGLE)
    (request,) = await sign(backend, upload)
    await backend.send(request.url, b"abc")

    await backend.objects.free(upload)

    assert 400 <= (await backend.send(request.url, b"abc")).status < 500
    assert await backend.find_stored(upload) == {}


async def test_recovering_leaves_an_unfinished_upload_what_has_arrived(
    backend: DirectBackend,
) -> None:
    content = pieces(backend, 3)
    upload = await begun(backend, len(b"".join(content)))
    requests = await sign(backend, upload)
    await backend.send(requests[2].url, content[2])
    # What a look has found once may be sent again, and be away meanwhile.
    row = replace(upload, state=UploadState.RECEIVING, committed_bytes=len(content[0]) + 3)

    await backend.objects.recover(row, confirm=confirmed)

    assert set(await backend.find_stored(upload)) == {3}
    for number in (1, 2):
        assert (await backend.send(requests[number - 1].url, content[number - 1])).status == 200
    await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == b"".join(content)


# --- stores whose objects are made of the parts that are listed

with_receipts = pytest.mark.parametrize("backend", WITH_RECEIPTS, indirect=True)


@with_receipts
async def test_recovering_removes_a_begin_that_no_row_tells_of(backend: DirectBackend) -> None:
    upload = await begun(backend, 3, protocol=Protocol.SINGLE)
    orphan = replace(upload, multipart_id=await backend.direct.begin(upload))
    await send(backend, orphan, 1, b"xyz")

    await backend.objects.recover(upload, confirm=confirmed)

    assert 400 <= (await send(backend, orphan, 1, b"xyz")).status < 500
    assert await backend.find_stored(orphan) == {}
    assert (await send(backend, upload, 1, b"abc")).status == 200
    await complete(backend, upload, await look(backend, upload))
    assert await read(backend.objects, upload) == b"abc"


@with_receipts
async def test_completing_twice_is_completing_once(backend: DirectBackend) -> None:
    content = pieces(backend, 2)
    upload = await begun(backend, len(b"".join(content)))
    for number in (1, 2):
        await send(backend, upload, number, content[number - 1])
    parts = await look(backend, upload)

    first = await complete(backend, upload, parts)

    assert await complete(backend, upload, parts) == first
    assert await read(backend.objects, upload) == b"".join(content)


@with_receipts
@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_a_part_that_has_not_arrived_is_named(backend: DirectBackend, missing: int) -> None:
    content = pieces(backend, 3)
    upload = await begun(backend, len(b"".join(content)))
    for number in {1, 2, 3} - {missing}:
        await send(backend, upload, number, content[number - 1])

    with pytest.raises(PartsDiffer) as raised:
        await complete(backend, upload, await look(backend, upload))
    assert raised.value.members["part"] == missing


@with_receipts
async def test_a_part_that_the_store_does_not_have_is_named(backend: DirectBackend) -> None:
    content = pieces(backend, 3)
    upload = await begun(backend, len(b"".join(content)))
    for number in (1, 3):
        await send(backend, upload, number, content[number - 1])
    parts = await look(backend, upload)
    parts[1] = replace(parts[1], etag=f'"{"0" * 32}"')

    with pytest.raises(PartsDiffer) as raised:
        await complete(backend, upload, parts)
    assert raised.value.members["part"] == 2


@with_receipts
@pytest.mark.parametrize("number", [1, 2])
async def test_a_part_that_was_replaced_after_the_look_is_named(
    backend: DirectBackend, number: int
) -> None:
    content, others = pieces(backend, 2), pieces(backend, 2, seed=2)
    upload = await begun(backend, len(b"".join(content)))
    for one in (1, 2):
        await send(backend, upload, one, content[one - 1])
    parts = await look(backend, upload)
    await send(backend, upload, number, others[number - 1])

    with pytest.raises(PartsDiffer) as raised:
        await complete(backend, upload, parts)

    assert raised.value.members["part"] == number
    # Nothing was made, and nothing was given up.
    await send(backend, upload, number, content[number - 1])
    await complete(backend, upload, parts)
    assert await read(backend.objects, upload) == b"".join(content)
