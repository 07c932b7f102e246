"""When uploads expire: sliding with their bytes, in steps, within an age; durations in words."""

from dataclasses import replace
from datetime import timedelta

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import FakeClock, make_upload
from tus_server.cli.arguments import parse_duration
from tus_server.core.expiry import GRANULE_S, NEVER, Expiry
from tus_server.core.jobs import Instructions
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.reap import Limits

DAY_S = 86400.0
WEEK = Expiry(7 * DAY_S)
S = UploadState


def created(clock: FakeClock, expiry: Expiry) -> Upload:
    upload = make_upload(clock)
    return replace(upload, expires_at=expiry.first(upload.created_at))


def lives_s(clock: FakeClock, upload: Upload) -> float:
    """Give how long an upload lives from now on."""
    assert upload.expires_at is not None
    return (upload.expires_at - clock.moment).total_seconds()


def test_a_new_upload_expires_after_its_time() -> None:
    clock = FakeClock()

    assert lives_s(clock, created(clock, WEEK)) == 7 * DAY_S
    assert created(clock, NEVER).expires_at is None


def test_bytes_extend_its_life_to_at_least_the_whole_time() -> None:
    clock = FakeClock()
    upload = created(clock, WEEK)
    clock.advance(3 * DAY_S)

    slid = WEEK.slid(upload, clock.moment)

    assert 7 * DAY_S <= lives_s(clock, slid) <= 7 * DAY_S + GRANULE_S


def test_bytes_that_come_soon_after_others_change_no_row() -> None:
    clock = FakeClock()
    upload = WEEK.slid(created(clock, WEEK), clock.now())
    clock.advance(GRANULE_S / 2)

    assert WEEK.slid(upload, clock.moment) is upload


@pytest.mark.parametrize("expiry", [WEEK, NEVER])
def test_a_time_the_application_has_set_is_not_moved_by_bytes(expiry: Expiry) -> None:
    clock = FakeClock()
    upload = replace(created(clock, WEEK), instructions=Instructions(fixed_expiry=True))
    clock.advance(3 * DAY_S)

    assert expiry.slid(upload, clock.moment) is upload


def test_the_age_caps_what_bytes_extend() -> None:
    clock = FakeClock()
    expiry = Expiry(7 * DAY_S, 8 * DAY_S)
    upload = created(clock, expiry)
    clock.advance(6 * DAY_S)

    upload = expiry.slid(upload, clock.moment)

    assert upload.expires_at == upload.created_at + timedelta(days=8)
    assert expiry.slid(upload, clock.now()) is upload
    assert created(clock, Expiry(7 * DAY_S, DAY_S)).expires_at == clock.moment + timedelta(days=1)


@given(
    steps_s=st.lists(st.floats(0, 3 * DAY_S), max_size=20),
    after_s=st.floats(1, 7 * DAY_S),
    at_most_s=st.none() | st.floats(1, 9 * DAY_S),
)
def test_it_never_goes_back_and_never_falls_short(
    steps_s: list[float], after_s: float, at_most_s: float | None
) -> None:
    clock = FakeClock()
    expiry = Expiry(after_s, at_most_s)
    upload = created(clock, expiry)
    for step_s in steps_s:
        clock.advance(step_s)
        before, upload = upload, expiry.slid(upload, clock.moment)

        assert upload.expires_at is not None
        assert before.expires_at is not None
        assert upload.expires_at >= before.expires_at
        least = clock.moment + timedelta(seconds=after_s)
        if at_most_s is not None:
            least = min(least, upload.created_at + timedelta(seconds=at_most_s))
            assert upload.expires_at <= upload.created_at + timedelta(seconds=at_most_s)
        assert upload.expires_at >= least


# --- idle for long


def receiving(clock: FakeClock, expiry: Expiry) -> Upload:
    upload = created(clock, expiry)
    upload = replace(upload, state=S.RECEIVING, state_on=clock.now(), committed_bytes=1)
    return expiry.slid(upload, clock.moment)


@pytest.mark.parametrize(("age_s", "is_idle"), [(DAY_S, False), (3 * DAY_S, True)])
def test_uploads_are_idle_by_their_last_byte(age_s: float, is_idle: bool) -> None:
    clock = FakeClock()
    limits = Limits(expiry=WEEK, idle_s=2 * DAY_S)
    uploads = [created(clock, WEEK), receiving(clock, WEEK)]
    clock.advance(age_s)

    assert limits.ahead_s == 5 * DAY_S
    assert [limits.is_idle(each, clock.moment) for each in uploads] == [is_idle] * 2


def test_who_sends_on_is_not_idle_however_long_ago_it_began() -> None:
    clock = FakeClock()
    upload = receiving(clock, WEEK)
    for _ in range(10):
        clock.advance(DAY_S)
        upload = WEEK.slid(upload, clock.moment)

    assert not Limits(expiry=WEEK, idle_s=2 * DAY_S).is_idle(upload, clock.moment)


def test_near_the_end_of_its_age_nobody_knows_whether_it_is_idle() -> None:
    clock = FakeClock()
    expiry = Expiry(7 * DAY_S, 8 * DAY_S)
    upload = receiving(clock, expiry)
    for _ in range(7):
        clock.advance(DAY_S)
        upload = expiry.slid(upload, clock.moment)

    assert not Limits(expiry=expiry, idle_s=2 * DAY_S).is_idle(upload, clock.moment)


def test_after_a_longer_time_was_set_nobody_knows_whether_it_is_idle() -> None:
    clock = FakeClock()
    upload = receiving(clock, Expiry(DAY_S))
    clock.advance(3000.0)

    assert not Limits(expiry=WEEK, idle_s=1800.0).is_idle(upload, clock.moment)


def test_a_final_upload_is_not_idle_while_it_waits_for_others() -> None:
    clock = FakeClock()
    upload = replace(created(clock, WEEK), concat="final;/files/a")
    clock.advance(6 * DAY_S)

    assert not Limits(expiry=WEEK, idle_s=DAY_S).is_idle(upload, clock.moment)


def test_idle_for_longer_than_they_live_is_nothing_more() -> None:
    assert Limits(expiry=WEEK, idle_s=8 * DAY_S).ahead_s == 0
    assert Limits(expiry=NEVER, idle_s=DAY_S).ahead_s == 0


# --- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("90m", 5400), ("36 h", 129600), ("2d", 172800), ("1w", 604800)],
)
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert parse_duration("--older-than", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "d", "0d", "-1d", "1.5d", "2 days", "2d 3h", "٢d", "inf"]
)
def test_a_wrong_duration_is_refused_in_a_sentence(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        parse_duration("--older-than", text)

    assert "is no duration such as 90m, 36h or 2d." in capsys.readouterr().err
