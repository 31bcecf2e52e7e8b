"""Regions that come with a sample: read in every form, or withheld; anonymized like those that a detector found."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes

from anondata import Anonymizer, Engine, Released, RunKey, Sample, Schema, Withheld
from anondata.content.given import join, parse
from anondata.content.images import ImageContent
from anondata.engine.rules import ContentRules, KindRules, rules_of
from anondata.errors import FieldTypeError, PolicyError
from anondata.loaders import hf
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.loaders.webdataset import anonymize
from anondata.policy import from_yaml, load_policy
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions, cat_regions, empty_regions
from anondata.report import report_of
from anondata.transforms import Pixelate

KEY = b"0123456789abcdef"
BOXES = [[10.0, 12.0, 30.0, 40.0], [36.0, 8.0, 60.0, 30.0]]  # x0, y0, x1, y1
COCO = [[10.0, 12.0, 20.0, 28.0], [36.0, 8.0, 24.0, 22.0]]  # the same as x, y, w, h
FRAME = (48, 64)
MEANING = {"1": "face", "2": "ignore", "head": "face"}
GIVEN = Schema({"image": "image", "objects": "regions"})
POINTS = [[15.0, 20.0], [25.0, 20.0], [20.0, 27.0], [16.0, 34.0], [24.0, 34.0]]


def regions(boxes: Sequence[Sequence[float]], *, landmarks: Tensor | None = None, kind: str = "face") -> Regions:
    count = len(boxes)
    points = torch.full((count, 5, 2), torch.nan) if landmarks is None else landmarks
    image = torch.zeros(count, dtype=torch.int64)
    return Regions(image, torch.tensor(boxes).reshape(-1, 4), points, torch.ones(count), (kind,) * count)


@dataclass(frozen=True)
class Finds:
    """A detector that finds fixed regions in every picture."""

    found: Regions = field(default_factory=empty_regions)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return cat_regions([self.found.renumbered(i) for i in range(len(views))])


@dataclass(frozen=True)
class Passes:
    """A gate that passes everything, and remembers what it was shown."""

    seen: list[Regions] = field(default_factory=list)
    embedders: tuple[()] = ()
    name: str = "passes"

    def judge(self, probe: Probe) -> Verdicts:
        self.seen.append(probe.regions)
        zeros = torch.zeros(len(probe.regions))
        return Verdicts(self.name, zeros, zeros, zeros, zeros == 0)


def engine(found: Regions | None = None, *, gate: Any = None, **given: str) -> Engine:
    kinds = {"face": KindRules((Pixelate(3, noise=0.2, coverage=1.2),), (gate or Passes(),))}
    rules = ContentRules(ImageContent(), (Finds(found or empty_regions()),), kinds, given=given or MEANING)
    return Engine({"image": rules}, run_key=RunKey(KEY))


def picture() -> Tensor:
    return torch.randint(0, 255, (3, *FRAME), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run(made: Engine, objects: Any, schema: Schema = GIVEN, **more: Any) -> Any:
    [out] = made.run([Sample("secret.jpg", {"image": picture(), "objects": objects, **more})], schema)
    return out


def read(value: Any, kinds: Sequence[str] = ("face",)) -> Regions:
    return parse(value, frame=FRAME, kinds=kinds, meaning=MEANING)


FORMS = {
    "coco": {"bbox": COCO, "category": [1, 1]},
    "coco-with-ids": {
        "id": [7, 8],
        "bbox": COCO,
        "category": ["head", "face"],
        "area": [560.0, 528.0],
        "image_id": 3,
    },
    "tensors": {"bbox": torch.tensor(COCO), "kind": ["face", "face"]},
    "arrays": {"bbox": np.array(COCO), "labels": np.array([1, 1])},
    "torchvision": {
        "boxes": BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=FRAME),
        "labels": torch.tensor([1, 1]),
    },
    "torchvision-xywh": {
        "bbox": BoundingBoxes(torch.tensor(COCO), format="XYWH", canvas_size=FRAME),
        "labels": [1, 1],
    },
    "torchvision-centres": {
        "boxes": BoundingBoxes(
            torch.tensor([[20.0, 26.0, 20.0, 28.0], [48.0, 19.0, 24.0, 22.0]]), format="CXCYWH", canvas_size=FRAME
        ),
        "labels": [1, 1],
    },
    "list": [{"box": box, "kind": "face"} for box in BOXES],
    "list-of-coco": [{"bbox": box, "category": 1, "iscrowd": 0} for box in COCO],
    "list-of-tensors": [{"box": torch.tensor(box), "kind": "face", "landmarks": None} for box in BOXES],
    "json": json.dumps({"bbox": COCO, "category": [1, 1]}).encode(),
    "with-ignored": {"bbox": [COCO[0], [1, 1, 5, 5], COCO[1]], "category": [1, 2, "1"]},
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_every_form_is_read_as_the_same_regions(value):
    found = read(value)
    assert torch.equal(found.boxes, torch.tensor(BOXES))
    assert found.kinds == ("face", "face")
    assert not found.has_landmarks.any()


@pytest.mark.parametrize("value", [[], {"bbox": [], "category": []}, b"[]", {"bbox": np.zeros((0, 4)), "labels": []}])
def test_a_picture_of_nothing_has_no_regions(value):
    assert len(read(value)) == 0


def test_landmarks_are_read():
    found = read([{"box": BOXES[0], "kind": "face", "landmarks": POINTS}, {"box": BOXES[1], "kind": "face"}])
    assert found.landmarks[0].tolist() == POINTS
    assert found.has_landmarks.tolist() == [True, False]


def coco(*box: float, category: Any = 1, **more: Any) -> dict[str, Any]:
    return {"bbox": [list(box)], "category": [category], **more}


BAD = {
    "nothing": (None, "holds NoneType"),
    "a number": (3, "holds int"),
    "a list of boxes": (BOXES, "holds list"),
    "no text of JSON": (b"secret", "cannot be read"),
    "a name that is said twice": (b'{"bbox": [], "category": ["alice"], "category": []}', "says something twice"),
    "too deep": (b"[" * 100_000, "cannot be read"),
    "not finite": (coco(1, 1, math.nan, 9), "not finite"),
    "infinite": (json.dumps(coco(1, 1, math.inf, 9)), "not finite"),
    "too large a number": (coco(1, 1, 10**400, 9), "cannot be read"),
    "inside out": ([{"box": [30, 12, 10, 40], "kind": "face"}], "inside out"),
    "negative width": (coco(30, 12, -20, 28), "inside out"),
    "fractions of the picture": (coco(0.1, 0.1, 0.5, 0.6), "fractions of the picture"),
    "outside": (coco(70, 8, 20, 20), "outside of its picture"),
    "outside on the left": (coco(-30, 8, 20, 20), "outside of its picture"),
    "of a larger picture": (coco(40, 8, 600, 20), "outside of its picture"),
    "three numbers": ({"bbox": [[1, 2, 3]], "category": [1]}, "shape"),
    "ragged": ({"bbox": [[1, 2, 30, 40], [1]], "category": [1, 1]}, "cannot be read"),
    "texts": ({"bbox": [["1", "2", "30", "40"]], "category": [1]}, "cannot be read"),
    "an unmapped category": (coco(1, 1, 9, 9, category="secret"), "does not name"),
    "an unmapped number": (coco(1, 1, 9, 9, category=7), "does not name"),
    "ignore, unmapped": (coco(1, 1, 9, 9, category="ignore"), "does not name"),
    "a category that is none": (coco(1, 1, 9, 9, category=None), "NoneType"),
    "a truth value": (coco(1, 1, 9, 9, category=True), "bool"),
    "no categories": ({"bbox": COCO}, "holds 0 of"),
    "two kinds of categories": (coco(1, 1, 9, 9, labels=[1]), "holds 2 of"),
    "too few categories": ({"bbox": COCO, "category": [1]}, "2 boxes and 1 categories"),
    "one category": ({"bbox": COCO, "category": 1}, "where a list should be"),
    "an outline": (coco(1, 1, 9, 9, segmentation=[[1, 2, 3]]), "holds more than regions"),
    "a text for an id": (coco(1, 1, 9, 9, id=["secret"]), "cannot be read"),
    "too many areas": (coco(1, 1, 9, 9, area=[1, 2, 3]), "not one for each"),
    "plain boxes": ({"boxes": torch.tensor(BOXES), "labels": [1, 1]}, "plain numbers"),
    "another canvas": (
        {"boxes": BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=(64, 48)), "labels": [1, 1]},
        "canvas of",
    ),
    "turned boxes": (
        {"boxes": BoundingBoxes(torch.ones(1, 5), format="XYWHR", canvas_size=FRAME), "labels": [1]},
        "form XYWHR",
    ),
    "four landmarks": ([{"box": BOXES[0], "kind": "face", "landmarks": POINTS[:4]}], "cannot be read"),
    "landmarks of one's own left first": (
        [{"box": BOXES[0], "kind": "face", "landmarks": [POINTS[i] for i in (1, 0, 2, 4, 3)]}],
        "mirrored order",
    ),
    "landmarks far away": ([{"box": BOXES[0], "kind": "face", "landmarks": [[9e9, 0]] * 5}], "far outside"),
}


@pytest.mark.parametrize(("value", "why"), BAD.values(), ids=BAD)
def test_what_cannot_be_trusted_withholds_the_sample(value, why):
    with pytest.raises(FieldTypeError, match=why):
        read(value)
    out = run(engine(), value)
    assert isinstance(out, Withheld)
    assert out.reason == "wrong_regions"
    assert "secret" not in out.detail


def test_a_kind_without_a_ladder_withholds_the_sample():
    assert read(coco(1, 1, 9, 9, category="plate"), kinds=("face", "plate")).kinds == ("plate",)
    assert run(engine(), coco(1, 1, 9, 9, category="plate")).reason == "wrong_regions"


def test_a_box_that_hangs_over_the_edge_is_anonymized():
    out = run(engine(), coco(50, 8, 30, 20))
    assert isinstance(out, Released)
    assert not torch.equal(out.image[:, 8:28, 50:], picture()[:, 8:28, 50:])


# --- in the loop -------------------------------------------------------------------------------------------------


def test_given_boxes_are_changed_as_those_of_a_detector_that_finds_them():
    given = run(engine(), FORMS["coco"])
    found = run(engine(regions(BOXES)), [])
    changed = [(out.image != picture()).any(dim=0) for out in (given, found)]
    assert torch.equal(*changed)
    assert changed[0].any()
    assert [replace(r, found_by="detect") for r in given.record.regions] == list(found.record.regions)


def test_boxes_that_moved_get_other_noise():
    """The same noise under two versions of a picture cancels, and leaves how its blocks differ."""
    flat = torch.full((3, *FRAME), 128, dtype=torch.uint8)
    made = engine()
    shown = []
    for x in (10.0, 13.0, 10.0):
        sample = Sample("a", {"image": flat, "objects": coco(x, 12.0, 20.0, 28.0)})
        [out] = made.run([sample], GIVEN)
        shown.append(out.sample["image"][:, 14:38, int(x) + 2 : int(x) + 18])
    assert torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[1])


def test_the_report_says_given():
    out = run(engine(regions([[2.0, 2.0, 8.0, 8.0]])), FORMS["coco"])
    assert [r.found_by for r in out.record.regions] == ["given", "given", "detect"]
    counts = report_of(load_policy("faces"), [out]).counts["regions"]["face"]
    assert (counts["found"], counts["given"]) == (3, 2)


def test_the_field_of_regions_comes_out_as_it_was():
    assert run(engine(), FORMS["coco"]).sample["objects"] is FORMS["coco"]


def around(a: Any, b: Any) -> list[float]:
    """The box around two."""
    return [*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:])]


def test_a_given_box_is_one_with_a_detected_one_and_takes_its_landmarks():
    gate, points = Passes(), torch.tensor([POINTS])
    out = run(engine(regions([[11.0, 12.0, 30.0, 41.0]], landmarks=points), gate=gate), coco(*COCO[0]))
    assert [(r.found_by, r.box) for r in out.record.regions] == [
        ("given", tuple(around(BOXES[0], (11.0, 12.0, 30.0, 41.0))))
    ]
    assert torch.equal(gate.seen[0].landmarks, points)


def test_a_box_that_was_drawn_too_small_grows_to_what_is_found():
    x0, y0, x1, y1 = BOXES[0]
    found = regions([[x0 - 2.0, y0 + 1.0, x1 + 3.0, y1 - 1.0]])
    given, rest, agreed = join(regions(BOXES[:1]), found, iou=0.6)
    assert (given.boxes[0].tolist(), len(rest), agreed.tolist()) == ([x0 - 2.0, y0, x1 + 3.0, y1], 0, [True])


def test_landmarks_of_a_detector_decide_and_those_that_were_given_stay_where_it_has_none():
    own = regions(BOXES[:1], landmarks=torch.tensor([POINTS]))
    for found, wanted in ((torch.tensor([POINTS]) + 1, torch.tensor(POINTS) + 1), (None, torch.tensor(POINTS))):
        given, rest, _ = join(own, regions(BOXES[:1], landmarks=found), iou=0.6)
        assert (given.landmarks[0].tolist(), len(rest)) == (wanted.tolist(), 0)


def test_of_two_neighbours_in_one_given_box_each_is_looked_at_by_itself():
    """Or a stranger would stay together with somebody who consented."""
    found = regions([[10.0, 10.0, 40.0, 40.0], [22.0, 10.0, 52.0, 40.0]])
    given, rest, _ = join(regions([[10.0, 10.0, 51.0, 40.0]]), found, iou=0.6)
    assert given.boxes.tolist() == [[10.0, 10.0, 51.0, 40.0]]
    assert rest.boxes.tolist() == [found.boxes[1].tolist()]


@pytest.mark.parametrize("other", ["place", "kind", "picture"])
def test_what_is_not_the_same_region_stays_beside_it(other):
    found = regions(BOXES[1:] if other == "place" else BOXES[:1], kind="plate" if other == "kind" else "face")
    found = found.renumbered(1) if other == "picture" else found
    given, rest, agreed = join(regions(BOXES[:1]), found, iou=0.6)
    assert (len(given), len(rest), agreed.tolist()) == (1, 1, [False])


def test_a_sample_without_its_field_of_regions_is_withheld():
    [out] = engine().run([Sample("a", {"image": picture()})], GIVEN)
    assert (out.reason, out.detail) == ("missing_field", "the declared field 'objects' is not in the sample")


def test_bad_regions_withhold_their_own_sample_alone():
    samples = [Sample(str(i), {"image": picture(), "objects": o}) for i, o in enumerate([FORMS["coco"], None, []])]
    outs = engine().run(samples, GIVEN)
    assert [isinstance(out, Released) for out in outs] == [True, False, True]
    assert [len(out.record.regions) for out in outs] == [2, 0, 0]


def test_of_two_pictures_regions_name_theirs():
    schema = Schema({"image": "image", "right": "image", "objects": "regions:right"})
    out = run(engine(), FORMS["coco"], schema, right=picture())
    assert {r.place for r in out.record.regions} == {"right"}
    assert torch.equal(out.image, picture())


@pytest.mark.parametrize("kind", ["regions", "regions:left", "regions:objects"])
def test_regions_that_do_not_say_whose_are_refused(kind):
    schema = Schema({"image": "image", "right": "image", "objects": kind})
    with pytest.raises(PolicyError, match="name the field of content"):
        run(engine(), [], schema, right=picture())


def test_a_list_of_pictures_has_a_list_of_regions():
    sample = Sample("a", {"frames": [picture(), picture()], "objects": [[], FORMS["coco"]]})
    [out] = engine().run([sample], Schema({"frames": "image", "objects": "regions"}))
    assert [r.place for r in out.record.regions] == ["frames[1]", "frames[1]"]


@pytest.mark.parametrize("objects", [[[]], FORMS["coco"], [[], [], []]])
def test_a_list_of_another_length_withholds_the_sample(objects):
    sample = Sample("a", {"frames": [picture(), picture()], "objects": objects})
    [out] = engine().run([sample], Schema({"frames": "image", "objects": "regions"}))
    assert out.reason == "wrong_regions"


def test_what_no_picture_is_beside_is_not_let_through():
    [out] = engine().run(
        [Sample("a", {"frames": [], "objects": "secret"})], Schema({"frames": "image", "objects": "regions"})
    )
    assert out.reason == "wrong_regions"


# --- policies ----------------------------------------------------------------------------------------------------


def test_a_policy_says_what_categories_mean(grey_policy):
    made = from_yaml(grey_policy("{0: face, person: ignore}"))
    assert rules_of(made)["image"].given == {"0": "face", "person": "ignore"}
    assert from_yaml(made.to_yaml()).fingerprint == made.fingerprint != load_policy("faces-fill").fingerprint


@pytest.mark.parametrize("given", ["{0: plate}", "{yes: face}", "{1: face, '1': ignore}", "[face]"])
def test_a_policy_that_maps_to_what_it_has_not_is_refused(given, grey_policy):
    with pytest.raises(PolicyError, match="given"):
        from_yaml(grey_policy(given))


# --- adapters ----------------------------------------------------------------------------------------------------

BOX = [4.0, 100.0, 40.0, 30.0]  # of a corner of the photo where no face is
OBJECTS = {"bbox": [BOX, [1.0, 1.0, 20.0, 20.0]], "category": [0, 1]}


@pytest.fixture(scope="module")
def anonymizer(grey_policy: Callable[[str], str]) -> Callable[[], Anonymizer]:
    made = from_yaml(grey_policy("{0: face, 1: ignore}"))
    return lambda: Anonymizer(made, device="cpu", run_key=KEY)


def test_a_column_of_objects_of_a_hugging_face_dataset(photo: Callable[..., bytes], tmp_path: Path, anonymizer):
    objects = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
        "category": datasets.List(datasets.ClassLabel(names=["head", "dog"])),
    }
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    rows = {
        "image": [{"bytes": photo(0, "PNG"), "path": None}] * 2,
        "objects": [OBJECTS, {**OBJECTS, "category": [0, 0]}],
    }
    ds = datasets.Dataset.from_dict(rows, features=features)
    view = hf.anonymize(ds, anonymizer(), fields={"image": "image", "objects": "regions"})
    assert view[0]["objects"] == OBJECTS
    assert view.features["objects"] == features["objects"]
    pixels = np.array(view[0]["image"])
    assert (pixels[100:130, 4:44] == pixels[115, 20]).all()
    assert hf.report(view).counts["regions"]["face"]["given"] >= 1
    stream = hf.anonymize(ds.to_iterable_dataset(), anonymizer(), fields={"image": "image", "objects": "regions"})
    assert [row["objects"]["category"] for row in stream] == [[0, 1], [0, 0]]
    view.materialize(tmp_path / "out")
    [file] = (tmp_path / "out" / "data").glob("*.parquet")
    assert datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))[1]["objects"]["category"] == [
        0,
        0,
    ]


def test_a_list_of_structs_with_a_picture_is_no_column_of_regions(photo: Callable[..., bytes], anonymizer):
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.List({"crop": datasets.Image()})})
    ds = datasets.Dataset.from_dict({"image": [], "objects": []}, features=features)
    with pytest.raises(KeyError, match="crop"):
        hf.anonymize(ds, anonymizer(), fields={"image": "image", "objects": "regions"})


def test_dicts_of_a_torch_dataset(astronaut: Tensor, anonymizer):
    image = astronaut[:, 20:180, 140:300]
    boxes = BoundingBoxes(torch.tensor([BOX]), format="XYWH", canvas_size=(160, 160))
    samples = [{"image": image, "target": {"boxes": boxes, "labels": torch.tensor([0])}}]
    safe = anonymize_torch(samples, anonymizer(), fields={"image": "image", "target": "regions"})
    out = safe[0]
    assert isinstance(out["target"]["boxes"], BoundingBoxes)
    covered = out["image"][:, 100:130, 4:44]
    assert torch.equal(covered, covered[:, :1, :1].expand_as(covered))
    assert not torch.equal(covered, image[:, 100:130, 4:44])


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset 1.0.2 closes no file that it opens
@pytest.mark.parametrize("decoded", [False, True])
def test_members_of_json_in_shards(photo: Callable[..., bytes], tmp_path: Path, decoded: bool, anonymizer):
    text = json.dumps(OBJECTS).encode()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in [("0.png", photo(0, "PNG")), ("0.json", text), ("1.png", photo(1, "PNG"))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    stage = anonymize(anonymizer(), fields={"jpg;png": "image", "json": "regions"})
    [out] = (source.decode("pil") if decoded else source).compose(stage)  # the second has no boxes
    assert out["json"] == (OBJECTS if decoded else text)
    assert stage.report.withheld == {"missing_field": 1}
    assert stage.report.counts["regions"]["face"]["given"] == 1


def test_regions_of_two_groups_of_members_must_say_whose(anonymizer):
    with pytest.raises(PolicyError, match="name the field of content"):
        anonymize(anonymizer(), fields={"a.png": "image", "b.png": "image", "json": "regions"})


# --- notations of sidecars -----------------------------------------------------------------------------------------

SHARES = [[x0 / FRAME[1], y0 / FRAME[0], x1 / FRAME[1], y1 / FRAME[0]] for x0, y0, x1, y1 in BOXES]
YOLO = "".join(
    f"1 {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}\n" for x0, y0, x1, y1 in SHARES
)
VOC = (
    "<annotation><filename>jane.jpg</filename><owner><name>Jane</name></owner><size><width>64</width><height>48"
    "</height><depth>3</depth></size>"
    + "".join(
        f"<object><name>head</name><pose>Jane</pose><bndbox><xmin>{x0 + 1:g}</xmin><ymin>{y0 + 1:g}</ymin>"
        f"<xmax>{x1:g}</xmax><ymax>{y1:g}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in BOXES
    )
    + "</annotation>"
)
SIDECARS = {
    "boxes and labels": ("json", "regions", {"boxes": BOXES, "labels": ["face", "face"]}),
    "objects alone": ("json", "regions", {"objects": {"bbox": COCO, "category": ["face", "head"]}}),
    "a path": ("json", "regions.objects", {"caption": "Jane", "objects": {"bbox": COCO, "category": [1, 1]}}),
    "a longer path": ("json", "regions.meta.faces", {"meta": {"faces": {"boxes": BOXES, "labels": [1, 1]}}, "a": 1}),
    "img2dataset": ("json", "regions.face_bboxes", {"caption": "Jane", "face_bboxes": SHARES}),
    "img2dataset alone": ("json", "regions", {"face_bboxes": SHARES}),
    "yolo": ("txt", "regions", YOLO),
    "yolo with scores": ("labels.txt", "regions", YOLO.replace("\n", " 0.9\n")),
    "voc": ("xml", "regions", VOC),
}


@pytest.mark.parametrize(("name", "kind", "value"), SIDECARS.values(), ids=SIDECARS)
def test_sidecars_of_usual_shapes_are_read_and_nothing_else_of_them_comes_out(name: str, kind: str, value: Any):
    text = (value if isinstance(value, str) else json.dumps(value)).encode()
    schema = Schema({"image": "image", name: kind})
    gate = Passes()
    [out] = engine(gate=gate).run([Sample("k", {"image": picture(), name: text})], schema)
    assert out.released, out.detail
    assert torch.allclose(gate.seen[0].boxes, torch.tensor(BOXES), atol=1e-3)
    assert isinstance(out.sample[name], bytes)
    assert b"Jane" not in out.sample[name]
    assert b"caption" not in out.sample[name]
    again = parse(
        out.sample[name], frame=FRAME, kinds=("face",), meaning=MEANING, name=name, path=kind.split(".")[1:]
    )
    assert torch.allclose(again.boxes, torch.tensor(BOXES), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind", "text", "why"),
    [
        (
            "json",
            "regions",
            '{"caption": "Jane", "objects": {"bbox": [], "category": []}}',
            r"--regions json\.objects",
        ),
        ("json", "regions", '{"caption": "Jane", "face_bboxes": []}', r"'regions\.face_bboxes'"),
        ("json", "regions.objects", '{"caption": "Jane"}', r"nothing at its path 'objects'"),
        ("json", "regions.face_bboxes", '{"face_bboxes": [[10, 12, 30, 40]]}', "as shares of the picture"),
        ("json", "regions", "[[1, 2, 30, 40]]", r'\{"bbox": \[\[x, y, w, h\]\], "category": \["face"\]\}'),
        ("json", "regions", "", "cannot be read"),
        ("json", "regions", "[" * 100_000, "cannot be read"),
        ("txt", "regions", "0 0.5 0.5", "YOLO"),
        ("txt", "regions", "1 30 30 20 20", "not fractions"),
        ("txt", "regions", "1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "outlines are masks"),
        ("xml", "regions", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "document type"),
        ("xml", "regions", VOC.replace("<width>64", "<width>640"), "other sides"),
        ("xml", "regions", VOC[:100], "cannot be read"),
        ("xml", "regions", VOC.replace(">head<", ">Jane<"), r"a text of 4 characters, not shown"),
        ("json", "regions", '{"boxes": [[1, 2, 30, 40]], "labels": ["Faces"]}', r"the category 'Faces'"),
        ("json", "regions", '{"boxes": [[1, 2, 30, 40]], "labels": [77]}', r"the category '77'"),
    ],
)
def test_sidecars_that_cannot_be_read_withhold_and_say_what_is_expected(name: str, kind: str, text: str, why: str):
    import re

    schema = Schema({"image": "image", name: kind})
    [out] = engine().run([Sample("k", {"image": picture(), name: text.encode()})], schema)
    assert (out.released, out.reason) == (False, "wrong_regions")
    assert re.search(why, out.detail)
    assert "Jane" not in out.detail


def test_a_field_of_json_without_faces_says_so_with_null():
    schema = Schema({"image": "image", "json": "regions.face_bboxes"})
    [out] = engine().run([Sample("k", {"image": picture(), "json": b'{"face_bboxes": null, "a": "Jane"}'})], schema)
    assert (out.released, out.sample["json"]) == (True, b'{"face_bboxes": null}')
    with pytest.raises(PolicyError, match="a path is told as"):
        Schema({"image": "image", "json": "regions."}).regions()
    with pytest.raises(PolicyError, match="a path is told as"):
        Schema({"image": "image", "json": "masks.a"}).regions()


def test_classes_of_a_hugging_face_column_are_known_by_their_names_too():
    """`given: {head: face}` means a column of ClassLabel, whose values are numbers; they come out as they were."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "objects": {
                "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
                "category": datasets.List(datasets.ClassLabel(names=["tree", "head"])),
            },
        }
    )
    from PIL import Image

    shown = Image.fromarray(np.full((160, 160, 3), 90, np.uint8))
    rows = {"image": [shown], "objects": [{"bbox": [[40, 40, 60, 60]], "category": ["head"]}]}
    ds = datasets.Dataset.from_dict(rows, features=features)
    words = load_policy("faces-fill").to_yaml()
    for given, reason in (("head: face", ""), ("1: face", ""), ("tree: face", "wrong_regions")):
        policy = from_yaml(words.replace("given: {}", "given: {" + given + "}"))
        safe = hf.anonymize(
            ds,
            Anonymizer(policy, run_key=KEY),
            fields={"image": "image", "objects": "regions"},
            on_withheld="raise",
        )
        if reason:
            with pytest.raises(Exception, match="the category"):
                safe[0]
        else:
            assert safe[0]["objects"]["category"] == [1]
            covered = np.asarray(safe[0]["image"])[60:80, 60:80]
            assert not (covered == 90).all()
