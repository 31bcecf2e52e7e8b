"""Which limits hold for a delivery, how far they are used, and how much may be granted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from anondata.errors import QuotaExceeded, UnknownClientError
from anondata.ledger import _clock, _tables
from anondata.ledger.values import ALL, ANY, Limit, Scope, Usage

SHARE = 4  # near a limit a lease takes a quarter of what is left, so that those at work share the end


@dataclass(frozen=True)
class Standing:
    """How far a limit is used at a moment by those whom it counts."""

    limit: Limit
    used: int
    reserved: int
    ends_ms: int | None

    @property
    def left(self) -> int | None:
        return None if self.limit.amount is None else max(0, self.limit.amount - self.used - self.reserved)


def stored_limits(connection: Connection, clients: Iterable[str] | None = None) -> list[Limit]:
    """The limits of these clients' names, or all, in a fixed order."""
    table = _tables.limits
    query = select(table)
    if clients is not None:
        query = query.where(table.c.client.in_(sorted(clients)))
    query = query.order_by(*table.primary_key.columns)
    return [Limit(*row) for row in connection.execute(query)]


def applying(limits: Sequence[Limit], client: str) -> list[Limit]:
    """Those that bind a client: its own, defaults that it has no own one for, and those over all clients."""
    own = {limit.terms for limit in limits if limit.client == client}
    return [x for x in limits if x.client in (client, ALL) or (x.client == ANY and x.terms not in own)]


def holding(connection: Connection, scope: Scope) -> list[Limit]:
    """The limits that hold for a delivery. All of them must have room.

    Raises:
        UnknownClientError: when none but those over all clients covers it.
    """
    limits = stored_limits(connection, {scope.client, ANY, ALL})
    found = [limit for limit in applying(limits, scope.client) if limit.covers(scope)]
    if all(limit.client == ALL for limit in found):
        raise UnknownClientError(
            f"no limit covers client {scope.client!r}, dataset {scope.dataset!r} and content type "
            f"{scope.content_type!r}, so nothing is given; `anondata quota set --client {scope.client} …` sets one"
        )
    return found


def standing(connection: Connection, limit: Limit, client: str, now_ms: int) -> Standing:
    """How far a limit is used: by ``client``, or by all of them together."""
    table = _tables.usage
    first, last = _clock.days(limit.window, now_ms)
    query = select(func.coalesce(func.sum(table.c.used), 0), func.coalesce(func.sum(table.c.reserved), 0))
    query = query.where(table.c.unit == limit.unit, table.c.day.between(first, last))
    if limit.client != ALL:
        query = query.where(table.c.client == client)
    if limit.dataset != ANY:
        query = query.where(table.c.dataset == limit.dataset)
    if limit.content_type != ANY:
        query = query.where(table.c.content_type == limit.content_type)
    used, reserved = connection.execute(query).one()
    return Standing(limit, int(used), int(reserved), _clock.end_ms(limit.window, now_ms))


def grants(
    standings: Sequence[Standing], scope: Scope, need: Mapping[str, int], want: Mapping[str, int]
) -> dict[str, int]:
    """By unit, between what is needed and what is wanted: all of it far from a limit, less near one.

    Raises:
        QuotaExceeded: when a limit has no room for what is needed.
    """
    granted = {}
    for unit in need:
        bound = [s for s in standings if s.limit.unit == unit and s.left is not None]
        if not bound:
            granted[unit] = want[unit]
            continue
        tightest = min(bound, key=lambda s: (s.left or 0, -(s.ends_ms or 2**62)))
        left = tightest.left or 0
        if need[unit] > left:
            raise _exceeded(tightest, scope, need[unit])
        granted[unit] = max(need[unit], min(want[unit], left // SHARE))
    return granted


def _exceeded(standing: Standing, scope: Scope, need: int) -> QuotaExceeded:
    renews_at = None if standing.ends_ms is None else _clock.at(standing.ends_ms)
    usage = Usage(standing.limit, scope.client, standing.used, standing.reserved, renews_at)
    return usage.exceeded(scope, f"so {need} more of {scope.dataset!r} cannot be given to {scope.client!r}")
