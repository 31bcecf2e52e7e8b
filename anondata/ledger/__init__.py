"""The ledger: never more to a client than was agreed, by dataset and content type, over processes and machines.

::

    ledger = Ledger("quotas.db")                                      # or postgresql://user@host/database
    ledger.set_limit(Limit("acme", content_type="image", window="day", amount=1000))
    with ledger.account("acme", "faces-2024") as account:
        if account.charge([cost_of(fields, schema, record)]):
            ...                                                       # deliver it

What may be given is reserved first, in leases. What is settled counts as it was delivered; a lease that nobody
settles in time counts as wholly used. So a crash can cost a client something, and never gives it more.

Every change is an entry of a history whose hashes form a chain. Who keeps a head of it elsewhere can show later that
it was not rewritten; who can write the database and knows no such head can make any history.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anondata.ledger.costs import cost_of
from anondata.ledger.values import ALL, ANY, UNITS, WINDOWS, Entry, Limit, Scope, Usage, Verification

if TYPE_CHECKING:
    from anondata.ledger._ledger import Ledger, Reservation
    from anondata.ledger.account import Account

__all__ = [
    "ALL",
    "ANY",
    "UNITS",
    "WINDOWS",
    "Account",
    "Entry",
    "Ledger",
    "Limit",
    "Reservation",
    "Scope",
    "Usage",
    "Verification",
    "cost_of",
]

# Loaded on first use: who only counts what samples cost need not wait for SQLAlchemy.
_HOME = {
    "Account": "anondata.ledger.account",
    "Ledger": "anondata.ledger._ledger",
    "Reservation": "anondata.ledger._ledger",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anondata.ledger' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
