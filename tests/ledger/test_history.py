"""A history that was changed, cut or made anew, and tables that are not what it says, are found."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, update

from anondata.errors import LedgerError
from anondata.ledger import Ledger, Limit, Scope, _chain, _tables

IMAGE = Scope("acme", "faces", "image")


@pytest.fixture
def worked(ledger):
    """A ledger with ten entries and an open lease."""
    ledger.set_limit(Limit("acme", amount=100))
    ledger.set_limit(Limit("*", window="day", amount=100))
    ledger.set_limit(Limit("b", amount=None))
    ledger.remove_limit(Limit("b"))
    for _ in range(2):
        ledger.reserve(IMAGE, {"samples": 5, "bytes": 9}).commit({"samples": 4, "bytes": 7})
    ledger.reserve(IMAGE, {"samples": 5}).release()
    ledger.reserve(IMAGE, {"samples": 3}, report="r")
    assert ledger.verify().ok
    return ledger


def tamper(ledger: Ledger, *statements: object) -> None:
    def do(connection, again):
        for statement in statements:
            assert connection.execute(statement).rowcount in (1, -1)  # -1: an insert in PostgreSQL

    ledger._database.write(do)


def test_a_new_ledger_is_whole(ledger):
    ledger.set_limit(Limit("acme", amount=100))
    found = ledger.verify(_tables.GENESIS)
    assert (found.ok, found.entries, found.problem, found.seq) == (True, 1, "", None)


def test_each_entry_follows_the_one_before_it(worked):
    entries = list(worked.history())
    assert [entry.seq for entry in entries] == list(range(1, 12))
    assert [entry.previous for entry in entries] == [_tables.GENESIS, *(entry.hash for entry in entries[:-1])]
    assert worked.verify().head == entries[-1].hash


@pytest.mark.parametrize(
    "change",
    [
        {"amounts": '{"samples":1}'},
        {"client": "b"},
        {"at_ms": 5},
        {"actor": "nobody"},
        {"policy": "x"},
        {"report": "x"},
        {"detail": "{}"},
        {"event": "release"},
        {"hash": "0" * 64},
        {"previous": "0" * 64},
        {"reservation": "0" * 32},
        {"seq": 99},
    ],
    ids=str,
)
def test_a_changed_entry_is_found(worked, change):
    history = _tables.history
    tamper(worked, update(history).where(history.c.seq == 5).values(**change))
    found = worked.verify()
    assert (found.ok, found.seq) == (False, 5)
    assert "entry 5" in found.problem


def test_a_removed_entry_is_found(worked):
    tamper(worked, delete(_tables.history).where(_tables.history.c.seq == 5))
    found = worked.verify()
    assert (found.seq, found.problem) == (5, "entry 5 is missing")


def test_a_removed_last_entry_is_found(worked):
    tamper(worked, delete(_tables.history).where(_tables.history.c.seq == 11))
    assert worked.verify().seq == 11


def test_a_removed_last_entry_with_a_head_that_agrees_is_found_by_the_tables(worked):
    history, head = _tables.history, _tables.head
    tenth = list(worked.history())[9].hash
    tamper(worked, delete(history).where(history.c.seq == 11), update(head).values(entries=10, hash=tenth))
    assert "is not what the history says" in worked.verify().problem


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (update(_tables.limits).where(_tables.limits.c.client == "acme").values(amount=1000), "table of limits"),
        (update(_tables.limits).where(_tables.limits.c.client == "acme").values(amount=None), "table of limits"),
        (delete(_tables.limits).where(_tables.limits.c.client == "acme"), "table of limits"),
        (
            _tables.limits.insert().values(client="x", dataset="*", content_type="*", unit="samples", period="day"),
            "table of limits",
        ),
        (update(_tables.usage).where(_tables.usage.c.unit == "samples").values(used=1), "table of usage"),
        (update(_tables.usage).where(_tables.usage.c.unit == "samples").values(reserved=0), "table of usage"),
        (update(_tables.usage).where(_tables.usage.c.unit == "bytes").values(day=20200101), "table of usage"),
        (delete(_tables.usage).where(_tables.usage.c.unit == "bytes"), "table of usage"),
        (delete(_tables.reservations), "table of reservations"),
        (update(_tables.reservations).values(granted='{"samples":2}'), "table of reservations"),
        (update(_tables.reservations).values(granted="no JSON"), "table of reservations"),
        (update(_tables.reservations).values(limited="[]"), "table of reservations"),
        (update(_tables.reservations).values(expires_ms=2**60), "table of reservations"),
        (update(_tables.head).values(entries=10), "head row does not agree"),
        (update(_tables.head).values(latest_ms=0), "head row does not agree"),
        (delete(_tables.head), "head row is gone"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value).replace("\n", " ")[:60],
)
def test_a_changed_table_is_found(worked, statement, problem):
    tamper(worked, statement)
    found = worked.verify()
    assert not found.ok
    assert problem in found.problem


def rewritten(ledger: Ledger, **change: object) -> None:
    """Makes the whole chain anew, as somebody who can write the database and knows this code can."""

    def do(connection, again):
        last = _tables.GENESIS
        for row in connection.execute(select(_tables.history).order_by(_tables.history.c.seq)).mappings().all():
            new = {**row, **change, "previous": last}
            new["hash"] = last = _chain.entry_hash(new)
            connection.execute(update(_tables.history).where(_tables.history.c.seq == row["seq"]).values(**new))
        connection.execute(update(_tables.head).values(hash=last))

    ledger._database.write(do)


def test_a_chain_that_was_made_anew_is_found_by_a_head_from_before(worked):
    kept = worked.verify().head
    worked.reserve(IMAGE, {"samples": 1}).release()
    assert worked.verify(kept).ok
    rewritten(worked, actor="somebody else")
    assert worked.verify().ok
    assert "the head that was kept is not in the history" in worked.verify(kept).problem


def test_a_damaged_entry_is_told_when_it_is_read(worked):
    tamper(worked, update(_tables.history).where(_tables.history.c.seq == 5).values(amounts="no JSON"))
    with pytest.raises(LedgerError, match="an entry of the history is damaged"):
        list(worked.history())


def test_a_ledger_without_its_head_gives_nothing(worked):
    tamper(worked, delete(_tables.head))
    with pytest.raises(LedgerError, match="lost its head row"):
        worked.reserve(IMAGE, {"samples": 1})


def test_long_histories_are_read_in_pages(file_ledger, monkeypatch):
    from anondata.ledger import _ledger, _verify

    monkeypatch.setattr(_ledger, "_PAGE", 3)
    monkeypatch.setattr(_verify, "_PAGE", 3)
    for amount in range(10):
        file_ledger.set_limit(Limit("acme", amount=amount))
    assert [entry.seq for entry in file_ledger.history()] == list(range(1, 11))
    assert file_ledger.verify().entries == 10
