from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64, crc64
from tus_server.core.ids import UploadId
from tus_server.core.states import IllegalTransition, UploadState
from tus_server.core.upload import Protocol, Tail, Upload

CREATED = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
NEW = Upload(
    id=UploadId("0" * 32),
    protocol=Protocol.TUS,
    state=UploadState.INITIATED,
    created_at=CREATED,
    state_on=CREATED,
)


def test_a_new_upload_is_at_offset_0() -> None:
    assert NEW.offset == 0
    assert NEW.crc64 == crc64(b"")


@pytest.mark.parametrize(
    ("block", "expected"),
    [(b"", 0), (b"123456789", 0xAE8B14860A799888), (bytes(32), 0xCF3473434D4ECF3B)],
)
def test_the_checksum_is_crc64_nvme(block: bytes, expected: int) -> None:
    assert crc64(block) == expected


@given(st.binary(), st.binary())
def test_a_checksum_can_be_continued_or_combined(first: bytes, second: bytes) -> None:
    whole = crc64(first + second)

    assert crc64(second, crc64(first)) == whole
    assert combine_crc64(crc64(first), crc64(second), len(second)) == whole


@given(st.lists(st.binary()))
def test_the_checksum_of_an_upload_is_that_of_its_bytes_however_they_were_cut(
    parts: list[bytes],
) -> None:
    upload = NEW
    for part in parts:
        upload = upload.with_bytes(len(part), crc64(part))

    whole = b"".join(parts)
    assert upload.crc64 == crc64(whole)
    assert upload.offset == upload.committed_bytes == len(whole)
    assert upload.next_part_number == 1  # set aside by leases, not by parts


def test_the_checksum_of_parts_beyond_32_bits_is_combined() -> None:
    half = combine_crc64(crc64(b"x"), EMPTY_CRC64, 0)
    upload = NEW.with_bytes(1, half).with_bytes(5 * 2**40 - 1, 0xFFFF_FFFF_FFFF_FFFF)

    assert upload.offset == 5 * 2**40
    assert 0 <= upload.crc64 < 2**64


@given(
    st.integers(0, 2**53 - 1), st.none() | st.integers(1, 2**40), st.none() | st.integers(0, 2**53)
)
def test_the_offset_is_committed_parts_and_tail(
    committed: int, tail_length: int | None, length: int | None
) -> None:
    tail = None if tail_length is None else Tail(tail_length, 1, "node", 0)
    upload = replace(NEW, committed_bytes=committed, tail=tail, length=length)

    assert upload.offset == committed + (tail_length or 0)
    assert upload.remaining == (None if length is None else length - upload.offset)


@given(st.binary(), st.binary(min_size=1), st.binary())
def test_the_part_behind_a_tail_begins_with_its_bytes(
    committed: bytes, tail: bytes, new: bytes
) -> None:
    upload = NEW.with_bytes(len(committed), crc64(committed))
    upload = replace(upload, tail=Tail(len(tail), crc64(tail), "node", 0))

    after = upload.with_bytes(len(tail + new), crc64(tail + new))

    assert after.tail is None
    assert after.offset == upload.offset + len(new)
    assert after.crc64 == crc64(committed + tail + new)


def test_a_settled_length_tells_what_remains() -> None:
    upload = NEW.with_bytes(3, crc64(b"abc"))

    assert upload.remaining is None
    assert upload.with_length(10).remaining == 7


def test_steps_move_the_state_and_its_time() -> None:
    later = CREATED + timedelta(seconds=5)

    stepped = NEW.stepped(UploadState.RECEIVING, UploadState.COMPLETED, on=later)

    assert (stepped.state, stepped.state_on) == (UploadState.COMPLETED, later)
    assert stepped.created_at == CREATED
    assert NEW.state is UploadState.INITIATED


def test_no_step_changes_nothing() -> None:
    assert NEW.stepped(on=CREATED + timedelta(seconds=5)) is NEW


def test_an_illegal_step_is_refused() -> None:
    with pytest.raises(IllegalTransition):
        NEW.stepped(UploadState.VERIFIED, on=CREATED)
