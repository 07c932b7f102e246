"""When bytes that the S3 store denies are called lost."""

from tests.support.fakes import FakeClock, make_upload
from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.objects.s3.losses import LONGEST_GAP_S, LOST_AFTER_S, REMEMBERED, Losses


def denials(clock: FakeClock, losses: Losses, *, count: int, gap_s: float) -> list[type]:
    """Deny the bytes of one upload again and again; give what was concluded each time."""
    upload = make_upload(clock)
    found: list[type] = []
    for _ in range(count):
        found.append(type(losses.conclude(upload, "denied")))
        clock.advance(gap_s)
    return found


def test_what_is_denied_again_and_again_for_long_enough_is_lost() -> None:
    clock = FakeClock()
    losses = Losses(monotonic_s=clock.monotonic_s)
    count = int(LOST_AFTER_S / LONGEST_GAP_S) + 3

    found = denials(clock, losses, count=count, gap_s=LONGEST_GAP_S)

    assert found == (count - 2) * [StoreUnavailable] + 2 * [BytesMissing]


def test_denials_far_apart_prove_nothing() -> None:
    clock = FakeClock()
    losses = Losses(monotonic_s=clock.monotonic_s)

    assert set(denials(clock, losses, count=50, gap_s=LONGEST_GAP_S + 1)) == {StoreUnavailable}
    assert set(denials(clock, losses, count=2, gap_s=LOST_AFTER_S)) == {StoreUnavailable}


def test_what_was_found_once_begins_anew() -> None:
    clock = FakeClock()
    losses = Losses(monotonic_s=clock.monotonic_s)
    upload = make_upload(clock)
    for _ in range(int(LOST_AFTER_S / 60) - 1):
        losses.conclude(upload, "denied")
        clock.advance(60)

    losses.found(upload)

    assert set(denials(clock, losses, count=10, gap_s=60)) == {StoreUnavailable}
    assert isinstance(losses.conclude(upload, "denied"), StoreUnavailable)


def test_what_was_denied_least_recently_is_forgotten_first() -> None:
    clock = FakeClock()
    losses = Losses(lost_after_s=1, monotonic_s=clock.monotonic_s)
    first = make_upload(clock)
    losses.conclude(first, "denied")
    clock.advance(1)
    for _ in range(REMEMBERED - 1):
        losses.conclude(make_upload(clock), "denied")
    assert isinstance(losses.conclude(first, "denied"), BytesMissing)

    for _ in range(REMEMBERED):
        losses.conclude(make_upload(clock), "denied")

    assert isinstance(losses.conclude(first, "denied"), StoreUnavailable)
