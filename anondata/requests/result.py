"""What comes of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = "anondata.request/1"


@dataclass(frozen=True)
class RequestResult:
    """What a client got.

    place: the folder. asked, granted, delivered: numbers of samples: fewer are granted only where the client takes
    what is left, and fewer delivered where there are no more. seen: how many were anonymized for it. withheld: how
    many of those were not delivered, by reason. verdict: of the audit. policy, fingerprint, report: what was done,
    as the ledger's history names it. cost: what it is charged as. charged_now: by this call, not by an earlier one.
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
