"""Preconditions of a download: If-Match and its kin (RFC 9110, section 13)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

# RFC 9110, 8.8.3; a member of a list may be empty (5.6.1). The quantifiers are possessive, so a
# long run of blanks costs one pass.
_MEMBER = re.compile(r'[ \t]*+((?:W/)?"[\x21\x23-\x7e\x80-\xff]*+")?[ \t]*+(,|\Z)')

# RFC 9110, 5.6.7: the three forms of HTTP-date. email.utils alone takes far more than these, and
# raises more than ValueError on some of it.
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    r"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}"
)


class Outcome(StrEnum):
    """What the preconditions of a GET or HEAD lead to."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not_modified"
    PRECONDITION_FAILED = "precondition_failed"


@dataclass(frozen=True, slots=True)
class Validators:
    """What identifies the bytes of a file; etag with its quotes, last_modified aware."""

    etag: str
    last_modified: datetime


def evaluate(fields: Mapping[str, str], validators: Validators) -> Outcome:
    """Evaluate the preconditions of a GET or HEAD in the order of RFC 9110, 13.2.2.

    `fields`: lower-case names; repeated lines joined with ", ". If-Range is not looked at.
    A malformed list of entity tags matches nothing; a malformed date is as good as absent.
    """
    # An HTTP-date has no fractions: a client that repeats our Last-Modified must be met.
    modified = validators.last_modified.replace(microsecond=0)
    if (if_match := fields.get("if-match")) is not None:
        if not _names(if_match, validators.etag, weak=False):
            return Outcome.PRECONDITION_FAILED
    elif (date := _find_date(fields.get("if-unmodified-since"))) is not None and modified > date:
        return Outcome.PRECONDITION_FAILED

    if (if_none_match := fields.get("if-none-match")) is not None:
        if _names(if_none_match, validators.etag, weak=True):
            return Outcome.NOT_MODIFIED
    elif (date := _find_date(fields.get("if-modified-since"))) is not None and modified <= date:
        return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def range_applies(if_range: str | None, validators: Validators) -> bool:
    """Tell whether Range may be honoured (RFC 9110, 13.1.5); without If-Range it may.

    A date must be exactly Last-Modified. It counts as a strong validator because a finished file
    never changes.
    """
    if if_range is None:
        return True
    # RFC 9110, 13.1.5: a DQUOTE in the first three characters tells an entity tag from a date.
    if '"' in if_range[:3]:
        return if_range == validators.etag and not if_range.startswith("W/")
    return _find_date(if_range) == validators.last_modified.replace(microsecond=0)


def _names(value: str, etag: str, *, weak: bool) -> bool:
    """Compare as RFC 9110, 8.8.3.2 says; `*` names any file there is, and this one is there."""
    if value.strip(" \t") == "*":
        return True
    if weak:
        return etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in _parse_list(value)]
    return not etag.startswith("W/") and etag in _parse_list(value)


def _parse_list(value: str) -> list[str]:
    tags: list[str] = []
    position = 0
    while position < len(value):
        member = _MEMBER.match(value, position)
        if member is None:
            return []
        if member[1]:
            tags.append(member[1])
        position = member.end()
    return tags


def _find_date(value: str | None) -> datetime | None:
    if value is None or not _HTTP_DATE.fullmatch(value):
        return None
    try:
        date = parsedate_to_datetime(value)
    except ValueError:  # no such day, month or hour
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # asctime names no zone
