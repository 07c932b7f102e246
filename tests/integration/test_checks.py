"""Bodies with a checksum, and uploads with a digest of the whole, in the engine.

Nothing of a body counts before the verdict. Over fakes, over a store with small parts and tails,
and over SQLite and local disk; every test ends with a look at what is left over.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.integration.conftest import PART_SIZE_BYTES, World, Worlds, soon
from tests.support.fakes import FakeBody, Script, Stall, settle, toy_limits
from tus_server.core.digests import ALGORITHMS, new_hasher
from tus_server.core.errors import (
    AlreadyCompleted,
    ChecksumMismatch,
    ClientGone,
    DigestMismatch,
    MalformedRequest,
    StateUnavailable,
    StoreUnavailable,
    UploadNotFound,
)
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.terms import Checks, Terms

S = UploadState
SMALL_LIMITS = toy_limits(8, min_part_size=5, parallel_parts=3)


def digest_of(content: bytes, algorithm: str = "sha256") -> bytes:
    hasher = new_hasher(algorithm)
    hasher.update(memoryview(content))
    return hasher.digest()


def expecting(content: bytes, *algorithms: str, **terms: object) -> Terms:
    """Give the terms of a request whose body has to be `content`."""
    names = algorithms or ("sha256",)
    return Terms(checks=Checks({name: digest_of(content, name) for name in names}), **terms)  # type: ignore[arg-type]


@pytest.fixture(params=["fakes", "small parts", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path if request.param == "disk" else None
    limits = SMALL_LIMITS if request.param == "small parts" else None
    label = "a" if request.param == "small parts" else None
    async with World(folder, limits=limits, label=label) as world:
        yield world


def around(world: World) -> list[int]:
    """Give sizes of bodies around the boundaries of parts."""
    part = world.objects.limits.preferred_part_size
    return [0, 1, part - 1, part, part + 1, 2 * part, 3 * part - 1]


async def test_a_body_that_is_what_it_should_be_counts(world: World) -> None:
    for size in around(world):
        content = Random(size).randbytes(size)
        upload = await world.new(2 * size + 1)

        first = await world.append(upload, content, terms=expecting(content))
        rest = content + b"!"
        await world.append(first.upload, rest, terms=expecting(rest, *ALGORITHMS))

        assert first.upload.offset == size
        assert await world.content(upload) == content + rest


async def test_nothing_counts_of_a_body_that_is_not(world: World) -> None:
    for size in around(world)[1:]:
        for wrong in {0, size // 2, size - 1}:
            content = bytearray(Random(size).randbytes(size))
            right = bytes(content)
            content[wrong] ^= 1
            upload = await world.new(size)
            before = await world.row(upload)

            with pytest.raises(ChecksumMismatch):
                await world.append(upload, bytes(content), terms=expecting(right))

            after = await world.row(upload)
            assert replace(after, next_part_number=before.next_part_number) == before
            assert await world.events(upload) == []
            await world.append(upload, right, terms=expecting(right))
            assert await world.content(upload) == right


async def test_what_was_there_before_a_wrong_body_stays(world: World) -> None:
    """Committed parts and the tail are as before, also where the body would have used them up."""
    part = world.objects.limits.preferred_part_size
    for before, size in [(3, part), (part + 3, 2 * part), (3, 1), (2 * part, 5)]:
        whole = Random(before).randbytes(before + size)
        upload = (await world.append(await world.new(len(whole)), whole[:before])).upload
        row = await world.row(upload)

        with pytest.raises(ChecksumMismatch):
            await world.append(upload, bytes(size), terms=expecting(whole[before:]))

        again = await world.row(upload)
        assert (again.offset, again.tail, again.crc64) == (before, row.tail, row.crc64)
        assert again.state is S.RECEIVING
        await world.append(upload, whole[before:], terms=expecting(whole[before:]))
        assert await world.content(upload) == whole


async def test_nothing_counts_of_a_body_that_was_cut(world: World) -> None:
    part = world.objects.limits.preferred_part_size
    content = Random(1).randbytes(3 * part)
    for arrived in (1, part, 2 * part + 1, 3 * part):
        upload = await world.new(len(content))
        body = FakeBody(content[:arrived], ClientGone(), size=len(content) + 1, chunked=True)

        cut = await world.append(upload, body=body, terms=expecting(content))

        assert isinstance(cut.stopped, ClientGone)
        assert (await world.row(upload)).offset == 0
        await world.append(upload, content)
        assert await world.content(upload) == content


async def test_another_request_takes_over_from_a_checked_one_and_finds_the_old_offset(
    world: World,
) -> None:
    part = world.objects.limits.preferred_part_size
    content = Random(2).randbytes(3 * part)
    upload = await world.new(len(content))
    stall = Stall()
    running = asyncio.ensure_future(
        world.append(upload, content[: 2 * part + 1], stall, terms=expecting(content))
    )
    await stall.reached.wait()

    row = await world.status(upload)

    assert row.offset == 0
    assert (await running).upload.offset == 0
    await world.append(row, content)
    assert await world.content(upload) == content


async def test_a_long_checked_body_gets_part_numbers_as_it_goes(open_world: Worlds) -> None:
    world = await open_world(limits=replace(SMALL_LIMITS, reserved_numbers=2), label="a")
    content = Random(3).randbytes(8 * 20 + 3)
    upload = await world.new(len(content) + 1)

    with pytest.raises(ChecksumMismatch):
        await world.append(upload, content, terms=expecting(b"another"))
    appended = await world.append(upload, content, terms=expecting(content))

    assert appended.upload.offset == len(content)
    await world.append(appended.upload, b"!")
    assert await world.content(upload) == content + b"!"


def following(checksum: Callable[[], tuple[str, bytes]]) -> Terms:
    return Terms(checks=Checks(find_late=checksum))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_checksum_may_follow_the_body(world: World, algorithm: str) -> None:
    content = Random(4).randbytes(PART_SIZE_BYTES // 2)
    upload = await world.new(len(content))
    wrong = digest_of(b"another", algorithm)

    with pytest.raises(ChecksumMismatch):
        await world.append(
            upload, content, chunked=True, terms=following(lambda: (algorithm, wrong))
        )
    right = digest_of(content, algorithm)
    await world.append(upload, content, chunked=True, terms=following(lambda: (algorithm, right)))

    assert await world.content(upload) == content


async def test_nothing_counts_where_the_checksum_does_not_follow(world: World) -> None:
    def missing() -> tuple[str, bytes]:
        raise MalformedRequest("no trailer")

    upload = await world.new(3)

    with pytest.raises(MalformedRequest):
        await world.append(upload, b"abc", chunked=True, terms=following(missing))

    assert (await world.row(upload)).offset == 0
    await world.append(upload, b"abc")


async def test_a_creation_with_a_wrong_body_leaves_no_upload(world: World) -> None:
    with pytest.raises(ChecksumMismatch):
        await world.create(b"abc", terms=expecting(b"abd", length=3))
    with pytest.raises(ChecksumMismatch):
        await world.create(terms=expecting(b"abd", length=3))  # the empty body differs too

    created = await world.create(b"abc", terms=expecting(b"abc", length=3))
    empty = await world.create(terms=expecting(b"", length=3))

    assert await world.content(created.upload) == b"abc"
    await world.append(empty.upload, b"abc")


async def test_a_wrong_empty_body_of_a_finished_upload_is_refused(world: World) -> None:
    upload = (await world.create(b"abc", length=3)).upload

    with pytest.raises(ChecksumMismatch):
        await world.append(upload, terms=expecting(b"x"))

    assert (await world.append(upload, terms=expecting(b""))).upload.state is S.VERIFIED


@pytest.mark.parametrize("failure", [StoreUnavailable, StateUnavailable])
async def test_a_store_that_fails_in_a_checked_body_loses_nothing(
    fakes: World, failure: type[Exception]
) -> None:
    content = Random(5).randbytes(3 * PART_SIZE_BYTES)
    upload = await fakes.new(len(content))
    target = fakes.state if failure is StateUnavailable else fakes.objects
    target.fail("commit" if failure is StateUnavailable else "finish", failure())

    with pytest.raises(failure):
        await fakes.append(upload, content, terms=expecting(content))

    row = await fakes.status(upload)
    await fakes.append(row, content[row.offset :])
    assert await fakes.content(upload) == content


# --- the whole


def whole(content: bytes | None, **terms: object) -> Terms:
    """Give terms that name the digest of all bytes; None: that ask for it."""
    digest = None if content is None else digest_of(content)
    return Terms(digests={"sha256": digest}, **terms)  # type: ignore[arg-type]


async def send(world: World, upload: Upload, *pieces: Script) -> Upload:
    for piece in pieces:
        upload = (await world.append(upload, piece)).upload
    return upload


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_an_upload_with_the_digest_it_should_have_is_verified(
    world: World, pieces: int
) -> None:
    content = Random(6).randbytes(3 * world.objects.limits.preferred_part_size)
    upload = (await world.create(terms=whole(content, length=len(content)))).upload
    size = -(-len(content) // pieces)

    upload = await send(
        world, upload, *(content[i : i + size] for i in range(0, len(content), size))
    )

    assert upload.state is S.VERIFIED
    assert (await world.row(upload)).digests == {"sha256": hashlib.sha256(content).digest()}
    assert await world.events(upload) == [S.VERIFIED]


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_an_upload_with_another_digest_is_given_up(world: World, pieces: int) -> None:
    content = Random(7).randbytes(3 * world.objects.limits.preferred_part_size)
    upload = (await world.create(terms=whole(b"another", length=len(content)))).upload
    size = -(-len(content) // pieces)

    with pytest.raises(DigestMismatch):
        await send(world, upload, *(content[i : i + size] for i in range(0, len(content), size)))

    row = await world.row(upload)
    assert (row.state, row.error_code) == (S.ERROR, "digest_mismatch")
    assert await world.events(upload) == [S.ERROR]
    with pytest.raises(UploadNotFound):
        await world.status(upload)
    await world.recover()
    assert not world.has_bytes(row)


async def test_a_digest_that_was_asked_for_is_told(world: World) -> None:
    created = await world.create(b"abc", terms=whole(None, length=3))
    upload = (await world.create(terms=whole(None, length=3))).upload
    appended = await send(world, upload, b"a", b"bc")

    for found in (created.upload, appended):
        assert found.digests == {"sha256": digest_of(b"abc")}


async def test_a_digest_may_come_with_a_later_request(world: World) -> None:
    upload = (await world.append(await world.new(3), b"a")).upload

    with pytest.raises(DigestMismatch):
        await world.append(upload, b"bd", terms=whole(b"abc"))

    assert (await world.row(upload)).state is S.ERROR
    await world.recover()


async def test_a_digest_once_given_does_not_change(world: World) -> None:
    upload = (await world.create(terms=whole(b"abc", length=3))).upload

    with pytest.raises(MalformedRequest):
        await world.append(upload, b"abc", terms=whole(b"abd"))
    await world.append(upload, b"abc", terms=whole(b"abc"))

    assert await world.content(upload) == b"abc"


async def test_an_upload_whose_digest_was_not_looked_at_yet_is_not_verified(
    world: World,
) -> None:
    """Where the process ends between the last byte and the look, another one looks."""
    for content, state in ((b"abc", S.VERIFIED), (b"abd", S.ERROR)):
        upload = (await world.create(terms=whole(content, length=3))).upload
        upload = (await world.append(upload, b"a")).upload
        world.objects.fail("complete", StoreUnavailable(), times=1)
        with pytest.raises(StoreUnavailable):
            await world.append(upload, b"bc")
        assert (await world.row(upload)).state is S.COMPLETED

        await world.recover()

        assert (await world.row(upload)).state is state
    await world.recover()


# --- completion by a flag


def flagged(flag: bool, **terms: object) -> Terms:
    return Terms(completes=flag, **terms)  # type: ignore[arg-type]


async def rufh(
    world: World, upload: Upload, *script: Script, flag: bool, **terms: object
) -> Upload:
    chunked = bool(terms.pop("chunked", False))
    return (
        await world.append(
            upload,
            *script,
            chunked=chunked,
            terms=flagged(flag, **terms),
            protocol=Protocol.RUFH,
        )
    ).upload


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 20])
@pytest.mark.parametrize("known", [True, False], ids=["known length", "open length"])
async def test_all_bytes_are_not_the_end_where_the_request_does_not_say_so(
    world: World, size: int, known: bool
) -> None:
    content = bytes(range(size))
    length = size if known else None
    created = await world.create_rufh(content, terms=flagged(False, length=length))
    assert created.upload.state in (S.INITIATED, S.RECEIVING)
    assert created.upload.offset == size
    assert (
        await world.append(created.upload, terms=flagged(False), protocol=Protocol.RUFH)
    ).upload.state in (
        S.INITIATED,
        S.RECEIVING,
    )

    done = await rufh(world, created.upload, flag=True, length=size)

    assert (done.state, done.length) == (S.VERIFIED, size)
    assert await world.content(done) == content
    assert await world.events(done) == [S.VERIFIED]


async def test_the_end_of_a_chunked_body_is_the_end_of_the_upload(world: World) -> None:
    upload = (await world.create_rufh(b"abc", terms=flagged(False))).upload

    done = await rufh(world, upload, b"defghijklm", flag=True, chunked=True)

    assert (done.state, done.length) == (S.VERIFIED, 13)
    assert await world.content(done) == b"abcdefghijklm"


async def test_a_chunked_body_whose_end_was_not_seen_completes_nothing(world: World) -> None:
    for length in (None, 10):
        upload = (await world.create_rufh(terms=flagged(False, length=length))).upload
        body = FakeBody(b"0123456789", ClientGone(), chunked=True)

        cut = await world.append(upload, body=body, terms=flagged(True), protocol=Protocol.RUFH)

        assert isinstance(cut.stopped, ClientGone)
        row = await world.row(upload)
        assert (row.state, row.offset, row.length) == (S.RECEIVING, 10, length)
        done = await rufh(world, row, flag=True, length=10)
        assert await world.content(done) == b"0123456789"


@pytest.mark.parametrize("replays", [True, False], ids=["replays", "version 6"])
async def test_the_last_append_again_waits_for_a_completion_that_was_interrupted(
    world: World, replays: bool
) -> None:
    """D10: who never heard that the upload is complete is told so now, in every version."""
    upload = (await world.create_rufh(b"abc", terms=flagged(False, length=13))).upload
    world.objects.fail("complete", StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        await rufh(world, upload, b"defghijklm", flag=True)
    completed = await world.row(upload)
    assert completed.state is S.COMPLETED

    again = await rufh(world, completed, flag=True, replays=replays)

    assert (again.state, again.offset) == (S.VERIFIED, 13)
    assert await world.content(again) == b"abcdefghijklm"
    assert await world.events(again) == [S.VERIFIED]
    if not replays:
        with pytest.raises(AlreadyCompleted):
            await rufh(world, again, flag=True, replays=False)


@pytest.mark.parametrize(("script", "flag"), [([b"x"], True), ([b"x"], False), ([], False)])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "sized"])
async def test_what_is_not_the_last_append_again_is_refused_while_an_upload_is_finished(
    world: World, script: list[bytes], flag: bool, chunked: bool
) -> None:
    upload = (await world.create_rufh(b"abc", terms=flagged(False, length=13))).upload
    world.objects.fail("complete", StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        await rufh(world, upload, b"defghijklm", flag=True)
    completed = await world.row(upload)

    with pytest.raises(AlreadyCompleted):
        await rufh(world, completed, *script, flag=flag, chunked=chunked, replays=False)

    assert await world.content(upload) == b"abcdefghijklm"


@pytest.mark.parametrize("replays", [True, False], ids=["replays", "version 6"])
async def test_who_waits_for_a_completion_under_way_is_told_of_it(
    world: World, replays: bool
) -> None:
    upload = (await world.create_rufh(b"abc", terms=flagged(False, length=13))).upload
    finishing = world.objects.hold("complete")
    first = asyncio.create_task(rufh(world, upload, b"defghijklm", flag=True))
    await soon(finishing.reached.wait())
    completed = await world.row(upload)
    second = asyncio.create_task(rufh(world, completed, flag=True, replays=replays))
    await settle()

    finishing.let_go()

    assert (await first).state is (await second).state is S.VERIFIED
    assert await world.events(upload) == [S.VERIFIED]
