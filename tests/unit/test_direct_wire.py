"""The URLs of parts: what names one, and the query of a signed one."""

import pytest

from tus_server.core.errors import SignatureRefused
from tus_server.wire.direct import find_part, parse_signed_query

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize("number", [1, 10, 10_000, 999_999])
def test_a_path_names_upload_and_part(number: int) -> None:
    assert find_part(f"/direct/{ID}/{number}") == (ID, number)


def test_an_id_may_have_the_label_of_a_node() -> None:
    assert find_part(f"/direct/{ID}.node-1/2") == (f"{ID}.node-1", 2)


@pytest.mark.parametrize(
    "path",
    [
        "/direct/",
        "/direct",
        f"/direct/{ID}",
        f"/direct/{ID}/",
        f"/direct/{ID}/0",
        f"/direct/{ID}/01",
        f"/direct/{ID}/-1",
        f"/direct/{ID}/1/",
        f"/direct/{ID}/1/2",
        f"/direct/{ID}/1\n",
        f"/direct/{ID}/٣",
        f"/direct/{ID}/1000000",
        f"/direct/{ID[:-1]}/1",
        f"/direct/{ID.upper()}/1",
        f"/direct/../{ID}/1",
        f"/files/{ID}/1",
        f"direct/{ID}/1",
        f"/up/direct/{ID}/1",
    ],
)
def test_no_other_path_names_a_part(path: str) -> None:
    assert find_part(path) is None


def test_a_query_is_what_its_words_say() -> None:
    query = parse_signed_query(b"expires=1&size=%32&signature=a-_")

    assert query == {"expires": "1", "size": "2", "signature": "a-_"}


@pytest.mark.parametrize(
    "query",
    [
        b"size",
        b"expires=1&",
        b"expires=1&size=2&size=2&signature=a",
        b"expires=1&expires=1",
        b"expires=1&&size=2",
        b"expires=\xc3\xa9",
        b"&".join(b"a%d=1" % number for number in range(1000)),
    ],
)
def test_a_query_that_nobody_signed_is_refused(query: bytes) -> None:
    with pytest.raises(SignatureRefused):
        parse_signed_query(query)


def test_an_empty_query_has_no_words() -> None:
    assert parse_signed_query(b"") == {}
