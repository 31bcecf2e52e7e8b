"""Attackers who know all but the run key, on made-up faces whose strength is known by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from anondata.regions import USUAL_LANDMARKS, Regions
from anondata.transforms import Fill, GaussianBlur, Pixelate, SyntheticFace
from anondata.verifiers.audit import crops, learning
from anondata.verifiers.audit.attackers import (
    Averaging,
    Context,
    MatchedFilter,
    OfOnePerson,
    Place,
    Trained,
    attackers_of,
)
from anondata.verifiers.audit.attacks import FaceTable
from anondata.verifiers.audit.composite import attack_knowing
from anondata.verifiers.audit.crops import REACH, SIDE_PX, cells, crops_of, face_area, side_of
from anondata.verifiers.audit.evidence import FOLDS, Evidence, Way, best_of, even, named
from anondata.verifiers.audit.rerun import RELEASES, releases_of, rerun, runs

PEOPLE = 24
BOX = slice(round(SIDE_PX * (1 - 1 / REACH) / 2), round(SIDE_PX * (1 + 1 / REACH) / 2))
COVER = slice(round(SIDE_PX * (1 - 1.5 / REACH) / 2), round(SIDE_PX * (1 + 1.5 / REACH) / 2))
Change = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def faces(people: int = PEOPLE, photos: int = 2, seed: int = 0) -> np.ndarray:
    """``(people * photos, 3, S, S)``: each person has a pattern of 11 x 11 cells, each photo some change of it."""
    random = np.random.default_rng(seed)
    who = random.normal(size=(people, 3, 11, 11)).repeat(photos, axis=0)
    drawn = 0.5 + 0.1 * who + 0.05 * random.normal(size=who.shape)
    return np.kron(drawn, np.ones((1, 1, SIDE_PX // 11, SIDE_PX // 11))).clip(0, 1).astype(np.float32)


def evidence_of(change: Change, *, photos: int = 2, people: int = PEOPLE, **known: Any) -> Evidence:
    before = faces(people, photos)
    after = change(np.random.default_rng(7), before.copy())
    owners = np.repeat(np.arange(people), photos)
    table = FaceTable(np.arange(len(owners)), owners, {}, {}, True)
    sides = {"box": before, "landmarks": before}, {"box": after, "landmarks": after}
    return Evidence(table, *sides, **known)


def weak(random: np.random.Generator, crop: np.ndarray, *, contrast: float = 0.2, noise: float = 0.1) -> np.ndarray:
    """What a low contrast under noise of each cell leaves of the cover."""
    shape = (len(crop), 3, 11, 11)
    drawn = np.kron(noise * random.normal(size=shape), np.ones((1, 1, SIDE_PX // 11, SIDE_PX // 11)))
    changed = (0.5 + contrast * (crop - 0.5) + drawn).astype(np.float32)
    crop[..., COVER, COVER] = changed[..., COVER, COVER]
    return crop


def grey(random: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    crop[..., COVER, COVER] = 0.5
    return crop


def rank1(evidence: Evidence, attacker: Any) -> float:
    found = best_of(list(attacker.ways(evidence)), evidence)
    return float(np.nanmean(named(found.distances, evidence.table.owners, evidence.allowed)))


# --- what each of them sees --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attacker", [MatchedFilter(), Trained()])
def test_untouched_faces_are_named_and_a_grey_cover_hides_them(attacker: Any) -> None:
    assert rank1(evidence_of(lambda random, crop: crop), attacker) >= 0.9
    assert rank1(evidence_of(grey), attacker) <= 1 / PEOPLE + 0.06


def test_a_matched_filter_sees_through_low_contrast_and_noise() -> None:
    assert rank1(evidence_of(lambda random, crop: weak(random, crop, contrast=0.4)), MatchedFilter()) >= 0.6


def test_noise_alone_names_nobody() -> None:
    evidence = evidence_of(lambda random, crop: weak(random, crop, contrast=0.0))
    assert rank1(evidence, MatchedFilter()) <= 1 / PEOPLE + 0.08


def test_averaging_takes_noise_away() -> None:
    random = np.random.default_rng(3)
    draws = [weak(random, faces(), contrast=0.06) for _ in range(50)]
    means = {n: np.mean(draws[:n], axis=0) for n in (2, 50)}
    known = {"technique": Pixelate(8, 0.1, 0.06, coverage=1.5), "means": means, "singles": np.stack(draws[:3], 1)}
    known["singles"] = (known["singles"] * 255).round().astype(np.uint8)
    evidence = evidence_of(lambda r, crop: weak(r, crop, contrast=0.06), **known)
    assert evidence.releases == (2, 50)
    one, many = rank1(evidence, MatchedFilter()), rank1(evidence, Averaging(50))
    assert many >= one + 0.3
    assert {a.releases for a in attackers_of(evidence) if isinstance(a, Averaging)} == {2, 50}


def test_photos_of_one_person_average_noise_away_too() -> None:
    evidence = evidence_of(lambda random, crop: weak(random, crop, contrast=0.15), photos=8, people=16)
    assert rank1(evidence, OfOnePerson()) >= rank1(evidence, MatchedFilter()) + 0.1
    assert list(OfOnePerson().ways(evidence_of(grey))) == []  # two photos each: nothing to average


def test_place_knows_who_has_their_own_place_and_no_more() -> None:
    random = np.random.default_rng(3)
    own = random.normal(size=(PEOPLE, 4)).repeat(2, axis=0)
    near, anywhere = own + 0.02 * random.normal(size=own.shape), random.normal(size=own.shape)
    evidence = evidence_of(grey)
    assert rank1(replace(evidence, places=near), Place()) >= 0.9
    assert rank1(replace(evidence, places=anywhere), Place()) <= 0.15
    assert list(Place().ways(evidence)) == []  # not known
    assert list(Place().ways(replace(evidence, places=np.ones_like(own)))) == []  # all alike: it tells nothing
    attacks = {
        a.attacker: a for a in attack_knowing(replace(evidence, places=near), {"place", "composite"}, fars=[0.1])
    }
    assert attacks["place"].rank1.value >= 0.9
    assert attacks["composite"].rank1.value <= 0.15  # it is not of what is covered


def test_context_sees_what_is_around_and_nobody_else_does() -> None:
    evidence = evidence_of(grey, technique=Fill(coverage=1.5))
    assert rank1(evidence, Context()) >= 0.9
    hidden = {"box": np.full_like(evidence.after["box"], 0.5)}
    assert rank1(replace(evidence, after=hidden), Context()) <= 1 / PEOPLE + 0.01
    attacks = {one.attacker: one for one in attack_knowing(evidence, {"context", "composite"}, fars=[0.1])}
    assert attacks["context"].rank1.value >= 0.9
    assert attacks["composite"].rank1.value <= 1 / PEOPLE + 0.08


def test_what_a_cover_leaves_of_the_face_counts_and_is_no_context() -> None:
    def small(random: np.random.Generator, crop: np.ndarray) -> np.ndarray:
        crop[..., BOX, BOX] = 0.5  # hair and chin within 1.3 boxes stay
        return crop

    assert rank1(evidence_of(small), MatchedFilter()) >= 0.9


# --- learnt on others --------------------------------------------------------------------------------------------


def test_a_filter_never_learns_on_the_people_that_it_is_tried_on() -> None:
    evidence = evidence_of(weak)
    after = evidence.after["box"].reshape(48, -1)[:, ::50].astype(np.float64)
    before = evidence.before["box"].reshape(48, -1)[:, ::50].astype(np.float64)
    whole = learning.whitened(after, before, evidence)
    row = 5  # somebody's result; nobody else's of the same part of the people may change with it
    other = after.copy()
    other[row] += 1.0
    changed = learning.whitened(other, before, evidence)
    same = evidence.folds == evidence.folds[row]
    same[row] = False
    assert same.sum() > 2
    assert np.allclose(whole[same], changed[same])
    assert not np.allclose(whole[~same], changed[~same])


def test_lessons_leave_out_the_photos_that_are_tried() -> None:
    evidence = evidence_of(grey, photos=3)
    tried = np.zeros(len(evidence), dtype=int)
    for lesson in learning.lessons(evidence):
        assert not (lesson.train & lesson.tried).any()
        kept = lesson.train[evidence.folds == evidence.folds[lesson.tried][0]]
        assert 0 < kept.sum() < len(kept)  # other photos of the same people are the attacker's to learn from
        tried += lesson.tried
    assert (tried == 1).all()


def test_the_best_of_many_guessers_guesses() -> None:
    """Choosing on one half and judging on the other: the maximum of forty guesses would be three times chance."""
    evidence, found, best = evidence_of(grey), [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        ways = [Way(f"{i}", random.random((48, 48))) for i in range(40)]
        rates = [np.nanmean(named(way.distances, evidence.table.owners, evidence.allowed)) for way in ways]
        best.append(max(rates))
        found.append(np.nanmean(named(best_of(ways, evidence).distances, evidence.table.owners, evidence.allowed)))
    assert np.mean(best) >= 2.5 / PEOPLE
    assert np.mean(found) <= 1.4 / PEOPLE


def test_the_way_that_works_is_found() -> None:
    evidence = evidence_of(grey)
    random = np.random.default_rng(0)
    own = evidence.table.owners[:, None] == evidence.table.owners
    ways = [Way("a guess", random.random((48, 48))), Way("it", random.random((48, 48)) + 0.6 * ~own)]
    found = best_of(ways, evidence)
    assert found.how == "it"
    assert np.nanmean(named(found.distances, evidence.table.owners, evidence.allowed)) >= 0.4


def test_few_people_have_no_halves_and_nobody_comparable_gives_nothing() -> None:
    few = evidence_of(grey, people=3)
    ways = [Way("a", np.random.default_rng(0).random((6, 6)))]
    assert np.isfinite(best_of(ways, few).distances).any()
    assert rank1(few, MatchedFilter()) <= 1
    lone = evidence_of(grey, photos=1)
    assert not np.isfinite(best_of([Way("a", np.zeros((24, 24)))], lone).distances[np.eye(24, dtype=bool)]).any()


def test_ties_are_guesses_and_nan_is_nobody() -> None:
    owners, allowed = np.array([0, 0, 1, 1]), ~np.eye(4, dtype=bool)
    assert named(np.zeros((4, 4)), owners, allowed).tolist() == pytest.approx([1 / 3] * 4)
    distances = np.array([[np.nan, np.nan, 1, 1]] + [[0.0, 1, 2, 3]] * 3)
    assert np.isnan(named(distances, owners, allowed)[0])
    assert np.isnan(even(np.full((4, 4), np.nan), allowed)).all()
    assert np.nan_to_num(even(np.ones((4, 4)), allowed)).tolist() == np.zeros((4, 4)).tolist()


def test_a_constant_picture_is_no_division_by_nothing() -> None:
    flat = evidence_of(lambda random, crop: np.full_like(crop, 0.25))
    for attacker in (MatchedFilter(), Trained()):
        assert rank1(flat, attacker) <= 1 / PEOPLE + 0.01
    blank = np.full_like(flat.before["box"], 0.5)
    alike = replace(flat, before={"box": blank, "landmarks": blank})
    assert rank1(alike, MatchedFilter()) == pytest.approx(1 / PEOPLE)


# --- crops and areas ---------------------------------------------------------------------------------------------


def test_the_cover_is_seen_in_pictures_or_told_by_the_technique() -> None:
    seen, told = evidence_of(grey), evidence_of(grey, technique=Fill(coverage=1.5))
    for evidence in (seen, told):
        assert side_of(evidence.covered) == pytest.approx(1.5 * crops.INNER, abs=0.1)
        assert not (evidence.around & evidence.seen).any()
    assert side_of(evidence_of(lambda random, crop: crop).covered) == 0
    assert side_of(face_area()) == pytest.approx(crops.FACE, abs=0.06)


def test_cells_are_means_of_what_is_looked_at() -> None:
    crop = np.zeros((1, 3, SIDE_PX, SIDE_PX), dtype=np.float32)
    crop[..., : SIDE_PX // 2] = 1.0
    half = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    half[:, : SIDE_PX // 2] = True
    everything = cells(crop, np.ones_like(half), area=REACH, count=2, alignment="box")
    assert everything.reshape(3, 2, 2)[0].tolist() == [[1, 0], [1, 0]]
    assert cells(crop, half, area=REACH, count=2, alignment="box").tolist() == [[1.0] * 6]


def test_a_crop_shows_the_same_face_at_every_size(astronaut: torch.Tensor) -> None:
    box = torch.tensor([[180.0, 60.0, 260.0, 170.0]])
    points = torch.tensor(USUAL_LANDMARKS)[None] * (box[:, 2:] - box[:, :2]) + box[:, :2]
    face = Regions(torch.zeros(1, dtype=torch.int64), box, points, torch.ones(1), ("face",))
    half = Regions(face.image, box / 2, points / 2, face.scores, face.kinds)
    small = torch.nn.functional.avg_pool2d(astronaut[None].float(), 2)[0].round().to(torch.uint8)
    for alignment, crop in crops_of(astronaut, face).items():
        apart = (crop.float() - crops_of(small, half)[alignment].float()).abs().mean()
        assert float(apart) < 8
        assert crop.shape == (3, SIDE_PX, SIDE_PX)


def test_a_technique_is_run_again_with_other_draws_each_time(astronaut: torch.Tensor) -> None:
    box = torch.tensor([[180.0, 60.0, 260.0, 170.0]])
    face = Regions(torch.zeros(1, dtype=torch.int64), box, torch.full((1, 5, 2), torch.nan), torch.ones(1), ("face",))
    technique = Pixelate(8, 0.3, coverage=1.3)
    made, _ = runs(technique, astronaut, face, count=3)
    again, _ = runs(technique, astronaut, face, count=3)
    assert (made == again).all()
    assert not (made[0] == made[1]).all()
    found = rerun(technique, astronaut, face)
    assert tuple(found.means) == RELEASES == releases_of(technique)
    assert set(found.views) == {"run 0", "run 1", "run 2", *(f"mean of {n}" for n in RELEASES)}
    assert releases_of(SyntheticFace()) == RELEASES  # the mean of ten runs names fewer than that of fifty
    still = rerun(GaussianBlur(0.1), astronaut, face)
    assert (tuple(still.means), list(still.views)) == ((1,), ["run 0"])


def test_every_person_is_in_one_fold() -> None:
    evidence = evidence_of(grey)
    assert {int(f) for f in evidence.folds} == set(range(FOLDS))
    assert (evidence.folds[::2] == evidence.folds[1::2]).all()
