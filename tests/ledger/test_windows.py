"""Days and months begin in UTC, and never again when a clock goes back."""

from __future__ import annotations

import pytest

from anondata.errors import ClockError, QuotaExceeded
from anondata.ledger import Ledger, Limit, Scope, _clock

IMAGE = Scope("acme", "faces", "image")


def use_up(ledger: Ledger) -> int:
    taken = 0
    while True:
        try:
            ledger.reserve(IMAGE, {"samples": 1}).commit({"samples": 1})
        except QuotaExceeded:
            return taken
        taken += 1


def test_a_day_renews_at_midnight(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=2))
    clock.set("2026-01-31T23:59:59.999")
    assert use_up(ledger) == 2
    clock.set("2026-02-01T00:00")
    assert use_up(ledger) == 2


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("2026-01-31T23:59:59.999", "2026-02-01T00:00"),
        ("2026-02-28T23:59:59.999", "2026-03-01T00:00"),
        ("2028-02-29T23:59:59.999", "2028-03-01T00:00"),
        ("2026-12-31T23:59:59.999", "2027-01-01T00:00"),
    ],
)
def test_a_month_renews_at_its_end_and_not_before(file_ledger, clock, last, first):
    file_ledger.set_limit(Limit("acme", window="month", amount=2))
    clock.set(last[:8] + "01T00:00" if last[:7] != "2026-01" else "2026-01-31T13:00")
    assert use_up(file_ledger) == 2
    clock.set(last)
    assert use_up(file_ledger) == 0
    assert f"{file_ledger.usage('acme')[0].renews_at:%Y-%m-%dT%H:%M}" == first
    clock.set(first)
    assert use_up(file_ledger) == 2


def test_a_total_never_renews(ledger, clock):
    ledger.set_limit(Limit("acme", amount=2))
    assert use_up(ledger) == 2
    clock.set("2027-02-01T00:00")
    assert use_up(ledger) == 0


def test_a_commit_after_midnight_counts_for_the_day_of_its_reservation(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=2))
    clock.set("2026-01-31T23:59")
    reservation = ledger.reserve(IMAGE, {"samples": 2})
    clock.set("2026-02-01T00:01")
    reservation.commit({"samples": 2})
    assert use_up(ledger) == 2


def test_a_lease_is_usable_only_in_its_window(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=2))
    clock.set("2026-01-31T23:59:30")
    reservation = ledger.reserve(IMAGE, {"samples": 2})
    assert reservation.valid_s == 30
    clock.pass_s(30)
    assert not reservation.usable


def test_a_clock_that_goes_back_over_midnight_opens_no_window(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=2))
    clock.set("2026-02-01T00:02")
    assert use_up(ledger) == 2
    clock.set("2026-01-31T23:58")  # another machine's, four minutes behind
    assert use_up(ledger) == 0
    assert ledger.usage("acme")[0].used == 2
    clock.set("2026-02-01T00:03")
    assert use_up(ledger) == 0


def test_a_clock_that_is_far_behind_is_refused_and_told_by_how_much(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=2))
    clock.set("2026-01-30T11:54:59")
    for use in (lambda: use_up(ledger), ledger.usage):
        with pytest.raises(ClockError, match=r"the clock is 1 day, 0:05:01 behind .* set it"):
            use()
    clock.set("2026-01-31T11:55")
    assert use_up(ledger) == 2


def test_a_refused_clock_changes_nothing(ledger, clock):
    ledger.set_limit(Limit("acme", amount=2))
    reservation = ledger.reserve(IMAGE, {"samples": 2})
    clock.set("2026-01-30T12:00")
    with pytest.raises(ClockError):
        reservation.commit({"samples": 1})
    clock.set("2026-01-31T12:01")
    reservation.commit({"samples": 1})
    assert (ledger.usage("acme")[0].used, ledger.verify().ok) == (1, True)


def test_the_database_tells_the_time(ledger):
    """The server's own clock, or this machine's for a file."""
    import time

    ledger.set_limit(Limit("acme", amount=2))
    told = ledger._database.read(_clock.database_ms)
    assert abs(told - time.time() * 1000) < 5000
