"""Direct uploads on local disk: signatures, the key, and what a power cut would leave of parts."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.integration.conftest import SmallDisk, soon
from tests.integration.direct import PART_SIZE, WHOLE, DirectWorld, Opens
from tests.integration.direct import open_direct as open_direct
from tests.support.disk import Faulty, Platter, open_files
from tests.support.fakes import FakeClock, Stall, make_upload, planned_parts
from tus_server.core.errors import (
    DataDirUnusable,
    SignatureRefused,
    StorageFull,
    StoreUnavailable,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.disk.threads import FileThreads
from tus_server.objects.local import LocalObjects
from tus_server.objects.local_direct import LocalDirect
from tus_server.signing_key import load_signing_key
from tus_server.state.sqlite import SqliteState

S = UploadState
NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


# --- signatures


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def direct(tmp_path: Path) -> LocalDirect:
    return LocalDirect(LocalObjects(tmp_path, FileThreads(1)).disk, bytes(32))


@pytest.fixture
def upload(clock: FakeClock) -> Upload:
    return make_upload(
        clock, protocol=Protocol.MULTIPART, length=25, part_size=PART_SIZE, crc64=None
    )


async def signed_query(direct: LocalDirect, upload: Upload, number: int = 2) -> dict[str, str]:
    part = planned_parts(upload)[number - 1]
    (request,) = await direct.sign_parts(upload, [part], expires_at=NOW + HOUR)
    return dict(parse_qsl(urlsplit(request.url).query))


def check(direct: LocalDirect, upload: Upload, query: dict[str, str], **changed: Any) -> int:
    about: dict[str, Any] = {"method": "PUT", "now": NOW} | changed
    upload_id, number = about.pop("upload_id", upload.id), about.pop("number", 2)
    return direct.check_signature(upload_id, number, query=query, **about)


async def test_a_url_says_upload_part_size_and_end(direct: LocalDirect, upload: Upload) -> None:
    requests = await direct.sign_parts(
        upload, planned_parts(upload), expires_at=NOW + HOUR + timedelta(milliseconds=700)
    )

    expires_s = int((NOW + HOUR).timestamp())
    for number, size, request in zip((1, 2, 3), (10, 10, 5), requests, strict=True):
        url, signature = request.url.rsplit("=", 1)
        assert url == f"/direct/{upload.id}/{number}?expires={expires_s}&size={size}&signature"
        assert len(signature) == 43
        assert (request.method, dict(request.headers)) == ("PUT", {})
        assert request.expires_at == NOW + HOUR
        query = dict(parse_qsl(urlsplit(request.url).query))
        assert check(direct, upload, query, number=number) == size


async def test_a_url_is_good_until_its_end(direct: LocalDirect, upload: Upload) -> None:
    query = await signed_query(direct, upload)

    assert check(direct, upload, query, now=NOW + HOUR - timedelta(microseconds=1)) == 10
    for later in (HOUR, 2 * HOUR):
        with pytest.raises(SignatureRefused, match=r"expired at 2026-11-20T14:00:00Z: sign it"):
            check(direct, upload, query, now=NOW + later)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "GET"},
        {"method": "put"},
        {"number": 1},
        {"number": 20},
        {"upload_id": UploadId("f" * 32)},
        {"now": NOW + 2 * HOUR, "number": 1},
    ],
    ids=str,
)
async def test_a_signature_is_for_one_request(
    direct: LocalDirect, upload: Upload, changed: dict[str, Any]
) -> None:
    query = await signed_query(direct, upload)

    with pytest.raises(SignatureRefused, match="The signature is not that of this method and URL"):
        check(direct, upload, query, **changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expires", "99999999999"),
        ("expires", " {}"),
        ("expires", "+{}"),
        ("expires", "0{}"),
        ("expires", "{}.0"),
        ("expires", "{}\n"),
        ("expires", ""),
        ("expires", "٣"),
        ("size", "11"),
        ("size", "010"),
        ("size", "-10"),
        ("size", "10\n1"),
        ("size", "1_0"),
        ("signature", ""),
        ("signature", "{}="),
        ("signature", "{}A"),
        ("signature", "A" * 43),
        ("signature", "é" * 43),
        ("signature", "\udc80"),
    ],
)
async def test_a_query_that_was_changed_is_refused(
    direct: LocalDirect, upload: Upload, name: str, value: str
) -> None:
    query = await signed_query(direct, upload)

    with pytest.raises(SignatureRefused):
        check(direct, upload, query | {name: value.format(query[name])})


@pytest.mark.parametrize("name", ["expires", "size", "signature"])
async def test_a_query_without_one_of_its_words_is_refused(
    direct: LocalDirect, upload: Upload, name: str
) -> None:
    query = await signed_query(direct, upload)
    del query[name]

    with pytest.raises(SignatureRefused, match="has expires, size, signature and nothing else"):
        check(direct, upload, query)


async def test_a_query_with_more_words_is_refused(direct: LocalDirect, upload: Upload) -> None:
    query = await signed_query(direct, upload)

    with pytest.raises(SignatureRefused):
        check(direct, upload, query | {"partNumber": "1"})


async def test_words_cannot_move_from_one_place_to_the_next(
    direct: LocalDirect, upload: Upload
) -> None:
    query = await signed_query(direct, upload)
    moved = query | {"size": f"10\n{query['expires']}", "expires": ""}

    with pytest.raises(SignatureRefused):
        check(direct, upload, moved)


async def test_another_key_makes_other_signatures(
    direct: LocalDirect, upload: Upload, tmp_path: Path
) -> None:
    other = LocalDirect(LocalObjects(tmp_path, FileThreads(1)).disk, bytes(31) + b"\1")

    with pytest.raises(SignatureRefused):
        check(direct, upload, await signed_query(other, upload))


async def test_a_thousand_urls_are_signed_in_a_tenth_of_a_second(
    direct: LocalDirect, upload: Upload
) -> None:
    parts = [Part(number, 0, PART_SIZE, None, None) for number in range(1, 1001)]
    began_s = time.process_time()

    requests = await direct.sign_parts(upload, parts, expires_at=NOW + HOUR)

    assert time.process_time() - began_s < 0.1
    assert len({request.url for request in requests}) == 1000


# --- the key


def test_the_key_is_made_once_and_nobody_elses_to_read(tmp_path: Path) -> None:
    key = load_signing_key(tmp_path / "data")

    assert len(key) == 32
    assert load_signing_key(tmp_path / "data") == key
    assert load_signing_key(tmp_path / "other") != key
    path = tmp_path / "data" / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["signing.key"]


def test_the_key_lasts_before_anything_is_signed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platter = Platter(tmp_path, monkeypatch)

    key = load_signing_key(tmp_path / "data")

    assert platter.read(tmp_path / "data" / "signing.key") == key


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_damaged_key_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "signing.key").write_bytes(content)

    with pytest.raises(DataDirUnusable, match=r"signing\.key is damaged: remove it"):
        load_signing_key(tmp_path)


def test_a_key_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "signing.new").write_bytes(b"abc")

    assert len(load_signing_key(tmp_path)) == 32


def test_a_key_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Faulty(monkeypatch, "fsync", errno.EIO)

    with pytest.raises(DataDirUnusable, match="cannot be read or made"):
        load_signing_key(tmp_path)


# --- what rows tell of is on the platter


class Witness(SqliteState):
    """A state that checks at each record that a power cut would leave the parts it tells of."""

    platter: Platter
    expected: bytes = WHOLE

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], **named: Any
    ) -> Upload | None:
        folder = self.platter.root / "objects" / upload_id[0] / upload_id[1]
        for part in parts:
            if part.etag is not None:
                left = self.platter.read(folder / f"{upload_id}.partial")
                assert left is not None
                end = part.start + part.size
                assert left[part.start : end] == self.expected[part.start : end]
        return await super().record_parts(upload_id, parts, **named)


@pytest.fixture
async def disk(
    open_direct: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[DirectWorld, Platter]:
    """An engine over SQLite and local disk, where each record looks at the platter."""
    platter = Platter(tmp_path, monkeypatch)
    monkeypatch.setattr(Witness, "platter", platter, raising=False)
    monkeypatch.setattr("tests.integration.conftest.SqliteState", Witness)
    return await open_direct(folder=tmp_path), platter


async def test_every_part_is_on_the_platter_before_its_row_tells_of_it(
    disk: tuple[DirectWorld, Platter],
) -> None:
    world, platter = disk
    upload = await world.begin()
    for number in (3, 1, 4, 2):
        await world.put(upload, number)

    await world.complete(upload)

    assert platter.read(Path(world.real_objects.paths.final(upload.id))) == WHOLE


async def test_parts_that_make_a_file_together_each_wait_until_its_name_lasts(
    disk: tuple[DirectWorld, Platter], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = disk
    upload = await world.begin()
    folder = world.real_objects.paths.folder(upload.id)
    slow, entered = threading.Event(), threading.Event()
    watched = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == folder and not entered.is_set():
            entered.set()
            slow.wait(20)
        watched(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    first = asyncio.ensure_future(world.put(upload, 1))
    await asyncio.to_thread(entered.wait, 20)
    second = asyncio.ensure_future(world.put(upload, 2))
    await asyncio.wait({second}, timeout=0.2)  # it may as well wait for the first
    slow.set()

    await soon(asyncio.gather(first, second))  # Witness has looked

    assert await world.stored(upload) == {1, 2}


async def test_a_file_that_a_crash_left_without_a_lasting_name_gets_one(
    disk: tuple[DirectWorld, Platter],
) -> None:
    world, platter = disk
    upload = await world.begin()
    platter.fail(4)  # of the two folders, the content, the folder of the file
    with pytest.raises(StoreUnavailable):
        await world.put(upload, 1)
    assert world.file(upload) == WHOLE[:10]
    assert platter.read(Path(world.real_objects.paths.partial(upload.id))) is None
    await world.restart()

    await world.put(upload, 1)  # Witness has looked

    assert await world.stored(upload) == {1}


@pytest.mark.parametrize("fail_at", [{1}, {2}, {3}, {4}, {5}, {6}, {1, 2, 3}, {4, 6}], ids=str)
async def test_a_failing_sync_is_never_reported_as_success(
    disk: tuple[DirectWorld, Platter], fail_at: set[int]
) -> None:
    world, platter = disk
    upload = await world.begin()
    platter.fail(*fail_at)

    failures = 0
    for number in (2, 1, 3, 4):
        while number not in await world.stored(upload):
            try:
                await world.put(upload, number)
            except StoreUnavailable:
                failures += 1
        assert failures <= len(fail_at)

    # Witness has looked at every record on the way.
    assert failures
    platter.fail()
    assert (await world.complete(upload)).state is S.VERIFIED
    assert platter.read(Path(world.real_objects.paths.final(upload.id))) == WHOLE


async def test_a_failing_sync_counts_for_all_that_is_written_to_the_file_meanwhile(
    disk: tuple[DirectWorld, Platter],
) -> None:
    world, platter = disk
    upload = await world.begin()
    await world.put(upload, 4)
    stall = Stall()
    beside = asyncio.ensure_future(world.put(upload, 2, WHOLE[10:14], stall, WHOLE[14:20]))
    await soon(stall.reached.wait())
    platter.fail(1)
    with pytest.raises(StoreUnavailable):
        await world.put(upload, 1)

    stall.resume()

    # The four bytes went with the sync that failed: a later one would not bring them back.
    with pytest.raises(StoreUnavailable):
        await soon(beside)
    await world.put_all(upload)
    await world.complete(upload)
    assert await world.content(upload) == WHOLE


async def test_relaxed_durability_drops_the_syncs_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upload: Upload
) -> None:
    platter = Platter(tmp_path, monkeypatch)
    part = planned_parts(upload)[2]
    with FileThreads(2) as threads:
        objects = LocalObjects(tmp_path, threads, durable=False)
        file = LocalDirect(objects.disk, bytes(32)).open_part(upload, part)
        await file.write(memoryview(b"abcde"))
        stored = await file.finish()
        await file.close()

    assert platter.syncs == 0
    assert stored.etag is not None
    assert Path(objects.paths.partial(upload.id)).read_bytes() == bytes(20) + b"abcde"


# --- errors of the disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_disk_without_space_is_told_apart_and_the_part_is_sent_again(
    open_direct: Opens, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    world = await open_direct()
    upload = await world.begin()
    await world.put(upload, 2)
    with monkeypatch.context() as patched:
        Faulty(patched, "pwrite", code)
        with pytest.raises(StorageFull):
            await world.put(upload, 1)

    assert await world.stored(upload) == {2}
    await world.put_all(upload)
    await world.complete(upload)
    assert await world.content(upload) == WHOLE


@pytest.mark.parametrize("name", ["open", "pwrite", "fdatasync", "mkdir", "fstat"])
async def test_an_error_of_the_disk_is_temporary_and_leaks_nothing(
    open_direct: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world = await open_direct()
    upload = await world.begin()
    if name == "fstat":
        await world.put(upload, 1)  # only the first part makes the file
    files = open_files(tmp_path)
    with monkeypatch.context() as patched:
        Faulty(patched, name, errno.EIO)
        with pytest.raises(StoreUnavailable):
            await world.put(upload, 2)

    assert open_files(tmp_path) == files
    await world.put_all(upload)
    assert open_files(tmp_path) == files
    await world.complete(upload)
    assert await world.content(upload) == WHOLE


async def test_a_write_that_is_cut_short_is_continued(
    open_direct: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await open_direct()
    upload = await world.begin()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, block, at: real(file, block[:3], at))

    await world.put_all(upload)

    assert world.file(upload) == WHOLE


async def test_a_part_that_was_closed_writes_nothing_more(tmp_path: Path, upload: Upload) -> None:
    part = planned_parts(upload)[0]
    with FileThreads(2) as threads:
        objects = LocalObjects(tmp_path, threads)
        file = LocalDirect(objects.disk, bytes(32)).open_part(upload, part)
        await file.write(memoryview(b"abc"))
        await file.close()
        files = open_files(tmp_path)

        with pytest.raises(StoreUnavailable):
            await file.write(memoryview(b"def"))
        with pytest.raises(StoreUnavailable):
            await file.finish()

        await file.close()
        assert open_files(tmp_path) == files
    assert Path(objects.paths.partial(upload.id)).read_bytes() == b"abc"


async def test_closing_waits_for_the_thread_that_uses_the_memory(
    tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, real = threading.Event(), threading.Event(), os.pwrite

    def slow(descriptor: int, block: memoryview, position: int) -> int:
        entered.set()
        gate.wait(20)
        return real(descriptor, block, position)

    monkeypatch.setattr(os, "pwrite", slow)
    with FileThreads(2) as threads:
        objects = LocalObjects(tmp_path, threads)
        part = planned_parts(upload)[0]
        file = LocalDirect(objects.disk, bytes(32)).open_part(upload, part)
        writing = asyncio.ensure_future(file.write(memoryview(b"abc")))
        await asyncio.to_thread(entered.wait, 20)
        writing.cancel()
        closing = asyncio.create_task(file.close())
        await asyncio.wait({closing}, timeout=0.1)
        closing.cancel()
        await asyncio.wait({closing}, timeout=0.1)
        was_done = closing.done()
        gate.set()
        await asyncio.wait({closing})

    assert not was_done
    assert closing.cancelled()


@pytest.mark.needs_root
async def test_on_a_full_disk_stored_parts_stay_and_the_upload_goes_on_when_there_is_space(
    small_disk: SmallDisk,
) -> None:
    whole = os.urandom(600_000)
    async with DirectWorld(small_disk.path) as world:
        upload = await world.begin(len(whole), part_size=100_000)
        await world.put(upload, 6, whole[500_000:])
        small_disk.fill()
        with pytest.raises(StorageFull):
            await world.put(upload, 1, whole[:100_000])
        assert await world.stored(upload) == {6}

        small_disk.make_space()

        for number in range(1, 6):
            await world.put(upload, number, whole[(number - 1) * 100_000 : number * 100_000])
        await world.complete(upload)
        assert await world.content(upload) == whole
