"""A database that vanishes, is locked, damaged or full: an error that says so, and nothing given beyond the limit."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time

import pytest

from anondata.errors import LedgerError, UnknownClientError
from anondata.ledger import Limit, Scope, _database

IMAGE = Scope("acme", "faces", "image")
ONE = {"image": {"samples": 1}}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("ANONDATA_TRIES", "1")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "quotas.db"


def test_a_stream_whose_server_stops_delivers_its_lease_and_then_stops(server, opened):
    ledger = opened(server.url(server.new_schema()))
    ledger.set_limit(Limit("acme", amount=1000))
    account = ledger.account("acme", "faces")
    assert account.charge([ONE] * 10) == 10
    server.stop()
    try:
        given = account.charge([ONE] * 500)
        assert given == 54  # the rest of its first block of 64
        for _ in range(2):
            with pytest.raises(
                LedgerError, match=r"cannot be reached .* nothing was delivered beyond what is reserved"
            ):
                account.charge([ONE])
    finally:
        server.start()
    assert account.charge([ONE] * 936) == 936
    account.close()
    assert (ledger.usage("acme")[0].used, ledger.verify().ok) == (1000, True)


def test_a_server_that_comes_back_soon_is_waited_for(server, opened, monkeypatch):
    monkeypatch.delenv("ANONDATA_TRIES")
    ledger = opened(server.url(server.new_schema()))
    ledger.set_limit(Limit("acme", amount=10))
    server.stop()
    server.start()
    ledger.reserve(IMAGE, {"samples": 1}).commit({"samples": 1})  # its connection is dead
    assert ledger.usage("acme")[0].used == 1


def test_a_lease_whose_commit_failed_is_not_spent_any_further(server, opened):
    """The commit may have been made although nobody heard of it."""
    ledger = opened(server.url(server.new_schema()))
    ledger.set_limit(Limit("acme", amount=1000))
    account = ledger.account("acme", "faces")
    account.charge([ONE] * 10)
    server.stop()
    try:
        with pytest.raises(LedgerError):
            account.close()
        with pytest.raises(LedgerError):
            account.charge([ONE])
    finally:
        server.start()
    account.close()
    assert ledger.usage("acme")[0].used == 10


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_stream_whose_file_vanishes_stops(file, opened, what):
    ledger = opened(file)
    ledger.set_limit(Limit("acme", amount=1000))
    account = ledger.account("acme", "faces")
    account.charge([ONE] * 10)
    shutil.rmtree(file.parent) if what == "folder" else file.unlink()
    assert account.charge([ONE] * 500) == 54
    with pytest.raises(LedgerError, match="there is no ledger"):
        account.charge([ONE])
    assert not file.exists()


def test_a_file_that_was_replaced_is_not_written_through_the_old_one(file, opened):
    """Others would count in the new file what this process gives from the old one."""
    ledger = opened(file)
    ledger.set_limit(Limit("acme", amount=1000))
    for old in file.parent.iterdir():
        old.unlink()
    opened(file).set_limit(Limit("other", amount=1))
    with pytest.raises(UnknownClientError):
        ledger.reserve(IMAGE, {"samples": 1})


def test_a_first_limit_in_a_folder_that_is_not_there_is_an_error(tmp_path, opened):
    with pytest.raises(LedgerError, match="cannot be reached or written: unable to open database file"):
        opened(tmp_path / "none" / "quotas.db").set_limit(Limit("acme", amount=1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(file, opened):
    opened(file).set_limit(Limit("acme", amount=1))
    file.chmod(0)
    with pytest.raises(LedgerError, match="unable to open database file"):
        opened(file).usage()


@pytest.mark.parametrize("content", [b"no database, but text. " * 500, b"SQLite format 3\0" + bytes(range(256)) * 40])
def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(file, opened, content):
    file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"not a database|malformed|disk image|encrypted|unsupported"):
        opened(file).set_limit(Limit("acme", amount=1))
    assert file.read_bytes() == content


def test_a_damaged_file_gives_nothing(file, opened):
    ledger = opened(file)
    ledger.set_limit(Limit("acme", amount=1000))
    ledger.close()
    data = bytearray(file.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(LedgerError):
        opened(file).reserve(IMAGE, {"samples": 1})


def test_an_empty_file_is_no_ledger(file, opened):
    file.touch()
    with pytest.raises(LedgerError, match="there is no ledger"):
        opened(file).usage()


def test_a_ledger_that_another_writer_holds_is_waited_for_and_not_for_ever(file, opened, monkeypatch):
    monkeypatch.setattr(_database, "_BUSY_S", 0.2)
    ledger = opened(file)
    ledger.set_limit(Limit("acme", amount=1000))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(LedgerError, match="database is locked"):
        ledger.reserve(IMAGE, {"samples": 1})
    assert 0.15 < time.monotonic() - started < 5
    assert ledger.usage("acme")[0].used == 0  # readers need not wait
    other.execute("ROLLBACK")
    other.close()
    ledger.reserve(IMAGE, {"samples": 1}).release()


def test_a_server_that_another_writer_holds_is_waited_for_and_not_for_ever(server, opened, monkeypatch):
    import psycopg

    monkeypatch.setattr(_database, "_SERVER_SETTINGS", ("SET lock_timeout = 200",))
    name = server.new_schema()
    ledger = opened(server.url(name))
    ledger.set_limit(Limit("acme", amount=1000))
    with psycopg.connect(host=str(server.folder), user="ledger", dbname="postgres") as other:
        other.execute(f"SELECT * FROM {name}.anondata_head FOR UPDATE")
        with pytest.raises(LedgerError, match="lock timeout"):
            ledger.reserve(IMAGE, {"samples": 1})
        assert ledger.usage("acme")[0].used == 0
    ledger.reserve(IMAGE, {"samples": 1}).release()


def test_a_full_disk_is_an_error_and_gives_nothing_that_is_not_counted(file, opened, worker):
    ledger = opened(file)
    ledger.set_limit(Limit("acme", amount=10_000))
    granted, message = worker("full", ledger_url(file), 300_000).communicate()[0].strip().split("\n")
    assert 0 < int(granted) < 10_000
    assert "cannot be reached or written: d" in message  # "database or disk is full", or "disk I/O error"
    [usage] = ledger.usage("acme")
    assert usage.used == 1
    assert int(granted) <= usage.reserved <= int(granted) + 1
    assert ledger.verify().ok


def ledger_url(file):
    return f"sqlite:///{file}"
