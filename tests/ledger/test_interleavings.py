"""Whatever is done in whatever order, a naive count of it never passes a limit and agrees with the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anondata.errors import QuotaExceeded
from anondata.ledger import ALL, Ledger, Limit, Reservation, Scope, _clock

LIMITS = (
    Limit("*", window="day", amount=9),
    Limit("b", window="day", amount=14),
    Limit("*", dataset="x", window="month", amount=12),
    Limit(ALL, amount=40),
)
TTL_S = 60

clients, datasets = st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"])
reserve = st.tuples(st.just("reserve"), clients, datasets, st.integers(0, 5), st.integers(0, 12))
settle = st.tuples(st.just("settle"), st.integers(0, 30), st.floats(0, 1))
wait = st.tuples(st.just("wait"), st.sampled_from([1, 20, 61, 20_000, 90_000, 86_400 * 20]))
back = st.tuples(st.just("back"), st.integers(1, 280))
steps = st.lists(st.one_of(reserve, reserve, settle, settle, wait, back), min_size=5, max_size=40)


@dataclass
class Count:
    """What one reservation took, as a person would note it: granted until it is settled, then used."""

    client: str
    dataset: str
    day: str
    amount: int
    ends_ms: int
    open: bool = True


class Model:
    def __init__(self) -> None:
        self.counts: list[Count] = []
        self.now_ms = 1_790_000_000_000  # as the ledger sees it: it never goes back

    def taken(self, limit: Limit, client: str) -> int:
        today = f"{_clock.at(self.now_ms):%Y-%m-%d}"
        length = {"day": 10, "month": 7, "total": 0}[limit.window]
        return sum(
            c.amount
            for c in self.counts
            if limit.client == ALL or c.client == client
            if limit.dataset in ("*", c.dataset)
            if c.day[:length] == today[:length]
        )

    def left(self, client: str, dataset: str) -> int:
        own_day = LIMITS[1] if client == "b" else LIMITS[0]
        bound = [own_day, LIMITS[3], *([LIMITS[2]] if dataset == "x" else [])]
        return min((limit.amount or 0) - self.taken(limit, client) for limit in bound)


def play(ledger: Ledger, steps: list[tuple], set_clock: Callable[[int], None]) -> None:
    model, made = Model(), list[tuple[Reservation, Count]]()
    now_ms = model.now_ms
    set_clock(now_ms)
    for limit in LIMITS:
        ledger.set_limit(limit)
    for step in steps:
        match step:
            case "wait", seconds:
                now_ms += seconds * 1000
            case "back", seconds:
                now_ms = max(now_ms - seconds * 1000, model.now_ms - 290_000)
            case "reserve", client, dataset, need, more:
                model.now_ms = max(model.now_ms, now_ms)
                left = model.left(client, dataset)
                assert left >= 0
                try:
                    want = {"samples": need + more}
                    found = ledger.reserve(Scope(client, dataset, "image"), {"samples": need}, want=want, ttl_s=TTL_S)
                except QuotaExceeded:
                    assert need > left
                    # Nothing was written, so the ledger has not seen this moment.
                    continue
                assert need <= found.granted["samples"] <= min(need + more, left)
                count = Count(client, dataset, f"{_clock.at(model.now_ms):%Y-%m-%d}", found.granted["samples"], 0)
                count.ends_ms = model.now_ms + TTL_S * 1000
                model.counts.append(count)
                made.append((found, count))
            case "settle", which, part if made:
                model.now_ms = max(model.now_ms, now_ms)
                found, count = made[which % len(made)]
                amount = int(part * found.granted["samples"])
                found.commit({"samples": amount})
                if count.open and model.now_ms < count.ends_ms:
                    count.amount = amount
                count.open = False
        set_clock(now_ms)
        for usage in ledger.usage():
            assert usage.used + usage.reserved <= (usage.limit.amount or 0)
    assert ledger.verify().ok


def test_a_naive_count_agrees(monkeypatch):
    clock = [0]
    monkeypatch.setattr(_clock, "database_ms", lambda connection: clock[0])
    monkeypatch.setattr(_clock, "steady_s", lambda: clock[0] / 1000)

    @settings(max_examples=40, deadline=None)
    @given(steps)
    def run(steps):
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger(Path(folder) / "quotas.db", actor="test")
            try:
                play(ledger, steps, lambda ms: clock.__setitem__(0, ms))
            finally:
                ledger.close()

    run()


@pytest.mark.parametrize("seed", range(3))
def test_a_naive_count_agrees_in_a_server(server, opened, monkeypatch, seed):
    import random

    clock, draw = [0], random.Random(seed)
    monkeypatch.setattr(_clock, "database_ms", lambda connection: clock[0])
    monkeypatch.setattr(_clock, "steady_s", lambda: clock[0] / 1000)
    some = [
        draw.choice(
            [
                ("reserve", draw.choice("abc"), draw.choice("xy"), draw.randint(0, 5), draw.randint(0, 12)),
                ("settle", draw.randint(0, 30), draw.random()),
                ("wait", draw.choice([1, 20, 61, 20_000])),
                ("back", draw.randint(1, 280)),
            ]
        )
        for _ in range(80)
    ]
    play(opened(server.url(server.new_schema())), some, lambda ms: clock.__setitem__(0, ms))
