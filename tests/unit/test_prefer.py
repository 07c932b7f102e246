"""Prefer: wait=N (RFC 7240)."""

import pytest

from tus_server.wire.prefer import find_wait_s


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("Wait = 7", 7),
        ('wait="5"; foo=bar', 5),
        ("wait=0", 0),
        ("wait=100000", 30),
        ("wait=3, wait=9", 3),
        ("wait=x, wait=9", 9),
        (None, None),
        ("", None),
        ("respond-async", None),
        ("wait", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("waiting=5", None),
        ("wait=99999999999999999999", None),
    ],
)
def test_the_first_wait_that_is_understood_counts(prefer: str | None, wait_s: int | None) -> None:
    assert find_wait_s(prefer, most_s=30) == wait_s
