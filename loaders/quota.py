"""Whom an adapter's deliveries are charged to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from anondata.errors import PolicyError

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.ledger import Account, Ledger

UNNAMED = "unnamed"


class Quota(TypedDict, total=False):
    """Keywords of every adapter. What an adapter delivers is charged before it is delivered.

    Args:
        client: who receives it.
        ledger: a :class:`~anondata.ledger.Ledger`, or its file or URL. Give both of these, or neither.
        dataset_name: what limits call the dataset; by default ``"unnamed"``, which limits on all datasets cover.
        at_limit: ``"raise"`` :class:`~anondata.errors.QuotaExceeded`, or ``"stop"`` the iteration.

    A withheld sample is not charged, one that stands in for it is. What is asked for again is charged again: each
    epoch costs as much as the one before. What workers of a DataLoader read ahead counts as delivered.
    """

    client: str
    ledger: Ledger | str | Path
    dataset_name: str
    at_limit: Literal["raise", "stop"]


def account_of(quota: Quota, anonymizer: Anonymizer, *, may_stop: bool = True) -> Account | None:
    """The account that deliveries are charged to; None if nobody asked for one. Opens nothing.

    Args:
        quota: the caller's keywords.
        anonymizer: its policy and run key are noted beside each delivery.
        may_stop: whether the adapter can end early. A view cannot, because it has a length.

    Raises:
        TypeError: a keyword is unknown.
        PolicyError: a client without a ledger, or the other way round.
        LimitError: a name that a ledger cannot hold.
    """
    if unknown := sorted(set(quota) - set(Quota.__annotations__)):
        raise TypeError(f"unexpected keyword {unknown[0]!r}")
    client, ledger = quota.get("client"), quota.get("ledger")
    if client is None and ledger is None:
        if quota:
            raise PolicyError("dataset_name and at_limit need client= and ledger=")
        return None
    if client is None or ledger is None:
        raise PolicyError("client= and ledger= belong together: whom to charge, and where that is kept")
    at_limit = quota.get("at_limit", "raise")
    if at_limit == "stop" and not may_stop:
        raise PolicyError("at_limit is 'stop', but this has a length, and cannot end before it; take 'raise'")
    from anondata.ledger import Account, Ledger

    return Account(
        ledger if isinstance(ledger, Ledger) else Ledger(ledger),
        client,
        quota.get("dataset_name", UNNAMED),
        at_limit=at_limit,
        policy=anonymizer.policy.fingerprint,
        report=anonymizer.name("report"),
    )
