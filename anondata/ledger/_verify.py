"""Whether a ledger's history is whole, and its tables are what replaying the history gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select

from anondata.ledger import _chain, _tables
from anondata.ledger.values import Verification

_PAGE = 1000

Counters = dict[tuple[Any, ...], tuple[int, int]]


class _Wrong(Exception):
    """What is wrong, and with which entry."""

    def __init__(self, problem: str, seq: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.seq = problem, seq


def verification(connection: Connection, head: str | None) -> Verification:
    """Reads the whole history once, in pages; memory grows with clients and days, not with entries."""
    replay, entries, last, seen = _Replay(), 0, _tables.GENESIS, head in (None, _tables.GENESIS)
    try:
        for row in _rows(connection):
            _check_link(row, entries + 1, last)
            _replayed(replay, row)
            entries, last = entries + 1, str(row["hash"])
            seen = seen or last == head
        _check_head(connection, entries, last, replay.latest_ms)
        replay.check_tables(connection)
        if not seen:
            raise _Wrong("the head that was kept is not in the history: it was rewritten, or is another ledger's")
    except _Wrong as wrong:
        return Verification(entries, last, wrong.problem, wrong.seq)
    return Verification(entries, last)


def _rows(connection: Connection) -> Iterator[Mapping[str, Any]]:
    table, seq = _tables.history, None
    while True:
        query = select(table).order_by(table.c.seq).limit(_PAGE)
        rows = connection.execute(query if seq is None else query.where(table.c.seq > seq)).mappings().all()
        if not rows:
            return
        yield from (dict(row) for row in rows)
        seq = rows[-1]["seq"]


def _check_link(row: Mapping[str, Any], seq: int, last: str) -> None:
    if row["seq"] != seq:
        raise _Wrong(f"entry {seq} is missing", seq)
    if row["previous"] != last:
        raise _Wrong(f"entry {seq} does not follow the one before it", seq)
    try:
        right = _chain.entry_hash(row)
    except (TypeError, ValueError):
        right = ""
    if row["hash"] != right:
        raise _Wrong(f"entry {seq} was changed: its hash is another", seq)


def _replayed(replay: _Replay, row: Mapping[str, Any]) -> None:
    seq = row["seq"]
    try:
        replay.take(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Wrong(f"entry {seq} does not go with those before it", seq) from error


def _check_head(connection: Connection, entries: int, last: str, latest_ms: int) -> None:
    row = connection.execute(select(_tables.head)).one_or_none()
    if row is None:
        raise _Wrong("the head row is gone")
    if row.entries > entries:
        raise _Wrong(f"entry {entries + 1} is missing: the head row counts {row.entries}", entries + 1)
    if (row.entries, row.hash) != (entries, last) or row.latest_ms < latest_ms:
        raise _Wrong("the head row does not agree with the last entry")


class _Replay:
    """What the tables must hold after the entries that were taken."""

    def __init__(self) -> None:
        self.latest_ms = 0
        self.limits: dict[tuple[Any, ...], int | None] = {}
        self.open: dict[str, tuple[Any, ...]] = {}
        self.counters: Counters = {}

    def take(self, row: Mapping[str, Any]) -> None:
        """Raises ValueError or KeyError for an entry that cannot have been written after those before it."""
        event, id = row["event"], row["reservation"]
        if row["at_ms"] < self.latest_ms and event != "clock":
            raise ValueError("time went back")
        self.latest_ms = row["at_ms"]
        names = (row["client"], row["dataset"], row["content_type"])
        told = (row["policy"], row["report"])
        amounts, detail = json.loads(row["amounts"]), json.loads(row["detail"])
        if event == "clock":
            return  # an operator said so
        if event in ("limit", "unlimit"):
            self._limit(event, names, amounts)
        elif event == "reserve":
            self._reserve(id, (*names, *told), amounts, detail)
        elif event in ("commit", "release", "expired"):
            self._settle(event, id, (*names, *told), amounts)
        elif event != "late" or id in self.open:
            raise ValueError("no such event")

    def _limit(self, event: str, names: tuple[str, ...], amounts: Mapping[str, int | None]) -> None:
        [(name, amount)] = amounts.items()
        key = (*names, *name.split("/"))
        if event == "limit":
            self.limits[key] = amount
        else:
            del self.limits[key]

    def _reserve(self, id: str, names: tuple[str, ...], granted: dict[str, int], detail: dict[str, Any]) -> None:
        if id in self.open:
            raise ValueError("reserved twice")
        self.open[id] = (*names, detail["day"], detail["expires_ms"], granted, detail["limited"])
        self._count(names[:3], detail["day"], {}, granted, 1)

    def _settle(self, event: str, id: str, names: tuple[str, ...], used: dict[str, int]) -> None:
        *before, day, _, granted, limited = self.open.pop(id)
        if tuple(before) != names or (event == "expired" and used != granted):
            raise ValueError("settled otherwise than it was reserved")
        if any(used.get(unit, 0) > granted[unit] for unit in limited):
            raise ValueError("more than was granted")
        self._count(names[:3], day, used, granted, -1)

    def _count(
        self, names: tuple[str, ...], day: int, used: Mapping[str, int], granted: Mapping[str, int], sign: int
    ) -> None:
        for unit in {*used, *granted}:
            key = (*names, unit, day)
            before = self.counters.get(key, (0, 0))
            self.counters[key] = (before[0] + used.get(unit, 0), before[1] + sign * granted.get(unit, 0))

    def check_tables(self, connection: Connection) -> None:
        """Raises :class:`_Wrong` for the first table that is not what the entries make it."""
        stored = {tuple(row)[:5]: row.amount for row in connection.execute(select(_tables.limits))}
        _check("limits", stored, self.limits)
        rows = connection.execute(select(_tables.usage))
        counters = {tuple(row)[:5]: (row.used, row.reserved) for row in rows}
        _check("usage", _without_zeros(counters), _without_zeros(self.counters))
        open = {row.id: _terms(row) for row in connection.execute(select(_tables.reservations))}
        _check("reservations", open, self.open)


def _terms(row: Any) -> tuple[Any, ...]:
    try:
        texts = json.loads(row.granted), json.loads(row.limited)
    except (TypeError, ValueError):
        texts = None, None
    names = (row.client, row.dataset, row.content_type, row.policy, row.report)
    return (*names, row.day, row.expires_ms, *texts)


def _without_zeros(counters: Counters) -> Counters:
    return {key: value for key, value in counters.items() if value != (0, 0)}


def _check(table: str, stored: Mapping[Any, Any], replayed: Mapping[Any, Any]) -> None:
    wrong = [key for key in {**stored, **replayed} if stored.get(key, _wrong) != replayed.get(key, _wrong)]
    if wrong:
        raise _Wrong(f"the table of {table} is not what the history says, in {len(wrong)} of its rows")


_wrong = object()
