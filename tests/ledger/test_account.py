"""Accounts charge before anything is delivered, in blocks, and never beyond a limit."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from anondata.errors import LedgerError, LimitError, QuotaExceeded, UnknownClientError
from anondata.ledger import ALL, Account, Ledger, Limit, Scope

ONE = {"image": {"samples": 1, "bytes": 100}}


def used(ledger: Ledger, unit: str = "samples") -> tuple[int, int]:
    [usage] = [usage for usage in ledger.usage("acme") if usage.limit.unit == unit]
    return usage.used, usage.reserved


@pytest.fixture
def hundred(ledger):
    ledger.set_limit(Limit("acme", amount=100))
    return ledger


def test_what_is_charged_may_be_delivered_up_to_the_limit_and_then_it_raises(hundred):
    with hundred.account("acme", "faces") as account:
        assert account.charge([ONE] * 90) == 90
        assert account.charge([ONE] * 20) == 10
        with pytest.raises(QuotaExceeded, match="100 are used and 0 reserved"):
            account.charge([ONE])
        assert not account.exhausted
    assert used(hundred) == (100, 0)


def test_at_the_limit_it_can_stop_instead(hundred):
    with hundred.account("acme", "faces", at_limit="stop") as account:
        assert account.charge([ONE] * 100) == 100
        assert not account.exhausted
        assert account.charge([ONE] * 2) == 0
        assert account.exhausted
        hundred.set_limit(Limit("acme", amount=200))
        assert account.charge([ONE]) == 0  # it has told its consumer that this is the end


def test_a_client_that_nobody_knows_raises_even_where_it_should_stop(hundred):
    with hundred.account("other", "faces", at_limit="stop") as account, pytest.raises(UnknownClientError):
        account.charge([ONE])


def test_nothing_costs_nothing(hundred):
    assert hundred.account("acme", "faces").charge([]) == 0
    assert used(hundred) == (0, 0)


def test_many_deliveries_need_few_transactions(file_ledger):
    file_ledger.set_limit(Limit("acme", amount=10**6))
    with file_ledger.account("acme", "faces") as account:
        assert sum(account.charge([ONE]) for _ in range(10_000)) == 10_000
    assert used(file_ledger) == (10_000, 0)
    assert file_ledger.verify().entries < 25


def test_closing_frees_what_is_left_of_a_lease_and_a_later_charge_takes_another(hundred):
    account = hundred.account("acme", "faces")
    account.charge([ONE] * 5)
    assert used(hundred)[1] > 5
    account.close()
    account.close()
    assert used(hundred) == (5, 0)
    account.charge([ONE])
    account.close()
    assert used(hundred) == (6, 0)


def test_leases_say_policy_and_report(hundred):
    with hundred.account("acme", "faces", policy="abc", report="run-7") as account:
        account.charge([ONE])
    assert {(e.event, e.policy, e.report) for e in hundred.history()} == {
        ("limit", "", ""),
        ("reserve", "abc", "run-7"),
        ("commit", "abc", "run-7"),
    }


def test_each_limited_unit_is_kept_and_deliveries_end_with_the_first_that_does_not_fit(ledger):
    ledger.set_limit(Limit("acme", amount=None))
    ledger.set_limit(Limit("acme", unit="bytes", amount=1000))
    costs = [{"image": {"samples": 1, "bytes": n}} for n in (400, 300, 200, 150, 50)]
    with ledger.account("acme", "faces", at_limit="stop") as account:
        assert account.charge(costs) == 3
    assert used(ledger, "bytes") == (900, 0)
    assert used(ledger) == (3, 0)


def test_unlimited_units_are_counted_as_delivered(hundred):
    hundred.set_limit(Limit("acme", unit="bytes", amount=None))
    with hundred.account("acme", "faces") as account:
        for size in (1, 10, 100_000):
            account.charge([{"image": {"samples": 1, "bytes": size}}])
    assert used(hundred, "bytes") == (100_011, 0)


def test_a_limited_unit_that_costs_do_not_name_is_refused(hundred):
    with hundred.account("acme", "faces") as account:
        account.charge([ONE])
        with pytest.raises(LimitError, match="samples are limited here"):
            account.charge([{"image": {"bytes": 5}}])


@pytest.mark.parametrize(
    "cost", [{}, {"image": {"samples": -1}}, {"image": {"samples": 0.5}}, {"image": {"photos": 1}}]
)
def test_costs_that_are_none_are_refused(file_ledger, cost):
    file_ledger.set_limit(Limit("acme", amount=10))
    with file_ledger.account("acme", "faces") as account, pytest.raises(LimitError):
        account.charge([cost])


@pytest.mark.parametrize("amount", [1, 2, 7, 100, 333])
def test_content_types_that_share_a_limit_use_it_to_the_last(file_ledger, amount):
    file_ledger.set_limit(Limit("acme", amount=amount))
    both = {"image": {"samples": 1}, "text": {"samples": 1}}
    with file_ledger.account("acme", "faces", at_limit="stop") as account:
        assert account.charge([both] * 400) == amount // 2
    assert used(file_ledger) == (amount // 2 * 2, 0)


def test_a_sample_is_charged_for_all_its_content_types_or_none(ledger):
    ledger.set_limit(Limit("acme", content_type="image", amount=10))
    ledger.set_limit(Limit("acme", content_type="text", amount=3))
    with ledger.account("acme", "faces", at_limit="stop") as account:
        assert account.charge([{"image": {"samples": 1}, "text": {"samples": 1}}] * 10) == 3
    assert sorted((u.limit.content_type, u.used) for u in ledger.usage()) == [("image", 3), ("text", 3)]


def test_a_lease_is_renewed_before_it_expires(clock, hundred):
    account = hundred.account("acme", "faces", ttl_s=90)
    for _ in range(10):
        account.charge([ONE])
        clock.pass_s(30)
    account.close()
    assert used(hundred) == (10, 0)
    assert "expired" not in Counter(entry.event for entry in hundred.history())


def test_after_a_pause_that_is_too_long_its_lease_counts_as_used_and_it_goes_on(clock, hundred):
    account = hundred.account("acme", "faces", ttl_s=90)
    account.charge([ONE] * 4)
    held = sum(used(hundred))
    clock.pass_s(91)
    assert account.charge([ONE]) == 1
    account.close()
    assert used(hundred) == (held + 1, 0)
    assert [e.event for e in hundred.history()] == ["limit", "reserve", "expired", "late", "reserve", "commit"]


def test_what_is_delivered_after_midnight_counts_for_the_new_day(ledger, clock):
    ledger.set_limit(Limit("acme", window="day", amount=200))
    clock.set("2026-01-31T23:59:59")
    account = ledger.account("acme", "faces")
    assert account.charge([ONE] * 10) == 10
    clock.set("2026-02-01T00:00")
    assert account.charge([ONE] * 150) == 150
    account.close()
    assert used(ledger) == (150, 0)
    clock.set("2026-02-01T00:00:01")
    with ledger.account("acme", "faces", at_limit="stop") as account:
        assert account.charge([ONE] * 200) == 50


def test_blocks_of_a_slow_stream_stay_small(clock, hundred):
    hundred.set_limit(Limit("acme", amount=10**6))
    account = hundred.account("acme", "faces")
    for _ in range(60):
        account.charge([ONE])
        clock.pass_s(600)
    assert used(hundred)[1] <= 4
    account.close()


def test_blocks_of_a_fast_stream_grow_to_thousands(file_ledger, clock):
    file_ledger.set_limit(Limit("acme", amount=10**6))
    account = file_ledger.account("acme", "faces")
    account.charge([ONE] * 20_000)
    assert used(file_ledger)[1] == 4096
    account.close()


def test_a_pickled_account_shares_no_lease(hundred):
    account = hundred.account("acme", "faces", at_limit="stop", policy="p", report="r", ttl_s=60)
    account.charge([ONE])
    other = pickle.loads(pickle.dumps(account))
    assert (other.at_limit, other.policy, other.report, other.ttl_s) == ("stop", "p", "r", 60)
    other.charge([ONE])
    assert Counter(entry.event for entry in hundred.history())["reserve"] == 2
    account.close()
    other.close()
    other.ledger.close()
    assert used(hundred) == (2, 0)


def test_threads_share_an_account(file_ledger):
    file_ledger.set_limit(Limit("acme", amount=500))
    with file_ledger.account("acme", "faces", at_limit="stop") as account, ThreadPoolExecutor(8) as pool:
        given = sum(pool.map(lambda _: account.charge([ONE] * 3), range(400)))
    assert given == 500
    assert used(file_ledger) == (500, 0)


def test_accounts_of_two_clients_share_what_is_for_all(ledger):
    ledger.set_limit(Limit("*", amount=None))
    ledger.set_limit(Limit(ALL, amount=300))
    accounts = [ledger.account(client, "faces", at_limit="stop") for client in ("a", "b")]
    given = 0
    while not all(account.exhausted for account in accounts):
        given += sum(account.charge([ONE] * 10) for account in accounts)
    for account in accounts:
        account.close()
    assert given == 300


@pytest.mark.parametrize(
    "bad", [{"client": ""}, {"client": "*"}, {"dataset": "*"}, {"at_limit": "wait"}, {"policy": "a\nb"}]
)
def test_an_account_is_for_one_client_and_dataset(file_ledger, bad):
    with pytest.raises(LimitError):
        Account(file_ledger, **{"client": "acme", "dataset": "faces", **bad})


def test_a_short_time_of_leases_is_an_error_and_no_endless_loop(clock, hundred, monkeypatch):
    reserve = Ledger.reserve

    def slowly(self, *args, **options):
        clock.pass_s(10)
        made = reserve(self, *args, **options)
        clock.pass_s(10)
        return made

    monkeypatch.setattr(Ledger, "reserve", slowly)
    with hundred.account("acme", "faces", ttl_s=5) as account, pytest.raises(LedgerError, match="longer ttl_s"):
        account.charge([ONE])


def test_scopes_are_the_accounts_own(hundred):
    with hundred.account("acme", "faces") as account:
        account.charge([ONE])
        [entry] = [entry for entry in hundred.history() if entry.event == "reserve"]
        assert Scope(entry.client, entry.dataset, entry.content_type) == Scope("acme", "faces", "image")


def test_leases_are_settled_when_nothing_is_charged_for_a_while(hundred, monkeypatch):
    """Who looks at three rows of a view and then thinks about them has not used up a block."""
    monkeypatch.setattr("anondata.ledger.account._IDLE_S", 0.2)
    account = hundred.account("acme", "faces")
    assert account.charge([ONE] * 3) == 3
    assert used(hundred)[1] >= 3
    deadline = time.monotonic() + 20
    while used(hundred) != (3, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert used(hundred) == (3, 0)
    assert account.charge([ONE]) == 1
    account.close()
    assert used(hundred) == (4, 0)
