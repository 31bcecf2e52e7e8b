"""Facts as a run and an audit leave them: the policy and its gates are real, the counts are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anondata.cards.facts import Bound, Facts, Feature, File, Split
from anondata.policy import load_policy
from anondata.publishing.facts import gates_of, models_of
from anondata.report import Report
from anondata.verifiers.audit import Audit
from anondata.verifiers.audit.attacks import CONTROL, NETWORK_ATTACKERS, FaceTable, attack, attack_measured

MakeFacts = Callable[..., Facts]
NETWORK = "dlib-face-resnet"


@pytest.fixture(scope="session")
def audit() -> dict[str, Any]:
    """The body of an audit of made-up templates, with groups."""
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(24), 2)
    clear = random.normal(size=(24, 8))[owners] + 0.2 * random.normal(size=(48, 8))
    views = {"clear": clear, "anonymized": random.normal(size=clear.shape), "smoothed": clear + 1.5}
    table = FaceTable(np.arange(48), owners, {"gender": ("f", "f", "m", "m") * 12}, {NETWORK: views}, True)
    attacks = [attack(table, NETWORK, name, fars=[0.1, 0.01]) for name in NETWORK_ATTACKERS]
    for name, releases in (("averaging", 50), ("context", 1), ("composite", 1)):
        apart = random.random((48, 48)) + (owners[:, None] != owners) * 0.1
        told = {"fars": [0.1, 0.01], "how": "8 x 8 cells of 1.3 boxes by box", "releases": releases}
        attacks.append(attack_measured(table, name, apart, **told))
    made = Audit(
        {"pairs": 48},
        {"in_originals": 48, "still_detected": 1, "missed": 0, "unchanged_found_by": {}},
        ({"name": NETWORK, "fingerprint": "0f", "role": "gate network", "self_match": None},),
        tuple(attacks),
        (attack(table, NETWORK, CONTROL, fars=[0.1, 0.01]),),
        ("one network only",),
        {"labelled": True, "groups": ["gender"], "fars": [0.1, 0.01], "detectors": {"centerface": ""}},
    )
    return made.to_json()


@pytest.fixture(scope="session")
def report() -> Report:
    policy = load_policy("faces")
    told = {
        "samples": {"seen": 131, "released": 113},
        "withheld": {"undecodable": 11, "still_detected": 7},
        "instead": {"replaced": 5, "dropped": 13},
        "failed": {"self_match(dlib-face-resnet, far=0.01)": 17},
        "notes": {"first_frame_only": 19},
        "regions_per_sample": {"0": 23, "1": 29, "2": 61},
        "regions": {
            "face": {
                "found": 151,
                "by_scan": 31,
                "tiny": 37,
                "spared": 0,
                "rung": {"0": 101, "1": 12, "3": 1, "tiny": 37},
                "technique": {'pixelate {"blocks": 8}': 101, "fill": 50},
                "size_px": {"8": 41, "64": 43, "1024": 67},
            }
        },
        "verdicts": {"self_match(dlib-face-resnet, far=0.01)": {"score": {"0.70": 114}, "threshold": {"0.60": 114}}},
    }
    return Report(policy.name, policy.fingerprint, told)


@pytest.fixture
def make_facts(report: Report, audit: dict[str, Any]) -> MakeFacts:
    """Facts of a publication of two splits, with what is given instead."""
    policy = load_policy("faces")
    whole = Facts(
        title="Street scenes",
        licence="cc-by-4.0",
        policy=policy,
        report=report,
        splits=(Split("train", 103, 90_001), Split("test", 10, 9_002)),
        features=(Feature("image", "image"), Feature("label", {"dtype": {"class_label": {"names": {"0": "a"}}}})),
        files=tuple(
            File(f"data/{name}-00000-of-00001.parquet", digit * 64, size, "application/x-parquet")
            for name, digit, size in (("train", "a", 90_001), ("test", "b", 9_002))
        ),
        gates=tuple(gates_of(policy)),
        models=tuple(models_of(policy, audit)),
        versions={"anondata": "0.1.0", "torch": "2.8.0"},
        created="2026-02-03",
        digest="c" * 64,
        audit=audit,
        bound=Bound(5.0, ("composite",)),
        sealed=True,
        summary="Two cameras.",
        source_datasets=("private", "someone/streets"),
    )
    return lambda **instead: replace(whole, **instead)


@pytest.fixture
def facts(make_facts: MakeFacts) -> Facts:
    return make_facts()
