"""The pieces of `put --direct` that need no server."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import typer
from awscrt.checksums import crc64nvme

from tus_server.cli.arguments import parse_api_endpoint, parse_file_id, with_token
from tus_server.cli.asking import shown_url
from tus_server.cli.direct_api import DirectApi, Ticket
from tus_server.cli.direct_stored import StoredUpload
from tus_server.cli.direct_tickets import Tickets
from tus_server.cli.file_section import FileSection, SummedSection
from tus_server.cli.replies import Reply, TransferFailed, find_detail, find_store_error
from tus_server.cli.stored_urls import StoredUrls

API = "http://h:1/api/uploads"


# --- arguments


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://h", "http://h/api/uploads"),
        ("http://h:8080/", "http://h:8080/api/uploads"),
        ("https://h/files/", "https://h/api/uploads"),
        ("https://h/files/?a=b#c", "https://h/api/uploads"),
        ("https://h/api/uploads", "https://h/api/uploads"),
        ("https://h/api/uploads/", "https://h/api/uploads"),
        ("https://h/below/api/uploads", "https://h/below/api/uploads"),
        ("https://h/below/files/", "https://h/api/uploads"),
    ],
)
def test_the_api_is_found_by_any_url_of_a_server(url: str, endpoint: str) -> None:
    assert parse_api_endpoint(url) == endpoint


def test_a_password_in_the_url_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        parse_api_endpoint("http://me:s3cret@h/")

    assert "s3cret" not in capsys.readouterr().err


def test_the_token_is_shown_unless_something_else_is() -> None:
    assert with_token({}, "t" * 16) == {"Authorization": f"Bearer {'t' * 16}"}
    assert with_token({"authorization": "Basic x"}, "t" * 16) == {"authorization": "Basic x"}
    assert with_token({"X-A": "b"}, "") == {"X-A": "b"}


@pytest.mark.parametrize("token", ["two words", "line\nend", "ümlaut"])
def test_a_token_that_is_none_is_refused_and_not_repeated(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        with_token({}, token)

    assert token not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "a\udcff"])
def test_a_file_id_is_a_text(text: str) -> None:
    with pytest.raises(typer.Exit):
        parse_file_id(text)


# --- what is said


def test_a_signed_url_is_shown_without_its_signature() -> None:
    url = "https://key:s3cret@h:9/b/k?X-Amz-Signature=s3cret&partNumber=1#s3cret"

    assert shown_url(url) == "https://h:9/b/k"


def test_an_error_of_s3_is_read() -> None:
    content = (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>'
        b"<Message>Request has expired &amp; so on.</Message></Error>"
    )
    headers = {"content-type": "application/xml"}

    assert find_store_error(Reply(403, "", headers, content)) == (
        "AccessDenied",
        "Request has expired & so on.",
    )
    assert find_detail(headers, content) == "Request has expired & so on"


# --- sections of a file


def test_sections_of_one_open_file_are_read_side_by_side(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    (tmp_path / "file").write_bytes(content)
    moved: list[int] = []
    with (tmp_path / "file").open("rb") as file:
        first = FileSection(file, 0, 100_000, moved.append)
        second = SummedSection(file, 100_000, len(content) - 100_000, moved.append)

        pairs = list(zip(first, second, strict=False))
        rest = list(second)

    assert b"".join(one for one, _ in pairs) == content[:100_000]
    assert moved[:3] == [65536, 165536, 100_000]
    assert b"".join(rest) == content[100_000:]
    assert second.crc64 == crc64nvme(content[100_000:])
    assert (len(first), len(second)) == (100_000, len(content) - 100_000)


def test_a_file_that_has_become_shorter_is_no_end_of_a_section(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    with (tmp_path / "file").open("rb") as file:
        section = FileSection(file, 0, 10, lambda position: None)

        with pytest.raises(TransferFailed, match="shorter"):
            list(section)


# --- what is kept


@pytest.fixture
def urls(tmp_path: Path) -> StoredUrls:
    return StoredUrls(tmp_path / "uploads.json")


def test_the_id_of_an_upload_is_found_by_the_next_run(urls: StoredUrls) -> None:
    first = StoredUpload(urls, "key", API)
    assert first.find_id() is None
    first.keep("abc.node")

    assert StoredUpload(urls, "key", API).find_id() == "abc.node"
    assert StoredUpload(urls, "another", API).find_id() is None
    first.remove()
    assert StoredUpload(urls, "key", API).find_id() is None


def test_the_key_of_a_request_without_answer_is_used_by_the_next_run(urls: StoredUrls) -> None:
    key = StoredUpload(urls, "key", API).make_request_key()
    again = StoredUpload(urls, "key", API)

    assert again.find_id() is None
    assert again.make_request_key() == key
    again.keep("abc")
    assert again.find_id() == "abc"
    assert again.make_request_key() != key


def test_without_a_place_to_keep_it_a_run_still_knows_its_own(urls: StoredUrls) -> None:
    stored = StoredUpload(None, "key", API)
    key = stored.make_request_key()

    assert stored.make_request_key() == key
    stored.keep("abc")
    assert stored.find_id() == "abc"


# --- tickets


class Signing:
    """Signs for `lasts_s` seconds, and keeps what it was asked for."""

    endpoint = API

    def __init__(self, lasts_s: float, refused: frozenset[int] = frozenset()) -> None:
        self.asked: list[list[int]] = []
        self._lasts_s = lasts_s
        self._refused = refused

    def sign(self, id: str, numbers: Sequence[int]) -> dict[int, Ticket]:
        self.asked.append(list(numbers))
        ends_s = time.monotonic() + self._lasts_s
        return {
            number: Ticket("PUT", f"http://store/{number}/{len(self.asked)}", {}, ends_s)
            for number in numbers
            if number not in self._refused
        }


def make_tickets(signing: Signing, order: Sequence[int], batch: int) -> Tickets:
    return Tickets(cast(DirectApi, signing), "abc", order, batch=batch)


def test_requests_are_signed_in_batches() -> None:
    signing = Signing(3600)
    tickets = make_tickets(signing, [2, 3, 5, 7, 11], batch=3)

    urls = [tickets.take(number).url for number in (2, 3, 5, 7, 11)]

    assert signing.asked == [[2, 3, 5], [7, 11]]
    assert len(set(urls)) == 5


def test_a_request_that_was_refused_is_signed_anew_alone() -> None:
    signing = Signing(3600)
    tickets = make_tickets(signing, [1, 2, 3, 4], batch=2)
    first = tickets.take(1)
    tickets.take(2)

    again = tickets.take(1)

    assert again.url != first.url
    assert signing.asked == [[1, 2], [1]]


def test_requests_that_end_soon_are_signed_when_they_are_needed() -> None:
    signing = Signing(lasts_s=1)
    tickets = make_tickets(signing, [1, 2], batch=2)

    urls = [tickets.take(1).url, tickets.take(2).url]

    assert signing.asked == [[1, 2], [2]]
    assert urls == ["http://store/1/1", "http://store/2/2"]


def test_a_part_that_was_not_in_order_is_signed_too() -> None:
    signing = Signing(3600)

    make_tickets(signing, [1, 2], batch=2).take(9)

    assert signing.asked == [[9]]


def test_a_part_that_is_not_signed_is_a_failure() -> None:
    tickets = make_tickets(Signing(3600, frozenset({1})), [1], batch=1)

    with pytest.raises(TransferFailed, match="part 1"):
        tickets.take(1)


def test_a_batch_is_never_more_than_a_server_signs_at_once() -> None:
    signing = Signing(3600)

    make_tickets(signing, range(1, 10_001), batch=4000).take(1)

    assert len(signing.asked[0]) == 100
