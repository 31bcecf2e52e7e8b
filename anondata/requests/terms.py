"""What a request asks for, settled with the catalog and the ledger before any sample is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anondata.components import suggest
from anondata.errors import PolicyError, RequestError, UnknownClientError
from anondata.ledger.values import ALL, Scope
from anondata.requests.catalog import Catalog, CatalogEntry
from anondata.samples import INSIGHTS, Schema, declare

if TYPE_CHECKING:
    from anondata.ledger import Ledger, Usage
    from anondata.policy import Policy
    from anondata.randomness import RunKey

_NAMES = ("insights", "anondata_insights")  # of the column of insights: the first that no column has


@dataclass(frozen=True)
class Asked:
    """The request as the client puts it. where: by column, the value that rows must have."""

    client: str
    dataset: str
    n: int
    content_type: str | None = None
    where: Mapping[str, str] = field(default_factory=dict, repr=False)
    insights: bool = True
    as_many_as_there_are: bool = False


@dataclass(frozen=True)
class Terms:
    """A request that its dataset's entry allows, and how it is met."""

    asked: Asked
    entry: CatalogEntry
    content_type: str
    policy: Policy
    galleries: Mapping[str, Path]
    catalog: Catalog = field(repr=False)

    @property
    def scope(self) -> Scope:
        return Scope(self.asked.client, self.asked.dataset, self.content_type)

    @cached_property
    def schema(self) -> Schema:
        """Every column as it is declared; content of types that were not asked for is dropped, with its regions."""
        whose = Schema(self.entry.fields).regions()
        asked = {name for name, kind in self.entry.fields.items() if kind == self.content_type}
        wanted = {name: kind for name, kind in self.entry.fields.items() if whose.get(name, name) in asked}
        others = [name for name in self.entry.fields if name not in wanted]
        told = {name: INSIGHTS for name in [self.insights] if name}
        return declare({**wanted, **told}, self.entry.keep, [*self.entry.drop, *others])

    @property
    def insights(self) -> str | None:
        """The name of the column of insights, None where none was asked for."""
        taken = (*self.entry.fields, *self.entry.keep, *self.entry.drop)
        return next((name for name in _NAMES if name not in taken), None) if self.asked.insights else None

    def key(self, base: RunKey) -> RunKey:
        """The run key of just this request: nothing that another request began or delivered fits it."""
        from anondata.randomness import RunKey

        told = {
            "request": [self.scope.client, self.scope.dataset, self.content_type, self.asked.n],
            "where": sorted(self.asked.where.items()),
            "options": [self.insights, self.asked.as_many_as_there_are],
            "entry": self.entry.model_dump(mode="json", exclude={"clients"}),
            "policy": self.policy.fingerprint,
            "place": str(self.catalog.folder),
        }
        return RunKey(base.digest("request", json.dumps(told, sort_keys=True)))


def terms_of(catalog: Catalog, asked: Asked, own_code: Iterable[str] = ()) -> Terms:
    """The terms of a request, if the catalog allows it.

    Raises:
        RequestError: the client may ask for no such dataset or content type, or ``n`` is no number of samples, or
            what its policy would make could not be delivered.
        PolicyError: the policy cannot be read. LimitError: no client can have this name.
    """
    Scope(asked.client, "any", "any")
    if isinstance(asked.n, bool) or not isinstance(asked.n, int) or asked.n < 1:
        raise RequestError("n is the number of samples that are asked for; expected a whole number, at least 1")
    entry = catalog.entry(asked.dataset, asked.client)
    kind = _content_type(entry, asked)
    for column in asked.where:
        _check_where(entry, column)
    galleries = {name: catalog.path(place) for name, place in entry.galleries.items()}
    return Terms(asked, entry, kind, _policy(catalog, entry, kind, own_code), galleries, catalog)


def _content_type(entry: CatalogEntry, asked: Asked) -> str:
    known = entry.content_types
    if asked.content_type is None:
        if len(known) == 1:
            return known[0]
        raise RequestError(f"dataset {asked.dataset!r} has several content types; ask for one of {', '.join(known)}")
    if asked.content_type not in known:
        hint = suggest(asked.content_type, dict.fromkeys(known))
        raise RequestError(f"dataset {asked.dataset!r} has no content type {asked.content_type!r}; {hint}")
    return asked.content_type


def _check_where(entry: CatalogEntry, column: str) -> None:
    """Only kept columns: to choose by a dropped one would tell its value for each sample that comes."""
    if column in entry.fields:
        raise RequestError(f"column {column!r} holds content; samples are chosen by kept columns alone")
    if column not in entry.keep:
        hint = suggest(column, dict.fromkeys(entry.keep)) if entry.keep else "it has none to choose by"
        raise RequestError(f"the dataset has no kept column {column!r} to choose by; {hint}")


def _policy(catalog: Catalog, entry: CatalogEntry, kind: str, own_code: Iterable[str]) -> Policy:
    """The policy of a content type, if what it makes can be delivered."""
    from anondata.policy import load_policy
    from anondata.verifiers.audit.attacks import NEED_IDENTITIES

    named = entry.policy[kind]
    place = catalog.path(named) if named.endswith((".yaml", ".yml")) else named
    policy = load_policy(place, own_code=own_code)
    if kind not in policy.content:
        raise PolicyError(f"policy {policy.name} has no rules for the content type {kind!r}")
    if policy.audit is None:
        raise RequestError(
            f"policy {policy.name} sets no bound for what is delivered; write `audit: {{above_chance: 5, attackers: "
            "[composite]}` into it, with the most percentage points above chance that you answer for"
        )
    if entry.identity is None and set(policy.audit.attackers) & NEED_IDENTITIES:
        raise RequestError(
            f"policy {policy.name} demands attackers that need to know who is in a picture; name the column that "
            "says it as `identity:` of the dataset"
        )
    return policy


# --- quota --------------------------------------------------------------------------------------------------------


def left_for(ledger: Ledger, scope: Scope) -> int | None:
    """How many samples a client may still receive; None is any number.

    Raises:
        UnknownClientError: no limit covers it, so it gets nothing. LedgerError: the ledger cannot be read.
    """
    bound = _binding(ledger, scope)
    amounts = [0 if _is_used_up(usage) else usage.left for usage in bound]
    return min((left for left in amounts if left is not None), default=None)


def grant(ledger: Ledger, scope: Scope, asked: Asked) -> int:
    """How many samples the request may have, by what is left now. Reserves nothing: the charge is what counts.

    Raises:
        QuotaExceeded: fewer are left than were asked for, or none. UnknownClientError, LedgerError.
    """
    left = left_for(ledger, scope)
    if left is None or left >= asked.n:
        return asked.n
    if left and asked.as_many_as_there_are:
        return left
    tightest = min(_binding(ledger, scope), key=lambda usage: (not _is_used_up(usage), _samples_left(usage)))
    hint = "; --as-many-as-there-are takes what is left" if left else ""
    raise tightest.exceeded(scope, f"{tightest.left} are left, and {asked.n} samples were asked for{hint}")


def _binding(ledger: Ledger, scope: Scope) -> list[Usage]:
    """How far the limits of samples are used that must have room, and those of other units with none left."""
    found = [usage for usage in ledger.usage(scope.client) if usage.limit.covers(scope)]
    if all(usage.limit.client == ALL for usage in found):
        raise UnknownClientError(
            f"no limit covers client {scope.client!r}, dataset {scope.dataset!r} and content type "
            f"{scope.content_type!r}, so nothing is given; `anondata quota set --client {scope.client} …` sets one"
        )
    return [usage for usage in found if usage.limit.unit == "samples" or _is_used_up(usage)]


def _is_used_up(usage: Usage) -> bool:
    """Whether nothing more can come: every sample has bytes, but not every one has faces or lasts seconds."""
    return usage.left == 0 and usage.limit.unit in ("samples", "bytes")


def _samples_left(usage: Usage) -> int:
    return usage.left if usage.left is not None and usage.limit.unit == "samples" else 2**63
