"""Run reports: counts and histograms of what was done; they add up over workers, shards and machines."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from anondata.errors import ReportError
from anondata.policy import Policy
from anondata.records import Outcome, RegionRecord, Withheld

FORMAT = "anondata.report/1"
SCORE_STEP = 0.05  # width of a bin of a verifier's score histogram, in the verifier's unit
SIZE_EDGES_PX = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


@dataclass(frozen=True)
class Report:
    """What a run did, in numbers. Holds no name, no pixel and no score of a single sample.

    Args:
        policy, fingerprint: the policy's.
        galleries: fingerprints of the galleries that the run used, by name.
        counts: nested mappings whose leaves are whole numbers, see below.

    * ``samples``: ``seen`` and ``released``; ``withheld``: by reason; ``notes``: by word, over all samples
    * ``instead``, of the withheld samples: ``replaced`` by another one that was released, or ``dropped``
    * ``failed``: by verifier, how many regions of withheld samples it did not pass
    * ``regions``, of the released samples: by kind, ``found``, ``given``, ``by_scan``, ``tiny``, ``spared``,
      of which ``denied`` were marked as not a face, ``rung`` (by index), ``technique``, ``size_px`` (by lower edge)
    * ``regions_per_sample``: how many released samples held how many regions
    * ``verdicts``: by verifier, histograms of ``score`` after and of ``threshold``, which may be a sample's own
    """

    policy: str
    fingerprint: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    galleries: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Report) -> Report:
        """The report of both runs.

        Raises:
            ReportError: the runs followed different policies, or used different galleries.
        """
        if not isinstance(other, Report):
            return NotImplemented
        if self.fingerprint != other.fingerprint:
            raise ReportError(
                f"reports of different policies cannot be merged: {self.fingerprint} and {other.fingerprint}"
            )
        if self.galleries != other.galleries:
            raise ReportError("reports of runs with different galleries cannot be merged")
        return replace(self, counts=_sum(self.counts, other.counts))

    def with_instead(self, *, replaced: int = 0, dropped: int = 0) -> Report:
        """This report with a count of what consumers got instead of withheld samples."""
        return replace(self, counts=_sum(self.counts, {"instead": {"replaced": replaced, "dropped": dropped}}))

    @property
    def setting(self) -> str:
        """32 hexadecimal digits over the policy and the galleries. Results can be mixed if these agree."""
        text = f"{self.fingerprint} {sorted(self.galleries.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def seen(self) -> int:
        return int(self.counts.get("samples", {}).get("seen", 0))

    @property
    def released(self) -> int:
        return int(self.counts.get("samples", {}).get("released", 0))

    @property
    def withheld(self) -> Mapping[str, int]:
        """How many samples were withheld, by reason."""
        return dict(self.counts.get("withheld", {}))

    def to_json(self) -> str:
        body: dict[str, Any] = {"format": FORMAT, "policy": self.policy, "fingerprint": self.fingerprint}
        return (
            json.dumps({**body, "galleries": dict(self.galleries), "counts": self.counts}, indent=2, sort_keys=True)
            + "\n"
        )


def empty_report(policy: Policy, galleries: Mapping[str, str] | None = None) -> Report:
    """The report of no samples. galleries: fingerprints by name."""
    return Report(policy.name, policy.fingerprint, {"samples": {"seen": 0, "released": 0}}, galleries or {})


def report_of(policy: Policy, outcomes: Iterable[Outcome], galleries: Mapping[str, str] | None = None) -> Report:
    """The report of some outcomes. galleries: fingerprints by name."""
    total = empty_report(policy, galleries)
    for outcome in outcomes:
        total = total + replace(total, counts=_counts(outcome))
    return total


def from_json(text: str) -> Report:
    """A report from its JSON form.

    Raises:
        ReportError: the text is not a report, or of another format.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ReportError(f"the report's format is {data['format']!r}, expected {FORMAT!r}")
        _check(data["counts"])
        galleries = {str(name): str(value) for name, value in data.get("galleries", {}).items()}
        return Report(str(data["policy"]), str(data["fingerprint"]), data["counts"], galleries)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(f"not a report: {type(error).__name__}") from error


def _check(counts: Any) -> None:
    if isinstance(counts, dict):
        for value in counts.values():
            _check(value)
    elif isinstance(counts, bool) or not isinstance(counts, int) or counts < 0:
        raise ReportError("a report's counts must be whole numbers, not negative")


def _counts(outcome: Outcome) -> dict[str, Any]:
    notes = dict.fromkeys(outcome.record.notes, 1)
    if isinstance(outcome, Withheld):
        verdicts = (v for r in outcome.record.regions for verdict in r.verdicts for v in verdict.leaves())
        failed = Counter(v.verifier for v in verdicts if not v.passed)
        samples = {"seen": 1, "released": 0}
        return {"samples": samples, "withheld": {outcome.reason: 1}, "notes": notes, "failed": dict(failed)}
    counts: dict[str, Any] = {
        "samples": {"seen": 1, "released": 1},
        "notes": notes,
        "regions_per_sample": {str(len(outcome.record.regions)): 1},
    }
    for region in outcome.record.regions:
        counts = _sum(counts, _region(region))
    return counts


def _region(region: RegionRecord) -> dict[str, Any]:
    edge = max((e for e in SIZE_EDGES_PX if e <= region.size_px), default=0)
    kind: dict[str, Any] = {
        "found": 1,
        "given": int(region.found_by == "given"),
        "by_scan": int(region.found_by == "scan"),
        "tiny": int(region.tiny),
        "spared": int(region.spared),
        "size_px": {str(edge): 1},
    }
    if region.denied:
        kind["denied"] = 1
    if not region.spared:
        kind |= {"rung": {"tiny" if region.tiny else str(region.rung): 1}, "technique": {region.technique: 1}}
    verdicts: dict[str, Any] = {}
    for verdict in (leaf for v in region.verdicts for leaf in v.leaves()):
        told = {"threshold": {_bin(verdict.threshold): 1}, "score": {_bin(verdict.score_after): 1}}
        verdicts = _sum(verdicts, {verdict.verifier: told})
    return {"regions": {region.kind: kind}, "verdicts": verdicts}


def _bin(score: float) -> str:
    return f"{math.floor(score / SCORE_STEP) * SCORE_STEP:.2f}" if math.isfinite(score) else "none"


def _sum(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Adds nested counts, leaf by leaf."""
    out = dict(a)
    for key, value in b.items():
        if isinstance(value, Mapping):
            out[key] = _sum(out.get(key, {}), value)
        else:
            out[key] = out.get(key, 0) + value
    return out
