"""Whom the rules know: what is spared stays as it is, who keeps one new look, and in doubt nobody is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anondata import Engine, RunKey, Sample, Schema
from anondata.content.images import ImageContent
from anondata.engine.rules import ContentRules, Head, KindRules, check_galleries
from anondata.errors import PolicyError
from anondata.policy import from_yaml, load_policy
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions, cat_regions
from anondata.report import from_json, report_of
from anondata.transforms import Fill

LEFT, RIGHT = (20.0, 20.0, 60.0, 60.0), (120.0, 20.0, 160.0, 60.0)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finds:
    boxes: tuple[Box, ...] = (LEFT, RIGHT)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return cat_regions([region(box, i) for i in range(len(views)) for box in self.boxes])


def region(box: Box, image: int = 0) -> Regions:
    none = torch.full((1, 5, 2), torch.nan)
    return Regions(torch.tensor([image]), torch.tensor([list(box)]), none, torch.ones(1), ("face",))


@dataclass(frozen=True)
class Corner:
    """Templates of one number: where a region begins. NaN where it begins at ``fails``."""

    name: str = "corner"
    fails: float = -1.0
    fingerprint: str = "0"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        x = regions.boxes[:, :1]
        return torch.where(x == self.fails, torch.nan, x)


@dataclass(frozen=True)
class SparesLeft:
    """Spares what begins left of ``until``."""

    until: float = 100.0
    embedder: Corner = Corner()
    asked: list[int] = field(default_factory=list)

    @property
    def embedders(self) -> Sequence[Corner]:
        return (self.embedder,)

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        self.asked.append(len(regions))
        return ~(templates[self.embedder.name][:, 0] >= self.until)


@dataclass(frozen=True)
class Passes:
    name: str = "passes"
    embedders: tuple[()] = ()
    shown: list[int] = field(default_factory=list)

    def judge(self, probe: Probe) -> Verdicts:
        self.shown.append(len(probe.regions))
        ones = torch.ones(len(probe.regions))
        return Verdicts(self.name, ones * 0, ones, ones * 0, ones > 0)


def picture() -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (3, 80, 180), dtype=np.uint8)
    return torch.from_numpy(noise)


def run(cover: Any, *, scanner: Any = None, passes: int = 0, image: Any = None, **kind: Any) -> tuple[Any, Passes]:
    gate = Passes()
    rules = KindRules((Fill((1.0, 1.0, 1.0), coverage=1.0),), (gate,), cover=cover, **kind)
    content = ContentRules(ImageContent(), (Finds(),), {"face": rules}, (scanner,) if scanner else (), passes)
    made = Engine({"image": content}, run_key=RunKey(b"0123456789abcdef"))
    (out,) = made.run([Sample("a", {"image": picture() if image is None else image})], Schema({"image": "image"}))
    return out, gate


def run_given(boxes: tuple[Box, ...], found: tuple[Box, ...]) -> Any:
    rules = KindRules((Fill((1.0, 1.0, 1.0), coverage=1.0),), (Passes(),), cover=SparesLeft(30.0))
    content = ContentRules(ImageContent(), (Finds(found),), {"face": rules})
    given = [{"box": list(box), "kind": "face"} for box in boxes]
    (out,) = Engine({"image": content}, run_key=RunKey(b"0123456789abcdef")).run(
        [Sample("a", {"image": picture(), "objects": given})], Schema({"image": "image", "objects": "regions"})
    )
    return out


def same(out: Any, box: Box) -> bool:
    x0, y0, x1, y1 = (int(v) for v in box)
    return torch.equal(out.image[:3, y0:y1, x0:x1], picture()[:, y0:y1, x0:x1])


def test_a_given_region_is_spared_only_where_a_detector_finds_it_too() -> None:
    """Of any other nobody knows whether its landmarks are a face's, so no cover can tell whose it is."""
    out = run_given((LEFT,), found=(RIGHT,))
    assert [(r.found_by, r.spared) for r in out.record.regions] == [("given", False), ("detect", False)]
    assert not same(out, LEFT)
    assert same(run_given((LEFT,), found=(LEFT,)), LEFT)


def test_a_stranger_beside_somebody_who_is_spared_is_changed_though_one_given_box_holds_both() -> None:
    """Both are by themselves without the box, and it must not make them one."""
    stranger = (32.0, 20.0, 72.0, 60.0)
    out = run_given(((20.0, 20.0, 71.0, 60.0),), found=(LEFT, stranger))
    assert not same(out, (60.0, 20.0, 71.0, 60.0))


def test_what_is_spared_stays_as_it_is_and_is_recorded() -> None:
    out, gate = run(SparesLeft())
    assert (same(out, LEFT), same(out, RIGHT)) == (True, False)
    assert [(r.spared, r.technique == "") for r in out.record.regions] == [(False, False), (True, True)]
    assert gate.shown == [1]
    counts = report_of(load_policy("faces"), [out]).counts["regions"]["face"]
    assert (counts["found"], counts["spared"]) == (2, 1)
    assert sum(counts["technique"].values()) == 1


def test_tiny_regions_are_never_spared() -> None:
    cover = SparesLeft(1e9)
    out, _ = run(cover, tiny_below_px=50, tiny_ladder=(Fill((1.0, 1.0, 1.0)),))
    assert (same(out, LEFT), same(out, RIGHT)) == (False, False)
    assert sum(cover.asked) == 0


def test_a_region_without_a_template_is_never_spared() -> None:
    out, _ = run(SparesLeft(embedder=Corner(fails=20.0)))
    assert not same(out, LEFT)


def test_nothing_is_spared_in_a_picture_that_shows_more_than_its_view() -> None:
    alpha = torch.arange(180, dtype=torch.uint8).expand(1, 80, 180)
    out, _ = run(SparesLeft(), image=torch.cat([picture(), alpha]))
    assert not same(out, LEFT)


@pytest.mark.parametrize("answer", [torch.zeros(1, dtype=torch.bool), torch.ones(2)])
def test_a_cover_that_answers_wrongly_withholds(answer: Tensor) -> None:
    class Wrong(SparesLeft):
        def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
            return answer

    out, _ = run(Wrong())
    assert out.reason == "error"


def test_the_scan_knows_a_spared_region_again() -> None:
    near = (23.0, 18.0, 64.0, 61.0)
    out, _ = run(SparesLeft(), scanner=Finds((near,)), passes=1)
    assert out.released
    assert same(out, LEFT)


def test_what_the_scan_finds_beside_it_is_decided_upon_in_its_turn() -> None:
    strangers = (80.0, 20.0, 110.0, 60.0), (130.0, 5.0, 170.0, 19.0)
    out, _ = run(SparesLeft(), scanner=Finds(strangers), passes=1)
    assert out.reason == "scan_unsettled"
    out, _ = run(SparesLeft(), scanner=Finds(strangers), passes=2)
    assert [(r.found_by, r.spared) for r in out.record.regions] == [
        ("detect", False),
        ("scan", False),
        ("detect", True),
        ("scan", True),
    ]
    out, _ = run(SparesLeft(), scanner=Finds(strangers[:1]), passes=1)
    assert out.released
    assert [r.found_by for r in out.record.regions if r.spared] == ["detect", "scan"]


POLICY = """
name: listed
content:
  image:
    detect: [centerface]
    regions:
      face:
        cover: {gallery: {gallery: vips, far: 0.05}}
        ladder: [fill]
        verify:
          - self_match
          - all_of:
              gates:
                - gallery_match: {gallery: vips}
                - any_of: {gates: [self_match, gallery_match: {gallery: b}]}
"""


def test_a_policy_names_its_galleries_and_takes_no_others() -> None:
    policy = from_yaml(POLICY)
    assert from_yaml(policy.to_yaml()) == policy
    check_galleries(policy, ("vips", "b"))
    with pytest.raises(PolicyError, match="needs a gallery called 'b'"):
        check_galleries(policy, ("vips",))
    with pytest.raises(PolicyError, match="looks at no gallery called 'c'; it would protect nobody"):
        check_galleries(policy, ("vips", "b", "c"))
    with pytest.raises(PolicyError, match="looks at no gallery called 'protected'"):
        check_galleries(load_policy("faces"), ("protected",))


def test_reports_of_other_galleries_do_not_merge() -> None:
    policy = load_policy("faces")
    one, two = report_of(policy, [], {"protected": "aa"}), report_of(policy, [], {"protected": "bb"})
    assert one.setting != two.setting
    assert from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="different galleries"):
        one + two


@dataclass(frozen=True)
class KnowsLeft:
    """Knows what begins left of 100 as one person."""

    embedder: Corner = Corner()

    @property
    def embedders(self) -> Sequence[Corner]:
        return (self.embedder,)

    def people(self, regions: Regions, templates: Mapping[str, Tensor]) -> list[str]:
        return ["ann" if x < 100 else "" for x in templates[self.embedder.name][:, 0].tolist()]


class NewLook(Fill):
    """Notes the seeds that it was given."""

    name = "new_look"
    draws = True

    def __init__(self, *, pseudonymous: bool = True) -> None:
        super().__init__((1.0, 1.0, 1.0), coverage=1.0)
        self.pseudonymous = pseudonymous
        self.seeds: list[int] = []

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        self.seeds.extend(seeds)
        return super().change(crops, extent=extent, seeds=seeds)


def seeds_of(look: NewLook, pseudonyms: Any = KnowsLeft(), key: bytes = b"0123456789abcdef") -> list[int]:
    """Of the left and the right region, in two samples."""
    rules = KindRules((look,), (Passes(),), pseudonyms=pseudonyms)
    made = Engine({"image": ContentRules(ImageContent(), (Finds(),), {"face": rules})}, run_key=RunKey(key))
    for name in ("a", "b"):
        made.run([Sample(name, {"image": picture()})], Schema({"image": "image"}))
    return look.seeds


def test_a_known_person_is_given_one_seed_in_all_samples_and_a_stranger_another_each_time() -> None:
    left, right, left_again, right_again = seeds_of(NewLook())
    assert left == left_again
    assert len({left, right, right_again}) == 3


def test_another_run_gives_the_same_person_another_look() -> None:
    assert seeds_of(NewLook())[0] != seeds_of(NewLook(), key=b"fedcba9876543210")[0]


def test_techniques_that_leave_something_of_the_original_never_share_a_seed() -> None:
    assert len(set(seeds_of(NewLook(pseudonymous=False)))) == 4


def test_nobody_is_known_without_a_whole_template() -> None:
    assert len(set(seeds_of(NewLook(), KnowsLeft(Corner(fails=20.0))))) == 4


PSEUDONYMS = """
name: staff
content:
  image:
    detect: [centerface]
    regions:
      face:
        ladder:
          - {technique}
        verify: [self_match]
        pseudonyms: {{gallery_people: {{gallery: staff}}}}
"""


def test_pseudonyms_name_a_gallery_that_must_be_given() -> None:
    policy = from_yaml(PSEUDONYMS.format(technique="synthetic_face: {members: 64, choices: 64}"))
    with pytest.raises(PolicyError, match="needs a gallery called 'staff'"):
        check_galleries(policy, [])
    check_galleries(policy, ["staff"])


@pytest.mark.parametrize("technique", ["fill", "synthetic_face: {choices: 16, keep: [smile]}"])
def test_pseudonyms_without_a_technique_that_can_keep_a_look_are_refused(technique: str) -> None:
    with pytest.raises(PolicyError, match="no technique of this ladder can give one person the same result again"):
        from_yaml(PSEUDONYMS.format(technique=technique))


# --- what of a face is covered -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [1.0, 1.5])
def test_head_covers_hair_neck_and_shoulders_whatever_the_coverage(coverage: float) -> None:
    box = (80.0, 60.0, 120.0, 110.0)
    rules = KindRules((Fill((1.0, 0.0, 0.0), coverage=coverage, feather=0.0),), (Passes(),), cover=Head())
    made = Engine({"image": ContentRules(ImageContent(), (Finds((box,)),), {"face": rules})})
    [out] = made.run(
        [Sample("k", {"image": torch.zeros(3, 200, 200, dtype=torch.uint8)})], Schema({"image": "image"})
    )
    rows, columns = (out.image[0] > 0).nonzero().unbind(dim=1)
    x0, y0, x1, y1 = region(box).heads().outlined().boxes[0].tolist()
    covered = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert torch.tensor(covered).float() == pytest.approx(torch.tensor([x0, y0, x1, y1]), abs=1)
    assert out.record.regions[0].box == box


FACES = load_policy("faces").to_yaml()


def test_a_policy_says_head() -> None:
    policy = from_yaml(FACES.replace("cover:\n          everyone: {}", "cover: head"))
    assert policy.content["image"].regions["face"].cover.make() == Head()
    assert from_yaml(policy.to_yaml()) == policy


def test_a_technique_that_draws_a_face_cannot_cover_a_head() -> None:
    text = load_policy("faces-synthetic").to_yaml().replace("cover:\n          everyone: {}", "cover: head")
    with pytest.raises(
        PolicyError, match="synthetic_face draws a face where the face was, and cannot cover the head"
    ):
        from_yaml(text)


def test_only_faces_have_heads() -> None:
    text = load_policy("documents").to_yaml().replace("cover:\n          everyone: {}", "cover: head", 1)
    with pytest.raises(PolicyError, match=r"regions.text.cover: only faces have a head to cover"):
        from_yaml(text)
