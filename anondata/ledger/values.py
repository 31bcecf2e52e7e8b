"""What goes into a ledger and comes out of it: limits, scopes, usage, entries of the history."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from anondata.errors import LimitError, QuotaExceeded

UNITS = ("samples", "bytes", "seconds", "faces")
WINDOWS = ("total", "day", "month")
ANY = "*"  # as a client: each client that has no such limit of its own; as dataset or content type: all together
ALL = "+"  # as a client: all clients together
LEASE_S = 900  # how long a reservation holds before it counts as wholly used
LONGEST_NAME = 200
LARGEST_AMOUNT = 10**18  # sums of a few of them still fit into the 64 bits of a database


@dataclass(frozen=True)
class Limit:
    """How much a client may receive.

    client: its name, ``"*"`` for each client that has no limit of its own with the same other terms, or
        :data:`ALL` for all clients together.
    dataset, content_type: one, or ``"*"`` for all of them counted together.
    unit: ``samples``, ``bytes``, ``seconds`` or ``faces``. window: ``total``, or the ``day`` or ``month`` (UTC).
    amount: a whole number; None allows any amount, which is counted all the same.

    Raises:
        LimitError: for a name, unit, window or amount that is none.
    """

    client: str
    dataset: str = ANY
    content_type: str = ANY
    unit: str = "samples"
    window: str = "total"
    amount: int | None = None

    def __post_init__(self) -> None:
        for what in ("client", "dataset", "content_type"):
            check_name(what, getattr(self, what))
        check_one_of("unit", self.unit, UNITS)
        check_one_of("window", self.window, WINDOWS)
        if self.amount is not None:
            object.__setattr__(self, "amount", whole("amount", self.amount))

    @property
    def terms(self) -> tuple[str, str, str, str]:
        """What a default must share with a client's own limit to give way to it."""
        return self.dataset, self.content_type, self.unit, self.window

    def covers(self, scope: Scope) -> bool:
        """Whether deliveries of this scope's dataset and content type count, whoever the client is."""
        return self.dataset in (ANY, scope.dataset) and self.content_type in (ANY, scope.content_type)


@dataclass(frozen=True)
class Scope:
    """Who receives what: one client, one dataset, one content type.

    Raises:
        LimitError: for a name that is none, or a wildcard.
    """

    client: str
    dataset: str
    content_type: str

    def __post_init__(self) -> None:
        for what in ("client", "dataset", "content_type"):
            check_name(what, getattr(self, what))
        if self.client in (ANY, ALL) or ANY in (self.dataset, self.content_type):
            raise LimitError(
                "a delivery is to one client, of one dataset and content type; '*' and '+' are for limits"
            )


@dataclass(frozen=True)
class Usage:
    """How far a limit is used.

    client: whose usage: for a default (``"*"``) each client that it applies to, ``"*"`` when there is none yet.
    used, reserved: what was delivered or may have been, and what open leases hold. left: None when unlimited.
    renews_at: when the window ends (UTC); None for ``total``.
    """

    limit: Limit
    client: str
    used: int
    reserved: int
    renews_at: datetime | None

    @property
    def left(self) -> int | None:
        return None if self.limit.amount is None else max(0, self.limit.amount - self.used - self.reserved)

    def exceeded(self, scope: Scope, what: str) -> QuotaExceeded:
        """The refusal of a delivery that this limit has no room for. what: the end of its message."""
        limit, amount, renews_at = self.limit, self.limit.amount or 0, self.renews_at
        per = "in total" if renews_at is None else f"a {limit.window}, which renews at {renews_at:%Y-%m-%d %H:%M} UTC"
        whose = "all clients together" if limit.client == ALL else f"client {scope.client!r}"
        return QuotaExceeded(
            f"{whose} may receive {amount} {limit.unit} {per} (dataset {limit.dataset!r}, content type "
            f"{limit.content_type!r}); {self.used} are used and {self.reserved} reserved, {what}",
            client=scope.client,
            dataset=scope.dataset,
            content_type=scope.content_type,
            unit=limit.unit,
            window=limit.window,
            limit=amount,
            used=self.used,
            reserved=self.reserved,
            renews_at=renews_at,
        )


@dataclass(frozen=True)
class Entry:
    """One line of the history, which is only ever appended to.

    event: ``limit`` and ``unlimit``, whose amounts are named by unit and window, ``"samples/day"``; ``reserve``,
        ``commit``, ``release``; ``expired``: a lease that nobody settled in time, counted as wholly used; ``late``:
        somebody wanted to settle it afterwards, which changed nothing; ``clock``: an operator said that the clock is
        right, after which time may be earlier than before.
    policy, report: the fingerprint of the policy and the run report that a delivery goes with, as the caller said.
    reservation: what entries of one lease share. hash: over this entry, and through ``previous`` over all before.
    """

    seq: int
    at: datetime
    actor: str
    event: str
    client: str
    dataset: str
    content_type: str
    amounts: Mapping[str, int | None]
    detail: Mapping[str, Any]
    policy: str
    report: str
    reservation: str
    previous: str
    hash: str


@dataclass(frozen=True)
class Verification:
    """Whether a ledger's history is whole, and its tables are what the history says.

    head: hash of the last entry. Kept elsewhere, it shows later whether the history was rewritten since.
    problem: empty when all is well. seq: the first entry that is wrong, None when a table is.
    """

    entries: int
    head: str
    problem: str = ""
    seq: int | None = field(default=None)

    @property
    def ok(self) -> bool:
        return not self.problem


def check_name(what: str, value: object, *, may_be_empty: bool = False) -> None:
    """Raises :class:`LimitError` unless ``value`` is a printable string of at most 200 characters."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_NAME:
        raise LimitError(f"a {what} is a string of at most {LONGEST_NAME} printable characters")
    if not (may_be_empty or value.strip()):
        raise LimitError(f"a {what} must not be empty")


def check_one_of(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises :class:`LimitError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise LimitError(f"{what} is {value!r}; expected one of {', '.join(choices)}")


def whole(what: str, value: object) -> int:
    """``value`` as a whole number from 0 to 10**18.

    Raises:
        LimitError: for everything else, ``True`` and ``1.0`` too.
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # what has no index raises TypeError
    except TypeError:
        number = -1
    if not 0 <= number <= LARGEST_AMOUNT:
        raise LimitError(f"{what} must be a whole number from 0 to 10**18, not {type(value).__name__} {value!r:.40}")
    return number


def whole_amounts(amounts: Mapping[str, int]) -> dict[str, int]:
    """Amounts by unit, checked.

    Raises:
        LimitError: for an unknown unit, or an amount that is none.
    """
    if all(type(n) is int and 0 <= n <= LARGEST_AMOUNT and unit in UNITS for unit, n in amounts.items()):
        return dict(amounts)  # nearly always, and this is done for each sample
    for unit in amounts:
        check_one_of("unit", unit, UNITS)
    return {unit: whole(unit, amounts[unit]) for unit in sorted(amounts)}
