"""The gate without a network: what a matched filter on colours sees, and that it knows nothing of techniques."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.content.codec import decode
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError
from anondata.models.registry import bundled_file
from anondata.policy import from_yaml
from anondata.protocols import Probe
from anondata.regions import Regions, empty_regions
from anondata.transforms import Fill, GaussianBlur, Pixelate, RegionTransform
from anondata.verifiers import face_pixels
from anondata.verifiers.calibration import shipped
from anondata.verifiers.face_pixels import Filter, colors, covered, learnt, strangers
from anondata.verifiers.gates.pixel_match import PixelMatch

KEY = RunKey(b"a secret of enough bytes")


@pytest.fixture(scope="module")
def party(party_jpeg: bytes) -> Tensor:
    """``(3, 886, 1280)`` uint8 with six faces."""
    return decode(party_jpeg).pixels


@pytest.fixture(scope="module")
def faces(party: Tensor) -> Regions:
    return CenterFaceDetector().detect([party])


def probe(view: Tensor, result: Tensor, regions: Regions, technique: RegionTransform) -> Probe:
    count = len(regions)
    none = torch.zeros(count, dtype=torch.bool)
    return Probe(
        regions=regions,
        before={},
        after={},
        techniques=(technique,) * count,
        erased=torch.full((count,), technique.erases),
        last=none,
        blank=lambda name, rows: torch.zeros(0),
        original=[view],
        result=[result],
    )


def passed(view: Tensor, regions: Regions, technique: RegionTransform) -> list[bool]:
    result = technique.change_regions(view, regions.boxes)
    found: list[bool] = PixelMatch().judge(probe(view, result, regions, technique)).passed.tolist()
    return found


def at(*box: float) -> Regions:
    return Regions(
        torch.zeros(1, dtype=torch.int64),
        torch.tensor([box]),
        torch.full((1, 5, 2), torch.nan),
        torch.ones(1),
        ("face",),
    )


# --- what it sees --------------------------------------------------------------------------------------------------


def test_it_fails_the_untouched_and_mosaics_and_blurs_that_keep_the_face(party: Tensor, faces: Regions) -> None:
    verdicts = PixelMatch().judge(probe(party, party, faces, Fill("mean")))
    assert not verdicts.passed.any()
    assert verdicts.after.max() < 0.01
    assert (verdicts.before == 0).all()
    for technique in (GaussianBlur(0.1), Pixelate(8), Pixelate(8, contrast=0.2), Pixelate(12, coverage=1.5)):
        assert not any(passed(party, faces, technique))


def test_it_passes_most_results_in_which_noise_is_all_there_is(party: Tensor, faces: Regions) -> None:
    """Coverage 1.2, so that the technique does not erase and the gate looks."""
    tried = [Pixelate(8, 0.13, 0.0, coverage=1.2, key=RunKey(bytes([i]) * 16)) for i in range(10)]
    shares = [p for technique in tried for p in passed(party, faces, technique)]
    assert 0.7 < sum(shares) / len(shares) < 1


def test_it_passes_what_was_erased_unseen_and_nothing_else(party: Tensor, faces: Regions) -> None:
    erased = PixelMatch().judge(probe(party, party, faces, Fill(coverage=1.5)))
    assert erased.passed.all()
    assert erased.after.isfinite().all()
    half = probe(party, party, faces, Fill(coverage=1.5))
    verdicts = PixelMatch().judge(replace(half, erased=torch.arange(len(faces)) % 2 == 0))
    assert verdicts.passed.tolist() == [row % 2 == 0 for row in range(len(faces))]


def test_what_lies_beside_the_covered_area_is_not_held_against_a_result(party: Tensor, faces: Regions) -> None:
    box = at(*faces.boxes[0].tolist())
    technique = Pixelate(8, 0.13, 0.0, coverage=1.2, shape="ellipse", key=KEY)
    result = technique.change_regions(party, box.boxes)
    other = torch.where((result == party).all(dim=0), 255 - party, result)  # everything beside it is another
    one, two = (PixelMatch().judge(probe(party, shown, box, technique)).after for shown in (result, other))
    assert float((one - two).abs()) < 0.05
    cells = covered([party], box, [technique])[0].view(3, 12, 12)
    assert not cells[:, 0].any()
    assert cells[:, 6, 6].all()
    assert covered([party], box, [Fill(coverage=1.5)]).all()


def test_the_face_counts_even_where_it_is_not_covered(party: Tensor, faces: Regions) -> None:
    box = at(*faces.boxes[0].tolist())
    assert passed(party, box, Pixelate(8, 0.5, coverage=0.5, feather=0.0, key=KEY)) == [False]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    "box", [(300, 200, 306, 207), (-40, -50, 60, 70), (1250, 850, 1330, 940), (5000, 5000, 5100, 5100)]
)
def test_any_size_place_and_colour_gets_a_verdict_and_the_untouched_fails(
    party: Tensor, box: tuple[float, ...], grey: bool
) -> None:
    view = party[:1].expand(3, -1, -1) if grey else party
    assert PixelMatch().judge(probe(view, view, at(*box), Fill("mean"))).passed.tolist() == [False]


def test_a_result_of_one_grey_has_no_score_and_does_not_pass(party: Tensor, faces: Regions) -> None:
    """Nothing can be told from it, but whoever made it did not say that it erases."""
    flat = torch.full_like(party, 128)
    blank = Filter(torch.full((3,), 0.5), torch.eye(3)[:, :1])
    assert blank.scores(torch.full((1, 3), 0.5), torch.rand(1, 3)).isnan().all()
    assert PixelMatch().judge(probe(flat, flat, faces, Fill("mean"))).passed.tolist() == [False] * len(faces)


def test_no_regions_and_other_places_in_the_batch_change_nothing(party: Tensor, faces: Regions) -> None:
    none = PixelMatch().judge(probe(party, party, empty_regions(), Fill()))
    assert none.passed.shape == (0,)
    technique = Pixelate(6, 0.5, key=KEY)
    result = technique.change_regions(party, faces.boxes)
    whole = PixelMatch().judge(probe(party, result, faces, technique)).after
    order = list(reversed(range(len(faces))))
    turned = PixelMatch().judge(probe(party, result, faces.select(order), technique)).after
    single = PixelMatch().judge(probe(party, result, faces.select([2]), technique)).after
    assert torch.equal(whole[order], turned)
    assert torch.equal(whole[2:3], single)


# --- the filter ----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_whole_matrices() -> None:
    random = np.random.default_rng(0)
    mean, factor = random.uniform(size=9), random.normal(size=(9, 3)) * 0.1
    results, originals = random.uniform(size=(4, 9)), random.uniform(size=(5, 9))
    covariance = factor @ factor.T
    grey = mean - 0.5
    expected = np.full((4, 5), -np.inf)
    for ridge in (0.05, 0.5, 5.0):
        inverse = np.linalg.inv(covariance + ridge * np.eye(9))
        for i, result in enumerate(results - 0.5):
            rest = result - grey * (result @ inverse @ grey) / (grey @ inverse @ grey)
            pull = inverse @ rest
            for j, own in enumerate(originals - 0.5):
                left = own - grey * (own @ inverse @ grey) / (grey @ inverse @ grey)
                size = left @ inverse @ left / np.trace(inverse @ covariance)
                fit = pull @ left / np.sqrt(pull @ covariance @ pull) / np.sqrt(size)
                expected[i, j] = max(expected[i, j], fit)
    made = Filter(torch.from_numpy(mean), torch.from_numpy(factor))
    found = made.scores(torch.from_numpy(results), torch.from_numpy(originals))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_lower_contrast_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    faces = learnt().mean + torch.randn(6, 40, generator=generator, dtype=torch.float64) @ learnt().factor.T
    whole = learnt().scores(faces, faces)
    pale = 0.5 + 0.2 * (faces - 0.5)
    torch.testing.assert_close(learnt().scores(pale, faces), whole)
    torch.testing.assert_close(learnt().scores(faces, pale), whole)
    assert (whole.diagonal() > 4).all()


def test_of_faces_as_they_were_learnt_strangers_fit_as_often_as_it_says() -> None:
    """Whatever the result is, here pure noise."""
    generator = torch.Generator().manual_seed(2)
    people = learnt().mean + torch.randn(400, 40, generator=generator, dtype=torch.float64) @ learnt().factor.T
    noise = 0.5 + 0.3 * torch.randn(50, 432, generator=generator, dtype=torch.float64)
    shares = strangers(learnt().fits(noise, people, ridge=0.05))
    for level in (0.05, 0.2, 0.5):
        assert float((shares < level).double().mean()) == pytest.approx(level, abs=0.25 * level)


def test_cells_are_the_mean_colours_over_one_and_a_half_boxes() -> None:
    view = torch.randint(0, 256, (3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = colors([view], at(68.0, 68.0, 132.0, 132.0))[0].view(3, 12, 12)  # 96 px: 8 a cell
    area = view[:, 52:148, 52:148].double() / 255
    torch.testing.assert_close(found, area.view(3, 12, 8, 12, 8).mean(dim=(2, 4)), atol=1e-6, rtol=0)


# --- as a part of a policy -----------------------------------------------------------------------------------------


def test_its_thresholds_are_of_the_statistics_that_come_with_the_package() -> None:
    found = shipped(face_pixels.NAME)
    assert found.embedder_fingerprint == face_pixels.SHA256[:32]
    assert [t.far for t in found.thresholds] == [0.2, 0.1, 0.05, 0.02, 0.01]
    assert (found.identities, found.impostor_pairs, found.genuine_pairs) == (51, 10200, 102)
    assert all(t.tar > 0.9 for t in found.thresholds if t.tar is not None)
    assert learnt().factor.shape == (432, 40)
    from safetensors import safe_open

    with safe_open(bundled_file(face_pixels.FILE), "pt") as kept:
        assert "CC-BY 4.0" in kept.metadata()["source"]


@pytest.mark.parametrize(
    ("far", "message"),
    [
        (0.3, "no threshold at FAR 0.3; calibrated: 0.2, 0.1"),
        ("1e-2", "YAML wants 1.0e-5"),
        (2, "far must be between 0 and 1"),
    ],
)
def test_rates_that_are_not_calibrated_are_refused(far: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        from_yaml(POLICY.replace("pixel_match", f"pixel_match: {{far: {json.dumps(far)}}}"))


POLICY = """
name: mine
content:
  image:
    detect: [centerface]
    regions:
      face:
        ladder:
          - gaussian_blur: {sigma: 0.3}
          - fill: {coverage: 1.5}
        verify: [self_match, pixel_match]
"""


def test_a_blur_that_passes_the_network_is_followed_by_what_leaves_nothing(astronaut: Tensor) -> None:
    [outcome] = Anonymizer(from_yaml(POLICY), run_key=KEY).anonymize([astronaut], keys=["a"])
    assert isinstance(outcome, Released)
    [region] = outcome.record.regions
    assert region.rung == 1
    assert [v.passed for v in region.verdicts] == [True, True]
    [weaker] = Anonymizer(from_yaml(POLICY.replace(", pixel_match", "")), run_key=KEY).anonymize(
        [astronaut], keys=["a"]
    )
    assert isinstance(weaker, Released)
    assert weaker.record.regions[0].rung == 0
