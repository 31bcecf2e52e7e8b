"""Files of several pictures in the engine: each is changed and judged, and what stays looks the same in all."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageSequence
from torch import Tensor

import anondata
from anondata import Anonymizer, Engine, Outcome, Released, RunKey, Sample, Withheld
from anondata.content import animated
from anondata.content._tracks import HOLD, LOST, extended, labels
from anondata.content.frames import GAP_PX, FramesContent
from anondata.content.images import ImageContent
from anondata.engine.rules import ContentRules, Everyone, KindRules, rules_of
from anondata.errors import PolicyError
from anondata.policy import from_yaml, load_policy
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions, cat_regions
from anondata.samples import Schema
from anondata.transforms import Fill, Pixelate, RandomColors, RegionTransform

HEIGHT, WIDTH, SIDE = 60, 90, 16
RED = (250, 0, 0)
IMAGE = Schema({"image": "image"})


@dataclass(frozen=True)
class Red:
    """Finds what is red of this level: one box around it, in each picture. ``kinds`` is what it calls them."""

    level: int = 250

    def detect(self, views: Sequence[Tensor]) -> Regions:
        parts = []
        for i, view in enumerate(views):
            mask = (view[0] == self.level) & (view[1] == 0)
            if bool(mask.any()):
                rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
                box = [float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]
                marks = torch.full((1, 5, 2), torch.nan)
                parts.append(Regions(torch.tensor([i]), torch.tensor([box]), marks, torch.ones(1), ("face",)))
        return cat_regions(parts)


@dataclass(frozen=True)
class Brightest:
    """An embedder: the most red in a box."""

    name: str = "brightest"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        rows = []
        for i, (x0, y0, x1, y1) in zip(regions.image.tolist(), regions.boxes.int().tolist(), strict=True):
            rows.append(views[i][0, max(y0, 0) : y1, max(x0, 0) : x1].float().amax()[None])
        return torch.stack(rows)


@dataclass(frozen=True)
class Refuses:
    """A gate that passes what is no more as red as it was, unless a place is refused. ``seen``: how many a look."""

    refused: tuple[int, ...] = ()
    seen: list[int] = field(default_factory=list)
    name: str = "refuses"

    @property
    def embedders(self) -> tuple[Any, ...]:
        return (Brightest(),)

    def judge(self, probe: Probe) -> Verdicts:
        self.seen.append(len(probe.regions))
        tops = (probe.regions.boxes[:, 1] // (HEIGHT + GAP_PX)).long().tolist()
        passed = torch.tensor([top not in self.refused for top in tops])
        after = probe.after["brightest"][:, 0]
        return Verdicts(self.name, probe.before["brightest"][:, 0], after, torch.full_like(after, 240), passed)


def film(places: Sequence[tuple[int, int] | None], reds: Mapping[int, int] | None = None) -> list[Image.Image]:
    """Pictures of a red square at places (x, y), on grey. reds: another level of red in some of them."""
    out = []
    for k, place in enumerate(places):
        levels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        levels[-1, k] = 60  # Pillow writes equal pictures once
        if place is not None:
            x, y = place
            levels[y : y + SIDE, x : x + SIDE] = ((reds or {}).get(k, RED[0]), 0, 0)
        out.append(Image.fromarray(levels))
    return out


def saved(pictures: Sequence[Image.Image], form: str = "PNG", **options: Any) -> bytes:
    timed = {} if form == "TIFF" else {"duration": [50 + 10 * k for k in range(len(pictures))], "loop": 0}
    more = {"lossless": True} if form == "WEBP" else {}
    buffer = io.BytesIO()
    first, *others = pictures
    first.save(buffer, form, save_all=True, append_images=others, **{**timed, **more, **options})
    return buffer.getvalue()


def engine(
    *ladder: RegionTransform,
    gate: Any = None,
    detectors: Sequence[Any] = (Red(),),
    max_frames: int = 1000,
    **told: Any,
) -> Engine:
    kinds = {"face": KindRules(ladder or (RandomColors(),), (gate or Refuses(),), **told)}
    image = ContentRules(ImageContent(), tuple(detectors), kinds)
    frames = replace(image, content=FramesContent(max_frames=max_frames))
    return Engine({"image": image, "frames": frames}, run_key=RunKey(b"k" * 32))


def outcome(made: Engine, data: Any, schema: Schema = IMAGE, **fields: Any) -> Outcome:
    [one] = made.run([Sample("a", {"image": data, **fields})], schema)
    return one


def levels(value: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(p.convert("RGB")).astype(int) for p in ImageSequence.Iterator(Image.open(io.BytesIO(value)))]


def at(picture: np.ndarray[Any, Any], place: tuple[int, int]) -> np.ndarray[Any, Any]:
    x, y = place
    return picture[y : y + SIDE, x : x + SIDE]


MOVING = [(10 + 6 * k, 20) for k in range(5)]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_every_picture_is_changed_and_comes_back_with_its_duration(form: str) -> None:
    data = saved(film(MOVING), form)
    one = outcome(engine(Fill((0.0, 0.0, 0.0))), data)
    assert isinstance(one, Released)
    pictures = levels(one.image)
    assert len(pictures) == 5
    assert all(at(p, place).max() < 60 for p, place in zip(pictures, MOVING, strict=True))
    assert all(abs(int(p[5, 5, 0]) - 90) < 8 for p in pictures)
    assert animated.decode(one.image).durations == animated.decode(data).durations
    assert [r.place for r in one.record.regions] == [f"image[{k}]" for k in range(5)]
    assert [tuple(map(round, r.box)) for r in one.record.regions] == [(x, 20, x + SIDE, 36) for x, _ in MOVING]
    assert one.record.notes == ("every_frame",)


def test_the_gate_judges_every_picture() -> None:
    gate = Refuses()
    assert outcome(engine(gate=gate), saved(film(MOVING))).released
    assert gate.seen == [5]
    one = outcome(engine(gate=Refuses(refused=(3,))), saved(film(MOVING)))
    assert isinstance(one, Withheld)
    assert one.reason == "still_recognised"


def test_what_stays_looks_the_same_in_every_picture_and_is_drawn_once() -> None:
    pictures = levels(outcome(engine(Pixelate(blocks=4, noise=0.3)), saved(film(MOVING))).image)
    first = at(pictures[0], MOVING[0])
    assert first.std() > 5
    assert all((at(p, place) == first).all() for p, place in zip(pictures, MOVING, strict=True))


def test_what_appears_elsewhere_gets_another_look() -> None:
    places = [(5, 5), (5, 5), (70, 40), (70, 40)]
    pictures = levels(outcome(engine(RandomColors()), saved(film(places))).image)
    looks = [at(p, place) for p, place in zip(pictures, places, strict=True)]
    assert (looks[0] == looks[1]).all()
    assert (looks[2] == looks[3]).all()
    assert (looks[0] != looks[2]).any()


def test_one_rung_up_is_one_rung_up_in_all_pictures() -> None:
    @dataclass(frozen=True)
    class Once(Refuses):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            weak = torch.tensor([isinstance(t, RandomColors) for t in probe.techniques])
            return replace(verdicts, passed=verdicts.passed | ~weak)

    one = outcome(engine(RandomColors(), Fill(), gate=Once(refused=(2,))), saved(film(MOVING)))
    assert [r.rung for r in one.record.regions] == [1] * 5


def test_where_a_detector_misses_what_is_seen_before_and_after_it_is_held() -> None:
    data = saved(film(MOVING, {2: 200}))  # another red, which the detector does not see
    one = outcome(engine(Fill((0.0, 0.0, 0.0))), data)
    assert isinstance(one, Released)
    pictures = levels(one.image)
    assert all(at(p, place).max() == 0 for p, place in zip(pictures, MOVING, strict=True))
    assert {r.place: r.found_by for r in one.record.regions} == {
        **{f"image[{k}]": "detect" for k in range(5)},
        "image[2]": "held",
    }


def test_before_it_is_first_seen_and_after_it_is_last_seen_it_is_held_for_a_while() -> None:
    places = [(20, 20)] * 9
    data = saved(film(places, dict.fromkeys((0, 1, 2, 6, 7, 8), 200)), "TIFF")
    one = outcome(engine(Fill((0.0, 0.0, 0.0))), data)
    assert all(at(p, (20, 20)).max() == 0 for p in levels(one.image))
    assert HOLD == 3


def test_in_another_scene_nothing_is_held() -> None:
    pictures = [*film([(20, 20)] * 3), Image.new("RGB", (WIDTH, HEIGHT), "white")]
    one = outcome(engine(Fill((0.0, 0.0, 0.0))), saved(pictures))
    assert (levels(one.image)[3] == 255).all()


def test_who_is_changed_in_one_picture_is_spared_in_none() -> None:
    @dataclass(frozen=True)
    class SparesTheFirst(Everyone):
        def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
            return regions.boxes[:, 1] < HEIGHT * 3

    one = outcome(engine(Fill((0.0, 0.0, 0.0)), cover=SparesTheFirst()), saved(film(MOVING)))
    assert not any(r.spared for r in one.record.regions)
    assert all(at(p, place).max() == 0 for p, place in zip(levels(one.image), MOVING, strict=True))


def test_who_is_spared_in_all_pictures_stays_as_they_are() -> None:
    @dataclass(frozen=True)
    class SparesAll(Everyone):
        def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
            return torch.ones(len(regions), dtype=torch.bool)

    one = outcome(engine(Fill((0.0, 0.0, 0.0)), cover=SparesAll()), saved(film(MOVING)))
    assert all(r.spared for r in one.record.regions)
    assert all((at(p, place) == RED).all() for p, place in zip(levels(one.image), MOVING, strict=True))


def test_boxes_that_come_with_a_file_count_in_every_picture() -> None:
    schema = Schema({"image": "image", "boxes": "regions"})
    boxes = {"box": [[30.0, 10.0, 50.0, 30.0]], "kind": ["face"]}
    one = outcome(engine(Fill((0.0, 0.0, 0.0)), detectors=(Red(7),)), saved(film([None] * 3)), schema, boxes=boxes)
    assert isinstance(one, Released)
    assert [r.place for r in one.record.regions] == ["image[0]", "image[1]", "image[2]"]
    assert all(p[10:30, 30:50].max() == 0 for p in levels(one.image))


def test_that_something_is_no_face_counts_in_no_picture_of_several() -> None:
    schema = Schema({"image": "image", "boxes": "regions"})
    x, y = MOVING[0]
    boxes = {"box": [[float(x), float(y), float(x + SIDE), float(y + SIDE)]], "kind": ["not_a_face"]}
    made = engine(Fill((0.0, 0.0, 0.0)))
    made.rules = {n: replace(r, given={"not_a_face": "not_a_face"}) for n, r in made.rules.items()}
    one = outcome(made, saved(film([MOVING[0]] * 3)), schema, boxes=boxes)
    assert all(at(p, MOVING[0]).max() == 0 for p in levels(one.image))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_file_that_ends_early_is_withheld(form: str) -> None:
    data = saved(film(MOVING), form)
    one = outcome(engine(), data[: -len(data) // 5])
    assert isinstance(one, Withheld)
    assert one.reason in ("truncated", "corrupt")


def test_too_many_pictures_are_withheld() -> None:
    one = outcome(engine(max_frames=4), saved(film(MOVING)))
    assert isinstance(one, Withheld)
    assert one.reason == "too_large"


def test_an_error_in_one_picture_withholds_the_file_and_no_other() -> None:
    @dataclass(frozen=True)
    class Breaks(Red):
        def detect(self, views: Sequence[Tensor]) -> Regions:
            if any(bool((view[2] == 77).any()) for view in views):
                raise RuntimeError
            return super().detect(views)

    bad = film(MOVING)
    bad[3].putpixel((0, 0), (77, 77, 77))
    made = engine(detectors=(Breaks(),))
    samples = [Sample(str(k), {"image": saved(one)}) for k, one in enumerate((film(MOVING), bad, film(MOVING)))]
    assert [o.released for o in made.run(samples, IMAGE)] == [True, False, True]


def test_a_policy_without_frames_writes_the_first_picture_and_says_so() -> None:
    made = engine(Fill((0.0, 0.0, 0.0)))
    del made.rules["frames"]
    one = outcome(made, saved(film(MOVING)))
    assert len(levels(one.image)) == 1
    assert one.record.notes == ("first_frame_only",)


def test_a_field_of_frames_holds_nothing_else() -> None:
    buffer = io.BytesIO()
    film(MOVING)[0].save(buffer, "PNG")
    one = outcome(engine(), buffer.getvalue(), Schema({"image": "frames"}))
    assert isinstance(one, Withheld)
    assert one.reason == "wrong_type"
    assert outcome(engine(), saved(film(MOVING)), Schema({"image": "frames"})).released


def test_a_file_gives_the_same_whatever_is_beside_it() -> None:
    data, other = saved(film(MOVING)), saved(film(MOVING[::-1]))
    alone = outcome(engine(), data)
    beside = engine().run([Sample("b", {"image": other}), Sample("a", {"image": data})], IMAGE)[1]
    assert alone.image == beside.image
    assert alone.record == beside.record


def test_insights_tell_of_the_picture_with_most_in_it() -> None:
    schema = Schema({"image": "image", "told": "insights"})
    one = outcome(engine(), saved(film([None, (20, 20), (20, 20)])), schema)
    assert one.sample["told"].startswith("One face: ")


# ---- which are one -----------------------------------------------------------------------------------------------


def boxes(*rows: tuple[int, float, float], side: float = 20.0, kind: str = "face") -> Regions:
    """Squares by picture and place."""
    sides = torch.tensor([[x, y, x + side, y + side] for _, x, y in rows])
    marks, scores = torch.full((len(rows), 5, 2), torch.nan), torch.ones(len(rows))
    return Regions(torch.tensor([k for k, _, _ in rows]), sides, marks, scores, (kind,) * len(rows))


def test_regions_are_followed_by_overlap_the_nearest_first() -> None:
    assert labels(boxes((0, 0, 0), (0, 40, 0), (1, 42, 0), (1, 2, 0))) == [0, 1, 1, 0]
    assert labels(boxes((0, 0, 0), (1, 40, 0))) == [0, 0]
    assert labels(boxes((0, 0, 0), (1, 60, 0))) == [0, 1]
    assert labels(boxes((0, 0, 0), (LOST + 1, 0, 0))) == [0, 0]
    assert labels(boxes((0, 0, 0), (LOST + 2, 0, 0))) == [0, 1]
    assert labels(cat_regions([boxes((0, 0, 0)), boxes((1, 0, 0), kind="plate")])) == [0, 1]
    assert labels(cat_regions([boxes((0, 0, 0)), boxes((0, 2, 2), side=14)])) == [0, 0]


def test_a_region_that_moves_is_held_on_its_way() -> None:
    grey = [torch.full((3, 60, 200), 90, dtype=torch.uint8)] * 8
    more = extended(boxes((2, 40, 10), (3, 50, 10), (5, 70, 10)), grey)
    found = {int(one.image): one.boxes[0, 0].item() for one in more}
    assert found == {0: 20, 1: 30, 4: 60, 6: 80, 7: 90}


def test_a_line_of_a_page_is_not_held_on_another_page() -> None:
    blank = torch.full((3, 60, 200), 250, dtype=torch.uint8)
    line = blank.clone()
    line[:, 8:22, 40:60:2] = 20  # letters
    rows = boxes((1, 40, 5), (3, 40, 5))
    pages = [line, line, blank, line, line]
    assert [int(one.image) for one in extended(rows, pages)] == [2, 4, 0]
    assert [int(one.image) for one in extended(rows, pages, pages=True)] == [4, 0]


# ---- policies ------------------------------------------------------------------------------------------------------


def with_frames(part: Any) -> str:
    data = yaml.safe_load(load_policy("faces-fill").to_yaml())
    data["content"]["frames"] = part
    return yaml.safe_dump(data, sort_keys=False)


def test_frames_like_image_have_its_rules_and_are_written_in_a_line() -> None:
    policy = from_yaml(with_frames({"like": "image", "max_frames": 9}))
    image, frames = policy.content["image"], policy.content["frames"]
    assert (frames.regions, frames.detect, frames.scan) == (image.regions, image.detect, image.scan)
    assert yaml.safe_load(policy.to_yaml())["content"]["frames"] == {"like": "image", "max_frames": 9}
    assert from_yaml(policy.to_yaml()) == policy
    assert policy.fingerprint != from_yaml(with_frames({"like": "image"})).fingerprint
    made = rules_of(policy)
    assert made["frames"].kinds is made["image"].kinds
    assert made["frames"].content.max_frames == 9
    assert rules_of(policy.with_max_pixels(7))["frames"].content.still.max_pixels == 7


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"like": "imag"}, "content: frames: like: names no content type of this policy"),
        ({"like": "frames"}, "content: frames: like: names no content type of this policy"),
        ({"like": "image", "detect": ["centerface"]}, "with like: image, 'detect' is as there"),
        ({"like": "image", "max_frames": 0}, "content.frames.max_frames: Input should be greater than"),
        ({"max_frames": 3}, "content.frames.detect: Field required"),
    ],
)
def test_what_is_wrong_with_frames_is_said(part: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)):
        from_yaml(with_frames(part))


def test_pictures_that_are_all_written_as_jpeg_are_first_pictures() -> None:
    policy = from_yaml(with_frames({"like": "image"})).written_as("jpeg")
    assert not rules_of(policy)["frames"].content.takes(saved(film(MOVING)))
    webp = rules_of(policy.written_as("webp"))["frames"].content
    media = webp.decode(saved(film(MOVING)), torch.device("cpu"))
    assert webp.render(media)[0][:4] == b"RIFF"


def test_neither_the_engine_nor_a_loader_names_the_type() -> None:
    root = Path(anondata.__file__).parent
    files = [*(root / "engine").rglob("*.py"), *(root / "loaders").rglob("*.py")]
    named = re.compile(r"content\.(frames|animated)|FramesContent|[\"']frames[\"']")
    assert len(files) > 40
    assert [str(f) for f in files if named.search(f.read_text())] == []


def test_faces_that_move_are_found_changed_and_checked() -> None:
    """With the networks of a preset, on a photo that is moved under a frame."""
    from skimage import data

    photo = Image.fromarray(data.astronaut())
    pictures = [photo.crop((60 + 12 * k, 0, 360 + 12 * k, 220)) for k in range(4)]
    made = Anonymizer(from_yaml(with_frames({"like": "image"})), run_key=b"k" * 32)
    [one] = made.anonymize([saved(pictures, "GIF")])
    assert isinstance(one, Released)
    assert {r.place for r in one.record.regions} >= {f"image[{k}]" for k in range(4)}
    assert all(r.verdicts for r in one.record.regions)
    assert len(levels(one.image)) == 4
