"""Which limits hold for a delivery, and that all of them hold."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import numpy as np
import pytest

from anondata.errors import LedgerError, LimitError, QuotaExceeded, UnknownClientError
from anondata.ledger import ALL, Ledger, Limit, Scope

IMAGE = Scope("acme", "faces", "image")
TEXT = Scope("acme", "faces", "text")


def take(ledger: Ledger, scope: Scope, samples: int = 1) -> None:
    ledger.reserve(scope, {"samples": samples}).commit({"samples": samples})


def used_up(ledger: Ledger, scope: Scope, most: int = 50) -> int:
    """How many samples can be taken, one at a time."""
    for taken in range(most):
        try:
            take(ledger, scope)
        except QuotaExceeded:
            return taken
    return most


def test_exactly_the_limit_is_granted(ledger):
    ledger.set_limit(Limit("acme", amount=7))
    assert used_up(ledger, IMAGE) == 7


def test_a_refusal_tells_which_limit_and_how_far_it_is_used(ledger, clock):
    ledger.set_limit(Limit("acme", content_type="image", window="day", amount=3))
    take(ledger, IMAGE, 2)
    ledger.reserve(IMAGE, {"samples": 1})
    with pytest.raises(
        QuotaExceeded, match="client 'acme' may receive 3 samples a day, which renews at 2026-02-01"
    ) as e:
        take(ledger, IMAGE)
    told = e.value
    assert (told.client, told.dataset, told.content_type, told.unit) == ("acme", "faces", "image", "samples")
    assert (told.window, told.limit, told.used, told.reserved) == ("day", 3, 2, 1)
    assert told.renews_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert vars(pickle.loads(pickle.dumps(told))) == vars(told)


def test_a_client_without_a_limit_gets_nothing(ledger):
    ledger.set_limit(Limit("acme", amount=7))
    with pytest.raises(
        UnknownClientError, match=r"no limit covers client 'other'.*anondata quota set --client other"
    ):
        take(ledger, Scope("other", "faces", "image"))


def test_a_limit_over_all_clients_makes_none_of_them_known(ledger):
    ledger.set_limit(Limit(ALL, amount=7))
    with pytest.raises(UnknownClientError):
        take(ledger, IMAGE)


def test_a_limit_on_one_content_type_gives_nothing_of_another(ledger):
    ledger.set_limit(Limit("acme", content_type="image", amount=7))
    with pytest.raises(UnknownClientError):
        take(ledger, TEXT)


def test_a_limit_on_all_content_types_counts_them_together(ledger):
    ledger.set_limit(Limit("acme", amount=7))
    take(ledger, TEXT, 3)
    assert used_up(ledger, IMAGE) == 4


def test_a_limit_on_one_dataset_leaves_others_alone(ledger):
    ledger.set_limit(Limit("acme", amount=None))
    ledger.set_limit(Limit("acme", dataset="faces", amount=2))
    take(ledger, Scope("acme", "lakes", "image"), 9)
    assert used_up(ledger, IMAGE) == 2


def test_all_limits_that_apply_hold_together(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    ledger.set_limit(Limit("acme", content_type="image", amount=4))
    assert used_up(ledger, IMAGE) == 4
    assert used_up(ledger, TEXT) == 6


def test_a_default_is_for_each_client_that_has_no_limit_of_its_own(ledger):
    ledger.set_limit(Limit("*", amount=2))
    ledger.set_limit(Limit("acme", amount=5))
    assert used_up(ledger, IMAGE) == 5
    assert used_up(ledger, Scope("b", "faces", "image")) == 2
    assert used_up(ledger, Scope("c", "faces", "image")) == 2


def test_a_default_gives_way_only_to_a_limit_with_its_terms(ledger):
    ledger.set_limit(Limit("*", amount=2))
    ledger.set_limit(Limit("acme", window="day", amount=5))
    assert used_up(ledger, IMAGE) == 2


def test_a_limit_over_all_clients_counts_them_together(ledger):
    ledger.set_limit(Limit("*", amount=None))
    ledger.set_limit(Limit(ALL, amount=5))
    take(ledger, Scope("other", "faces", "image"), 3)
    assert used_up(ledger, IMAGE) == 2


def test_units_are_counted_apart_and_all_must_have_room(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    ledger.set_limit(Limit("acme", unit="bytes", amount=250))
    for _ in range(2):
        ledger.reserve(IMAGE, {"samples": 1, "bytes": 100}).commit({"samples": 1, "bytes": 100})
    with pytest.raises(QuotaExceeded) as refused:
        ledger.reserve(IMAGE, {"samples": 1, "bytes": 100})
    assert refused.value.unit == "bytes"


def test_a_limited_unit_that_is_not_named_is_refused(ledger):
    ledger.set_limit(Limit("acme", unit="faces", amount=10))
    with pytest.raises(LimitError, match="faces are limited here; say how many"):
        ledger.reserve(IMAGE, {"samples": 1})


def test_unlimited_is_counted(ledger):
    ledger.set_limit(Limit("acme", amount=None))
    take(ledger, IMAGE, 9)
    [usage] = ledger.usage("acme")
    assert (usage.used, usage.reserved, usage.left) == (9, 0, None)


def test_a_limit_of_nothing_gives_nothing(ledger):
    ledger.set_limit(Limit("acme", amount=0))
    assert used_up(ledger, IMAGE) == 0


def test_a_lowered_limit_holds_for_what_comes(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    take(ledger, IMAGE, 6)
    ledger.set_limit(Limit("acme", amount=4))
    assert used_up(ledger, IMAGE) == 0
    assert ledger.usage("acme")[0].left == 0


def test_a_removed_limit_no_longer_makes_the_client_known(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    assert ledger.remove_limit(Limit("acme"))
    assert not ledger.remove_limit(Limit("acme"))
    with pytest.raises(UnknownClientError):
        take(ledger, IMAGE)


def test_far_from_a_limit_all_that_is_wanted_is_granted_and_near_it_a_quarter_of_what_is_left(ledger):
    ledger.set_limit(Limit("acme", amount=100))
    granted = [ledger.reserve(IMAGE, {"samples": 1}, want={"samples": 20}).granted["samples"] for _ in range(3)]
    assert granted == [20, 20, 15]


def test_what_is_needed_is_granted_to_the_last(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    assert ledger.reserve(IMAGE, {"samples": 10}, want={"samples": 64}).granted == {"samples": 10}


def test_usage_of_all_names_each_client_and_what_waits_for_one(ledger):
    ledger.set_limit(Limit("*", amount=5))
    ledger.set_limit(Limit("*", unit="faces", amount=5))
    ledger.set_limit(Limit(ALL, amount=9))
    assert [u.client for u in ledger.usage()] == ["*", "*", ALL]
    ledger.reserve(IMAGE, {"samples": 2, "faces": 0})
    found = {(u.client, u.limit.unit): (u.used, u.reserved) for u in ledger.usage()}
    assert found == {("acme", "samples"): (0, 2), ("acme", "faces"): (0, 0), (ALL, "samples"): (0, 2)}


def test_limits_of_a_name(ledger):
    mine, default = Limit("acme", amount=1), Limit("*", amount=2)
    ledger.set_limit(mine)
    ledger.set_limit(default)
    assert ledger.limits("acme") == [mine]
    assert set(ledger.limits()) == {mine, default}


@pytest.mark.parametrize("amount", [-1, 1.5, 1.0, True, "3", 10**18 + 1, float("nan")])
def test_an_amount_is_a_whole_number(file_ledger, amount):
    with pytest.raises(LimitError, match="must be a whole number"):
        Limit("acme", amount=amount)
    file_ledger.set_limit(Limit("acme", amount=None))
    with pytest.raises(LimitError, match="must be a whole number"):
        file_ledger.reserve(IMAGE, {"samples": amount})
    reservation = file_ledger.reserve(IMAGE, {"samples": 1})
    with pytest.raises(LimitError, match="must be a whole number"):
        reservation.commit({"samples": amount})


def test_whole_numbers_of_numpy_are_taken():
    assert type(Limit("acme", amount=np.int64(3)).amount) is int


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "a\u200bb", "x" * 201, None, 3, "\ud800"])
def test_a_name_is_a_printable_string(name):
    for terms in ({"client": name}, {"client": "a", "dataset": name}, {"client": "a", "content_type": name}):
        with pytest.raises(LimitError, match=r"printable|empty"):
            Limit(**terms)
    with pytest.raises(LimitError):
        Scope("acme", name, "image")


def test_a_name_keeps_what_it_is_made_of(ledger):
    name = "Zoë & Söhne; DROP TABLE x' 株式会社"
    ledger.set_limit(Limit(name, amount=1))
    assert used_up(ledger, Scope(name, "faces", "image")) == 1
    with pytest.raises(UnknownClientError):
        take(ledger, Scope(name.lower(), "faces", "image"))


@pytest.mark.parametrize("terms", [{"unit": "photos"}, {"window": "week"}])
def test_an_unknown_unit_or_window_is_refused(terms):
    with pytest.raises(LimitError, match="expected one of"):
        Limit("acme", **terms)


@pytest.mark.parametrize("names", [("*", "d", "t"), ("+", "d", "t"), ("c", "*", "t"), ("c", "d", "*")])
def test_a_delivery_has_no_wildcards(names):
    with pytest.raises(LimitError, match="are for limits"):
        Scope(*names)


@pytest.mark.parametrize(
    ("need", "options", "message"),
    [
        ({}, {}, "nothing is asked for"),
        ({"photos": 1}, {}, "unit is .photos.; expected one of"),
        ({"samples": 2}, {"want": {"samples": 1}}, "fewer samples are wanted than needed"),
        ({"samples": 2}, {"ttl_s": 0}, "a lease lasts from one second to seven days"),
        ({"samples": 2}, {"policy": "a\nb"}, "policy"),
    ],
)
def test_what_cannot_be_asked_for(file_ledger, need, options, message):
    file_ledger.set_limit(Limit("acme", amount=9))
    with pytest.raises(LimitError, match=message):
        file_ledger.reserve(IMAGE, need, **options)


def test_no_more_of_a_limited_unit_is_committed_than_was_granted(ledger):
    ledger.set_limit(Limit("acme", amount=9))
    ledger.set_limit(Limit("acme", unit="bytes", amount=None))
    reservation = ledger.reserve(IMAGE, {"samples": 2})
    with pytest.raises(LimitError, match="3 samples cannot be committed: 2 were granted"):
        reservation.commit({"samples": 3})
    reservation.commit({"samples": 1, "bytes": 5000})
    assert {u.limit.unit: u.used for u in ledger.usage("acme")} == {"samples": 1, "bytes": 5000}


@pytest.mark.parametrize(
    "url",
    [":memory:", "sqlite://", "sqlite:///:memory:", "mysql://x/y", "x://", "", "postgresql://u:secret@h:port/d"],
)
def test_a_ledger_is_a_file_or_postgresql(url):
    with pytest.raises(LedgerError) as refused:
        Ledger(url)
    assert "secret" not in str(refused.value)


def test_nothing_is_opened_before_it_is_used_and_reading_makes_no_ledger(tmp_path, opened):
    ledger = opened(tmp_path / "typo.db")
    for use in (ledger.usage, ledger.limits, ledger.verify, lambda: take(ledger, IMAGE)):
        with pytest.raises(LedgerError, match=r"there is no ledger at .*typo.db; `anondata quota set` makes one"):
            use()
    assert not list(tmp_path.iterdir())


def test_an_empty_schema_is_no_ledger(server, opened):
    with pytest.raises(LedgerError, match="there is no ledger"):
        opened(server.url(server.new_schema())).usage()


def test_a_pickled_ledger_is_the_same_one(ledger, monkeypatch, tmp_path):
    ledger.set_limit(Limit("acme", amount=3))
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(ledger))
    assert (again.limits(), again.actor) == (ledger.limits(), "test")
    again.close()


def test_a_password_is_never_shown(tmp_path):
    ledger = Ledger(f"postgresql://ledger:secret@/x?host={tmp_path}&password=secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONDATA_TRIES", "1")
        with pytest.raises(LedgerError, match="cannot be reached") as refused:
            ledger.usage()
    assert "secret" not in f"{ledger!r} {refused.value} {refused.value.__cause__}"
