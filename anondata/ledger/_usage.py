"""How far limits are used, for people who look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection, select, union

from anondata.ledger import _clock, _rules, _tables
from anondata.ledger._rules import Standing
from anondata.ledger.values import ALL, ANY, Limit, Scope, Usage


def usages(connection: Connection, client: str | None) -> list[Usage]:
    """Of the limits that bind a client, or of all, for each client that is known."""
    latest_ms = connection.execute(select(_tables.head.c.latest_ms)).scalar_one()
    now_ms = _clock.not_before(_clock.database_ms(connection), int(latest_ms))
    limits = _rules.stored_limits(connection)
    pairs = [(limit, client) for limit in _rules.applying(limits, client)] if client else _pairs(connection, limits)
    return [_usage(connection, limit, who, now_ms) for limit, who in pairs]


def _pairs(connection: Connection, limits: list[Limit]) -> list[tuple[Limit, str]]:
    names = union(select(_tables.usage.c.client), select(_tables.limits.c.client))
    clients = sorted({*connection.execute(names).scalars()} - {ANY, ALL})
    bound = [(limit, client) for client in clients for limit in _rules.applying(limits, client)]
    pairs = [(limit, client) for limit, client in bound if limit.client != ALL]
    waiting = [limit for limit in limits if limit.client == ANY and limit not in {limit for limit, _ in pairs}]
    return [*pairs, *((limit, ANY) for limit in waiting), *((limit, ALL) for limit in limits if limit.client == ALL)]


def _usage(connection: Connection, limit: Limit, client: str, now_ms: int) -> Usage:
    found = _with_expired(connection, _rules.standing(connection, limit, client, now_ms), client, now_ms)
    renews_at = None if found.ends_ms is None else _clock.at(found.ends_ms)
    return Usage(limit, ALL if limit.client == ALL else client, found.used, found.reserved, renews_at)


def _with_expired(connection: Connection, standing: Standing, client: str, now_ms: int) -> Standing:
    """Leases that expired count as used already, though the next who writes will settle them."""
    limit = standing.limit
    first, last = _clock.days(limit.window, now_ms)
    gone = sum(
        granted.get(limit.unit, 0)
        for scope, day, granted in _expired(connection, now_ms)
        if first <= day <= last and limit.covers(scope) and (limit.client == ALL or scope.client == client)
    )
    return replace(standing, used=standing.used + gone, reserved=standing.reserved - gone)


def _expired(connection: Connection, now_ms: int) -> Iterator[tuple[Scope, int, dict[str, int]]]:
    table = _tables.reservations
    for row in connection.execute(select(table).where(table.c.expires_ms <= now_ms)):
        yield Scope(row.client, row.dataset, row.content_type), row.day, json.loads(row.granted)
