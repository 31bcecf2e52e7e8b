"""Gates on persons, and what must still be recognizable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from anondata import Anonymizer
from anondata.components import build
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError
from anondata.protocols import Probe
from anondata.regions import Regions
from anondata.transforms.base import RegionTransform
from anondata.verifiers.gates.count_utility import KeepsCount
from anondata.verifiers.gates.face_utility import KeepsFace, KeepsMouth, mouth_width
from anondata.verifiers.gates.person_match import PersonMatch, structure

PERSON = torch.tensor([[0.0, 5, 385, 512]])


def regions(boxes: Tensor, kind: str = "person") -> Regions:
    n = len(boxes)
    nowhere = torch.full((n, 5, 2), torch.nan)
    return Regions(torch.zeros(n, dtype=torch.int64), boxes, nowhere, torch.ones(n), (kind,) * n)


def probe(found: Regions, original: Tensor, result: Tensor, **more: dict[str, Tensor]) -> Probe:
    n = len(found)
    return Probe(
        regions=found,
        before=more.get("before", {}),
        after=more.get("after", {}),
        techniques=(build("technique", "fill", {}),) * n,
        erased=torch.zeros(n, dtype=torch.bool),
        last=torch.zeros(n, dtype=torch.bool),
        blank=lambda _, rows: torch.zeros(len(rows), 0),
        original=[original],
        result=[result],
    )


def changed(view: Tensor, boxes: Tensor, name: str, **params: object) -> Tensor:
    technique: RegionTransform = build("technique", name, params)
    return technique.change_regions(view, boxes)


# --- person_match --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("technique", "params", "passes"),
    [
        ("silhouette", {"coverage": 1.3}, True),
        ("fill", {}, True),
        ("pixelate", {"blocks": 16}, False),
        ("gaussian_blur", {"sigma": 0.05}, False),
    ],
)
def test_a_figure_passes_and_a_mosaic_that_keeps_the_cloth_does_not(
    astronaut: Tensor, technique: str, params: dict[str, object], passes: bool
) -> None:
    result = changed(astronaut, PERSON, technique, **params)
    verdict = PersonMatch().judge(probe(regions(PERSON), astronaut, result))
    assert verdict.passed.tolist() == [passes]
    assert float(verdict.before) > 1


def test_the_original_itself_does_not_pass(astronaut: Tensor) -> None:
    assert not bool(PersonMatch().judge(probe(regions(PERSON), astronaut, astronaut)).passed)


def test_less_contrast_or_a_negative_does_not_help(astronaut: Tensor) -> None:
    for result in (255 - astronaut, (astronaut // 3) + 90):
        assert not bool(PersonMatch().judge(probe(regions(PERSON), astronaut, result)).passed)


def test_a_region_without_anything_in_it_passes_when_erased() -> None:
    flat = torch.full((3, 64, 64), 90, dtype=torch.uint8)
    same = probe(regions(torch.tensor([[5.0, 5, 40, 60]])), flat, flat)
    verdicts = [PersonMatch().judge(replace(same, erased=torch.tensor([erased]))) for erased in (True, False)]
    assert [bool(v.passed) for v in verdicts] == [True, False]


def test_boxes_out_of_the_picture_are_judged_by_what_is_there(astronaut: Tensor) -> None:
    boxes = torch.tensor([[-50.0, -80, 385, 900], [600, 600, 700, 700], [10, 10, 10, 10]])
    verdict = PersonMatch().judge(probe(regions(boxes), astronaut, torch.full_like(astronaut, 128)))
    assert verdict.passed.tolist() == [True, False, True]  # where nothing is to be seen only what erases passes


def test_no_regions_no_verdicts(astronaut: Tensor) -> None:
    assert len(PersonMatch().judge(probe(regions(torch.zeros(0, 4)), astronaut, astronaut)).passed) == 0


def test_stricter_is_stricter(astronaut: Tensor) -> None:
    result = changed(astronaut, PERSON, "silhouette")
    asked = probe(regions(PERSON), astronaut, result)
    assert float(PersonMatch(strictness=2).judge(asked).after) == pytest.approx(
        2 * float(PersonMatch().judge(asked).after)
    )


def test_structure_of_a_picture_with_itself_is_nearly_one_and_of_noise_nearly_none(astronaut: Tensor) -> None:
    crop = torch.nn.functional.interpolate(astronaut[None].float() / 255, (64, 64), mode="bilinear", antialias=True)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert float(structure(crop, crop, patches=8)) > 0.9
    assert float(structure(crop, noise, patches=8)) < 0.25


@dataclass(frozen=True)
class Appearance:
    """Stands for a user's network."""

    name: str = "appearance"
    fingerprint: str = "00"

    def embed(self, views: Sequence[Tensor], found: Regions) -> Tensor:
        return torch.zeros(len(found), 2)


def test_the_users_network_is_asked_too(astronaut: Tensor) -> None:
    gate = PersonMatch(embedder=f"{__name__}:Appearance", distance=0.5) if _importable() else None
    if gate is None:
        pytest.skip("this file cannot be imported by its name")
    result = changed(astronaut, PERSON, "fill")
    near, far = torch.tensor([[0.0, 0.1]]), torch.tensor([[0.0, 0.9]])
    for after, passes in ((near, False), (far, True)):
        asked = probe(
            regions(PERSON), astronaut, result, before={"appearance": torch.zeros(1, 2)}, after={"appearance": after}
        )
        verdict = gate.judge(asked)
        assert verdict.passed.tolist() == [passes]
        assert [part.verifier for part in verdict.parts] == [gate.name, "appearance"]


def _importable() -> bool:
    import sys

    return __name__ in sys.modules


def test_an_embedder_without_a_distance_is_refused() -> None:
    with pytest.raises(PolicyError, match="given together"):
        PersonMatch(embedder="dlib-face-resnet")


# --- utility -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face(astronaut: Tensor) -> Regions:
    return CenterFaceDetector().detect([astronaut])


@pytest.mark.parametrize("gate", [KeepsFace(), KeepsMouth(), KeepsCount(detector="centerface", kind="face")])
def test_an_unchanged_face_keeps_everything(astronaut: Tensor, face: Regions, gate: KeepsFace) -> None:
    assert gate.judge(probe(face, astronaut, astronaut)).passed.tolist() == [True]


@pytest.mark.parametrize("gate", [KeepsFace(), KeepsMouth(), KeepsCount(detector="centerface", kind="face")])
def test_a_filled_face_keeps_nothing(astronaut: Tensor, face: Regions, gate: KeepsFace) -> None:
    result = changed(astronaut, face.boxes, "fill", coverage=1.7)
    assert gate.judge(probe(face, astronaut, result)).passed.tolist() == [False]


def test_a_face_that_moved_within_its_region_is_not_kept(astronaut: Tensor, face: Regions) -> None:
    moved = astronaut.roll(30, dims=2)
    verdict = KeepsFace().judge(probe(face, astronaut, moved))
    eyes = float((face.landmarks[0, 1] - face.landmarks[0, 0]).norm())
    assert float(verdict.after) == pytest.approx(30 / eyes, abs=0.1)
    assert verdict.passed.tolist() == [False]


def test_without_landmarks_before_a_face_need_only_be_found(astronaut: Tensor, face: Regions) -> None:
    blind = regions(face.boxes, "face")
    assert bool(KeepsFace().judge(probe(blind, astronaut, astronaut)).passed)
    assert bool(KeepsMouth().judge(probe(blind, astronaut, astronaut)).passed)


def test_a_mouths_width_is_relative_to_the_eyes() -> None:
    points = torch.tensor([[[0.0, 0], [40, 0], [20, 20], [4, 40], [36, 40]]])
    assert float(mouth_width(points)) == pytest.approx(0.8)
    assert float(mouth_width(points * 3)) == pytest.approx(0.8)


def test_counts_are_those_of_each_regions_own_picture(astronaut: Tensor, face: Regions) -> None:
    two = Regions(
        torch.tensor([0, 1]), face.boxes.repeat(2, 1), face.landmarks.repeat(2, 1, 1), torch.ones(2), ("face",) * 2
    )
    blank = torch.full_like(astronaut, 128)
    asked = probe(two, astronaut, astronaut)
    asked = Probe(**{**vars(asked), "original": [astronaut, astronaut], "result": [astronaut, blank]})
    verdict = KeepsCount(detector="centerface", kind="face").judge(asked)
    assert verdict.passed.tolist() == [True, False]
    assert verdict.after.tolist() == [1.0, 0.0]


def test_an_unknown_detector_is_refused_with_the_nearest() -> None:
    with pytest.raises(PolicyError, match="did you mean 'centerface'"):
        KeepsFace(detector="centrface")


# --- the preset ----------------------------------------------------------------------------------------------------


def test_the_preset_turns_the_astronaut_into_a_figure(astronaut: Tensor, fetched: Callable[..., None]) -> None:
    fetched("persons-ssdlite")
    (outcome,) = Anonymizer("people").anonymize([astronaut])
    kinds = {r.kind: r.technique.split()[0] for r in outcome.record.regions}
    assert kinds == {"face": "random_colors", "person": "silhouette"}
