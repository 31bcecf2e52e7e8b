"""Every preset that is not called unsafe hides faces from an attacker who uses no network, through the engine."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from math import comb
from pathlib import Path

import pytest
import torch

from anondata import Anonymizer, Released
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import WeightsError
from anondata.models.registry import locate
from anondata.policy import UNSAFE, load_policy, presets
from anondata.randomness import RunKey
from anondata.transforms import RegionTransform, describe
from anondata.verifiers.audit import PhotoPair, audit
from anondata.verifiers.embedders import DlibEmbedder

PEOPLE = 24
KEY = RunKey(b"a key of the tests, no secret")
ABOVE_CHANCE = 0.03
LUCK = 0.01  # how often a preset that holds would fail here, if its draws were not always the same


def first_rung(preset: str) -> RegionTransform:
    technique: RegionTransform = load_policy(preset).content["image"].regions["face"].ladder[0].make()
    return technique


def by_rung() -> dict[str, list[str]]:
    """Presets for faces by what they do first: those that do the same are measured once."""
    out: dict[str, list[str]] = {}
    for name in presets():
        if "face" in load_policy(name).content["image"].regions:
            out.setdefault(describe(first_rung(name)), []).append(name)
    return out


def most_by_luck(probes: int, rate: float) -> int:
    """The most hits that so many probes have at this rate but for :data:`LUCK`."""
    tail, hits = 1.0, -1
    while tail > LUCK:
        hits += 1
        tail -= comb(probes, hits) * rate**hits * (1 - rate) ** (probes - hits)
    return hits


def test_luck_is_binomial() -> None:
    assert (most_by_luck(48, 1 / 24 + ABOVE_CHANCE), most_by_luck(48, 0.0), most_by_luck(1, 1.0)) == (8, 0, 1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("names", by_rung().values(), ids=lambda names: names[0])
def test_a_matched_filter_guesses(shared_data: Path, names: list[str]) -> None:
    """Of 48 photos of 24 people no more are named than chance and three points explain; of unsafe ones many are."""
    technique = first_rung(names[0])
    for network in technique.networks:
        try:
            locate(network)
        except WeightsError:
            pytest.skip(f"the weights {network} are not here")
    with (shared_data / "faces_london/metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))[: 2 * PEOPLE]
    photos = [(shared_data / "faces_london" / row["file_name"]).read_bytes() for row in rows]
    made = Anonymizer(min(names, key=len), run_key=KEY)
    results = [
        outcome.sample["image"]
        for outcome in made.anonymize(photos, keys=[row["file_name"] for row in rows])
        if isinstance(outcome, Released)
    ]
    assert len(results) == len(photos)
    pairs = [PhotoPair(a, b, row["identity"]) for a, b, row in zip(photos, results, rows, strict=True)]
    looks = {"embedders": [DlibEmbedder()], "detectors": {"centerface": CenterFaceDetector(0.35)}}
    [found] = audit(pairs, attackers=["matched-filter"], **looks).attacks  # type: ignore[arg-type]  # two kinds
    assert (found.probes, found.chance[0]) == (2 * PEOPLE, pytest.approx(1 / PEOPLE))
    hits, most = found.rank1.value * found.probes, most_by_luck(found.probes, 1 / PEOPLE + ABOVE_CHANCE)
    if any(name.startswith(UNSAFE) for name in names):
        assert hits > 2 * most
    else:
        assert hits <= most
