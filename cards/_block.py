"""The machine-readable part of a card: all of its figures, as plain data that YAML holds without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from anondata.cards._limits import unprotected
from anondata.cards._words import sentences
from anondata.cards.facts import Facts

FORMAT = "anondata.card/1"

Json = dict[str, Any]


def block_of(facts: Facts) -> Json:
    """What stands under ``anonymization:`` in the card's YAML."""
    return {
        "format": FORMAT,
        "created": facts.created,
        "sealed": facts.sealed,
        "policy": {
            "name": facts.policy.name,
            "fingerprint": facts.policy.fingerprint,
            "words": sentences(facts.policy),
            "data": facts.policy.model_dump(mode="json"),
        },
        "contents": {
            "digest": facts.digest,
            "files": len(facts.files),
            "bytes": sum(file.size for file in facts.files),
            "splits": [{"name": one.name, "rows": one.rows, "bytes": one.bytes} for one in facts.splits],
        },
        **_done(facts),
        "gates": [asdict(gate) for gate in facts.gates],
        "audit": None if facts.audit is None else _audit(facts.audit),
        "bound": None if facts.bound is None else {**asdict(facts.bound), "attackers": list(facts.bound.attackers)},
        "unprotected": unprotected(facts.policy, facts.report),
        "models": [{k: v for k, v in asdict(model).items() if k != "credit" or v} for model in facts.models],
        "versions": dict(sorted(facts.versions.items())),
    }


def _done(facts: Facts) -> Json:
    """What the run did, from its report."""
    counts = facts.report.counts
    samples = {name: int(counts["samples"][name]) for name in ("seen", "released")}
    instead = {name: int(counts.get("instead", {}).get(name, 0)) for name in ("replaced", "dropped")}
    return {
        "samples": {**samples, "withheld": sum(facts.report.withheld.values()), **instead},
        "withheld": dict(sorted(facts.report.withheld.items())),
        "failed": dict(sorted(counts.get("failed", {}).items())),
        "notes": dict(sorted(counts.get("notes", {}).items())),
        "regions": {kind: _region(one) for kind, one in sorted(counts.get("regions", {}).items())},
        "regions_per_sample": _by_number(counts.get("regions_per_sample", {})),
        "verdicts": {
            name: {side: dict(sorted(one.get(side, {}).items())) for side in ("score", "threshold")}
            for name, one in sorted(counts.get("verdicts", {}).items())
        },
        "galleries": dict(sorted(facts.report.galleries.items())),
    }


def _region(one: Mapping[str, Any]) -> Json:
    whole = {name: int(one.get(name, 0)) for name in ("found", "by_scan", "tiny", "spared")}
    given = int(one.get("given", 0))
    return {
        **whole,
        **({"given": given} if given else {}),  # cards of earlier versions do not tell that there were none
        "rung": dict(sorted(one.get("rung", {}).items())),
        "technique": dict(sorted(one.get("technique", {}).items())),
        "size_px": _by_number(one.get("size_px", {})),
    }


def _by_number(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts[key] for key in sorted(counts, key=int)}


def _audit(audit: Mapping[str, Any]) -> Json:
    """The figures of an audit without its curves."""
    faces = {key: value for key, value in audit["faces"].items() if isinstance(value, int)}
    told: Json = {
        "format": audit["format"],
        "verdict": audit["verdict"],
        "worst": dict(audit["worst"]),
        "labelled": bool(audit["parameters"]["labelled"]),
        "notes": list(audit["notes"]),
        "counts": dict(audit["counts"]),
        "faces": faces,
        "networks": [{key: one[key] for key in ("name", "fingerprint", "role")} for one in audit["networks"]],
        "attacks": [_attack(one) for one in audit["attacks"]],
        "controls": [_attack(one) for one in audit["controls"]],
    }
    return told | ({"anonymized": dict(audit["anonymized"])} if "anonymized" in audit else {})


def _attack(one: Mapping[str, Any]) -> Json:
    names = ("attacker", "network", "gallery", "releases", "how", "probes", "people")
    groups = {column: group and _group(group) for column, group in one.get("worst_group", {}).items()}
    return {
        **{name: one[name] for name in names},
        "rank1": dict(one["rank1"]),
        "rank5": dict(one["rank5"]),
        "tar_at_far": [{"far": at["far"], "tar": at["tar"] and dict(at["tar"])} for at in one["tar_at_far"]],
        "eer": dict(one["eer"]),
        "worst_group": groups,
    }


def _group(group: Mapping[str, Any]) -> Json:
    return {"value": group["value"], "people": group["people"], "rank1": dict(group["rank1"])}
