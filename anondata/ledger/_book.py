"""One writing transaction on a ledger: the lock, the time, the counters and the entry that tells of each change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from anondata.errors import LedgerError
from anondata.ledger import _chain, _clock, _tables
from anondata.ledger.values import ALL, Limit, Scope

_AT_ONCE = 1000  # expired leases that one transaction settles
_NOTED_MS = 1000  # a clock that is as was expected is not noted again
_BOOTS = 256  # machines whose clocks are kept in mind


@dataclass(frozen=True)
class Lease:
    """An open reservation as it is stored. day: which day its amounts count for.

    policy, report: what its delivery goes with.
    """

    id: str
    scope: Scope
    day: int
    expires_ms: int
    granted: Mapping[str, int]
    limited: frozenset[str]
    policy: str = ""
    report: str = ""


class Book:
    """The ledger, locked for one writer until the transaction ends.

    Opening it takes the lock, looks at the clock and settles leases that have expired. now_ms: the time that counts.
    accept_clock: an operator says that the clock is right, whatever the ledger has seen.
    """

    def __init__(self, connection: Connection, actor: str, *, accept_clock: bool = False) -> None:
        self.connection, self._actor = connection, actor
        row = connection.execute(select(_tables.head).with_for_update()).one_or_none()
        if row is None:
            raise LedgerError("the ledger has lost its head row; `anondata quota verify` tells what else is wrong")
        _tables.check_version(row.version)
        self._entries, self._hash = int(row.entries), str(row.hash)
        self._boot, self._steady_ms = _clock.boot(), round(_clock.steady_s() * 1000)
        self._expected_ms = self._by_steady_clock()
        clock_ms = _clock.database_ms(connection)
        if accept_clock:
            self.now_ms = clock_ms
            self._accept(int(row.latest_ms))
        else:
            self.now_ms = _clock.not_before(clock_ms, int(row.latest_ms))
            kept = self._expected_ms is None and _clock.is_kept(connection)
            _clock.check_leap(clock_ms, int(row.latest_ms), self._expected_ms, kept=kept)
        self._settle_expired()

    def close(self) -> None:
        """Writes the head; the last thing before the commit."""
        self._note_clock()
        values = {"entries": self._entries, "hash": self._hash, "latest_ms": self.now_ms}
        self.connection.execute(update(_tables.head), values)

    def set_limit(self, limit: Limit, *, operation: str) -> None:
        """Writes a limit over the one with its terms; the same amount again changes nothing."""
        table, key = _tables.limits, _key(limit)
        before = self.connection.execute(select(table.c.amount).filter_by(**key)).one_or_none()
        if before is not None and before.amount == limit.amount:
            return
        if before is None:
            self.connection.execute(insert(table), {**key, "amount": limit.amount})
        else:
            self.connection.execute(update(table).filter_by(**key), {"amount": limit.amount})
        self._append("limit", limit, _limit_amount(limit), reservation=operation)

    def remove_limit(self, limit: Limit, *, operation: str) -> bool:
        """Takes a limit away; whether there was one."""
        table = _tables.limits
        gone = self.connection.execute(delete(table).filter_by(**_key(limit))).rowcount
        if gone:
            self._append("unlimit", limit, {_limit_name(limit): None}, reservation=operation)
        return bool(gone)

    def open_lease(self, lease: Lease) -> None:
        """Reserves what a lease was granted."""
        values = {"id": lease.id, "day": lease.day, "expires_ms": lease.expires_ms, **_names(lease.scope)}
        texts = {"granted": _chain.canonical(lease.granted), "limited": _chain.canonical(sorted(lease.limited))}
        texts |= {"policy": lease.policy, "report": lease.report}
        self.connection.execute(insert(_tables.reservations), {**values, **texts})
        self._count(lease, reserved=lease.granted)
        detail = {"day": lease.day, "expires_ms": lease.expires_ms, "limited": sorted(lease.limited)}
        self._append_of(lease, "reserve", lease.granted, detail)

    def find_lease(self, reservation: str) -> Lease | None:
        """An open lease, or None."""
        query = select(_tables.reservations).where(_tables.reservations.c.id == reservation)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else _lease(row)

    def settle(self, lease: Lease, amounts: Mapping[str, int], *, event: str) -> None:
        """Closes a lease: what was used of it counts from now on, the rest is free again."""
        self.connection.execute(delete(_tables.reservations).where(_tables.reservations.c.id == lease.id))
        freed = {unit: -amount for unit, amount in lease.granted.items()}
        self._count(lease, used=amounts, reserved=freed)
        self._append_of(lease, event, amounts)

    def note_late(self, reservation: str, scope: Scope, amounts: Mapping[str, int]) -> None:
        """Tells in the history that somebody wanted to settle a lease after it had expired."""
        self._append("late", scope, amounts, reservation=reservation)

    def events(self, reservation: str) -> list[str]:
        """What happened to a lease, or by an operation, so far."""
        table = _tables.history
        query = select(table.c.event).where(table.c.reservation == reservation).order_by(table.c.seq)
        return list(self.connection.execute(query).scalars())

    def _by_steady_clock(self) -> int | None:
        """What time it is by this machine's steady clock, if it wrote before; the earliest of it that is known."""
        query = select(_tables.clocks).where(_tables.clocks.c.boot == self._boot)
        row = self.connection.execute(query).one_or_none() if self._boot else None
        return None if row is None else int(row.at_ms) + max(0, self._steady_ms - int(row.steady_ms))

    def _accept(self, latest_ms: int) -> None:
        """Notes that an operator set the time that counts; what other machines noted may be of the wrong one."""
        self.connection.execute(delete(_tables.clocks))
        self._expected_ms = None
        detail = {"from_ms": latest_ms, "to_ms": self.now_ms}
        self._append("clock", Limit(ALL, amount=None), {}, reservation="", detail=detail)

    def _note_clock(self) -> None:
        known = self._expected_ms
        if not self._boot or (known is not None and abs(self.now_ms - known) < _NOTED_MS):
            return
        self.connection.execute(delete(_tables.clocks).where(_tables.clocks.c.boot == self._boot))
        row = {"boot": self._boot, "steady_ms": self._steady_ms, "at_ms": self.now_ms}
        self.connection.execute(insert(_tables.clocks), row)
        old = select(_tables.clocks.c.at_ms).order_by(_tables.clocks.c.at_ms.desc()).offset(_BOOTS).limit(1)
        last = self.connection.execute(old).scalar_one_or_none()
        if last is not None:
            self.connection.execute(delete(_tables.clocks).where(_tables.clocks.c.at_ms <= last))

    def _settle_expired(self) -> None:
        table = _tables.reservations
        query = select(table).where(table.c.expires_ms <= self.now_ms).order_by(table.c.expires_ms, table.c.id)
        while rows := self.connection.execute(query.limit(_AT_ONCE)).all():
            for row in rows:
                lease = _lease(row)
                self.settle(lease, lease.granted, event="expired")

    def _count(self, lease: Lease, *, reserved: Mapping[str, int], used: Mapping[str, int] | None = None) -> None:
        used = used or {}
        row = {**_names(lease.scope), "day": lease.day}
        changes = {unit: (used.get(unit, 0), reserved.get(unit, 0)) for unit in sorted({*used, *reserved})}
        rows = [{**row, "unit": unit, "used": u, "reserved": r} for unit, (u, r) in changes.items() if u or r]
        if not rows:
            return
        make: Any = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        new, table = make(_tables.usage), _tables.usage
        added = {"used": table.c.used + new.excluded.used, "reserved": table.c.reserved + new.excluded.reserved}
        self.connection.execute(
            new.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=added), rows
        )

    def _append_of(
        self, lease: Lease, event: str, amounts: Mapping[str, int], detail: Mapping[str, Any] | None = None
    ) -> None:
        told = {"policy": lease.policy, "report": lease.report}
        self._append(event, lease.scope, amounts, reservation=lease.id, detail=detail, **told)

    def _append(
        self,
        event: str,
        scope: Scope | Limit,
        amounts: Mapping[str, int | None],
        *,
        reservation: str,
        detail: Mapping[str, Any] | None = None,
        policy: str = "",
        report: str = "",
    ) -> None:
        row = {
            "seq": self._entries + 1,
            "at_ms": self.now_ms,
            "actor": self._actor,
            "event": event,
            **_names(scope),
            "amounts": _chain.canonical(amounts),
            "detail": _chain.canonical(detail or {}),
            "policy": policy,
            "report": report,
            "reservation": reservation,
            "previous": self._hash,
        }
        row["hash"] = _chain.entry_hash(row)
        self.connection.execute(insert(_tables.history), row)
        self._entries, self._hash = self._entries + 1, str(row["hash"])


def _names(scope: Scope | Limit) -> dict[str, str]:
    return {"client": scope.client, "dataset": scope.dataset, "content_type": scope.content_type}


def _key(limit: Limit) -> dict[str, str]:
    return {**_names(limit), "unit": limit.unit, "period": limit.window}


def _limit_name(limit: Limit) -> str:
    return f"{limit.unit}/{limit.window}"


def _limit_amount(limit: Limit) -> dict[str, int | None]:
    return {_limit_name(limit): limit.amount}


def _lease(row: Row[Any]) -> Lease:
    scope = Scope(row.client, row.dataset, row.content_type)
    limited = frozenset(json.loads(row.limited))
    return Lease(
        row.id, scope, int(row.day), int(row.expires_ms), json.loads(row.granted), limited, row.policy, row.report
    )
