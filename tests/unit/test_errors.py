import json
import re
from collections.abc import Iterator

import pytest

from tus_server.core import errors
from tus_server.core.errors import (
    AlreadyCompleted,
    BodyTooLarge,
    BytesMissing,
    ClientError,
    ConflictError,
    LengthBelowOffset,
    LengthChanged,
    LengthInconsistent,
    MethodNotAllowed,
    OffsetMismatch,
    OperatorError,
    RangeNotSatisfiable,
    StorageFull,
    TryAgainError,
    TusServerError,
)
from tus_server.http.errors import RUFH_STATUSES, STATUSES, render_error, render_rufh_error


def walk(base: type[TusServerError]) -> Iterator[type[TusServerError]]:
    for child in base.__subclasses__():
        # Other modules (http/errors.py for defects, tests) may add their own.
        if child.__module__ == errors.__name__:
            yield child
            yield from walk(child)


CONCRETE = sorted(
    (kind for kind in set(walk(TusServerError)) if "code" in vars(kind)), key=lambda k: k.__name__
)
GROUPS = (ClientError, ConflictError, TryAgainError, OperatorError)
MESSAGES = {
    OffsetMismatch: lambda: OffsetMismatch(current=7, given=5),
    MethodNotAllowed: lambda: MethodNotAllowed("GET, HEAD"),
    RangeNotSatisfiable: lambda: RangeNotSatisfiable(10),
}


def make(kind: type[TusServerError]) -> TusServerError:
    return MESSAGES.get(kind, kind)()


def test_every_class_of_the_tree_is_a_group_or_has_a_code() -> None:
    for kind in walk(TusServerError):
        assert kind in GROUPS or "code" in vars(kind), kind


def test_every_error_says_who_must_act() -> None:
    for kind in CONCRETE:
        assert sum(issubclass(kind, group) for group in GROUPS) == 1, kind


@pytest.mark.parametrize("kind", CONCRETE)
def test_every_error_has_a_status(kind: type[TusServerError]) -> None:
    assert 400 <= STATUSES[kind] <= 599


def test_the_tables_of_statuses_name_no_other_class() -> None:
    assert set(STATUSES) == set(CONCRETE)
    assert set(RUFH_STATUSES) == set(CONCRETE)


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in CONCRETE}) == len(CONCRETE)


@pytest.mark.parametrize("kind", CONCRETE)
def test_codes_are_snake_case_and_titles_are_sentences(kind: type[TusServerError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert re.fullmatch(r"[A-Z][^\n]*[^.\s]", kind.title)


@pytest.mark.parametrize("kind", CONCRETE)
def test_statuses_agree_with_who_must_act(kind: type[TusServerError]) -> None:
    status = STATUSES[kind]

    if issubclass(kind, ClientError):
        assert 400 <= status < 500
    if issubclass(kind, TryAgainError):
        # 408 would make clients give up (T30).
        assert status in (409, 423, 503)


def test_an_error_without_words_says_its_title() -> None:
    assert str(BytesMissing()) == BytesMissing.title
    assert str(BytesMissing("3 bytes")) == "3 bytes"


@pytest.mark.parametrize("kind", CONCRETE)
def test_every_error_becomes_a_problem_document(kind: type[TusServerError]) -> None:
    status, headers, body = render_error(make(kind), method="PATCH")

    document = json.loads(body)
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert document["status"] == status == STATUSES[kind]
    assert document["code"] == kind.code
    assert document["title"] == kind.title


@pytest.mark.parametrize("kind", CONCRETE)
def test_a_head_has_no_body_and_never_makes_a_client_start_again(
    kind: type[TusServerError],
) -> None:
    status, headers, body = render_error(make(kind), method="HEAD")

    assert body == b""
    assert b"content-type" not in dict(headers)
    # Any other failed HEAD lets a client start again at byte 0 (C1).
    gives_up = issubclass(kind, ClientError) or kind is BytesMissing
    assert (status == 423) != gives_up


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
@pytest.mark.parametrize("kind", CONCRETE)
def test_whoever_may_try_again_is_told_when(kind: type[TusServerError], method: str) -> None:
    _, headers, _ = render_error(make(kind), method=method)

    retriable = issubclass(kind, TryAgainError) or kind is StorageFull
    if method == "HEAD":
        retriable = not issubclass(kind, ClientError) and kind is not BytesMissing
    assert (b"retry-after" in dict(headers)) == retriable


def test_members_of_an_error_are_members_of_the_document() -> None:
    _, _, body = render_error(StorageFull("full", offset=3, upload="x"), method="PATCH")

    document = json.loads(body)
    assert (document["offset"], document["upload"], document["detail"]) == (3, "x", "full")


def test_a_mismatch_tells_the_offset() -> None:
    _, headers, _ = render_error(OffsetMismatch(current=7, given=5), method="PATCH")

    assert dict(headers)[b"upload-offset"] == b"7"


# --- RUFH


@pytest.mark.parametrize("kind", CONCRETE)
def test_in_rufh_what_passes_is_5xx_and_what_does_not_is_4xx(kind: type[TusServerError]) -> None:
    """D9: a 4xx ends an upload, a 5xx is repeated."""
    status = RUFH_STATUSES[kind]

    if issubclass(kind, TryAgainError) and status != 409:
        assert status == 503
    if issubclass(kind, ClientError):
        assert 400 <= status < 500
    assert status not in (412, 423, 460) or kind.code == "precondition_failed"


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
@pytest.mark.parametrize("kind", CONCRETE)
def test_in_rufh_a_head_fails_like_anything_else(kind: type[TusServerError], method: str) -> None:
    """D9."""
    status, headers, body = render_rufh_error(make(kind), method=method)

    names = dict(headers)
    assert status == RUFH_STATUSES[kind]
    assert (b"retry-after" in names) == (issubclass(kind, TryAgainError) or kind is StorageFull)
    assert b"upload-offset" not in names  # the handler's to say
    assert b"tus-version" not in names
    if method == "HEAD":
        assert body == b""
    else:
        assert json.loads(body)["code"] == kind.code


INCONSISTENT = {LengthInconsistent, LengthChanged, LengthBelowOffset, BodyTooLarge}


@pytest.mark.parametrize("tells_completed", [True, False])
@pytest.mark.parametrize("kind", CONCRETE)
def test_only_what_rufh_has_types_for_has_one(
    kind: type[TusServerError], tells_completed: bool
) -> None:
    """R52, R75, section 6.1; `completed-upload` exists in version 6 alone."""
    _, _, body = render_rufh_error(make(kind), method="PATCH", tells_completed=tells_completed)

    expected = None
    if kind is OffsetMismatch:
        expected = "mismatching-upload-offset"
    elif kind is AlreadyCompleted and tells_completed:
        expected = "completed-upload"
    elif kind in INCONSISTENT or kind is AlreadyCompleted:
        expected = "inconsistent-upload-length"
    base = "https://iana.org/assignments/http-problem-types#"
    assert json.loads(body).get("type") == (None if expected is None else base + expected)


def test_a_mismatch_in_rufh_tells_both_offsets() -> None:
    """R52."""
    _, _, body = render_rufh_error(OffsetMismatch(current=7, given=5), method="PATCH")

    document = json.loads(body)
    assert (document["expected-offset"], document["provided-offset"]) == (7, 5)


@pytest.mark.parametrize("kind", CONCRETE)
def test_tus_has_no_problem_types(kind: type[TusServerError]) -> None:
    _, _, body = render_error(make(kind), method="PATCH")

    assert "type" not in json.loads(body)
