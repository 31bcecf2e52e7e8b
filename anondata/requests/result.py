"""The result of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = "anondata.request/1"


@dataclass(frozen=True)
class RequestResult:
    """What a client got.

    Args:
        place: the folder.
        client, dataset, content_type: what was asked for.
        asked: how many samples the client asked for.
        granted: how many the quota allowed; fewer than asked only if the client takes what is left.
        delivered: how many were delivered; fewer than granted if no more samples pass.
        seen: how many were anonymized for it.
        withheld: how many of those were not delivered, by reason.
        verdict: the audit's, in one sentence.
        policy, fingerprint, report: what was done, as the ledger's history names it.
        cost: the charge, by unit.
        charged_now: whether this call charged it, and not an earlier one.
    """

    place: Path
    client: str
    dataset: str
    content_type: str
    asked: int
    granted: int
    delivered: int
    seen: int
    withheld: Mapping[str, int]
    verdict: str
    policy: str
    fingerprint: str
    report: str
    cost: Mapping[str, int]
    charged_now: bool

    @property
    def complete(self) -> bool:
        """Whether as many were delivered as were granted."""
        return self.delivered >= self.granted

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self), "place": str(self.place), "complete": self.complete}
