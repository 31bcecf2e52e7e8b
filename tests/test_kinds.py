"""Regions of several kinds in one picture: each must be safe in the end, whatever lies on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from anondata import Engine, RunKey, Sample, Schema, Withheld
from anondata.components import build
from anondata.content.images import ImageContent
from anondata.engine.rules import ContentRules, KindRules, check_galleries, rules_of
from anondata.errors import PolicyError
from anondata.policy import from_yaml, load_policy
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions, cat_regions
from anondata.transforms import Fill, Noise, Pixelate, RegionTransform

Box = tuple[float, float, float, float]
FRAME, FACE = (0.0, 0.0, 64.0, 64.0), (20.0, 20.0, 40.0, 40.0)
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
PLAIN: dict[str, Any] = {"coverage": 1.0, "feather": 0.0}


@dataclass(frozen=True)
class Finds:
    """Fixed boxes by kind. until: only in pictures whose first pixel is at least this bright."""

    boxes: tuple[tuple[str, Box], ...]

    def detect(self, views: Sequence[Tensor]) -> Regions:
        none = torch.full((1, 5, 2), torch.nan)
        return cat_regions(
            [
                Regions(torch.tensor([i]), torch.tensor([list(box)]), none, torch.ones(1), (kind,))
                for i in range(len(views))
                for kind, box in self.boxes
            ]
        )


@dataclass(frozen=True)
class Differs:
    """A gate of pixels alone: passes where at most ``same`` of the region is as it was."""

    same: float = 0.0
    seen: list[tuple[int, int]] = field(default_factory=list)
    embedders: tuple[()] = ()
    name: str = "differs"

    def judge(self, probe: Probe) -> Verdicts:
        share = []
        for image, (x0, y0, x1, y1) in zip(
            probe.regions.image.tolist(), probe.regions.boxes.int().tolist(), strict=True
        ):
            self.seen.append((image, len(probe.original)))
            pair = probe.original[image], probe.result[image]
            before, after = (view[:, y0:y1, x0:x1] for view in pair)
            share.append(float(((before.int() - after.int()).abs() < 3).all(dim=0).float().mean()))
        scores = torch.tensor(share)
        bound = torch.full_like(scores, self.same)
        return Verdicts(self.name, torch.ones_like(scores), scores, bound, scores <= bound)


@dataclass(frozen=True)
class Refuses:
    """A gate that passes nothing but what the techniques named here made."""

    but: type[RegionTransform] = Pixelate
    asked: list[int] = field(default_factory=list)
    embedders: tuple[()] = ()
    name: str = "refuses"

    def judge(self, probe: Probe) -> Verdicts:
        self.asked.append(len(probe.regions))
        passed = torch.tensor([isinstance(technique, self.but) for technique in probe.techniques])
        zeros = torch.zeros(len(passed))
        return Verdicts(self.name, zeros, zeros, zeros, passed)


class Copy(RegionTransform):
    """A technique that leaves a region as it is, where another kind's detector could not tell."""

    name = "copy"
    draws = False

    def strength(self) -> dict[str, Any]:
        return {}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return crops


def engine(kinds: Mapping[str, KindRules], found: Finds, *, scanner: Finds | None = None, passes: int = 2) -> Engine:
    content = ContentRules(ImageContent(), (found,), kinds, (scanner,) if scanner else (), passes if scanner else 0)
    return Engine({"image": content}, run_key=RunKey(b"0123456789abcdef"))


def picture() -> Tensor:
    return torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run(made: Engine, *images: Tensor) -> list[Any]:
    return made.run([Sample(str(i), {"image": image}) for i, image in enumerate(images)], Schema({"image": "image"}))


def filled(color: tuple[float, float, float], layer: int, **more: Any) -> KindRules:
    return KindRules((Fill(color, **PLAIN),), (Differs(),), layer=layer, **more)


def shown(image: Tensor) -> tuple[int, ...]:
    """The colour in the middle of the face."""
    return tuple(image[:, 30, 30].tolist())


@pytest.mark.parametrize("top", ["face", "frame"])
def test_the_kind_of_the_higher_layer_lies_on_top(top):
    kinds = {"face": filled(RED, int(top == "face")), "frame": filled(GREEN, int(top == "frame"))}
    [out] = run(engine(kinds, Finds((("face", FACE), ("frame", FRAME)))), picture())
    assert shown(out.image) == ((255, 0, 0) if top == "face" else (0, 255, 0))


def test_a_tiny_face_is_not_shown_again_by_what_was_made_of_the_whole_picture():
    tiny = KindRules((Fill(RED, **PLAIN),), (Differs(),), 30.0, (Fill(RED, **PLAIN),), layer=1)
    frame = KindRules((Pixelate(64, **PLAIN),), (Differs(1.0),), layer=0)
    [out] = run(engine({"frame": frame, "face": tiny}, Finds((("face", FACE), ("frame", FRAME)))), picture())
    assert shown(out.image) == (255, 0, 0)


@pytest.mark.parametrize("scanner", [None, Finds((("face", FACE),))])
def test_a_tiny_face_that_another_kind_s_patch_shows_again_is_withheld(scanner):
    tiny = KindRules((Fill(RED, **PLAIN),), (Differs(),), 30.0, (Fill(RED, **PLAIN),), layer=0)
    sign = KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=1)
    found = Finds((("face", FACE), ("text", (10.0, 10.0, 50.0, 50.0))))
    [out] = run(engine({"face": tiny, "text": sign}, found, scanner=scanner), picture())
    assert isinstance(out, Withheld)
    assert out.reason == "tiny_uncovered"


class Mirror(Copy):
    """Moves everything to the other side."""

    name = "mirror"
    moves = True

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return crops.flip(-1)


def test_a_face_is_not_seen_where_a_technique_for_the_whole_picture_moves_it():
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 20:40, 2:22] = 255
    kinds = {"frame": KindRules((Mirror(**PLAIN),), (Differs(1.0),)), "face": filled(RED, 1)}
    found = Finds((("face", (2.0, 20.0, 22.0, 40.0)), ("frame", FRAME)))
    [out] = run(engine(kinds, found), image)
    assert not bool((out.image[1] > 200).any())


class Bright:
    """Finds the face where it is bright."""

    def detect(self, views: Sequence[Tensor]) -> Regions:
        found = []
        for i, view in enumerate(views):
            y, x = (view[0] > 200).nonzero().unbind(1) if bool((view[0] > 200).any()) else ([], [])
            if len(x):
                box = (float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1)
                found.append(Finds((("face", box),)).detect([view]).renumbered(i))
        return cat_regions(found)


@pytest.mark.parametrize(("kind", "fills"), [("face", True), ("face", False), ("frame", True)])
def test_a_face_is_not_seen_where_a_technique_of_its_own_kind_or_of_one_above_moves_it(kind: str, fills: bool):
    """As under a box that is larger than the face: a gate looks where the face was, and its kind's patch hides it."""
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 20:40, 2:22] = 255
    ladder = (Mirror(**PLAIN), Mirror(**PLAIN), *([Fill(GREEN)] if fills else []))
    kinds = {"face": filled(GREEN, 0), kind: KindRules(ladder, (Differs(1.0),), layer=1)}
    [out] = run(engine(kinds, Finds(((kind, FRAME),)), scanner=Bright()), image)
    if not fills:
        assert isinstance(out, Withheld)
        assert out.detail == "a face still failed the output scan on the last rung of its ladder"
        return
    assert not bool((out.image[0] > 200).any())
    assert out.record.regions[0].rung == 2


@pytest.mark.parametrize("name", ["warp", "shuffle"])
def test_techniques_say_that_they_move_what_was_there(name):
    assert build("technique", name, {}).moves
    assert build("technique", "chain", {"steps": ["noise", name]}).moves


def test_a_face_that_another_kind_s_technique_leaves_is_found_by_the_scan():
    frame = KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=0)
    made = engine(
        {"frame": frame, "face": filled(RED, 1)}, Finds((("frame", FRAME),)), scanner=Finds((("face", FACE),))
    )
    [out] = run(made, picture())
    assert shown(out.image) == (255, 0, 0)
    assert [r.found_by for r in out.record.regions if r.kind == "face"] == ["scan"]


def test_a_face_of_which_another_kind_s_technique_left_nothing_is_explained():
    frame = KindRules((Fill(GREEN, coverage=1.3, feather=0.0),), (Differs(),), layer=0)
    made = engine(
        {"frame": frame, "face": filled(RED, 1)}, Finds((("frame", FRAME),)), scanner=Finds((("face", FACE),))
    )
    [out] = run(made, picture())
    assert shown(out.image) == (0, 255, 0)


def test_what_is_laid_over_an_erased_region_can_show_a_face_again():
    person = KindRules((Fill(GREEN, coverage=1.3, feather=0.0),), (Differs(1.0),), layer=0)
    sign = KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=1)
    found = Finds((("person", FRAME), ("text", (10.0, 10.0, 50.0, 50.0))))
    kinds = {"person": person, "text": sign, "face": filled(RED, 2)}
    [out] = run(engine(kinds, found, scanner=Finds((("face", FACE),))), picture())
    assert shown(out.image) == (255, 0, 0)


def test_a_person_under_a_sign_is_not_looked_for_for_ever():
    person = KindRules((Fill(GREEN, coverage=1.3, feather=0.0),), (Differs(1.0),), layer=0)
    sign = KindRules((Pixelate(2, **PLAIN),), (Differs(1.0),), layer=1)
    found = Finds((("person", FRAME), ("text", (10.0, 10.0, 50.0, 50.0))))
    [out] = run(engine({"person": person, "text": sign}, found, scanner=Finds((("person", FRAME),))), picture())
    assert not isinstance(out, Withheld)


def test_what_lies_on_top_is_judged_with_what_lies_below():
    """The frame's own gate sees that a copy on top shows it again, and the sample is withheld."""
    kinds = {"frame": filled(GREEN, 0), "text": KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=1)}
    smooth = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    [out] = run(engine(kinds, Finds((("frame", FRAME), ("text", FACE)))), smooth)
    assert isinstance(out, Withheld)


@dataclass(frozen=True)
class Erased:
    """A gate that passes whatever it is told is erased, and remembers what it was told."""

    told: list[list[bool]] = field(default_factory=list)
    embedders: tuple[()] = ()
    name: str = "erased"

    def judge(self, probe: Probe) -> Verdicts:
        self.told.append(probe.erased.tolist())
        zeros = torch.zeros(len(probe.erased))
        return Verdicts(self.name, zeros, zeros, zeros, probe.erased)


@pytest.mark.parametrize(("sign", "whole"), [(FACE, False), ((50.0, 50.0, 60.0, 60.0), True)])
def test_a_region_is_erased_only_where_nothing_that_lies_on_it_may_show_it(sign, whole):
    gate = Erased()
    kinds = {
        "person": KindRules((Fill(GREEN, coverage=1.3, feather=0.0),), (gate,), layer=0),
        "text": KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=1),
    }
    [out] = run(engine(kinds, Finds((("person", (16.0, 16.0, 44.0, 44.0)), ("text", sign)))), picture())
    assert gate.told == [[whole]]
    assert isinstance(out, Withheld) is not whole


def test_one_sign_somewhere_is_no_excuse_for_a_face_that_is_not_covered():
    """What was changed a little only, and is found again, is changed anew, whatever lies elsewhere in the picture."""
    weak = Fill(RED, coverage=0.5, feather=0.0)
    kinds = {
        "text": KindRules((Copy(**PLAIN),), (Differs(1.0),), layer=1),
        "face": KindRules((weak,), (Differs(1.0),), layer=0),
    }
    sees = Finds((("face", FACE),))
    for found in (sees, Finds((("face", FACE), ("text", (50.0, 50.0, 60.0, 60.0))))):
        [out] = run(engine(kinds, found, scanner=sees), picture())
        assert isinstance(out, Withheld)
        assert out.reason == "scan_unsettled"


def test_gates_see_the_pictures_that_regions_lie_in():
    gate = Differs()
    made = engine({"face": KindRules((Fill(RED, **PLAIN),), (gate,))}, Finds((("face", FACE),)))
    assert len(run(made, picture(), picture().flip(1))) == 2
    assert gate.seen == [(0, 2), (1, 2)]


@dataclass(frozen=True)
class Leaves:
    """A cover that leaves every region as it is."""

    embedders: tuple[()] = ()

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        return torch.ones_like(regions.scores, dtype=torch.bool)


@dataclass(frozen=True)
class Sees:
    """Finds a box of a kind where the picture is as it was in it."""

    original: Tensor
    kind: str = "face"
    box: Box = FACE

    def detect(self, views: Sequence[Tensor]) -> Regions:
        x0, y0, x1, y1 = map(int, self.box)
        part = self.original[:, y0:y1, x0:x1]
        found = Finds(((self.kind, self.box),)).detect(views)
        return found.select([i for i, view in enumerate(views) if torch.equal(view[:, y0:y1, x0:x1], part)])


@pytest.mark.parametrize("person", [FRAME, FACE])
def test_a_person_who_is_spared_hides_no_face_from_the_scan(person):
    kinds = {"person": KindRules((Fill(GREEN, **PLAIN),), (Differs(),), cover=Leaves()), "face": filled(RED, 1)}
    content = ContentRules(ImageContent(), (Finds((("person", person),)),), kinds, (Sees(picture()),), 2)
    [out] = run(Engine({"image": content}, run_key=RunKey(b"0123456789abcdef")), picture())
    assert shown(out.image) == (255, 0, 0)
    assert [(r.kind, r.spared) for r in out.record.regions] == [("face", False), ("person", True)]


@dataclass(frozen=True)
class Missed:
    """A detector that finds the face in the second picture that it is shown, and the frame in any."""

    shown: list[int] = field(default_factory=list)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        self.shown.append(len(views))
        found = (("frame", FRAME),) if len(self.shown) == 1 else (("frame", FRAME), ("face", FACE))
        return Finds(found).detect(views)


class Seen(Copy):
    """Remembers the crops that it was given."""

    moves = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.given: list[Tensor] = []

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        self.given.append(crops)
        return crops


def test_what_moves_is_made_again_without_a_face_that_only_the_scan_finds():
    technique, detector = Seen(**PLAIN), Missed()
    kinds = {"frame": KindRules((technique,), (Differs(1.0),), layer=0), "face": filled(RED, 1)}
    made = engine(kinds, detector, scanner=detector)  # type: ignore[arg-type]
    [out] = run(made, picture())
    assert not isinstance(out, Withheld)
    middle = [float(crops[0, :, 55:65, 55:65].std()) for crops in technique.given]
    assert len(middle) == 2
    assert middle[0] > 0.05
    assert middle[1] < 0.01


# --- utility -----------------------------------------------------------------------------------------------------


def test_a_rung_that_is_of_no_use_is_followed_by_the_next():
    ladder = (Fill(RED, **PLAIN), Pixelate(2, **PLAIN))
    kinds = {"face": KindRules(ladder, (Differs(),), utility=(Refuses(),))}
    [out] = run(engine(kinds, Finds((("face", FACE),))), picture())
    [region] = out.record.regions
    assert (region.rung, [v.verifier for v in region.verdicts]) == (1, ["differs", "refuses"])


def test_utility_is_not_asked_of_the_last_resort():
    useful = Refuses()
    kinds = {"face": KindRules((Fill(RED, **PLAIN), Fill(GREEN)), (Differs(),), utility=(useful,), fills=True)}
    [out] = run(engine(kinds, Finds((("face", FACE),))), picture())
    assert useful.asked == [1]
    assert [v.verifier for v in out.record.regions[0].verdicts] == ["differs"]


def test_without_a_last_resort_what_is_of_no_use_is_withheld():
    kinds = {"face": KindRules((Fill(RED, **PLAIN),), (Differs(),), utility=(Refuses(),))}
    [out] = run(engine(kinds, Finds((("face", FACE),))), picture())
    assert isinstance(out, Withheld)


# --- policies ----------------------------------------------------------------------------------------------------


def two_kinds() -> str:
    faces = load_policy("faces-fill").to_yaml()
    indented = faces.partition("      face:\n")[2].partition("    scan:")[0]
    return faces.replace("      face:\n", f"      plate:\n{indented}      face:\n").replace(
        "        tiny:", "        utility: [self_match]\n        tiny:", 1
    )


def test_layers_are_the_order_of_the_policy():
    kinds = rules_of(from_yaml(two_kinds()))["image"].kinds
    assert [(name, rules.layer, len(rules.utility)) for name, rules in kinds.items()] == [
        ("plate", 0, 1),
        ("face", 1, 0),
    ]


def test_the_order_of_kinds_is_part_of_the_fingerprint():
    policy = from_yaml(two_kinds())
    regions = dict(reversed(policy.content["image"].regions.items()))
    content = policy.content["image"].model_copy(update={"regions": regions})
    assert policy.model_copy(update={"content": {"image": content}}).fingerprint != policy.fingerprint


def test_galleries_of_utility_gates_must_be_given():
    policy = from_yaml(two_kinds().replace("[self_match]", "[gallery_match: {gallery: vips}]"))
    with pytest.raises(PolicyError, match="needs a gallery called 'vips'"):
        check_galleries(policy, ())


# --- landmarks ---------------------------------------------------------------------------------------------------


class Marks(Copy):
    """Remembers where it was told that landmarks are."""

    aligns = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.told: list[Tensor] = []

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        self.told.append(landmarks)
        return crops


def test_landmarks_come_as_shares_of_the_crop():
    technique = Marks(**PLAIN)
    points = torch.tensor([[[20.0, 20.0], [40.0, 40.0], [30.0, 30.0], [torch.nan, 25.0], [60.0, 30.0]]])
    box = torch.tensor([[20.0, 20.0, 40.0, 40.0]])
    regions = Regions(torch.tensor([0]), box, points, torch.ones(1), ("face",))
    content = ImageContent()
    content.change([content.decode(picture(), torch.device("cpu"))], regions, technique, [0])
    [[left, right, nose, mouth, out]] = technique.told[0].tolist()
    assert (left, right, nose) == ([0, 0], [1, 1], [0.5, 0.5])
    assert mouth[0] != mouth[0]
    assert mouth[1] == pytest.approx(0.25)
    assert out[0] == pytest.approx(2.0)


def test_many_regions_are_changed_a_few_at_a_time_and_each_with_its_own_seed():
    class Noted(Noise):
        def change(self, crops, *, extent, seeds):
            sizes.append(len(crops))
            return super().change(crops, extent=extent, seeds=seeds)

    sizes: list[int] = []
    boxes = torch.tensor(
        [[float(x), float(y), x + 8.0, y + 8.0] for y in range(0, 160, 10) for x in range(0, 160, 10)]
    )
    many = Regions(
        torch.zeros(len(boxes), dtype=torch.int64),
        boxes,
        torch.full((len(boxes), 5, 2), torch.nan),
        torch.ones(len(boxes)),
        ("face",) * len(boxes),
    )
    content, technique = ImageContent(), Noted()
    media = [content.decode(torch.full((3, 160, 160), 99, dtype=torch.uint8), torch.device("cpu"))]
    patches = content.change(media, many, technique, range(len(many)))
    assert max(sizes) <= 128 < len(many) == len(patches)
    for row in (0, 127, 128, 255):
        [alone] = content.change(media, many.select([row]), technique, [row])
        assert torch.equal(patches[row].crop, alone.crop)
