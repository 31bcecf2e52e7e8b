"""A clock that leaps gives no other day's quota away, and an operator's word repairs what a wrong one left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from anondata.errors import ClockError, QuotaExceeded
from anondata.ledger import Ledger, Limit, Scope, _clock
from anondata.tools import cli

IMAGE = Scope("acme", "faces", "image")


@pytest.fixture
def daily(ledger, clock):
    """A ledger of two samples a day, both of which were delivered today."""
    ledger.set_limit(Limit("acme", window="day", amount=2))
    give(ledger, 2)
    return ledger


def give(ledger: Ledger, samples: int) -> None:
    ledger.reserve(IMAGE, {"samples": samples}).commit({"samples": samples})


def used(ledger: Ledger) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in ledger.history():
        if entry.event == "commit":
            day = f"{entry.at:%Y-%m-%d}"
            found[day] = found.get(day, 0) + int(entry.amounts["samples"] or 0)
    return found


def leap(clock, hours: float) -> None:
    """Somebody sets the clock; no time passes."""
    clock.ms += round(hours * 3_600_000)


def test_a_clock_that_was_set_a_day_ahead_gives_nothing_of_the_next_day(daily, clock):
    leap(clock, 24)
    with pytest.raises(ClockError, match=r"1 day, 0:00:00 ahead of what passed .* quota clock --accept"):
        give(daily, 1)
    leap(clock, -24)  # set right again: nothing was written of the wrong time
    clock.set("2026-02-01T00:01")
    give(daily, 2)
    assert used(daily) == {"2026-01-31": 2, "2026-02-01": 2}


def test_time_that_did_pass_is_taken_however_long(daily, clock):
    clock.set("2026-03-15T00:01")
    give(daily, 2)
    clock.pass_s(40 * 24 * 3600)
    leap(clock, 0.9)  # and somebody corrected it a little
    give(daily, 2)


def test_a_machine_that_was_started_since_may_have_been_off_for_less_than_a_day(daily, clock, monkeypatch):
    monkeypatch.setattr(_clock, "boot", lambda: "another")
    clock.ms += 22 * 3_600_000
    give(daily, 2)
    clock.ms += 24 * 3_600_000
    monkeypatch.setattr(_clock, "boot", lambda: "a third")
    with pytest.raises(ClockError, match=r"1 day, 0:00:00 ahead of the ledger's latest entry"):
        give(daily, 1)
    daily.accept_clock()
    give(daily, 2)


def test_a_clock_that_is_kept_right_is_believed_on_a_machine_that_was_just_started(daily, clock, monkeypatch):
    monkeypatch.setattr(_clock, "is_kept", lambda connection: True)
    leap(clock, 24)
    with pytest.raises(ClockError, match="ahead of what passed on this machine"):  # which knows better
        give(daily, 1)
    monkeypatch.setattr(_clock, "boot", lambda: "another")
    clock.set("2026-03-15T00:01")
    give(daily, 2)


@pytest.mark.parametrize(("answer", "kept"), [(0, True), (4, True), (5, False), (-1, False), (None, False)])
def test_the_kernel_says_whether_a_time_service_keeps_the_clock(monkeypatch, answer, kept):
    """5 is TIME_ERROR, of a clock that nobody set yet; None stands for a system without that call."""
    calls = {} if answer is None else {"adjtimex": lambda buffer: answer}
    monkeypatch.setattr(_clock.ctypes, "CDLL", lambda name: SimpleNamespace(**calls))
    assert _clock._synchronized() is kept


def test_a_ledger_that_a_clock_ahead_has_written_goes_on_when_an_operator_says_so(ledger, clock):
    clock.set("2026-02-01T12:00")  # wrong from the start
    ledger.set_limit(Limit("acme", window="day", amount=2))
    give(ledger, 2)
    leap(clock, -24)
    with pytest.raises(ClockError, match=r"behind .* quota clock --accept"):
        give(ledger, 1)
    before, now = ledger.accept_clock()
    assert (f"{before:%d %H}", f"{now:%d %H}") == ("01 12", "31 12")
    give(ledger, 2)
    with pytest.raises(QuotaExceeded):
        give(ledger, 1)
    clock.set("2026-02-01T12:00")
    with pytest.raises(QuotaExceeded):  # what was delivered under the wrong day stays counted for that day
        give(ledger, 1)
    assert ledger.verify().ok
    assert [e.actor for e in ledger.history() if e.event == "clock"] == ["test"]


def test_leaps_back_without_an_operators_word_are_found(ledger, clock):
    from sqlalchemy import update

    from anondata.ledger import _tables

    clock.set("2026-02-01T12:00")
    ledger.set_limit(Limit("acme", window="day", amount=2))
    leap(clock, -24)
    ledger.accept_clock()
    history = _tables.history
    ledger._database.write(
        lambda c, _: c.execute(update(history).where(history.c.event == "clock").values(event="late"))
    )
    assert not ledger.verify().ok


def test_a_ledger_of_an_older_version_is_brought_up_to_date(daily, clock, url, opened):
    from anondata.ledger import _tables

    def back(connection, again):
        _tables.clocks.drop(connection)
        connection.execute(_tables.head.update().values(version=1))

    daily._database.write(back)
    clock.set("2026-02-01T08:00")
    again = opened(url, actor="test")
    give(again, 2)
    assert again.verify().ok


def test_the_command_compares_and_repairs(daily, clock, url, capsys):
    clock.set("2026-01-30T12:00")
    assert cli.run(["quota", "clock", "--ledger", url]) == 0
    assert "clock: 2026-01-30 12:00:00 UTC, 1 day, 0:00:00 BEHIND it" in capsys.readouterr().out
    assert cli.run(["quota", "clock", "--accept", "--ledger", url]) == 0
    assert "accepted" in capsys.readouterr().out
    give(daily, 2)  # of the day before, which nobody had used
    assert cli.run(["quota", "verify", "--ledger", url]) == 0
