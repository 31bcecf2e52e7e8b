"""The ledger: limits, leases on what they leave, and a history that shows afterwards what was given."""

from __future__ import annotations

import getpass
import hashlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, select

from anondata.errors import LedgerError, LimitError
from anondata.ledger import _chain, _clock, _rules, _tables, _usage, _verify
from anondata.ledger._book import Book, Lease
from anondata.ledger._database import Database
from anondata.ledger.values import (
    ANY,
    LEASE_S,
    Entry,
    Limit,
    Scope,
    Usage,
    Verification,
    check_name,
    whole,
    whole_amounts,
)

if TYPE_CHECKING:
    from anondata.ledger.account import Account

T = TypeVar("T")

LONGEST_LEASE_S = 7 * 24 * 60 * 60
_PAGE = 1000  # entries of the history that are read at once


@dataclass(frozen=True)
class Reservation:
    """What a client may be given now: granted amounts by unit, for as long as it is :attr:`usable`.

    granted: between what was needed and what was wanted. limited: units that a limit binds; of these no more can be
        committed than was granted. expires_at: when it counts as wholly used, if nobody settles it before.
    valid_s: seconds, from before it was asked for, until it expires or its window ends.
    """

    id: str
    scope: Scope
    granted: Mapping[str, int]
    limited: frozenset[str]
    expires_at: datetime
    valid_s: float
    ledger: Ledger = field(repr=False, compare=False)
    started_s: float = field(repr=False, compare=False)

    @property
    def usable(self) -> bool:
        """Whether something may still be given on it, by the clock of this machine that only goes forward."""
        return _clock.steady_s() < self.started_s + self.valid_s

    def commit(self, amounts: Mapping[str, int]) -> None:
        """Counts what was given, and frees the rest. Called again, or after it expired, it changes nothing."""
        self.ledger.settle(self, amounts)

    def release(self) -> None:
        """Frees all of it: nothing was given."""
        self.ledger.settle(self, {})


class Ledger:
    """Who received how much, and who may receive more.

    Any number of processes on any number of machines can use one ledger; together they never pass a limit. A file
    (SQLite) is for one machine, because its locks do not hold on network storage. PostgreSQL is for several. Nothing
    is opened before it is used. A ledger can be pickled, and used after a fork.

    Args:
        url: a file, ``sqlite:///FILE`` or ``postgresql://user@host/database``.
        actor: who did it, for the history; by default the user and the host.

    Raises:
        LedgerError: by all methods: it cannot be reached, read or written, or does not exist. The first limit makes
            it.
        ClockError: by all methods: the clock is more than five minutes behind the ledger's latest entry, or so far
            ahead that it cannot be right. An operator can say that it is right: :meth:`accept_clock`.
    """

    def __init__(self, url: str | Path, *, actor: str | None = None) -> None:
        self._database = Database(url)
        self.actor = _whoami() if actor is None else actor
        check_name("actor", self.actor)

    def __repr__(self) -> str:
        return f"Ledger({self._database.place!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._database.url.render_as_string(hide_password=False), self.actor)

    def close(self) -> None:
        """Closes the connections; the next use opens others."""
        self._database.close()

    def set_limit(self, limit: Limit) -> None:
        """Sets or changes a limit. Leases that are out already keep what they were granted."""
        operation = uuid.uuid4().hex
        self._write(lambda book, _: book.set_limit(limit, operation=operation), create=True)

    def remove_limit(self, limit: Limit) -> bool:
        """Removes a limit, whatever its amount. Returns whether there was one."""
        operation = uuid.uuid4().hex

        def do(book: Book, again: bool) -> bool:
            return bool(again and book.events(operation)) or book.remove_limit(limit, operation=operation)

        return self._write(do)

    def limits(self, client: str | None = None) -> list[Limit]:
        """All limits, or those that were set for exactly this name."""
        return self._database.read(lambda connection: _rules.stored_limits(connection, client and {client}))

    def usage(self, client: str | None = None) -> list[Usage]:
        """How much of each limit is used: of those that bind a client, or of all, for each known client."""
        return self._database.read(lambda connection: _usage.usages(connection, client))

    def check(self, scope: Scope) -> None:
        """Checks that a limit covers a client's deliveries, however much is left.

        Raises:
            UnknownClientError: no limit covers them.
        """
        self._database.read(lambda connection: _rules.holding(connection, scope))

    def reserve(
        self,
        scope: Scope,
        need: Mapping[str, int],
        *,
        want: Mapping[str, int] | None = None,
        policy: str = "",
        report: str = "",
        ttl_s: int = LEASE_S,
    ) -> Reservation:
        """Sets amounts aside before they are given: at least ``need``, at most ``want``, in one transaction.

        Near a limit no more than a quarter of what is left is granted, unless more is needed. Every unit that a limit
        binds must be named. Settle it within ``ttl_s`` seconds, or it counts as wholly used.

        Raises:
            QuotaExceeded: when a limit has no room for ``need``.
            UnknownClientError: when no limit covers the client, dataset and content type.
            LimitError: for amounts that are none, or a limited unit that is not named.
        """
        needed, wanted = _asked(need, want)
        asked = _Asked(uuid.uuid4().hex, scope, needed, wanted, _seconds(ttl_s), policy, report)
        check_name("policy", policy, may_be_empty=True)
        check_name("report", report, may_be_empty=True)
        started_s = _clock.steady_s()
        lease, valid_ms = self._write(lambda book, again: _reserve(book, asked, again))
        expires_at = _clock.at(lease.expires_ms)
        return Reservation(
            lease.id, scope, lease.granted, lease.limited, expires_at, valid_ms / 1000, self, started_s
        )

    def charge_once(
        self, name: str, costs: Mapping[Scope, Mapping[str, int]], *, policy: str = "", report: str = ""
    ) -> bool:
        """Charges what is delivered as a whole, such as a file: all of it in one transaction, or nothing.

        name: stands for the delivery. What was charged under its name already is not charged again, so a run that
        was stopped between the charge and the delivery can be repeated. Returns whether it was charged now.

        Raises:
            QuotaExceeded, UnknownClientError, LimitError: as :meth:`reserve`.
        """
        check_name("policy", policy, may_be_empty=True)
        check_name("report", report, may_be_empty=True)
        deliveries = []
        for scope, amounts in costs.items():
            told = "\0".join((name, scope.client, scope.dataset, scope.content_type))
            id = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
            used = whole_amounts(amounts)
            deliveries.append(_Asked(id, scope, used, used, LEASE_S, policy, report))
        return self._write(lambda book, _: bool(sum(_delivered(book, asked) for asked in deliveries)))  # each of them

    def check_room(self, costs: Mapping[Scope, Mapping[str, int]]) -> None:
        """Whether a delivery could be charged now; nothing is set aside for it.

        Raises:
            QuotaExceeded, UnknownClientError: as :meth:`charge_once`.
        """

        def look(connection: Connection) -> None:
            now_ms = _clock.not_before(_clock.database_ms(connection), _latest_ms(connection))
            for scope, amounts in costs.items():
                limits = _rules.holding(connection, scope)
                standings = [_rules.standing(connection, limit, scope.client, now_ms) for limit in limits]
                used = whole_amounts(amounts)
                _rules.grants(standings, scope, used, used)

        self._database.read(look)

    def settle(self, reservation: Reservation, amounts: Mapping[str, int]) -> None:
        """What :meth:`Reservation.commit` does.

        Raises:
            LimitError: for more of a limited unit than was granted; the lease stays open.
        """
        used = whole_amounts(amounts)
        for unit in reservation.limited:
            if used.get(unit, 0) > reservation.granted[unit]:
                raise LimitError(f"{used[unit]} {unit} cannot be committed: {reservation.granted[unit]} were granted")
        used = {unit: amount for unit, amount in used.items() if amount}
        self._write(lambda book, _: _settle(book, reservation, used))

    def history(self, client: str | None = None) -> Iterator[Entry]:
        """The entries from the first on, or those that concern a client; read in pages, so others can go on."""
        seq = 0
        while rows := self._database.read(lambda connection, after=seq: _page(connection, after, client)):  # type: ignore[misc]  # mypy infers no type of a default
            yield from (_entry(row) for row in rows)
            seq = rows[-1]["seq"]

    def accept_clock(self) -> tuple[datetime, datetime]:
        """Takes an operator's word that the clock is right, and goes on from now; the history tells of it.

        For a ledger that refuses everybody since a clock was ahead or behind. What was given under the wrong day
        stays counted for that day. Returns what counted as now before, and what does since.
        """
        before = self._database.read(_latest_ms)
        now_ms = self._database.write(lambda connection, _: _accepted(connection, self.actor))
        return _clock.at(before), _clock.at(now_ms)

    def clock(self) -> tuple[datetime, datetime]:
        """What counted as now when the ledger was written last, and the clock that would count for the next entry."""
        before, now_ms = self._database.read(lambda c: (_latest_ms(c), _clock.database_ms(c)))
        return _clock.at(before), _clock.at(now_ms)

    def verify(self, head: str | None = None) -> Verification:
        """Whether the history is whole, and the tables are what it says.

        head: hash that an earlier verification told. It must be in the history still: a chain that somebody made
        anew, as a whole, is in itself as good as the true one.
        """
        return self._database.read(lambda connection: _verify.verification(connection, head))

    def account(
        self,
        client: str,
        dataset: str,
        *,
        at_limit: str = "raise",
        policy: str = "",
        report: str = "",
        ttl_s: int = LEASE_S,
    ) -> Account:
        """What charges the deliveries of one dataset to one client: see :class:`anondata.ledger.Account`."""
        from anondata.ledger.account import Account

        return Account(self, client, dataset, at_limit=at_limit, policy=policy, report=report, ttl_s=ttl_s)

    def _write(self, do: Callable[[Book, bool], T], *, create: bool = False) -> T:
        def transaction(connection: Connection, again: bool) -> T:
            book = Book(connection, self.actor)
            result = do(book, again)
            book.close()
            return result

        return self._database.write(transaction, create=create)


def _latest_ms(connection: Connection) -> int:
    return int(connection.execute(select(_tables.head.c.latest_ms)).scalar_one())


def _accepted(connection: Connection, actor: str) -> int:
    book = Book(connection, actor, accept_clock=True)
    book.close()
    return book.now_ms


@dataclass(frozen=True)
class _Asked:
    id: str
    scope: Scope
    need: Mapping[str, int]
    want: Mapping[str, int]
    ttl_s: int
    policy: str
    report: str


def _reserve(book: Book, asked: _Asked, again: bool) -> tuple[Lease, int]:
    """The lease and for how many milliseconds it is valid. An earlier try's is returned as it is."""
    scope = asked.scope
    limits = _rules.holding(book.connection, scope)
    ends = [end for end in (_clock.end_ms(limit.window, book.now_ms) for limit in limits) if end is not None]
    lease = book.find_lease(asked.id) if again else None
    if lease is None:
        lease = _opened(book, asked, limits)
    if lease.day != _clock.day_of(book.now_ms):
        return lease, 0  # granted before midnight by a try whose answer was lost
    return lease, min(lease.expires_ms, *ends) - book.now_ms if ends else lease.expires_ms - book.now_ms


def _opened(book: Book, asked: _Asked, limits: list[Limit]) -> Lease:
    standings = [_rules.standing(book.connection, limit, asked.scope.client, book.now_ms) for limit in limits]
    limited = frozenset(limit.unit for limit in limits if limit.amount is not None)
    if missing := sorted(limited - asked.need.keys()):
        raise LimitError(f"{', '.join(missing)} are limited here; say how many the delivery has, 0 where it has none")
    granted = _rules.grants(standings, asked.scope, asked.need, asked.want)
    expires_ms = book.now_ms + asked.ttl_s * 1000
    day = _clock.day_of(book.now_ms)
    lease = Lease(asked.id, asked.scope, day, expires_ms, granted, limited, asked.policy, asked.report)
    book.open_lease(lease)
    return lease


def _delivered(book: Book, asked: _Asked) -> bool:
    """Reserves and commits at once, unless that was done before."""
    if book.events(asked.id):
        return False
    lease = _opened(book, asked, _rules.holding(book.connection, asked.scope))
    book.settle(lease, {unit: amount for unit, amount in asked.need.items() if amount}, event="commit")
    return True


def _settle(book: Book, reservation: Reservation, used: Mapping[str, int]) -> None:
    lease = book.find_lease(reservation.id)
    if lease is not None:
        book.settle(lease, used, event="commit" if used else "release")
        return
    events = book.events(reservation.id)
    if not events:
        raise LedgerError(
            "the ledger does not know this reservation: it was replaced or restored since; `anondata quota verify` "
            "with a head from before tells more"
        )
    if events[-1] == "expired":
        book.note_late(reservation.id, reservation.scope, used)


def _asked(need: Mapping[str, int], want: Mapping[str, int] | None) -> tuple[dict[str, int], dict[str, int]]:
    """Both by the same units."""
    needed, wanted = whole_amounts(need), whole_amounts(want or {})
    units = sorted({*needed, *wanted})
    if not units:
        raise LimitError("nothing is asked for; name at least one unit, such as {'samples': 1}")
    needed = {unit: needed.get(unit, 0) for unit in units}
    wanted = {unit: wanted.get(unit, needed[unit]) for unit in units}
    for unit in units:
        if wanted[unit] < needed[unit]:
            raise LimitError(f"fewer {unit} are wanted than needed: {wanted[unit]} and {needed[unit]}")
    return needed, wanted


def _seconds(ttl_s: int) -> int:
    if not 1 <= whole("ttl_s", ttl_s) <= LONGEST_LEASE_S:
        raise LimitError(f"a lease lasts from one second to seven days, not {ttl_s} s")
    return ttl_s


def _page(connection: Connection, after: int, client: str | None) -> list[Mapping[str, Any]]:
    table = _tables.history
    query = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(_PAGE)
    if client is not None:
        query = query.where(table.c.client == client)
    return [dict(row) for row in connection.execute(query).mappings()]


def _entry(row: Mapping[str, Any]) -> Entry:
    try:
        return _chain.entry_of(row)
    except (ValueError, TypeError, OverflowError) as error:
        raise LedgerError("an entry of the history is damaged; `anondata quota verify` tells which") from error


def _again(url: str, actor: str) -> Ledger:
    return Ledger(url, actor=actor)


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


__all__ = ["ANY", "Ledger", "Reservation"]
