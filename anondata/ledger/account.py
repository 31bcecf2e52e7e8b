"""An account: charges what is delivered to one client, against leases in blocks, so that few queries are needed."""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from types import TracebackType
from typing import TYPE_CHECKING, Any

from anondata.errors import AnondataError, LedgerError, LimitError, QuotaExceeded
from anondata.ledger import _clock
from anondata.ledger.values import LEASE_S, Scope, check_name, check_one_of, whole_amounts

if TYPE_CHECKING:
    from anondata.ledger._ledger import Ledger, Reservation

log = logging.getLogger("anondata")

FIRST_BLOCK, LARGEST_BLOCK = 64, 4096  # deliveries
_QUICK_S, _SLOW_S = 10.0, 60.0  # a block that is used up sooner is doubled, one that lasts longer halved
_RENEW_AT = 2 / 3  # of a lease's time
_IDLE_S = 30.0  # after so long without a charge leases are settled: who looks at ten rows and waits loses none
_ROUNDS = 5
_EXIT_PRIORITY = 100

Cost = Mapping[str, Mapping[str, int]]


@dataclass
class _Lease:
    """A reservation and what was used of it. left: of the limited units."""

    reservation: Reservation
    until_s: float
    left: dict[str, int]
    spent: Counter[str] = field(default_factory=Counter)
    closing: bool = False

    def covers(self, amounts: Mapping[str, int]) -> bool:
        if self.closing or _clock.steady_s() >= self.until_s:
            return False
        return all(unit in amounts and amounts[unit] <= left for unit, left in self.left.items())

    def spend(self, amounts: Mapping[str, int]) -> None:
        for unit, amount in amounts.items():
            self.spent[unit] += amount
            if unit in self.left:
                self.left[unit] -= amount


class Account:
    """Charges deliveries before they are made, against leases that it takes from the ledger in blocks.

    at_limit: ``"raise"`` or ``"stop"``, see :meth:`charge`. policy, report: for the history. ttl_s: how long a lease
    lasts; what a process that dies held of one counts as delivered.

    It can be pickled and used after a fork: leases are each process's own. Threads may share it. Close it; otherwise
    its leases are settled when nothing was charged for half a minute, or when the process ends.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: str,
        dataset: str,
        *,
        at_limit: str = "raise",
        policy: str = "",
        report: str = "",
        ttl_s: int = LEASE_S,
    ) -> None:
        Scope(client, dataset, "any")
        check_one_of("at_limit", at_limit, ("raise", "stop"))
        check_name("policy", policy, may_be_empty=True)
        check_name("report", report, may_be_empty=True)
        self.ledger, self.client, self.dataset, self.at_limit = ledger, client, dataset, at_limit
        self.policy, self.report, self.ttl_s = policy, report, ttl_s
        self._forget()
        _ALL.add(self)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[str, _Lease] = {}
        self._blocks: dict[str, int] = {}
        self._seen: dict[str, Counter[str]] = {}
        self._closer: Any = None
        self._timer: threading.Timer | None = None
        self._charged_s = 0.0
        self._exhausted = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.ledger, self.client, self.dataset, self.at_limit, self.policy, self.report, self.ttl_s)

    def __enter__(self) -> Account:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def exhausted(self) -> bool:
        """Whether a limit ended the deliveries (``at_limit="stop"``). Nothing more is granted in this process."""
        return self._exhausted

    def check(self, content_types: Iterable[str]) -> None:
        """For before long work: whether the ledger is there and knows the client. Reserves nothing.

        Raises: UnknownClientError, LedgerError.
        """
        for kind in content_types:
            self.ledger.check(Scope(self.client, self.dataset, kind))

    def charge(self, costs: Sequence[Cost]) -> int:
        """Charges deliveries in their order; returns how many of them, from the first on, may be delivered.

        costs: for each delivery, by content type, amounts by unit (:func:`anondata.ledger.cost_of`).

        Fewer than all: a limit was reached or the ledger cannot be reached. Deliver those, then charge the rest
        again, which raises why; with ``at_limit="stop"`` a limit does not raise, but sets :attr:`exhausted`.

        Raises, where not even the first may be delivered:
            QuotaExceeded: a limit is reached, and ``at_limit`` is ``"raise"``.
            UnknownClientError: no limit covers the client, dataset and a content type.
            LedgerError: the ledger cannot be reached or written. LimitError: costs that are none.
        """
        checked = [{kind: whole_amounts(amounts) for kind, amounts in cost.items()} for cost in costs]
        with self._lock:
            if self._exhausted:
                return 0
            self._charged_s = _clock.steady_s()
            self._learn(checked)
            for i, cost in enumerate(checked):
                try:
                    self._cover(cost)
                except QuotaExceeded:
                    self._let_go()
                    self._exhausted = self.at_limit == "stop"
                    if i == 0 and not self._exhausted:
                        raise
                    return i
                except AnondataError:
                    if i == 0:
                        raise
                    return i
                for kind, amounts in cost.items():
                    self._leases[kind].spend(amounts)
            return len(checked)

    def charge_once(self, name: str, cost: Cost) -> None:
        """Charges something that is delivered as a whole, once however often; see :meth:`Ledger.charge_once`."""
        scopes = {Scope(self.client, self.dataset, kind): amounts for kind, amounts in cost.items()}
        self.ledger.charge_once(name, scopes, policy=self.policy, report=self.report)

    def check_room(self, cost: Cost) -> None:
        """Whether so much could be charged now; see :meth:`Ledger.check_room`."""
        self.ledger.check_room({Scope(self.client, self.dataset, kind): amounts for kind, amounts in cost.items()})

    def close(self) -> None:
        """Commits what was used of the leases and frees the rest. A later charge takes new ones.

        Raises:
            LedgerError: when the ledger cannot be reached; call it again, or they count as used when they expire.
        """
        with self._lock:
            self._settle_all()
            if self._closer is not None:
                self._closer.cancel()
                self._closer = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _learn(self, costs: Sequence[Cost]) -> None:
        """What deliveries cost on average decides how much a block of them wants."""
        for cost in costs:
            for kind, amounts in cost.items():
                seen = self._seen.setdefault(kind, Counter())
                for unit, amount in amounts.items():
                    seen[unit] += amount
                seen[""] += 1

    def _cover(self, cost: Cost) -> None:
        """Makes every content type's lease cover its part, before anything is spent."""
        if not cost:
            raise LimitError("a delivery without a content type cannot be charged")
        shared = False
        for _ in range(_ROUNDS):
            # A lease can end while another one is renewed, at midnight for one.
            lacking = [kind for kind, amounts in cost.items() if not self._covered(kind, amounts)]
            if not lacking:
                return
            try:
                for kind in lacking:
                    self._renew(kind, cost[kind])
            except QuotaExceeded:
                if shared or not self._leases:
                    raise
                # A limit over several content types: what the other leases hold is given back, once, and shared anew.
                shared = True
                self._settle_all()
        raise LedgerError("the ledger answers more slowly than its leases last; give them a longer ttl_s")

    def _covered(self, kind: str, amounts: Mapping[str, int]) -> bool:
        lease = self._leases.get(kind)
        return lease is not None and lease.covers(amounts)

    def _renew(self, kind: str, need: Mapping[str, int]) -> None:
        self._resize(kind)
        self._settle(kind)
        self._watch(_IDLE_S)
        if self._closer is None:  # before there is a lease: a child that ends normally leaves none behind
            self._closer = Finalize(None, self._close_at_exit, exitpriority=_EXIT_PRIORITY)
        reservation = self.ledger.reserve(
            Scope(self.client, self.dataset, kind),
            need,
            want=self._wanted(kind, need),
            policy=self.policy,
            report=self.report,
            ttl_s=self.ttl_s,
        )
        lasts_s = min(reservation.valid_s, self.ttl_s * _RENEW_AT)
        left = {unit: reservation.granted[unit] for unit in reservation.limited}
        self._leases[kind] = _Lease(reservation, reservation.started_s + lasts_s, left)

    def _settle_all(self) -> None:
        for kind in list(self._leases):
            self._settle(kind)

    def _watch(self, after_s: float) -> None:
        """Has leases settled when nothing is charged any more."""
        if self._timer is None:
            self._timer = threading.Timer(after_s, _settle_idle, [weakref.ref(self)])
            self._timer.daemon = True
            self._timer.start()

    def _settle_if_idle(self) -> None:
        with self._lock:
            self._timer = None
            left_s = self._charged_s + _IDLE_S - _clock.steady_s()
            if left_s > 0:
                self._watch(left_s)
                return
            try:
                self.close()
            except AnondataError as error:  # they count as used when they expire
                log.warning("an account could not be settled: %s", error)

    def _settle(self, kind: str) -> None:
        lease = self._leases.get(kind)
        if lease is None:
            return
        lease.closing = True  # first: a commit whose answer is lost may have been made, so nothing more may be spent
        lease.reservation.commit(lease.spent)
        del self._leases[kind]

    def _let_go(self) -> None:
        """At a limit others can use what leases hold, at once. Closing tells what goes wrong here."""
        with suppress(LedgerError):
            self._settle_all()

    def _resize(self, kind: str) -> None:
        """Blocks that last seconds, so that little is lost with a process, and little is asked of the ledger."""
        block, lease = self._blocks.setdefault(kind, FIRST_BLOCK), self._leases.get(kind)
        if lease is None or lease.closing:
            return
        lasted_s = _clock.steady_s() - lease.reservation.started_s
        if lasted_s > _SLOW_S:
            self._blocks[kind] = max(1, block // 2)
        elif lasted_s < _QUICK_S:
            self._blocks[kind] = min(LARGEST_BLOCK, block * 2)

    def _wanted(self, kind: str, need: Mapping[str, int]) -> dict[str, int]:
        seen, block = self._seen[kind], self._blocks[kind]
        return {unit: max(amount, math.ceil(seen[unit] / seen[""] * block)) for unit, amount in need.items()}

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except AnondataError as error:
            log.warning("an account could not be closed: %s", error)
        self.ledger.close()


_ALL: weakref.WeakSet[Account] = weakref.WeakSet()


def _settle_idle(account: weakref.ref[Account]) -> None:
    found = account()
    if found is not None:
        found._settle_if_idle()


def _after_fork() -> None:
    """Leases are the parent's: a child that went on with them would give the same away twice."""
    for account in list(_ALL):
        account._forget()


os.register_at_fork(after_in_child=_after_fork)


def _again(ledger: Ledger, client: str, dataset: str, at_limit: str, policy: str, report: str, ttl_s: int) -> Account:
    return Account(ledger, client, dataset, at_limit=at_limit, policy=policy, report=report, ttl_s=ttl_s)
