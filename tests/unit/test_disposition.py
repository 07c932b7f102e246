import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.wire.disposition import INLINE_TYPES, render_disposition, served_type

HEADER = re.compile(
    r'(?:attachment|inline)(?:; filename="([\x20\x21\x23-\x5b\x5d-\x7e]+)"'
    r"(?:; filename\*=UTF-8''((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+))?)?"
)


def saved_name(header: str) -> str:
    """The name a browser that knows RFC 8187 saves the file under."""
    match = HEADER.fullmatch(header)
    assert match is not None, header
    fallback, extended = match.groups(default="")
    return unquote(extended, errors="strict") if extended else fallback


def test_a_plain_name_needs_no_extended_form() -> None:
    assert (
        render_disposition("holiday photo.png", inline=False)
        == 'attachment; filename="holiday photo.png"'
    )


def test_a_name_beyond_ascii_comes_in_both_forms() -> None:
    assert (
        render_disposition("naïve €.txt", inline=True)
        == "inline; filename=\"na_ve _.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt"
    )


@pytest.mark.parametrize("filename", [None, "", " ", ".", "..", "../", "a/b/", "\r\n\0", "\u202e"])
def test_a_name_of_which_nothing_is_left_is_not_sent(filename: str | None) -> None:
    assert render_disposition(filename, inline=False) == "attachment"
    assert render_disposition(filename, inline=True) == "inline"


@pytest.mark.parametrize(
    ("filename", "saved"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("C:\\a/b\\c.txt", "c.txt"),
        ("/.\0./x", "x"),
        (" padded.txt ", "padded.txt"),
    ],
)
def test_only_the_last_part_of_a_path_is_left(filename: str, saved: str) -> None:
    assert saved_name(render_disposition(filename, inline=False)) == saved


@pytest.mark.parametrize(
    ("filename", "saved"),
    [
        ("a\r\nSet-Cookie: b=c", "aSet-Cookie: b=c"),
        ("a\0b\x7f\x85.txt", "ab.txt"),
        ("photo_\u202egpj.exe", "photo_gpj.exe"),
        ("\u2066a\u2069\u200f\u061c.txt", "a.txt"),
        ("a\u2028b.txt", "ab.txt"),
        ("a\ud800b.txt", "ab.txt"),
    ],
)
def test_controls_and_bidi_marks_are_removed(filename: str, saved: str) -> None:
    assert saved_name(render_disposition(filename, inline=False)) == saved


def test_the_fallback_holds_nothing_that_browsers_unescape() -> None:
    assert (
        render_disposition('a"b%41; filename=c.txt', inline=False)
        == 'attachment; filename="a_b_41; filename=c.txt"; '
        "filename*=UTF-8''a%22b%2541%3B%20filename%3Dc.txt"
    )


def test_joiners_of_real_scripts_are_kept() -> None:
    assert (
        saved_name(render_disposition("\u0645\u06cc\u200c\u062e.txt", inline=False))
        == "\u0645\u06cc\u200c\u062e.txt"
    )


def test_a_name_too_long_keeps_its_extension() -> None:
    saved = saved_name(render_disposition("é" * 300 + ".jpeg", inline=False))

    assert saved == "é" * 125 + ".jpeg"


@pytest.mark.parametrize("filename", ["a" * 300, "a." + "b" * 300, "." + "c" * 300])
def test_a_name_too_long_without_an_extension_is_cut_at_its_end(filename: str) -> None:
    assert saved_name(render_disposition(filename, inline=False)) == filename[:255]


@given(
    st.none() | st.text() | st.text(alphabet='./\\"%;\r\n\0é€\u202e\ud800 a', max_size=400),
    st.booleans(),
)
def test_any_name_renders_to_a_safe_field(filename: str | None, inline: bool) -> None:
    header = render_disposition(filename, inline=inline)
    saved = saved_name(header)

    assert header.isascii()
    assert header.isprintable()
    assert len(saved.encode()) <= 255
    assert not set(saved) & set("/\\\r\n\0\u202e")
    assert saved not in (".", "..")


@given(
    st.text(
        alphabet=st.characters(categories=["L", "N", "P"], exclude_characters="/\\."),
        min_size=1,
        max_size=60,
    )
)
def test_a_harmless_name_arrives_as_it_was(filename: str) -> None:
    assert saved_name(render_disposition(filename, inline=False)) == filename


@pytest.mark.parametrize(
    ("claimed", "served"),
    [
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        (" image/png ; q=1", "image/png"),
        ("image/svg+xml", "image/svg+xml"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("text/html; charset=utf-8", "text/html"),
        ("text/plain", "text/plain"),
        ("text/plain; charset=UTF-8", "text/plain; charset=utf-8"),
        ('text/plain;format=flowed ;CHARSET="utf-8"', "text/plain; charset=utf-8"),
        ('text/plain; a="; charset=x"; charset=utf-8', "text/plain; charset=utf-8"),
        ("text/plain; charset=", "text/plain"),
        ('text/plain; charset="a b"', "text/plain"),
        ("text/plain; charset=utf-8\r\nX: y", "text/plain"),
    ],
)
def test_a_media_type_is_served_without_its_parameters(claimed: str, served: str) -> None:
    assert served_type(claimed) == served


@pytest.mark.parametrize(
    "claimed",
    [
        None,
        "",
        "null",
        "png",
        "image/",
        "/png",
        "*/*",
        "image/*",
        "image/png, text/html",
        "image/png/x",
        "\u0131mage/png",
        "text/html\r\nX: y",
        "text/" + "x" * 128,
    ],
)
def test_what_is_no_media_type_is_served_as_bytes(claimed: str | None) -> None:
    assert served_type(claimed) == "application/octet-stream"


@pytest.mark.parametrize(
    "claimed",
    ["text/html", "image/svg+xml", "text/xml", "application/xhtml+xml", "application/pdf"],
)
def test_a_type_that_can_run_script_is_not_shown_inline(claimed: str) -> None:
    assert served_type(claimed) not in INLINE_TYPES


def test_every_inline_type_is_served_as_itself() -> None:
    assert {served_type(name) for name in INLINE_TYPES} == INLINE_TYPES


@given(st.text() | st.text(alphabet='text/plain; charset="=\\\r\n'))
def test_any_claim_renders_to_a_safe_field(claimed: str) -> None:
    for served in (served_type(claimed), served_type(f"text/plain;{claimed}")):
        assert re.fullmatch(
            r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; charset=[a-z0-9._:+-]+)?", served
        )
