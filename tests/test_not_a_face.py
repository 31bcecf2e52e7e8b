"""What is marked as no face stays as it is: where a detector finds just that, and no gallery may know it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anondata import Anonymizer, Sample, Schema
from anondata.cards._limits import unprotected
from anondata.cards._words import sentences
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError
from anondata.policy import from_yaml, load_policy
from anondata.protocols import Probe, Verdicts
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Gallery, empty_gallery

POLICY = """
name: mine
content:
  image:
    detect: [centerface]
    regions: {face: {ladder: [fill: {coverage: 1.5}], verify: [GATES]}}
    scan: {passes: 2, detect: [centerface: {threshold: 0.35}]}
    given: {statue: not_a_face, face: face}
"""
SCHEMA = Schema({"image": "image", "objects": "regions"})
MARKED, CHANGED = "marked_as_no_face", "marked_as_no_face_but_changed"


def policy(gates: str = "self_match") -> Any:
    return from_yaml(POLICY.replace("GATES", gates), own_code=[__name__])


def boxed(box: Any, category: str = "statue") -> list[dict[str, Any]]:
    return [{"box": [float(v) for v in box], "kind": category}]


def outcome_of(picture: Tensor, objects: Any, made: Any = None, **galleries: Gallery) -> Any:
    anonymizer = Anonymizer(made or policy(), device="cpu", run_key=b"0123456789abcdef", galleries=galleries)
    [outcome] = anonymizer.run([Sample("a", {"image": picture, "objects": objects})], SCHEMA)
    return outcome


@pytest.fixture(scope="module")
def box(astronaut: Tensor) -> list[float]:
    return CenterFaceDetector().detect([astronaut]).boxes[0].tolist()


def gallery(picture: Tensor) -> Gallery:
    faces = CenterFaceDetector().detect([picture])
    template = DlibEmbedder().embed([picture], faces.select([0]))
    return empty_gallery(DlibEmbedder()).add(["somebody"], template)


def test_it_stays_and_that_is_said_in_record_report_and_card(astronaut: Tensor, box: list[float]) -> None:
    made = policy()
    outcome = outcome_of(astronaut, boxed(box), made)
    assert outcome.released
    assert torch.equal(outcome.image, astronaut)
    [region] = outcome.record.regions
    assert (region.denied, region.spared, region.technique) == (True, True, "")
    assert outcome.record.notes == (MARKED,)
    report = Anonymizer(made).report([outcome])
    assert report.counts["regions"]["face"]["denied"] == 1
    assert report.counts["notes"] == {MARKED: 1}
    assert any(
        "1 regions that detectors take for the kind face are as they were: the publisher" in s
        for s in unprotected(made, report)
    )
    assert any("not_a_face lies stays as it is" in line for line in sentences(made))


def test_only_what_just_the_box_says_stays(astronaut: Tensor, box: list[float]) -> None:
    x0, y0, x1, y1 = box
    loose = [x0 - (x1 - x0), y0 - (y1 - y0), x1 + (x1 - x0), y1 + (y1 - y0)]
    for objects in (boxed(loose), boxed([10, 400, 60, 460]), boxed(box) + boxed(box, "face"), []):
        outcome = outcome_of(astronaut, objects)
        assert outcome.released
        assert [region.spared for region in outcome.record.regions] == [False]
        assert not torch.equal(outcome.image, astronaut)


def test_others_in_the_picture_are_changed(party_jpeg: bytes) -> None:
    from anondata.content.codec import decode

    picture = decode(party_jpeg).pixels
    found = CenterFaceDetector().detect([picture])
    largest = int(found.sizes.prod(dim=1).argmax())
    outcome = outcome_of(picture, boxed(found.boxes[largest].tolist()))
    assert outcome.released
    assert sum(region.denied for region in outcome.record.regions) <= 1
    assert sum(not region.spared for region in outcome.record.regions) >= 5


def test_whom_a_gallery_may_know_is_changed(astronaut: Tensor, party_jpeg: bytes, box: list[float]) -> None:
    from anondata.content.codec import decode

    matching, other = gallery(astronaut), gallery(decode(party_jpeg).pixels)
    for gates in ("gallery_match", "all_of: {gates: [self_match, gallery_match]}"):
        known = outcome_of(astronaut, boxed(box), policy(gates), protected=matching)
        assert [(r.spared, r.denied) for r in known.record.regions] == [(False, False)]
        assert known.record.notes == (CHANGED,)
        stranger = outcome_of(astronaut, boxed(box), policy(gates), protected=other)
        assert [region.denied for region in stranger.record.regions] == [True]


def test_in_doubt_it_is_changed(astronaut: Tensor, party_jpeg: bytes) -> None:
    """30 px: the recognizer's thresholds say nothing of it, though it is far from everybody."""
    from anondata.content.codec import decode

    # At 0.35 what is left around the mask is doubtfully found as a face, as near as a stranger behind one could be.
    small = torch.nn.functional.interpolate(astronaut[None], scale_factor=0.32, mode="bilinear", antialias=True)[0]
    [region] = CenterFaceDetector().detect([small])
    assert 12 < float(region.sizes.prod().sqrt()) < 40
    objects = boxed(region.boxes[0].tolist())
    other = gallery(decode(party_jpeg).pixels)
    assert outcome_of(small, objects).record.notes == (MARKED,)
    assert outcome_of(small, objects, policy("gallery_match"), protected=other).record.notes == (CHANGED,)


class Silent:
    """A gate of one's own that looks at a gallery, and cannot say whom it knows."""

    name, galleries = "silent", ("protected",)
    embedders = (DlibEmbedder(),)

    def bound(self, galleries: Any) -> Silent:
        return self

    def judge(self, probe: Probe) -> Verdicts:
        zeros = torch.zeros(len(probe.regions))
        return Verdicts("silent", zeros, zeros, zeros, torch.ones(len(probe.regions), dtype=torch.bool))


def test_where_a_gate_cannot_be_asked_it_is_changed(astronaut: Tensor, box: list[float]) -> None:
    outcome = outcome_of(astronaut, boxed(box), policy(f"'{__name__}:Silent'"), protected=gallery(astronaut))
    assert outcome.record.notes == (CHANGED,)


def test_the_policy_must_say_what_the_category_means(astronaut: Tensor, box: list[float]) -> None:
    outcome = outcome_of(astronaut, boxed(box, "not_a_face"), load_policy("faces"))
    assert outcome.reason == "wrong_regions"
    with pytest.raises(PolicyError, match="given: a category means 'not_a_dog'; expected exactly one of"):
        from_yaml(POLICY.replace("GATES", "self_match").replace("not_a_face", "not_a_dog"))
    text = "name: x\ncontent: {image: {detect: [frame], regions: {frame: {ladder: [fill], verify: [self_match]}}, "
    with pytest.raises(PolicyError, match="given: a category means 'not_a_face'"):
        from_yaml(text + "given: {statue: not_a_face}}}")


def test_masks_say_it_too(astronaut: Tensor) -> None:
    [region] = CenterFaceDetector().detect([astronaut])
    x0, y0, x1, y1 = (round(v) for v in region.boxes[0].tolist())
    masks = torch.zeros(1, *astronaut.shape[1:], dtype=torch.bool)
    masks[0, y0:y1, x0:x1] = True
    schema = Schema({"image": "image", "objects": "masks"})
    sample = Sample("a", {"image": astronaut, "objects": {"masks": masks, "labels": ["statue"]}})
    [outcome] = Anonymizer(policy(), device="cpu").run([sample], schema)
    assert outcome.record.notes == (MARKED,)
