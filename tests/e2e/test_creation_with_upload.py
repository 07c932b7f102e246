"""Creation With Upload (T63-T69)."""

import pytest

from tests.e2e.conftest import LIMITED_MAX_SIZE
from tests.e2e.values import shown
from tests.support.http import FieldValue
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern
from tests.support.waiting import wait_until

MIB = 1024 * 1024


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/json"], ids=shown)
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_of_another_type_is_415_and_creates_nothing(
    tus: Tus, records: Records, content_type: FieldValue, chunked: bool
) -> None:
    """T65."""
    with records.nothing_created():
        reply = tus.create(5, body=b"hello", chunked=chunked, fields={"Content-Type": content_type})

    assert reply.status == 415


@pytest.mark.parametrize("content_type", ["text/plain", "application/offset+octet-stream"])
def test_without_a_body_the_type_does_not_count(tus: Tus, content_type: str) -> None:
    """T65."""
    assert tus.create(5, fields={"Content-Type": content_type}).status == 201


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 1000, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("length", ["exact", "more", "deferred"])
def test_the_bytes_that_come_along_are_stored(
    tus: Tus, size: int, length: str, chunked: bool
) -> None:
    """T66, T67."""
    content = pattern(size)
    declared = {"exact": size, "more": size + 10, "deferred": None}[length]

    reply = tus.create(declared, body=content, chunked=chunked)

    url = reply["location"]
    assert reply.status == 201
    assert reply["upload-offset"] == str(size)
    assert tus.offset(url) == size
    assert tus.patch(url, size, bytes((declared or size) - size), length=declared or size)
    assert tus.content(url) == content + bytes((declared or size) - size)


def test_a_completed_creation_has_one_event(tus: Tus, records: Records) -> None:
    """T67."""
    reply = tus.create(5, body=b"hello")

    assert records.events(reply["location"]) == ["verified"]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_body_beyond_the_length_is_413_and_leaves_nothing(
    tus: Tus, records: Records, length: int, chunked: bool
) -> None:
    """T69."""
    with records.nothing_created():
        reply = tus.create(length, body=b"hello", chunked=chunked)

        assert reply.status == 413
        assert "location" not in reply


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("length", [2 * MIB + 100, None], ids=["known", "deferred"])
def test_a_large_body_beyond_the_end_is_413_and_leaves_nothing(
    limited: Tus, limited_server: ServerProcess, length: int | None, chunked: bool
) -> None:
    """T69, T62: also when parts of it were committed before the end was seen."""
    content = pattern((LIMITED_MAX_SIZE if length is None else length) + 1)

    with Records(limited_server.data_dir).nothing_created():
        reply = limited.create(length, body=content, chunked=chunked)

        assert reply.status == 413


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_creation_that_is_cut_leaves_nothing(
    tus: Tus, records: Records, how: str, framing: str
) -> None:
    """T66, T69: its client never learned the URL, so nobody could go on with it."""
    fields = {"Upload-Length": "100000", "Content-Type": BODY_TYPE, "Expect": "100-continue"}
    framed = (
        {"Content-Length": "100000"} if framing == "sized" else {"Transfer-Encoding": "chunked"}
    )
    before = records.count_uploads(), records.count_files()

    with tus.connect() as connection:
        connection.send_head("POST", tus.base, tus.fields | fields | framed)
        assert connection.read_one_head().status == 100
        assert records.count_uploads() == before[0] + 1
        connection.send(pattern(50_000) if framing == "sized" else b"5\r\nhello\r\n")
        connection.wait_taken()
        if how == "reset":
            connection.reset()
        else:
            connection.half_close()
            connection.read_until_closed()

    wait_until(
        lambda: (records.count_uploads(), records.count_files()) == before, "it is taken back"
    )
