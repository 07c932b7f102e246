from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.wire.conditional import Outcome, Validators, evaluate, range_applies

MODIFIED = datetime(1994, 11, 6, 8, 49, 37, 250_000, tzinfo=UTC)
FILE = Validators('"v1"', MODIFIED)
WEAK_FILE = Validators('W/"v1"', MODIFIED)

SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
BAD_DATES = [
    "",
    "yesterday",
    "0",
    "Sun, 31 Feb 1994 08:49:37 GMT",
    "Sun, 06 Foo 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 25:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 +0100",
    f"{SAME}, {SAME}",
    "Sun, 06 Nov 1994 08:49:37 +" + "9" * 5000,
]


def test_without_preconditions_the_request_proceeds() -> None:
    assert evaluate({}, FILE) is Outcome.PROCEED


@pytest.mark.parametrize(
    "value", ['"v1"', "*", " * ", '"v0", "v1"', '"v0","v1" ,', ',, "v1"', '"a,b", "v1"']
)
def test_if_match_holds_when_the_list_names_the_file(value: str) -> None:
    assert evaluate({"if-match": value}, FILE) is Outcome.PROCEED


@pytest.mark.parametrize(
    "value", ["", '"v2"', 'W/"v1"', "v1", '"a,"v1"', '"x", "v1', '*, "v1"', '"a, "v1", b"']
)
def test_if_match_fails_when_the_list_does_not_name_the_file(value: str) -> None:
    assert evaluate({"if-match": value}, FILE) is Outcome.PRECONDITION_FAILED


def test_if_match_never_holds_for_a_weak_etag() -> None:
    assert evaluate({"if-match": 'W/"v1"'}, WEAK_FILE) is Outcome.PRECONDITION_FAILED


@pytest.mark.parametrize("value", ['"v1"', 'W/"v1"', "*", '"v0", W/"v1"'])
@pytest.mark.parametrize("file", [FILE, WEAK_FILE])
def test_if_none_match_compares_weakly(value: str, file: Validators) -> None:
    assert evaluate({"if-none-match": value}, file) is Outcome.NOT_MODIFIED


@pytest.mark.parametrize("value", ["", '"v2"', "v1", 'w/"v1"', '"x,"v1"'])
def test_if_none_match_proceeds_when_the_list_does_not_name_the_file(value: str) -> None:
    assert evaluate({"if-none-match": value}, FILE) is Outcome.PROCEED


def test_a_comma_inside_quotes_does_not_end_an_etag() -> None:
    file = Validators('"a,b"', MODIFIED)

    assert evaluate({"if-none-match": '"c", "a,b"'}, file) is Outcome.NOT_MODIFIED
    assert evaluate({"if-none-match": '"a","b"'}, file) is Outcome.PROCEED


@pytest.mark.parametrize(
    ("date", "outcome"),
    [(EARLIER, Outcome.PRECONDITION_FAILED), (SAME, Outcome.PROCEED), (LATER, Outcome.PROCEED)],
)
def test_if_unmodified_since_fails_for_a_file_that_is_newer(date: str, outcome: Outcome) -> None:
    assert evaluate({"if-unmodified-since": date}, FILE) is outcome


@pytest.mark.parametrize(
    ("date", "outcome"),
    [(EARLIER, Outcome.PROCEED), (SAME, Outcome.NOT_MODIFIED), (LATER, Outcome.NOT_MODIFIED)],
)
def test_if_modified_since_spares_a_file_that_is_not_newer(date: str, outcome: Outcome) -> None:
    assert evaluate({"if-modified-since": date}, FILE) is outcome


@pytest.mark.parametrize(
    "date", [SAME, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_all_three_forms_of_a_date_are_understood(date: str) -> None:
    assert evaluate({"if-modified-since": date}, FILE) is Outcome.NOT_MODIFIED
    assert range_applies(date, FILE)


@pytest.mark.parametrize("date", BAD_DATES)
def test_a_bad_date_is_ignored(date: str) -> None:
    assert evaluate({"if-unmodified-since": date}, FILE) is Outcome.PROCEED
    assert evaluate({"if-modified-since": date}, FILE) is Outcome.PROCEED


def test_if_unmodified_since_is_ignored_beside_if_match() -> None:
    fields = {"if-match": '"v1"', "if-unmodified-since": EARLIER}

    assert evaluate(fields, FILE) is Outcome.PROCEED


def test_if_modified_since_is_ignored_beside_if_none_match() -> None:
    fields = {"if-none-match": '"v2"', "if-modified-since": LATER}

    assert evaluate(fields, FILE) is Outcome.PROCEED


def test_a_failed_precondition_goes_before_not_modified() -> None:
    fields = {"if-match": '"v2"', "if-none-match": '"v1"'}

    assert evaluate(fields, FILE) is Outcome.PRECONDITION_FAILED


def test_if_none_match_is_still_looked_at_once_if_match_holds() -> None:
    fields = {"if-match": "*", "if-none-match": '"v1"'}

    assert evaluate(fields, FILE) is Outcome.NOT_MODIFIED


@pytest.mark.parametrize("value", [None, '"v1"', SAME])
def test_if_range_lets_the_range_of_the_same_file_through(value: str | None) -> None:
    assert range_applies(value, FILE)


@pytest.mark.parametrize(
    "value", ["", "*", '"v2"', 'W/"v1"', '"v1", "v2"', "v1", EARLIER, LATER, *BAD_DATES]
)
def test_if_range_that_is_not_exactly_this_file_refuses_the_range(value: str) -> None:
    assert not range_applies(value, FILE)


def test_if_range_never_holds_for_a_weak_etag() -> None:
    assert not range_applies('W/"v1"', WEAK_FILE)


FIELDS = st.text() | st.text(alphabet='W/"a, \t*') | st.sampled_from([SAME, EARLIER, LATER])


@given(
    st.dictionaries(
        st.sampled_from(["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]),
        FIELDS,
    ),
    FIELDS,
)
def test_no_field_raises(fields: dict[str, str], if_range: str) -> None:
    assert evaluate(fields, FILE) in Outcome
    assert range_applies(if_range, FILE) in (True, False)


@given(
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
    | st.from_regex(r"[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} 0[0-9]:00:[0-9]{2} GMT")
    | st.from_regex(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:00:[0-9]{2} [0-9]{4}")
)
def test_no_date_of_the_right_form_raises(value: str) -> None:
    assert evaluate({"if-modified-since": value}, FILE) in Outcome


ETAGS = st.text(alphabet=[chr(c) for c in range(0x21, 0x100) if c != 0x22 and not 0x7F <= c < 0x80])


@given(st.lists(ETAGS, min_size=1), st.data())
def test_every_member_of_a_list_is_found(opaque: list[str], data: st.DataObject) -> None:
    etags = [f'"{text}"' for text in opaque]
    file = Validators(data.draw(st.sampled_from(etags)), MODIFIED)
    separator = data.draw(st.sampled_from([",", ", ", " ,\t", ", ,"]))

    assert evaluate({"if-match": separator.join(etags)}, file) is Outcome.PROCEED
    assert evaluate({"if-none-match": separator.join(etags)}, file) is Outcome.NOT_MODIFIED


@given(st.floats(min_value=0, max_value=2**32))
def test_our_own_last_modified_is_understood(posix_s: float) -> None:
    modified = datetime.fromtimestamp(posix_s, UTC)
    file = Validators('"v1"', modified)
    date = format_datetime(modified, usegmt=True)

    assert range_applies(date, file)
    assert evaluate({"if-modified-since": date}, file) is Outcome.NOT_MODIFIED
    assert not range_applies(format_datetime(modified + timedelta(seconds=1), usegmt=True), file)
