"""Many processes at once, killed ones, forked ones: together never more than the limit."""

from __future__ import annotations

import os
import signal

import pytest

from anondata.ledger import ALL, Ledger, Limit, _clock


def used(ledger: Ledger) -> tuple[int, int]:
    [usage] = ledger.usage("acme")
    return usage.used, usage.reserved


def last_number(printed: str, default: int = 0) -> int:
    return int((printed.split() or [default])[-1])


def test_eight_processes_are_granted_exactly_the_limit(url, ledger, worker):
    ledger.set_limit(Limit("acme", amount=200))
    workers = [worker("take", url, 50) for _ in range(8)]
    granted = [int(process.communicate()[0]) for process in workers]
    assert sum(granted) == 200
    assert used(ledger) == (200, 0)
    assert ledger.verify().ok


def test_streams_of_several_processes_share_a_limit(url, ledger, worker):
    ledger.set_limit(Limit("*", amount=None))
    ledger.set_limit(Limit(ALL, window="month", amount=500))
    workers = [worker("stream", url, 1000) for _ in range(3)]
    given = [last_number(process.communicate()[0]) for process in workers]
    assert sum(given) == 500
    assert ledger.verify().ok


def test_killed_processes_give_no_more_than_the_limit_and_lose_no_more_than_their_leases(
    url, ledger, worker, monkeypatch
):
    ledger.set_limit(Limit("acme", amount=2000))
    workers = [worker("slow", url, 0.001) for _ in range(3)]
    for process in workers:
        for _ in range(70):  # until they are in their second blocks
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    given = sum(last_number(process.communicate()[0], 70) for process in workers)
    before, held = used(ledger)
    assert given <= before + held <= 2000
    now = _clock.database_ms
    monkeypatch.setattr(_clock, "database_ms", lambda connection: now(connection) + 901_000)
    assert used(ledger) == (before + held, 0)
    assert 0 <= before + held - given <= 3 * 256
    # Who comes later gets what is left, to the last.
    with ledger.account("acme", "faces", at_limit="stop") as account:
        rest = account.charge([{"image": {"samples": 1}}] * 2000)
    assert rest == 2000 - before - held
    assert ledger.verify().ok


def test_a_process_that_ends_settles_its_leases(url, ledger, worker):
    ledger.set_limit(Limit("acme", amount=100))
    assert worker("leave", url, 0).communicate()[0].strip() == "5"
    assert used(ledger) == (5, 0)


@pytest.mark.parametrize(("how", "count"), [("fork", 34), ("os_fork", 2)])
def test_a_fork_shares_neither_leases_nor_connections(url, ledger, worker, how, count):
    ledger.set_limit(Limit("acme", amount=100))
    process = worker(how, url, 0)
    process.communicate()
    assert process.returncode == 0
    assert used(ledger) == (count, 0)
    assert ledger.verify().ok


def test_eight_processes_that_create_the_ledger_at_once_all_succeed(url, ledger, worker):
    workers = [worker("create", url, i) for i in range(8)]
    assert [process.communicate()[0].strip() for process in workers] == ["1"] * 8
    assert {limit.client for limit in ledger.limits()} == {f"client{i}" for i in range(8)}
    assert ledger.verify().entries == 8
