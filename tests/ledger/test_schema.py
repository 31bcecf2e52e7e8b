"""Older ledgers are brought up to date, newer ones refused."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, select, text, update

from anondata.errors import LedgerError
from anondata.ledger import Limit, Scope, _tables

IMAGE = Scope("acme", "faces", "image")


@pytest.fixture
def next_version(monkeypatch):
    """An anondata whose ledgers have one more step."""

    def step(connection):
        connection.execute(text("ALTER TABLE anondata_head ADD COLUMN colour INTEGER"))

    def use():
        monkeypatch.setattr(_tables, "STEPS", (*_tables.STEPS, step))

    return use


def test_an_older_ledger_is_brought_up_to_date_and_goes_on(ledger, url, opened, next_version):
    ledger.set_limit(Limit("acme", amount=5))
    next_version()
    newer = opened(url)
    newer.reserve(IMAGE, {"samples": 2}).commit({"samples": 2})

    def look(connection):
        names = {column["name"] for column in inspect(connection).get_columns("anondata_head")}
        return names, connection.execute(select(_tables.head.c.version)).scalar_one()

    names, version = newer._database.read(look)
    assert "colour" in names
    assert version == 3
    assert newer.usage("acme")[0].used == 2
    assert newer.verify().ok


def test_a_step_that_fails_leaves_the_ledger_as_it_was(ledger, url, opened, monkeypatch):
    ledger.set_limit(Limit("acme", amount=5))
    with monkeypatch.context() as patch:
        patch.setattr(_tables, "STEPS", (*_tables.STEPS, lambda c: c.execute(text("CREATE TABLE nonsense ("))))
        with pytest.raises(LedgerError):
            opened(url).usage()
    assert opened(url).limits() == [Limit("acme", amount=5)]


def test_a_newer_ledger_is_refused(ledger, url, opened):
    ledger.set_limit(Limit("acme", amount=5))
    ledger._database.write(lambda connection, again: connection.execute(update(_tables.head).values(version=7)))
    for use in (opened(url).usage, lambda: opened(url).reserve(IMAGE, {"samples": 1})):
        with pytest.raises(LedgerError, match=r"written by a newer anondata .its version is 7, 2 is known"):
            use()


def test_one_that_is_upgraded_while_it_is_open_is_refused_by_who_knows_less(ledger):
    ledger.set_limit(Limit("acme", amount=5))
    ledger._database.write(lambda connection, again: connection.execute(update(_tables.head).values(version=7)))
    with pytest.raises(LedgerError, match="written by a newer anondata"):
        ledger.reserve(IMAGE, {"samples": 1})


def test_tables_are_found_by_a_name_of_their_own():
    """They may live in a database that holds other things."""
    assert all(name.startswith("anondata_") for name in _tables.metadata.tables)
