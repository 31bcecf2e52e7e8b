"""Policies: data in, the same data out, and a clear word about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anondata.crops import outer_rects
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError
from anondata.policy import audit_allows, from_yaml, load_policy, presets
from anondata.tools.bench._common import RESULTS
from anondata.tools.bench.privacy_utility import face_ladder
from anondata.transforms import describe

PLAIN = """
name: plain
content:
  image:
    detect: [centerface]
    regions:
      face:
        ladder: [fill]
        verify: [self_match]
"""


@pytest.mark.parametrize("name", presets())
def test_presets_round_trip_through_yaml(name: str) -> None:
    policy = load_policy(name)
    assert from_yaml(policy.to_yaml()) == policy
    assert policy.name == name
    assert policy.about


def test_the_presets_are_these() -> None:
    assert presets() == (
        "documents",
        "faces",
        "faces-except-consented",
        "faces-fill",
        "faces-only-protected",
        "faces-protected",
        "faces-synthetic",
        "people",
        "places",
        "street",
        "unsafe-blur",
        "unsafe-mosaic",
    )


@pytest.mark.parametrize("name", ["faces-blur", "faces-mosaic"])
def test_names_that_presets_no_longer_have_say_what_they_are_called_and_why(name: str) -> None:
    with pytest.raises(PolicyError, match=f"{name}' is now called 'unsafe-.*name most people"):
        load_policy(name)


def test_the_fingerprint_changes_with_any_parameter_and_not_with_the_name() -> None:
    base = from_yaml(PLAIN).fingerprint
    assert from_yaml(PLAIN.replace("name: plain", "name: other")).fingerprint == base
    assert from_yaml(PLAIN.replace("[fill]", "[fill: {coverage: 1.31}]")).fingerprint != base
    assert from_yaml(PLAIN.replace("[centerface]", "[centerface: {threshold: 0.21}]")).fingerprint != base


def test_a_default_written_out_has_the_fingerprint_of_one_left_out() -> None:
    written = PLAIN.replace("[fill]", "[fill: {coverage: 1.3}]")
    assert from_yaml(written).fingerprint == from_yaml(PLAIN).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ladder:", "lader:"), "content.image.regions.face.lader: unknown key; did you mean 'ladder'?"),
        (("[fill]", "[fil]"), "unknown technique 'fil'; did you mean 'fill'?"),
        (("[fill]", "[gaussian_blur: {sigma: -1}]"), "technique 'gaussian_blur': sigma must be between"),
        (("[fill]", "[fill: {colour: mean}]"), "technique 'fill' has no parameter 'colour'; did you mean 'color'"),
        (("[fill]", "[]"), "content.image.regions.face.ladder: List should have at least 1 item"),
        (("[self_match]", "[]"), "content.image.regions.face.verify: List should have at least 1 item"),
        (("[self_match]", "[self_match: {far: 0.5}]"), "no threshold at FAR 0.5; calibrated: 0.05"),
        (("[self_match]", "[self_match: {embedder: dlib}]"), "unknown embedder 'dlib'; known: dlib-face-resnet"),
        (("[centerface]", "[retinaface]"), "unknown detector 'retinaface'; did you mean 'centerface'"),
        (("[centerface]", "[centerface: {threshold: 2}]"), "threshold must be between 0 and 1, got 2"),
        (("[centerface]", "[centerface: 3]"), "the parameters of detector 'centerface' must be a mapping"),
        (("  image:", "  sound:"), "content: unknown content type 'sound'; known: "),
        (("  image:", "  imgae:"), "content: unknown content type 'imgae'; did you mean 'image'"),
        (("name: plain", "name: Not A Name"), "name: String should match pattern"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: tuple[str, str], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        from_yaml(PLAIN.replace(*change))


@pytest.mark.parametrize("text", ["{", "", "- a", "3", "name: x"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        from_yaml(text)


def test_a_file_is_read_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PLAIN)
    assert load_policy(tmp_path / "mine.yaml").name == "plain"
    with pytest.raises(PolicyError, match="the policy file cannot be read: FileNotFoundError"):
        load_policy(tmp_path / "other.yaml")


def test_components_of_one_s_own_are_named_by_their_path() -> None:
    text = PLAIN.replace("[fill]", "['anondata.transforms.fill:Fill': {coverage: 2.0}]")
    made = from_yaml(text, own_code=["anondata.transforms.fill"])
    assert made.content["image"].regions["face"].ladder[0].make().coverage == 2.0


def test_a_module_that_is_not_there_is_said() -> None:
    with pytest.raises(PolicyError, match=r"detector 'no.module:Thing' cannot be imported.*PYTHONPATH"):
        from_yaml(PLAIN.replace("[centerface]", "['no.module:Thing']"), own_code="no")


class OneKind(CenterFaceDetector):
    kinds = "face"  # type: ignore[assignment]  # as people write it


class NoKinds(CenterFaceDetector):
    def kinds(self) -> tuple[str, ...]:  # type: ignore[override]  # a word that may mean something else
        return ("face",)


def test_a_detector_of_one_s_own_may_say_its_one_kind_as_a_text() -> None:
    content = from_yaml(PLAIN.replace("[centerface]", f"['{__name__}:OneKind']"), own_code=[__name__]).content[
        "image"
    ]
    assert content.looked_for == {"face"}


def test_kinds_that_are_no_texts_are_an_error_that_says_what_they_should_be() -> None:
    with pytest.raises(PolicyError, match="kinds of 'NoKinds' is method; expected a tuple"):
        from_yaml(PLAIN.replace("[centerface]", f"['{__name__}:NoKinds']"), own_code=[__name__])


def test_the_bound_for_publishing_is_part_of_the_fingerprint() -> None:
    bound = PLAIN + "audit: {above_chance: 5}\n"
    found = from_yaml(bound)
    assert found.audit is not None
    assert found.audit.attackers == ["composite"]
    assert found.fingerprint != from_yaml(PLAIN).fingerprint
    assert found.fingerprint != from_yaml(bound.replace("5", "6")).fingerprint


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ("{above_chance: -1}", "audit.above_chance: Input should be greater than or equal to 0"),
        ("{above_chance: .nan}", "audit.above_chance"),
        ("{above_chance: 5, attackers: [parot]}", "audit.attackers.0"),
        ("{above_chance: 5, attackers: []}", "audit.attackers"),
        ("{above: 5}", "audit.above: unknown key"),
    ],
)
def test_a_bound_that_is_none_is_refused(audit: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        from_yaml(PLAIN + f"audit: {audit}\n")


def test_presets_that_leave_faces_as_they_are_cannot_be_published() -> None:
    without = [name for name in presets() if load_policy(name).audit is None]
    assert without == ["faces-except-consented", "faces-only-protected", "unsafe-blur", "unsafe-mosaic"]


@pytest.mark.parametrize("name", presets())
def test_ladders_for_faces_go_from_the_least_destructive_rung_up_as_measured(name: str) -> None:
    """By perceptual distance; what erases comes last, whatever it is like."""
    measured = json.loads((RESULTS / "privacy_utility.json").read_text())["rows"]
    distance = {row["technique"]: row["perceptual distance"] for row in measured}
    ladder = face_ladder(name)
    rungs = [(rung.erases, 0.0 if rung.erases else distance[describe(rung)]) for rung in ladder]
    assert ladder
    assert rungs == sorted(rungs)


def test_ladders_for_text_go_from_the_rung_that_leaves_most_text_down_as_measured() -> None:
    measured = json.loads((RESULTS / "text_plates.json").read_text())
    for kind, rungs in (("text", ["text_swap", "fill"]), ("plate", ["plate_swap", "fill"])):
        [ladder] = [c.regions[kind].ladder for c in load_policy("street").own.values()]
        assert [rung.name for rung in ladder] == rungs
        left = [measured[kind][name]["still_text"]["percent"] for name in rungs]
        assert left == sorted(left, reverse=True)


def test_a_kind_that_a_detector_finds_has_a_ladder() -> None:
    with pytest.raises(PolicyError, match="persons finds 'person', but regions: has no ladder for it; add one"):
        from_yaml(PLAIN.replace("detect: [centerface]", "detect: [centerface, persons]"))
    scanned = PLAIN.rstrip() + "\n    scan: {detect: [text]}\n"
    with pytest.raises(PolicyError, match="text finds 'text'"):
        from_yaml(scanned)


@pytest.mark.parametrize("name", [name for name in presets() if not name.startswith("unsafe-")])
def test_nothing_of_the_original_shines_through_within_1_3_times_a_face_s_box(name: str) -> None:
    """The soft edge mixes the result with what was there, and corners stay as they are."""
    [content] = load_policy(name).own.values()
    rules = content.regions["face"]
    tiny = rules.tiny.ladder if rules.tiny else []
    for technique in [step.make() for step in (*rules.ladder, *tiny)]:
        box = [100.0, 100.0, 200.0, 230.0]
        inner = outer_rects(torch.tensor([box]), 1.3, torch.tensor([400, 400]))[0].tolist()
        assert bool((technique.weight(box, inner) == 1).all()), describe(technique)


def attack(attacker: str, percent: float, low: float, *, gallery: str = "originals") -> dict[str, Any]:
    rank1 = {"percent": percent, "low": low, "high": 100.0, "chance_percent": 2.0}
    return {"attacker": attacker, "gallery": gallery, "rank1": rank1}


@pytest.mark.parametrize(
    ("one", "allowed"),
    [
        (attack("composite", 5.0, 1.0), True),
        (attack("composite", 5.1, 1.0), False),
        (attack("parrot", 9.0, 3.0), True),  # of many attackers the luckiest
        (attack("parrot", 9.0, 5.1), False),
        (attack("averaging", 80.0, 70.0), False),
        (attack("context", 90.0, 80.0), True),  # no technique changes what it looks at
        (attack("place", 90.0, 80.0), True),
        (attack("naive", 9.0, 3.0, gallery="enrolled"), False),
        (attack("parrot", float("nan"), 1.0), False),
        (attack("parrot", 9.0, float("nan")), False),
        (attack("parrot", 1.0, 3.0), False),
    ],
)
def test_an_audit_allows_what_was_demanded_by_its_figure_and_others_by_their_interval(one, allowed):
    assert audit_allows(3.0, ["composite"], one) is allowed
