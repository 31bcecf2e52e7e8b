"""Ranks, accept rates and intervals: against naive loops, and what must hold whatever the data."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anondata.errors import AuditError
from anondata.verifiers._pairs import wilson
from anondata.verifiers.audit import trials as trials_module
from anondata.verifiers.audit.metrics import (
    EDGE_PEOPLE,
    Curve,
    Pairs,
    Share,
    accept_rates,
    eer,
    share,
    shares,
    shown_ranks,
    supported,
    tar_at,
    widened,
)
from anondata.verifiers.audit.trials import Standing, Templates, Trials, compare


def templates(vectors: object, owners: object, photos: object = None) -> Templates:
    people = np.asarray(owners, dtype=np.int64)
    taken = np.full(len(people), -1) if photos is None else np.asarray(photos)
    return Templates(np.asarray(vectors, np.float32).reshape(len(people), -1), people, taken.astype(np.int64))


def labelled(people: int, photos: int, *, spread: float = 0.5, seed: int = 0) -> Templates:
    """Templates of people around a centre each, every one from a photo of its own."""
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(people), photos)
    centres = random.normal(size=(people, 16))
    return templates(centres[owners] + spread * random.normal(size=(len(owners), 16)), owners, np.arange(len(owners)))


# --- ranks -------------------------------------------------------------------------------------------------------


def named_by_hand(distances: list[float], own: list[bool], rank: int) -> float:
    """The share of all orders of equal distances that bring an own template among the first."""
    rows = sorted(zip(distances, own, strict=True))
    orders = [order for order in permutations(rows) if all(a[0] <= b[0] for a, b in pairwise(order))]
    return sum(any(is_own for _, is_own in order[:rank]) for order in orders) / len(orders)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6), st.integers(1, 6))
def test_expected_ranks_are_the_mean_over_all_orders_of_ties(gallery: list[tuple[int, bool]], rank: int) -> None:
    own = [is_own for _, is_own in gallery]
    if not any(own) or all(own):
        return
    found = compare(templates([0], [0]), templates([d for d, _ in gallery], [0 if o else 1 for o in own]))
    expected = named_by_hand([float(d) for d, _ in gallery], own, rank)
    assert found.standing.named_at([rank])[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(("gallery", "own", "rank"), [(101, 1, 1), (101, 1, 5), (40, 7, 1), (40, 7, 5), (9, 8, 5)])
def test_chance_is_that_of_drawing_from_an_urn(gallery: int, own: int, rank: int) -> None:
    found = compare(
        templates([0.5], [0]), templates(np.random.default_rng(0).random(gallery), [0] * own + [1] * (gallery - own))
    )
    urn = 1 - math.comb(gallery - own, rank) / math.comb(gallery, rank)
    assert found.chance.named_at([rank])[0, 0] == pytest.approx(urn)


def test_templates_that_are_all_alike_are_named_by_chance_only() -> None:
    same = templates(np.ones((12, 4)), np.repeat(np.arange(6), 2), np.arange(12))
    found = compare(same, same, mirrored=True)
    ranks = shown_ranks(11)
    assert np.allclose(found.standing.named_at(ranks), found.chance.named_at(ranks))
    assert found.standing.named_at([1])[0, 0] == pytest.approx(1 / 11)


def test_noise_of_a_network_does_not_break_ties() -> None:
    random = np.random.default_rng(0)
    near = templates(np.ones((12, 4)) + 1e-7 * random.random((12, 4)), np.repeat(np.arange(6), 2), np.arange(12))
    assert np.allclose(compare(near, near).standing.named_at([1]), 1 / 11)


def test_ranks_agree_with_sorting() -> None:
    faces = labelled(7, 3)
    found = compare(faces, faces, mirrored=True)
    named = found.standing.named_at(range(1, 21))
    for row in range(21):
        others = [i for i in range(21) if i != row]
        others.sort(key=lambda i: float(np.linalg.norm(faces.vectors[row] - faces.vectors[i])))
        first = next(rank for rank, i in enumerate(others, 1) if faces.owners[i] == faces.owners[row])
        assert named[row].tolist() == [float(rank >= first) for rank in range(1, 21)]
        assert found.nearest_own[row] == pytest.approx(
            float(np.linalg.norm(faces.vectors[row] - faces.vectors[others[first - 1]])), rel=1e-5
        )


def test_templates_of_one_photo_are_never_compared() -> None:
    group = templates([0.0, 0.1, 5.0, 5.1], [0, 1, 0, 1], [0, 0, 1, 1])
    found = compare(group, group)
    assert found.standing.named_at([1]).ravel().tolist() == [1, 0, 0, 1]
    assert (found.chance.tied + found.chance.tied_own).tolist() == [2, 2, 2, 2]


def test_only_people_with_another_photo_can_be_named() -> None:
    found = compare(templates([0, 1, 2], [0, 0, 1], [0, 1, 2]), templates([0, 1, 2], [0, 0, 1], [0, 1, 2]))
    assert found.rows.tolist() == [0, 1]
    assert found.impostor_pairs == 4


@pytest.mark.parametrize(
    ("owners", "message"), [([0, 1, 2], "another photo of the same person"), ([0, 0, 0], "only one person")]
)
def test_nobody_to_compare_with_is_an_error(owners: list[int], message: str) -> None:
    faces = templates([0, 1, 2], owners, [0, 1, 2])
    with pytest.raises(AuditError, match=message):
        compare(faces, faces)


def summary(found: Trials) -> tuple[float, ...]:
    tars, error = accept_rates(Curve(found.pairs), [0.1])
    row = (share(found.standing.named_at([1])[:, 0], found.owners), *tars, error)
    return tuple(value for s in row for value in (s.value, s.low, s.high))


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=5)
def test_order_and_blocks_do_not_matter(random: object) -> None:
    faces = labelled(8, 2, spread=1.0)
    before = summary(compare(faces, faces))
    order = list(range(16))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis says object
    shuffled = faces.select(np.array(order))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials_module, "BLOCK", 20)
        assert summary(compare(shuffled, shuffled)) == pytest.approx(before)


def test_a_mirrored_comparison_has_every_pair_once_and_the_same_ranks() -> None:
    faces = labelled(6, 3)
    full, half = compare(faces, faces), compare(faces, faces, mirrored=True)
    assert half.standing.named_at([1, 3]).tolist() == full.standing.named_at([1, 3]).tolist()
    assert (full.impostor_pairs, half.impostor_pairs) == (18 * 15, 18 * 15 // 2)
    assert sorted(np.repeat(half.pairs.distances, 2)) == pytest.approx(sorted(full.pairs.distances), abs=1e-6)


def test_of_very_many_pairs_a_subset_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = labelled(60, 2, spread=1.5)
    full = compare(faces, faces, mirrored=True)
    monkeypatch.setattr(trials_module, "MAX_PAIRS", 2000)
    some, again = (compare(faces, faces, mirrored=True) for _ in range(2))
    assert some.impostor_pairs == full.impostor_pairs == 120 * 118 // 2
    assert 1700 < len(some.pairs.distances) < 2300
    assert some.pairs.genuine.sum() == full.pairs.genuine.sum()
    assert (some.pairs.distances == again.pairs.distances).all()
    assert eer(*Curve(some.pairs).points()) == pytest.approx(eer(*Curve(full.pairs).points()), abs=0.03)


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_shown_ranks_hold_the_first_and_the_last(most: int) -> None:
    ranks = shown_ranks(most)
    assert ranks[0] == 1
    assert ranks[-1] == most
    assert (np.diff(ranks) > 0).all()
    assert len(ranks) <= 200


# --- shares ------------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_a_plain_bootstrap_over_people() -> None:
    random = np.random.default_rng(1)
    people = np.repeat(np.arange(40), 3)
    values = (random.random(120) < np.repeat(random.random(40), 3)).astype(float)
    found = share(values, people)
    drawn = []
    for _ in range(20_000):
        drawn.append(values.reshape(40, 3)[random.integers(0, 40, 40)].mean())
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.009)


def test_more_photos_of_the_same_people_make_nothing_surer() -> None:
    values, people = np.array([1.0, 0.0] * 15), np.arange(30)
    assert share(np.tile(values, 9), np.tile(people, 9)) == share(values, people)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nobody_and_everybody_get_wilson_s_interval_over_people(value: float) -> None:
    found = share(np.full(102, value), np.repeat(np.arange(51), 2))
    assert (found.low, found.high) == pytest.approx(wilson(value, 51))
    assert found.high - found.low == pytest.approx(0.07, abs=0.001)


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0, 1))
def test_an_interval_holds_its_value_and_is_never_made_narrower(people: int, value: float) -> None:
    given_ = Share(value, max(0.0, value - 0.01), min(1.0, value + 0.01))
    found = widened(given_, people)
    assert 0 <= found.low <= given_.low <= value <= given_.high <= found.high <= 1
    if min(value, 1 - value) * people >= EDGE_PEOPLE:
        assert found == given_


def test_each_column_has_an_interval_of_its_own() -> None:
    values = np.stack([np.repeat([0.0, 1.0], 20), np.ones(40)], axis=1)
    both = shares(values, np.arange(40))
    assert both == [share(values[:, 0], np.arange(40)), share(values[:, 1], np.arange(40))]


# --- accept rates ------------------------------------------------------------------------------------------------


def pairs(genuine: list[float], impostor: list[float]) -> Pairs:
    """Each genuine pair of a person of its own, each impostor pair of two of these."""
    n = len(genuine)
    left = [*range(n), *(i % n for i in range(len(impostor)))]
    right = [*range(n), *((i % n + 1) % n for i in range(len(impostor)))]
    return Pairs(np.array([*genuine, *impostor]), np.array(left), np.array(right))


distinct = st.lists(st.integers(1, 10_000), min_size=6, max_size=30, unique=True)


@settings(deadline=None)
@given(distinct, st.integers(2, 4), st.floats(0.01, 0.99))
def test_the_true_accept_rate_is_the_best_that_a_threshold_reaches(values: list[int], n: int, far: float) -> None:
    genuine, impostor = [v / 1000 for v in values[:n]], [v / 1000 for v in values[n:]]
    best = 0.0
    for threshold in (*genuine, *impostor):
        if sum(d <= threshold for d in impostor) <= far * len(impostor):
            best = max(best, sum(d <= threshold for d in genuine) / n)
    assert tar_at(*Curve(pairs(genuine, impostor)).points(), far) == pytest.approx(best)


@settings(deadline=None)
@given(distinct, st.integers(2, 4))
def test_the_equal_error_rate_lies_between_the_errors_of_neighbouring_thresholds(values: list[int], n: int) -> None:
    genuine, impostor = [v / 1000 for v in values[:n]], [v / 1000 for v in values[n:]]
    worst_of_both = [
        max(sum(d <= t for d in impostor) / len(impostor), sum(d > t for d in genuine) / n)
        for t in (0.0, *genuine, *impostor)
    ]
    found = eer(*Curve(pairs(genuine, impostor)).points())
    assert min(worst_of_both) - 1 / min(n, len(impostor)) <= found <= min(worst_of_both) + 1e-9


def test_perfect_separation_errs_never() -> None:
    curve = Curve(pairs([0.1, 0.2, 0.3], [0.5, 0.6, 0.7, 0.8]))
    assert eer(*curve.points()) == 0
    assert tar_at(*curve.points(), 0.01) == 1


@pytest.mark.parametrize("far", [0.001, 0.01, 0.37, 1.0])
def test_distances_that_are_all_alike_accept_everybody_alike(far: float) -> None:
    curve = Curve(pairs([0.5] * 3, [0.5] * 5))
    assert tar_at(*curve.points(), far) == pytest.approx(far)
    assert eer(*curve.points()) == pytest.approx(0.5)


def test_the_wrong_way_round_errs_always() -> None:
    assert eer(*Curve(pairs([0.8, 0.9], [0.1, 0.2, 0.3])).points()) == 1


def test_people_drawn_again_weigh_as_copies_that_are_not_compared_with_themselves() -> None:
    faces = labelled(5, 2, spread=1.5)
    drawn = np.array([2, 0, 1, 3, 1])
    copies = np.repeat(np.arange(5), drawn)
    rows = np.concatenate([np.flatnonzero(faces.owners == person) for person in copies])
    expected = []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows[i + 1 :], i + 1):
            one, other = i // 2, j // 2  # which copy
            if one == other or faces.owners[a] != faces.owners[b]:
                expected.append((np.linalg.norm(faces.vectors[a] - faces.vectors[b]), one == other))
    far, tar = Curve(compare(faces, faces, mirrored=True).pairs).points(drawn.astype(float))
    by_hand = [[d for d, same in expected if same is kind] for kind in (True, False)]
    for rate in (0.05, 0.2, 0.5):
        # people that were not drawn leave steps of no height, so that the curve is the same one
        limit = [t for t in sorted(d for d, _ in expected) if np.mean(np.array(by_hand[1]) <= t) <= rate + 1e-9]
        best = max((np.mean(np.array(by_hand[0]) <= t) for t in limit), default=0.0)
        assert tar_at(far, tar, rate) == pytest.approx(best)


def test_accept_rates_hold_their_values_and_their_intervals_come_from_people() -> None:
    found = compare(labelled(30, 2, spread=1.2), labelled(30, 2, spread=1.2), mirrored=True)
    [tar], error = accept_rates(Curve(found.pairs), [0.1])
    assert tar.low < tar.value < tar.high
    assert error.low <= error.value <= error.high
    assert accept_rates(Curve(found.pairs), [0.1]) == ([tar], error)


@pytest.mark.parametrize(("far", "pairs", "enough"), [(0.01, 1000, True), (0.01, 999, False), (0.1, 100, True)])
def test_a_rate_needs_ten_accepted_impostors(far: float, pairs: int, enough: bool) -> None:
    assert supported(far, pairs) is enough


def test_a_standing_of_nobody_has_no_rows() -> None:
    none = np.zeros(0, np.int64)
    assert Standing(none, none, none).named_at([1, 2]).shape == (0, 2)
