"""``anondata quota``: sets and removes limits, shows usage and history, and verifies."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from anondata.ledger import Ledger, Scope


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A ledger's place, in the variable that the command reads."""
    monkeypatch.setenv("ANONDATA_LEDGER", str(tmp_path / "quotas.db"))
    return tmp_path / "quotas.db"


def use(url, client="acme", samples=3):
    ledger = Ledger(url)
    ledger.reserve(Scope(client, "faces", "image"), {"samples": samples}).commit({"samples": samples})
    ledger.close()


def test_a_limit_is_set_shown_and_removed(anondata, url):
    terms = ("--client", "acme", "--content-type", "image", "--window", "day")
    shown = anondata("quota", "set", *terms, 1000)
    assert (shown.code, shown.out) == (0, "set: acme: 1000 samples a day (dataset *, content type image)\n")
    use(url)
    shown = anondata("quota", "show")
    assert shown.code == 0
    [line] = [line for line in shown.out.splitlines() if "acme" in line]
    assert line.split()[:8] == ["acme", "*", "image", "samples/day", "1000", "3", "0", "997"]
    assert anondata("quota", "remove", *terms).code == 0
    assert anondata("quota", "show").out == "no limit is set\n"


def test_usage_as_json(anondata, url):
    anondata("quota", "set", "--client", "*", "unlimited")
    anondata("quota", "set", "--all-clients", "--window", "month", 10**15)
    use(url)
    first, second = anondata("quota", "show", "--client", "acme", "--json").json["limits"]
    assert (first["client"], first["limit"]["client"], first["used"], first["left"]) == ("acme", "*", 3, None)
    assert (second["client"], second["limit"]["amount"], second["left"]) == ("+", 10**15, 10**15 - 3)
    assert second["renews_at"].endswith("-01T00:00:00Z")
    assert "1000000000000000" in anondata("quota", "show").out  # not cut, wherever it is printed


def test_a_client_that_no_limit_binds_gets_nothing(anondata, url):
    anondata("quota", "set", "--client", "acme", 3)
    assert anondata("quota", "show", "--client", "other").out == "no limit binds this client: it gets nothing\n"


def test_the_history_in_lines_and_in_json(anondata, url):
    anondata("quota", "set", "--client", "acme", 3)
    anondata("quota", "set", "--client", "b", "unlimited")
    use(url)
    lines = anondata("quota", "history").out.splitlines()
    assert [line.split("\t")[3] for line in lines] == ["limit", "limit", "reserve", "commit"]
    assert lines[1].split("\t")[4:] == ["b", "*", "*", "samples/total=unlimited"]
    assert anondata("quota", "history", "--last", 1).out.splitlines() == lines[-1:]
    shown = anondata("quota", "history", "--client", "b", "--json")
    [entry] = [json.loads(line) for line in shown.out.splitlines()]
    assert (entry["seq"], entry["client"], entry["amounts"]) == (2, "b", {"samples/total": None})


def test_verify_prints_a_head_that_is_good_for_later(anondata, url):
    anondata("quota", "set", "--client", "acme", 3)
    shown = anondata("quota", "verify")
    assert shown.code == 0
    assert shown.out.startswith("whole: 1 entries\nhead: ")
    head = shown.out.split()[-1]
    use(url)
    assert anondata("quota", "verify", "--head", head).code == 0
    other = anondata("quota", "verify", "--head", "0123")
    assert (other.code, "the head that was kept is not in the history" in other.err) == (1, True)


def test_verify_fails_for_a_ledger_that_was_changed(anondata, url):
    anondata("quota", "set", "--client", "acme", 3)
    with closing(sqlite3.connect(url)) as connection, connection:
        connection.execute("UPDATE anondata_limits SET amount = 3000")
    shown = anondata("quota", "verify")
    assert shown.code == 1
    assert "error: the table of limits is not what the history says, in 1 of its rows. Do not go on" in shown.err


def test_removing_what_is_not_there_fails(anondata, url):
    anondata("quota", "set", "--client", "acme", 3)
    shown = anondata("quota", "remove", "--client", "acme", "--window", "day")
    assert (shown.code, shown.out) == (1, "")
    assert "error: there is no such limit" in shown.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--client", "acme", "many"), "AMOUNT is a whole number or `unlimited`"),
        (("--client", "acme", "--", "-5"), "AMOUNT is a whole number"),
        (("--client", "acme", "1.5"), "AMOUNT is a whole number"),
        (("--client", "acme", str(10**19)), "must be a whole number from 0 to 10**18"),
        (("5",), "either --client or --all-clients"),
        (("--client", "acme", "--all-clients", "5"), "either --client or --all-clients"),
        (("--client", "+", "5"), "no client is called +"),
        (("--client", "a\nb", "5"), "a client is a string"),
        (("--client", "acme", "--unit", "photos", "5"), "Invalid value for '--unit'"),
    ],
)
def test_what_cannot_be_set_is_usage_and_makes_no_ledger(anondata, url, args, message):
    shown = anondata("quota", "set", *args)
    assert shown.code == 2
    assert message in shown.err
    assert not url.exists()


@pytest.mark.parametrize("command", [("show",), ("history",), ("verify",), ("remove", "--client", "acme")])
def test_a_ledger_that_is_not_there_is_told_and_not_made(anondata, url, command):
    shown = anondata("quota", *command)
    assert (shown.code, "there is no ledger at" in shown.err) == (1, True)
    assert not url.exists()


def test_without_a_ledger_it_says_how_to_name_one(anondata, monkeypatch):
    monkeypatch.delenv("ANONDATA_LEDGER", raising=False)
    shown = anondata("quota", "show")
    assert (shown.code, "--ledger" in shown.err) == (2, True)


def test_a_password_is_not_shown(anondata, monkeypatch, tmp_path):
    monkeypatch.setenv("ANONDATA_TRIES", "1")
    shown = anondata("quota", "show", "--ledger", f"postgresql://u:secret@/d?host={tmp_path}")
    assert shown.code == 1
    assert "secret" not in shown.out + shown.err
