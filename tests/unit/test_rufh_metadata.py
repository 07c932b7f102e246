from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.wire.content import describe_content
from tus_server.wire.headers import Fields
from tus_server.wire.metadata import parse_metadata
from tus_server.wire.rufh_metadata import find_filename, render_metadata


def rendered(**given_fields: str) -> dict[str, str]:
    """Give the metadata of a creation; `_` in a name is `-`."""
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in given_fields.items()
    ]
    metadata = render_metadata(Fields(raw))
    return {key: value.decode() for key, value in parse_metadata(metadata).items()}


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename=a.txt", "a.txt"),
        ('attachment; filename="a b.txt"', "a b.txt"),
        ('attachment; filename="a \\"b\\" \\\\c"', 'a "b" \\c'),
        ("attachment;filename=a.txt;x=y", "a.txt"),
        ("inline; FileName=a.txt", "a.txt"),
        ("attachment; filename=x; filename*=UTF-8''%e2%82%ac%20rates", "\u20ac rates"),
        ("attachment; filename*=utf-8'en'a.txt; filename=x", "a.txt"),
        ("attachment; filename=x; filename*=UTF-8''%ff", "x"),
        ("attachment; filename=x; filename*=ISO-8859-1''a", "x"),
        ("attachment; filename=x; filename*=nonsense", "x"),
        ('attachment; filename="\u00e2\u0082\u00ac"', "\u20ac"),  # UTF-8 as it is
        ('attachment; filename="\u00e4"', "\u00e4"),  # ISO-8859-1
        ("attachment", None),
        ("attachment; filename=", None),
        ("attachment; name=x", None),
        ('attachment; filename="open', None),
        ("", None),
    ],
)
def test_the_file_name_is_found(disposition: str, name: str | None) -> None:
    """D5, RFC 6266."""
    assert find_filename(disposition) == name


def test_fields_of_their_own_become_metadata() -> None:
    """D5."""
    found = rendered(content_disposition="attachment; filename=a.png", content_type="image/png")

    assert found == {"filename": "a.png", "filetype": "image/png"}


@pytest.mark.parametrize(
    "kind", ["application/partial-upload", "Application/Offset+Octet-Stream; a=b"]
)
def test_the_types_of_uploads_are_no_types_of_files(kind: str) -> None:
    """D5: tus-js-client sends them on creations."""
    assert rendered(content_type=kind) == {}


def test_valid_metadata_goes_before_the_other_fields() -> None:
    """D5."""
    found = rendered(upload_metadata="a Yg==,filename Yw==", content_disposition="x; filename=y")

    assert found == {"a": "b", "filename": "c"}


@pytest.mark.parametrize("raw", ["filename ###", "a Yg==,a Yg==", "a Yg==,,b"])
def test_invalid_metadata_is_ignored(raw: str) -> None:
    """D5."""
    assert rendered(upload_metadata=raw, content_type="text/plain") == {"filetype": "text/plain"}


def test_a_content_coding_is_kept_beside_metadata() -> None:
    """R77."""
    assert rendered(content_encoding="gzip") == {"content-encoding": "gzip"}
    both = rendered(content_encoding="gzip", upload_metadata="a Yg==")
    assert both == {"a": "b", "content-encoding": "gzip"}
    own = rendered(content_encoding="gzip", upload_metadata="content-encoding YnI=")
    assert own == {"content-encoding": "br"}


def test_nothing_is_none() -> None:
    assert render_metadata(Fields([])) is None


@given(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=60),
    st.text(alphabet=st.characters(max_codepoint=255), max_size=60),
    st.text(alphabet=st.characters(max_codepoint=255), max_size=60),
)
def test_whatever_comes_is_metadata_and_can_be_served(
    disposition: str, kind: str, coding: str
) -> None:
    """R82: no field value of a request reaches a reply unescaped."""
    raw = [
        (b"content-disposition", b"attachment; filename=" + disposition.encode("latin-1")),
        (b"content-type", kind.encode("latin-1")),
        (b"content-encoding", coding.encode("latin-1")),
    ]
    metadata = render_metadata(Fields(raw))

    content = describe_content(metadata, keeps_coding=True)

    for value in (content.content_type, content.disposition, content.coding or ""):
        assert value.isascii()
        assert value.isprintable()
    for member in (metadata or "").split(","):
        b64decode(member.partition(" ")[2], validate=True)


@pytest.mark.parametrize(
    ("given_coding", "served"),
    [
        ("gzip", "gzip"),
        ("GZIP , br", "gzip, br"),
        ("x-unknown", None),
        ("gzip, x-unknown", None),
        ("identity", None),
        ("gzip,gzip,gzip,gzip,gzip", None),
        ("gzip\r\nSet-Cookie: a=b", None),
    ],
)
def test_only_codings_that_can_be_undone_are_served(given_coding: str, served: str | None) -> None:
    """R77, R82."""
    metadata = render_metadata(Fields([(b"content-encoding", given_coding.encode())]))

    assert describe_content(metadata, keeps_coding=True).coding == served
    assert describe_content(metadata).coding is None
