"""Calibration: thresholds that a plain count confirms, and files that say what they are worth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anondata.errors import CalibrationError, PolicyError, ShapeError
from anondata.regions import Regions
from anondata.verifiers import _pairs
from anondata.verifiers.calibration import (
    MIN_PEOPLE,
    PAIRS_PER_ACCEPT,
    Calibration,
    Threshold,
    calibrate,
    check_support,
    distances,
    from_json,
    load,
    shipped,
)
from anondata.verifiers.embedders import EMBEDDERS


class Toy:
    name, fingerprint = "toy", "ab" * 16

    def embed(self, views: object, regions: Regions) -> Tensor:
        raise NotImplementedError


def faces(people: int, photos: int, *, noise: float = 0.6, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Templates ``(people * photos, 16)`` of unit length, and who they show."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, 16, generator=random).repeat_interleave(photos, dim=0)
    templates = centres + noise * torch.randn(people * photos, 16, generator=random)
    return torch.nn.functional.normalize(templates), [f"person {i:03}" for i in range(people) for _ in range(photos)]


def made(templates: Tensor, people: list[str], **options: Any) -> Calibration:
    return calibrate(templates, people, embedder=Toy(), data="toys", **{"repeats": 50, **options})


# The naive way, as the shipped thresholds were first computed: every pair of every resampled photo, sorted.
def naive_distances(templates: Tensor, rows: list[int], people: list[str], *, same: bool) -> list[float]:
    pairs = [(i, j) for n, i in enumerate(rows) for j in rows[:n]]
    return sorted(math.dist(templates[i], templates[j]) for i, j in pairs if (people[i] == people[j]) is same)


def naive_draws(people: list[str], repeats: int) -> Iterator[list[int]]:
    random = np.random.default_rng(0)
    names = sorted(set(people))
    for _ in range(repeats):
        drawn = random.choice(names, len(names))
        yield [i for name in drawn for i, person in enumerate(people) if person == name]


def test_thresholds_and_intervals_are_what_the_naive_way_gives() -> None:
    templates, people = faces(12, 2)
    [found] = made(templates, people, rates=[0.05], repeats=40).thresholds
    apart = naive_distances(templates, list(range(24)), people, same=False)
    assert found.distance == pytest.approx(apart[int(0.05 * len(apart))], abs=1e-6)
    drawn = [naive_distances(templates, rows, people, same=False) for rows in naive_draws(people, 40)]
    interval = np.quantile([d[int(0.05 * len(d))] for d in drawn], [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(interval.tolist(), abs=1e-6)


def test_when_nobody_of_the_nearest_pairs_is_drawn_farther_ones_are_looked_at() -> None:
    templates = faces(10, 1)[0]
    templates = torch.cat([templates, templates[:3] + 0.01 * templates[3:6]])  # three pairs that are very near
    number = np.arange(13)
    pairs = _pairs.apart(templates, number)
    drawn = np.array([0] * 6 + [2] * 4 + [0] * 3, np.int32)
    found = _pairs.at_rates(pairs, np.ones(13, int), [0.01], drawn)
    assert found[0] == pytest.approx(
        min(math.dist(templates[i], templates[j]) for i in range(6, 10) for j in range(6, i))
    )


def test_the_true_accept_rate_is_the_share_of_genuine_pairs_below() -> None:
    templates, people = faces(20, 4, noise=1.0)
    found = made(templates, people, rates=[0.05])
    together = naive_distances(templates, list(range(80)), people, same=True)
    share = sum(d < found.thresholds[0].distance for d in together) / len(together)
    assert found.genuine_pairs == len(together) == 120
    assert 0.05 < share < 0.95
    assert found.thresholds[0].tar == pytest.approx(share)
    tar_low, tar_high = found.thresholds[0].tar_low, found.thresholds[0].tar_high
    assert tar_low is not None
    assert tar_high is not None
    assert 0 < tar_low < share < tar_high < 1


def test_a_true_accept_rate_of_one_has_the_interval_of_so_many_people() -> None:
    [found] = made(*faces(20, 2, noise=0.01), rates=[0.05]).thresholds
    assert (found.tar, found.tar_high) == (1.0, 1.0)
    assert found.tar_low == pytest.approx(0.839, abs=1e-3)  # Wilson, 20 of 20


def test_without_genuine_pairs_there_is_no_true_accept_rate() -> None:
    found = made(*faces(40, 1), rates=[0.05])
    assert found.genuine_pairs == 0
    assert found.thresholds[0].tar is None
    assert from_json(found.to_json()) == found


def test_at_most_the_stated_share_of_impostors_lies_below_and_thresholds_fall_with_the_rate() -> None:
    templates, people = faces(60, 2)
    found = made(templates, people)
    apart = distances(templates, people)[1]
    assert [t.far for t in found.thresholds] == [0.05, 0.02, 0.01, 0.005, 0.002]
    assert all((apart < t.distance).mean() <= t.far for t in found.thresholds)
    assert all((apart <= t.distance).mean() > t.far for t in found.thresholds)
    ordered = [t.distance for t in found.thresholds]
    assert ordered == sorted(ordered, reverse=True)
    assert all(t.low <= t.distance <= t.high for t in found.thresholds)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_photos_does_not_matter(random: Any) -> None:
    templates, people = faces(15, 3)
    order = list(range(len(people)))
    random.shuffle(order)
    shuffled = made(templates[order], [people[i] for i in order], rates=[0.05], repeats=20)
    assert shuffled == made(templates, people, rates=[0.05], repeats=20)


def test_it_says_whose_templates_and_which_data_it_is_of() -> None:
    found = made(*faces(20, 2), rates=[0.05])
    assert (found.embedder, found.embedder_fingerprint, found.data) == ("toy", "ab" * 16, "toys")
    assert (found.identities, found.impostor_pairs, found.genuine_pairs, found.left_out) == (20, 760, 20, 0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_templates_that_are_not_finite_are_left_out_and_counted(bad: float) -> None:
    templates, people = faces(20, 2)
    spoiled = templates.clone()
    spoiled[[3, 8, 9], 5] = bad  # the fifth person has no photo left
    rest = [i for i in range(40) if i not in (3, 8, 9)]
    found = made(spoiled, people, rates=[0.05])
    assert found == replace(made(templates[rest], [people[i] for i in rest], rates=[0.05]), left_out=3)
    assert found.identities == 19


def test_a_rate_that_the_data_cannot_support_is_refused() -> None:
    templates, people = faces(20, 2)
    message = (
        r"^760 pairs of different people cannot support a false-accept rate of 0\.01, which needs 1000; "
        r"the smallest that they support is 0\.014\. "
    )
    with pytest.raises(CalibrationError, match=message):
        made(templates, people, rates=[0.05, 0.01])
    assert made(templates, people, rates=[0.014]).at(0.014).distance > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 10**9))
def test_the_smallest_rate_that_a_message_names_is_supported(pairs: int) -> None:
    from anondata.verifiers.calibration import supported

    with pytest.raises(CalibrationError) as error:
        supported(pairs, [PAIRS_PER_ACCEPT / pairs / 2 if pairs > 20 else 1e-3])
    said = str(error.value)
    if "support none" in said:
        assert pairs <= 2 * PAIRS_PER_ACCEPT
    else:
        least = float(said.split("support is ")[1].split(". ")[0])
        assert supported(pairs, [least]) == (least,)
        assert least <= 1.1 * PAIRS_PER_ACCEPT / pairs


def test_data_that_supports_no_usual_rate_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"^45 pairs .* none of the usual rates; the smallest .* is 0\.23$"):
        made(*faces(10, 1))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(CalibrationError, match="lies between 0 and 1"):
        made(*faces(20, 2), rates=[rate])


@pytest.mark.parametrize("people", [0, 1, MIN_PEOPLE - 1])
def test_too_few_people_are_refused(people: int) -> None:
    templates, names = faces(people, 30)
    with pytest.raises(CalibrationError, match=f"photos of {people} people"):
        made(templates, names, rates=[0.05])
    with pytest.raises(CalibrationError, match=f"photos of {people} people"):
        check_support(names, [0.05])


def test_templates_that_do_not_belong_to_the_people_are_refused() -> None:
    for templates in (torch.zeros(3, 4), torch.zeros(2), torch.zeros(2, 3, 4)):
        with pytest.raises(ShapeError, match="for 2 people"):
            made(templates, ["a", "b"])


def test_many_templates_are_sampled_always_alike_and_close_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    templates, people = faces(200, 5, noise=1.0)
    exact = made(templates, people, rates=[0.05, 0.01])
    monkeypatch.setattr(_pairs, "MAX_PAIRS", 50_000)
    sampled = made(templates, people, rates=[0.05, 0.01])
    assert exact.impostor_pairs == 497_500
    assert 49_000 < sampled.impostor_pairs <= 50_000
    assert sampled == made(templates, people, rates=[0.05, 0.01])
    for a, b in zip(exact.thresholds, sampled.thresholds, strict=True):
        assert a.low - 0.01 <= b.distance <= a.high + 0.01
        assert b.tar == pytest.approx(a.tar, abs=0.02)


def test_a_sample_takes_pairs_from_everywhere_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    people = np.arange(300) // 3
    monkeypatch.setattr(_pairs, "MAX_PAIRS", 10_000)
    number = _pairs._chosen(300)
    row, column = _pairs._rows_and_columns(number, 300)
    assert len(number) == len(set(number.tolist())) > 9000
    assert bool((row < column).all())
    assert set(row.tolist()) | set(column.tolist()) == set(range(300))
    found = _pairs.apart(torch.randn(300, 4), people)
    assert bool((found.first != found.second).all())
    monkeypatch.setattr(_pairs, "MAX_PAIRS", 10**6)
    row, column = _pairs._rows_and_columns(_pairs._chosen(30), 30)
    assert [row.tolist(), column.tolist()] == [side.tolist() for side in np.triu_indices(30, k=1)]


def test_somebody_with_very_many_photos_counts_with_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "MAX_PAIRS", 3000)
    people = np.array([0] * 100 + [1] * 3)
    assert len(_pairs.together(torch.randn(103, 4), people)) == 64 * 63 // 2 + 3


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_calibration_survives_json_and_plain_data(tmp_path: Path) -> None:
    found = made(*faces(20, 3), rates=[0.05, 0.03])
    assert from_json(found.to_json()) == found
    assert from_json(asdict(found)) == found
    assert from_json(json.loads(json.dumps(asdict(found)))) == found
    (tmp_path / "mine.json").write_text(found.to_json())
    assert load(tmp_path / "mine.json") == found
    assert json.loads(found.to_json())["format"] == "anondata.calibration/1"


def test_a_file_of_before_the_format_had_a_name_is_read() -> None:
    old = {"embedder": "e", "data": "d", "identities": 51, "impostor_pairs": 5100}
    rows = [{"far": 0.05, "distance": 0.68, "low": 0.645, "high": 0.6953}]
    found = from_json({**old, "thresholds": rows})
    assert found.thresholds == (Threshold(0.05, 0.68, 0.645, 0.6953),)
    assert (found.genuine_pairs, found.embedder_fingerprint) == (None, "")


@pytest.mark.parametrize("name", EMBEDDERS)
def test_shipped_calibrations_are_of_the_registered_weights_and_keep_their_thresholds(name: str) -> None:
    committed = {
        "dlib-face-resnet": [0.68, 0.6313, 0.6102, 0.584, 0.5404],
        "mobilefacenet-ms1m": [1.2497, 1.2093, 1.1842, 1.1624, 1.1304],
    }
    found = shipped(name)
    assert [t.distance for t in found.thresholds] == committed[name]
    assert found.embedder_fingerprint == EMBEDDERS[name]().fingerprint
    assert (found.identities, found.impostor_pairs, found.genuine_pairs) == (51, 5100, 51)
    assert all(t.tar == 1.0 for t in found.thresholds)


GOOD: dict[str, Any] = asdict(
    Calibration("e", "d", 20, 760, (Threshold(0.05, 0.6, 0.5, 0.7, 0.9, 0.8, 1.0),), 20, 0, "ab")
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "anondata.report/1"}, "the format is not 'anondata.calibration/1'"),
        ({"format": None}, "the format is not"),
        ({"thresholds": None}, "must be a list"),
        ({"thresholds": "0.6"}, "must be a list"),
        ({"thresholds": []}, "at least one"),
        ({"thresholds": [0.6]}, "a threshold must be an object"),
        ({"thresholds": [{"far": 0.1}]}, "a threshold lacks distance, low, high"),
        ({"thresholds": GOOD["thresholds"] * 2}, "the same far"),
        ({"jane doe": 1}, "a calibration has 1 unknown fields; known: embedder, data"),
        ({"embedder": 3}, "embedder must be a text"),
        ({"identities": -1}, "identities must be a whole number"),
        ({"identities": 2.5}, "identities must be a whole number"),
        ({"impostor_pairs": True}, "impostor_pairs must be a whole number"),
        ({"genuine_pairs": "20"}, "genuine_pairs must be a whole number"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        from_json({**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"far": 0}, "far must lie between"),
        ({"far": 1.0}, "far must lie between"),
        ({"distance": math.nan}, "distance must be a number from 0 to 1e"),
        ({"distance": -0.1}, "distance must be"),
        ({"high": math.inf}, "high must be"),
        ({"high": 10**400}, "high must be"),
        ({"low": "0.5"}, "low must be"),
        ({"low": None}, "low must be"),
        ({"tar": 1.2}, "tar must be a number from 0 to 1"),
        ({"tar_low": True}, "tar_low must be"),
    ],
)
def test_a_threshold_that_cannot_be_right_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        from_json({**GOOD, "thresholds": [{**GOOD["thresholds"][0], **change}]})


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"jane"', "\x00", b"\xff\xfe\x00", "[" * 100_000])
def test_text_that_is_no_calibration_is_refused_without_being_quoted(text: str | bytes) -> None:
    with pytest.raises(CalibrationError, match=r"^calibration: (the text is not JSON|expected a JSON object)$"):
        from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*GOOD, "format"]), JSON), st.dictionaries(st.sampled_from([*GOOD]), JSON), JSON
)
def test_whatever_a_file_holds_it_is_a_calibration_or_an_error(
    change: dict[str, Any], row: dict[str, Any], whole: Any
) -> None:
    threshold = {**GOOD["thresholds"][0], **row}
    for body in ({**GOOD, **change}, {**GOOD, "thresholds": [threshold]}, whole):
        try:
            found = from_json(json.dumps(body))
        except CalibrationError:
            continue
        assert from_json(found.to_json()) == found


def test_a_file_that_is_not_there_is_an_error_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"^the calibration file cannot be read: No such file or directory$"):
        load(tmp_path / "jane.json")


def test_a_rate_that_was_not_calibrated_names_those_that_were() -> None:
    with pytest.raises(PolicyError, match=r"no threshold at FAR 0\.3; calibrated: 0\.05"):
        shipped("dlib-face-resnet").at(0.3)
    with pytest.raises(PolicyError, match="no calibration for embedder 'facenet'"):
        shipped("facenet")
