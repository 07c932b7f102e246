"""What the first bytes of a file tell of its type."""

import os

import pytest

from tus_server.wire.sniffing import sniff_type


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "image/png"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(100), "image/jpeg"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "video/mp4"),
        (b"", None),
        (b"just a few words", None),
    ],
)
def test_the_type_is_told_by_the_content(head: bytes, found: str | None) -> None:
    assert sniff_type(head) == found


def test_nothing_that_is_sent_breaks_it() -> None:
    for size in (1, 2, 3, 17, 4096):
        for _ in range(20):
            sniff_type(os.urandom(size))
