"""Masks that come with a sample: each becomes the box around it, and none comes out."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes, Mask

from anondata import Anonymizer, Released, Sample, Schema, Withheld
from anondata.content._runs import boxes_of_parts, runs_of
from anondata.content.given import parse as parse_boxes
from anondata.content.masks import MAX_PARTS, parse
from anondata.errors import FieldTypeError, PolicyError, UndeclaredFieldError
from anondata.loaders import hf
from anondata.loaders.hf.layout import layout_of
from anondata.loaders.shards import anonymize_shards
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.loaders.webdataset import anonymize
from anondata.manifest import Manifest
from anondata.policy import from_yaml
from anondata.publishing.examine import Seen, strange_members, undeclared
from anondata.regions import Regions
from anondata.report import empty_report

KEY = b"0123456789abcdef"
FRAME = (48, 64)
BOXES = [[10.0, 12.0, 30.0, 40.0], [36.0, 8.0, 60.0, 30.0]]  # x0, y0, x1, y1
MEANING = {"1": "face", "2": "ignore", "7": "plate", "255": "face", "head": "face"}
KINDS = ("face", "plate")


def labels(*boxes: Sequence[float], frame: tuple[int, int] = FRAME, value: int = 1) -> np.ndarray[Any, Any]:
    """A map in which boxes have a value."""
    out = np.zeros(frame, np.uint8)
    for x0, y0, x1, y1 in boxes:
        out[int(y0) : int(y1), int(x0) : int(x1)] = value
    return out


MAP = labels(*BOXES)
PLANES = np.stack([labels(box) for box in BOXES])


def read(value: Any, meaning: Mapping[str, str] = MEANING) -> Regions:
    return parse(value, frame=FRAME, kinds=KINDS, meaning=meaning)


def encoded(array: np.ndarray[Any, Any], format: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image, buffer = Image.fromarray(array), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format, **options)
    return buffer.getvalue()


def palette(array: np.ndarray[Any, Any]) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette([200, 10, 10] * 256)  # every index of one colour: what counts is the index
    return image


PLANE_FORMS = {
    "tv_tensors": {"masks": Mask(PLANES), "labels": torch.tensor([1, 1])},
    "bool": {"masks": torch.from_numpy(PLANES).bool(), "kind": ["face", "face"]},
    "floats": {"masks": torch.from_numpy(PLANES).to(torch.bfloat16), "category": ["head", "head"]},
    "array": {"masks": PLANES * 255, "labels": np.array([1, 1])},
    "lists": {"masks": PLANES.tolist(), "labels": [1, 1]},
    "a list of arrays": {"masks": list(PLANES), "labels": [1, 1]},
    "a list of pictures": {"masks": [Image.fromarray(p * 255) for p in PLANES], "labels": [1, 1]},
    "json": json.dumps({"masks": PLANES.tolist(), "labels": [1, 1]}),
    "bytes of json": json.dumps({"masks": PLANES.tolist(), "labels": [1, 1]}).encode(),
    "a detection dataset": {
        "masks": Mask(PLANES),
        "boxes": BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=FRAME),
        "labels": torch.tensor([1, 1]),
        "image_id": 3,
        "area": torch.tensor([560.0, 528.0]),
        "iscrowd": torch.tensor([0, 0]),
    },
    "with one to be ignored": {"masks": np.stack([PLANES[0], labels([0, 0, 9, 9]), PLANES[1]]), "labels": [1, 2, 1]},
}

MAP_FORMS = {
    "array": MAP,
    "int64": MAP.astype(np.int64),
    "bool": MAP.astype(bool),
    "floats": MAP.astype(np.float32),
    "one plane": MAP[None],
    "tensor": torch.from_numpy(MAP).long(),
    "tv_tensors": Mask(MAP),
    "tv_tensors of one plane": Mask(MAP[None]),
    "lists": MAP.tolist(),
    "json": json.dumps(MAP.tolist()),
    "PIL 1": Image.fromarray(MAP.astype(bool)),
    "PIL L": Image.fromarray(MAP),
    "PIL P": palette(MAP),
    "PIL I;16": Image.fromarray(MAP.astype(np.uint16)),
    "PNG L": encoded(MAP),
    "PNG of 255": encoded(MAP * 255),
    "PNG 1": encoded(MAP.astype(bool)),
    "PNG P": encoded(MAP, mode="P"),
    "PNG I;16": encoded(MAP.astype(np.uint16)),
    "PNG of 4 bits with a palette": (lambda b: (palette(MAP).save(b, "PNG", bits=4), b.getvalue())[1])(io.BytesIO()),
    "PNG in a bytearray": bytearray(encoded(MAP)),
    "TIFF": encoded(MAP, "TIFF"),
    "TIFF packed": encoded(MAP.astype(np.uint16), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("value", PLANE_FORMS.values(), ids=PLANE_FORMS)
def test_every_form_of_masks_is_read_as_the_boxes_around_them(value):
    found = read(value)
    assert (found.boxes.tolist(), found.kinds) == (BOXES, ("face", "face"))
    assert not found.has_landmarks.any()


@pytest.mark.parametrize("value", MAP_FORMS.values(), ids=MAP_FORMS)
def test_every_form_of_a_map_is_read_as_the_boxes_around_its_parts(value):
    found = read(value)
    assert (sorted(found.boxes.tolist()), found.kinds) == (sorted(BOXES), ("face", "face"))


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(FRAME, np.uint8),
        encoded(np.zeros(FRAME, np.uint8)),
        {"masks": torch.zeros(0, *FRAME), "labels": []},
        {"masks": [], "labels": []},
        {"masks": Mask(torch.zeros(0, *FRAME)), "boxes": torch.zeros(0, 4), "labels": []}
        | {"boxes": BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=FRAME)},
        labels(*BOXES, value=2),
    ],
)
def test_a_picture_of_nothing_has_no_regions(value):
    assert len(read(value)) == 0


def test_grey_levels_of_a_png_of_few_bits_are_the_values_that_were_written():
    """Pillow makes 0 to 255 of the 0 to 3 that such a file holds."""
    row = bytes([0] + [0b01_01_00_00] * 16)  # filter, then 4 pixels a byte: two of value 1
    png = _grey_png(width=64, height=48, bits=2, row=row)
    assert set(np.array(Image.open(io.BytesIO(png))).ravel()) == {0, 85}
    found = read(png)
    assert (found.kinds, found.boxes[0].tolist()) == (("face",) * 16, [0.0, 0.0, 2.0, 48.0])


def test_a_png_of_few_bits_that_was_only_opened_has_the_values_that_were_written():
    """As 17, which it is stretched to, a 1 could be ignored: in COCO 1 is a person and 17 a cat."""
    for bits in (2, 4):
        ones = bytes([0]) + bytes([0b01010101 if bits == 2 else 0b00010001]) * (64 * bits // 8)
        image = Image.open(io.BytesIO(_grey_png(width=64, height=48, bits=bits, row=ones)))
        assert len(
            parse(image, frame=(48, 64), kinds=("face",), meaning={"1": "face", "17": "ignore", "85": "ignore"})
        )


def _grey_png(*, width: int, height: int, bits: int, row: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_where_boxes_stand_beside_the_box_around_both_is_taken():
    drawn = [[8.0, 14.0, 26.0, 41.0], [40.0, 10.0, 50.0, 20.0]]
    found = read({"masks": PLANES, "box": drawn, "labels": [1, 1]})
    assert found.boxes.tolist() == [[8.0, 12.0, 30.0, 41.0], BOXES[1]]


def test_a_box_of_no_area_beside_its_mask_is_that_of_the_mask():
    """torchvision's masks_to_boxes makes such ones of masks that are one pixel wide."""
    found = read({"masks": PLANES[:1], "box": [[10, 12, 10, 39]], "labels": [1]})
    assert found.boxes.tolist() == BOXES[:1]


def test_parts_that_touch_at_a_corner_are_one_and_those_of_other_values_are_not():
    drawn = labels([2, 2, 6, 6], [6, 6, 9, 9]) + labels([9, 9, 12, 12], value=7)
    found = read(drawn)
    assert dict(zip(found.kinds, found.boxes.tolist(), strict=True)) == {
        "face": [2.0, 2.0, 9.0, 9.0],
        "plate": [9.0, 9.0, 12.0, 12.0],
    }


@pytest.mark.parametrize("at", [[20, 20, 21, 40], [20, 20, 40, 21], [20, 20, 21, 21], [0, 0, 1, 1], [63, 47, 64, 48]])
@pytest.mark.parametrize("form", ["map", "planes"])
def test_what_is_one_pixel_wide_is_widened_and_not_refused(at, form):
    drawn = labels(at)
    [box] = read(drawn if form == "map" else {"masks": drawn[None], "labels": [1]}).boxes.tolist()
    assert box[0] <= at[0]
    assert box[2] >= at[2]
    assert min(box[2] - box[0], box[3] - box[1]) >= 2


def test_regions_of_masks_are_those_of_their_boxes():
    found = read(PLANE_FORMS["array"])
    drawn = parse_boxes({"box": BOXES, "labels": [1, 1]}, frame=FRAME, kinds=KINDS, meaning=MEANING)
    assert torch.equal(found.boxes, drawn.boxes)
    assert (found.kinds, found.scores.tolist()) == (drawn.kinds, drawn.scores.tolist())


# --- what cannot be trusted --------------------------------------------------------------------------------------


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(MAP, exif=exif)


def animation() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(MAP).save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(MAP)])
    return buffer.getvalue()


BAD = {
    "nothing": (None, "holds NoneType"),
    "a number": (3, "holds int"),
    "a text": ("secret", "cannot be read"),
    "bytes of nothing": (b"", "empty"),
    "bytes of no picture": (b"secret", "not_an_image"),
    "an object": (object(), "holds object"),
    "texts": ([["secret"] * 64] * 48, "expected whole numbers"),
    "ragged": ([[1, 2], [1]], "cannot be read"),
    "a list of structs": ([{"box": BOXES[0], "kind": "face"}], "holds object"),
    "another size": (MAP.T, r"\(64, 48\), but the upright picture is \(48, 64\)"),
    "a larger one": (encoded(np.zeros((480, 640), np.uint8)), "larger than its picture"),
    "a smaller one": (encoded(np.zeros((24, 32), np.uint8)), "as large as it"),
    "a PIL image of another size": (Image.new("L", (6400, 4800)), "as large as it"),
    "three channels": (np.stack([MAP] * 3), "as large as it"),
    "channels last": (MAP[..., None], "as large as it"),
    "logits": (MAP * 0.5, "floats other than 0 and 1"),
    "not a number": (np.full(FRAME, np.nan), "floats other than 0 and 1"),
    "complex": (MAP * 1j, "expected whole numbers"),
    "a JPEG": (encoded(MAP * 255, "JPEG"), "smears its values"),
    "a PIL image of a JPEG": (Image.open(io.BytesIO(encoded(MAP * 255, "JPEG"))), "smears its values"),
    "a TIFF with JPEG inside": (encoded(MAP, "TIFF", compression="jpeg"), "smears its values"),
    "a PIL image of such a TIFF": (
        Image.open(io.BytesIO(encoded(MAP, "TIFF", compression="jpeg"))),
        "smears its values",
    ),
    "a lossy WebP": (encoded(np.stack([MAP] * 3, -1), "WEBP"), "store masks as PNG"),
    "a GIF": (encoded(MAP, "GIF"), "store masks as PNG"),
    "colours": (encoded(np.stack([MAP] * 3, -1)), "mode RGB"),
    "a PIL image of colours": (Image.new("RGB", FRAME[::-1]), "mode RGB"),
    "a PIL image of floats": (Image.new("F", FRAME[::-1]), "mode F"),
    "turned by EXIF": (turned(), "store it upright"),
    "a PIL image turned by EXIF": (Image.open(io.BytesIO(turned())), "store it upright"),
    "several pictures": (animation(), "several pictures"),
    "truncated": (encoded(MAP)[:-30], "truncated"),
    "a PIL image of a truncated file": (Image.open(io.BytesIO(encoded(MAP)[:-40])), "cannot be decoded"),
    "corrupt": (encoded(MAP).replace(b"IDAT", b"IDOT"), "cannot be decoded"),
    "a value that nobody named": (labels(BOXES[0], value=9), "does not name"),
    "a negative value": (-MAP.astype(np.int8), "does not name"),
    "no labels": ({"masks": PLANES}, "holds 0 of"),
    "a secret label": ({"masks": PLANES, "labels": ["secret", 1]}, "does not name"),
    "too few labels": ({"masks": PLANES, "labels": [1]}, "2 boxes and 1 categories"),
    "too few boxes": ({"masks": PLANES, "box": BOXES[:1], "labels": [1, 1]}, "2 masks and 1 boxes"),
    "boxes alone": ({"box": BOXES, "labels": [1, 1]}, "if it holds boxes only, declare it 'regions'"),
    "an outline": ({"masks": PLANES, "labels": [1, 1], "segmentation": [[1]]}, "more than regions"),
    "two kinds of boxes": ({"masks": PLANES, "box": BOXES, "bbox": BOXES, "labels": [1, 1]}, "two kinds of boxes"),
    "a box that is inside out": ({"masks": PLANES[:1], "box": [[30, 12, 10, 40]], "labels": [1]}, "inside out"),
    "a box that is not finite": ({"masks": PLANES[:1], "box": [[1, 2, np.nan, 40]], "labels": [1]}, "not finite"),
    "an infinite box": ({"masks": PLANES[:1], "box": [[1, 2, np.inf, 40]], "labels": [1]}, "not finite"),
    "another canvas": (
        {"masks": PLANES, "labels": [1, 1]}
        | {"boxes": BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=(64, 48))},
        "canvas of",
    ),
    "planes of another size": ({"masks": PLANES.transpose(0, 2, 1), "labels": [1, 1]}, "expected .R, H, W."),
    "planes on edge": ({"masks": MAP, "labels": [1]}, "expected .R, H, W."),
    "planes of no size": ({"masks": np.zeros((2, 0, 0)), "labels": [1, 1]}, "expected .R, H, W."),
    "an empty mask": ({"masks": np.stack([PLANES[0], PLANES[0] * 0]), "labels": [1, 1]}, "a mask is empty"),
    "soft planes": ({"masks": PLANES * 0.3, "labels": [1, 1]}, "floats other than 0 and 1"),
    "said twice": (b'{"masks": [], "labels": [1], "labels": []}', "something twice"),
    "too deep": (b"[" * 100_000, "cannot be read"),
}


@pytest.mark.parametrize(("value", "why"), BAD.values(), ids=BAD)
def test_what_cannot_be_trusted_withholds_the_sample(value, why, anonymizer):
    with pytest.raises(FieldTypeError, match=why):
        read(value)
    [out] = anonymizer("{1: face}").run([Sample("secret", {"image": blank(), "masks": value})], GIVEN)
    assert isinstance(out, Withheld)
    assert out.reason == "wrong_regions"
    assert "secret" not in out.detail


def test_an_empty_mask_of_what_is_ignored_is_nothing():
    found = read({"masks": np.stack([PLANES[0], PLANES[0] * 0]), "labels": [1, 2]})
    assert found.boxes.tolist() == BOXES[:1]


def test_masks_in_a_field_of_boxes_are_refused_because_that_comes_out():
    with pytest.raises(FieldTypeError, match="declare it 'masks'"):
        parse_boxes(PLANE_FORMS["a detection dataset"], frame=FRAME, kinds=KINDS, meaning=MEANING)


def test_a_policy_that_gives_0_a_meaning_fits_no_map():
    """0 is background: what it stands for would stay as it is."""
    with pytest.raises(FieldTypeError, match="0 is the background"):
        read(MAP, {"0": "face", "1": "face"})
    assert len(read(MAP, {"0": "ignore", "1": "face"})) == 2
    assert len(read(PLANE_FORMS["array"], {"0": "face", "1": "face"})) == 2


@pytest.mark.parametrize("form", ["map", "planes"])
def test_more_parts_than_anybody_draws_are_refused(form):
    frame = (404, 404)
    dots = np.zeros(frame, np.uint8)
    dots[::4, ::4] = 1  # 10 201
    value = dots if form == "map" else {"masks": np.ones((MAX_PARTS + 1, 2, 2)), "labels": [1] * (MAX_PARTS + 1)}
    with pytest.raises(FieldTypeError, match="more than 10000 parts"):
        parse(value, frame=frame if form == "map" else (2, 2), kinds=KINDS, meaning=MEANING)


# --- parts -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 4), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_parts_are_those_that_scipy_finds(height: int, width: int, values: int, random: Any):
    drawn = np.array([[random.randrange(values) for _ in range(width)] for _ in range(height)], np.uint8)
    runs = runs_of(drawn, most=height * width)
    assert runs is not None
    boxes, held = boxes_of_parts(runs)
    wanted = []
    for value in range(1, values):
        parts, _ = ndimage.label(drawn == value, structure=np.ones((3, 3)))
        wanted += [[value, x.start, y.start, x.stop, y.stop] for y, x in ndimage.find_objects(parts)]
    assert sorted(np.column_stack([held, boxes]).tolist()) == sorted(wanted)


def snake(height: int, width: int) -> np.ndarray[Any, Any]:
    """One part that winds through the whole map."""
    drawn = np.zeros((height, width), np.uint8)
    drawn[::4] = 1
    for i, y in enumerate(range(0, height - 4, 4)):
        drawn[y : y + 4, 0 if i % 2 else width - 1] = 1
    return drawn


def test_a_large_map_is_read_quickly():
    """Far above what it takes (0.03 s), and far below what a loop over pixels would."""
    frame = (3000, 4000)
    drawn = labels(*([x, y, x + 90, y + 90] for x in range(5, 3900, 100) for y in range(5, 2900, 100)), frame=frame)
    start = time.perf_counter()
    assert len(parse(drawn, frame=frame, kinds=KINDS, meaning=MEANING)) == 39 * 29
    assert len(parse(snake(*frame), frame=frame, kinds=KINDS, meaning=MEANING)) == 1
    assert time.perf_counter() - start < 5


# --- in the loop -------------------------------------------------------------------------------------------------

GIVEN = Schema({"image": "image", "masks": "masks"})
PLACE = (slice(100, 130), slice(4, 44))  # of a corner of the photo where no face is


def blank() -> Tensor:
    return torch.zeros(3, *FRAME, dtype=torch.uint8)


@pytest.fixture(scope="module")
def anonymizer(grey_policy: Callable[[str], str]) -> Callable[..., Anonymizer]:
    def made(given: str = "{3: face, 9: ignore}") -> Anonymizer:
        return Anonymizer(from_yaml(grey_policy(given)), device="cpu", run_key=KEY)

    return made


def drawing(value: int = 3) -> np.ndarray[Any, Any]:
    """A map of labels for the photo."""
    out = np.zeros((160, 160), np.uint8)
    out[PLACE] = value
    out[:10, :10] = 9
    return out


def is_covered(pixels: np.ndarray[Any, Any]) -> bool:
    return bool((pixels[PLACE] == pixels[115, 20]).all())


def test_what_masks_say_is_anonymized_and_they_do_not_come_out(photo: Callable[..., bytes], anonymizer):
    sample = Sample("a", {"image": photo(0, "PNG"), "masks": encoded(drawing())})
    [out] = anonymizer().run([sample], GIVEN)
    assert isinstance(out, Released)
    assert set(out.sample.fields) == {"image"}
    assert [r.box for r in out.record.regions if r.found_by == "given"] == [(4.0, 100.0, 44.0, 130.0)]
    assert is_covered(np.array(Image.open(io.BytesIO(out.image))))


def test_a_sample_without_its_masks_is_withheld(anonymizer):
    [out] = anonymizer().run([Sample("a", {"image": blank()})], GIVEN)
    assert (out.reason, out.detail) == ("missing_field", "the declared field 'masks' is not in the sample")


def test_boxes_and_masks_of_one_picture_go_together(photo: Callable[..., bytes], anonymizer):
    schema = Schema({"image": "image", "objects": "regions", "masks": "masks"})
    objects = {"bbox": [[100, 100, 30, 30]], "category": [3]}
    fields = {"image": photo(0, "PNG"), "objects": objects, "masks": drawing()}
    [out] = anonymizer().run([Sample("a", fields)], schema)
    assert isinstance(out, Released)
    assert [r.found_by for r in out.record.regions].count("given") == 2
    assert set(out.sample.fields) == {"image", "objects"}


def test_masks_of_two_pictures_name_theirs(anonymizer):
    schema = Schema({"image": "image", "right": "image", "masks": "masks:right"})
    white = torch.full((3, 160, 160), 255, dtype=torch.uint8)
    [out] = anonymizer().run([Sample("a", {"image": white, "right": white, "masks": drawing()})], schema)
    assert isinstance(out, Released)
    assert {r.place for r in out.record.regions} == {"right"}
    with pytest.raises(PolicyError, match="such as 'masks:image'"):
        anonymizer().run([], Schema({"image": "image", "right": "image", "masks": "masks"}))


def test_a_list_of_pictures_has_a_list_of_masks(anonymizer):
    white = torch.full((3, 160, 160), 255, dtype=torch.uint8)
    schema = Schema({"frames": "image", "masks": "masks"})
    sample = Sample("a", {"frames": [white, white], "masks": [drawing() * 0, drawing().tolist()]})
    [out] = anonymizer().run([sample], schema)
    assert {r.place for r in out.record.regions} == {"frames[1]"}


def test_a_photo_that_exif_turns_has_masks_of_its_upright_size(anonymizer):
    exif, pixels = Image.Exif(), np.full((40, 60, 3), 255, np.uint8)
    exif[0x0112] = 6
    data = encoded(pixels, "JPEG", exif=exif)
    outs = [
        anonymizer("{1: face}").run([Sample("a", {"image": data, "masks": np.ones(shape, np.uint8)})], GIVEN)[0]
        for shape in ((60, 40), (40, 60))
    ]
    assert [getattr(out, "reason", "") for out in outs] == ["", "wrong_regions"]


# --- adapters ----------------------------------------------------------------------------------------------------


def dataset(photo: Callable[..., bytes], **columns: Any) -> datasets.Dataset:
    """Two rows: of a PNG mask each, and of what else there is."""
    files = [{"bytes": photo(i, "PNG"), "path": None} for i in range(2)]
    masks = [{"bytes": encoded(drawing()), "path": None}, {"bytes": encoded(drawing(9)), "path": None}]
    known = {"image": datasets.Image(), "mask": datasets.Image(), "label": datasets.Value("int64")}
    rows = {"image": files, "mask": masks, "label": [0, 1], **{name: value for name, (value, _) in columns.items()}}
    features = datasets.Features({**known, **{name: feature for name, (_, feature) in columns.items()}})
    return datasets.Dataset.from_dict(rows, features=features)


FIELDS = {"image": "image", "mask": "masks"}


def test_a_column_of_masks_is_in_no_view(photo: Callable[..., bytes], anonymizer):
    view = hf.anonymize(dataset(photo), anonymizer(), fields=FIELDS, keep="label")
    assert "mask" not in view.column_names
    assert "mask" not in view.features
    assert set(view[0]) == {"image", "label", "anondata"}
    with pytest.raises(KeyError):
        view["mask"]
    assert [is_covered(np.array(row["image"])) for row in view] == [True, False]
    assert hf.report(view).counts["regions"]["face"]["given"] >= 1


@pytest.mark.parametrize("known", [True, False])
def test_a_column_of_masks_is_in_no_stream(photo: Callable[..., bytes], known: bool, anonymizer):
    stream = dataset(photo).to_iterable_dataset()
    stream = stream if known else stream.map(lambda row: row, features=None)
    out = hf.anonymize(stream, anonymizer(), fields=FIELDS, keep="label")
    rows = list(out)
    assert [set(row) for row in rows] == [{"image", "label"}] * 2
    assert out.features is None or set(out.features) == {"image", "label"}
    assert hf.report(out).counts["regions"]["face"]["given"] == 1


def test_a_column_of_masks_is_in_no_file(photo: Callable[..., bytes], tmp_path: Path, anonymizer):
    view = hf.anonymize(dataset(photo), anonymizer(), fields=FIELDS, keep="label")
    view.materialize(tmp_path / "out", cache_dir=tmp_path / "cache")
    [file] = (tmp_path / "out" / "data").glob("*.parquet")
    found = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "read"))
    assert found.column_names == ["image", "label"]
    assert is_covered(np.array(found[0]["image"]))


def test_a_mask_file_that_changes_makes_its_rows_anew(photo: Callable[..., bytes], tmp_path: Path, anonymizer):
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(drawing(9)))
    ds = (
        dataset(photo)
        .remove_columns("mask")
        .add_column("mask", [str(path)] * 2)
        .cast_column("mask", datasets.Image())
    )

    def covered() -> bool:
        view = hf.anonymize(ds, anonymizer(), fields=FIELDS, keep="label")
        made = view.materialize(tmp_path / "out", cache_dir=tmp_path / "cache")
        return is_covered(np.array(made[0]["image"]))

    assert not covered()
    path.write_bytes(encoded(drawing(3)))
    assert covered()


def test_a_member_of_a_struct_that_holds_masks_is_left_out(photo: Callable[..., bytes], anonymizer):
    boxed = {"mask": datasets.Image(), "day": datasets.Value("string")}
    values = [{"mask": {"bytes": encoded(drawing()), "path": None}, "day": "monday"}] * 2
    ds = dataset(photo, meta=(values, boxed)).remove_columns("mask")
    fields = {"image": "image", "meta.mask": "masks"}
    view = hf.anonymize(ds, anonymizer(), fields=fields, keep=["label", "meta.day"])
    assert view[0]["meta"] == {"day": "monday"}
    assert view.features["meta"] == {"day": datasets.Value("string")}
    assert is_covered(np.array(view[0]["image"]))
    alone = hf.anonymize(ds, anonymizer(), fields=fields, keep="label", drop="meta.day")
    assert "meta" not in alone.column_names
    assert is_covered(np.array(alone[0]["image"]))


def test_a_struct_that_would_be_a_file_without_its_masks_is_refused(photo: Callable[..., bytes]):
    struct = {n: datasets.Value("string") for n in ("bytes", "path", "mask")}
    features = datasets.Features({"image": datasets.Image(), "meta": struct})
    schema = Schema({"image": "image", "meta.bytes": "keep", "meta.path": "keep", "meta.mask": "masks"})
    with pytest.raises(FieldTypeError, match="bytes and path"):
        layout_of(features, schema)


def test_masks_in_a_list_of_structs_go_with_their_pictures(photo: Callable[..., bytes], anonymizer):
    shots = datasets.List({"photo": datasets.Image(), "mask": datasets.Image()})
    picture = {"bytes": photo(0, "PNG"), "path": None}
    row = [{"photo": picture, "mask": {"bytes": encoded(drawing(v)), "path": None}} for v in (9, 3)]
    ds = datasets.Dataset.from_dict({"shots": [row]}, features=datasets.Features({"shots": shots}))
    view = hf.anonymize(ds, anonymizer(), fields={"shots.photo": "image", "shots.mask": "masks"})
    assert [set(shot) for shot in view[0]["shots"]] == [{"photo"}, {"photo"}]
    assert [is_covered(np.array(shot["photo"])) for shot in view[0]["shots"]] == [False, True]


def test_plain_arrays_and_objects_of_masks_are_columns_of_masks(photo: Callable[..., bytes], anonymizer):
    planes = [{"masks": [(drawing() == 3).tolist()], "labels": [3]}] * 2
    plane = datasets.List(datasets.List(datasets.Value("bool")))
    kind = {"masks": datasets.List(plane), "labels": datasets.List(datasets.Value("int64"))}
    maps = ([drawing().tolist()] * 2, datasets.Array2D((160, 160), "uint8"))
    ds = dataset(photo, objects=(planes, kind), seg=maps).remove_columns("mask")
    for name, other in (("objects", "seg"), ("seg", "objects")):
        view = hf.anonymize(ds, anonymizer(), fields={"image": "image", name: "masks"}, keep="label", drop=other)
        assert is_covered(np.array(view[0]["image"]))
        assert name not in view.column_names


def test_targets_of_a_detection_dataset_do_not_come_out(astronaut: Tensor, anonymizer):
    image = astronaut[:, 20:180, 140:300]
    target = {"masks": Mask(drawing()[None] == 3), "labels": torch.tensor([3])}
    safe = anonymize_torch([(image, target, 7)], anonymizer(), fields={0: "image", 1: "masks"}, keep=2)
    pixels, label = safe[0]
    assert label == 7
    assert is_covered(pixels.permute(1, 2, 0).numpy())


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset 1.0.2 closes no file that it opens
def test_members_of_masks_do_not_leave_a_stream(photo: Callable[..., bytes], tmp_path: Path, anonymizer):
    members = [("0.png", photo(0, "PNG")), ("0.seg.png", encoded(drawing())), ("1.png", photo(1, "PNG"))]
    source = wds.WebDataset(str(tar(tmp_path / "a.tar", *members)), shardshuffle=False)
    stage = anonymize(anonymizer(), fields={"jpg;png": "image", "seg.png": "masks"})
    [out] = source.compose(stage)  # the second has none
    assert set(out) == {"__key__", "__anondata__", "png"}
    assert is_covered(np.array(Image.open(io.BytesIO(out["png"]))))
    assert stage.report.withheld == {"missing_field": 1}


def test_members_of_masks_are_in_no_shard(photo: Callable[..., bytes], tmp_path: Path, anonymizer):
    source = tar(tmp_path / "a.tar", ("0.png", photo(0, "PNG")), ("0.seg.png", encoded(drawing())), ("0.cls", b"7"))
    fields = {"jpg;png": "image", "seg.png": "masks"}
    done = anonymize_shards(str(source), tmp_path / "out", anonymizer(), fields=fields, keep="cls", workers=1)
    assert (done.samples, done.report.counts["regions"]["face"]["given"]) == (1, 1)
    with tarfile.open(tmp_path / "out" / "a.tar") as file:
        assert file.getnames() == ["0.png", "0.cls"]
    with pytest.raises(UndeclaredFieldError, match=r"\*.png"):
        anonymize_shards(str(source), tmp_path / "other", anonymizer(), keep="cls", workers=1)


# --- what is written about it ------------------------------------------------------------------------------------


def test_verify_takes_a_mask_that_came_out_for_undeclared(photo: Callable[..., bytes], tmp_path: Path, grey_policy):
    rules = from_yaml(grey_policy("{}"))
    fields = {"image": "image", "mask": "masks", "seg.txt": "masks", "label": "keep"}
    manifest = Manifest(rules, empty_report(rules), {}, fields, "parquet")
    ds = datasets.Dataset.from_dict({"label": [1], "mask": ["secret"]})
    ds.to_parquet(str(tmp_path / "a.parquet"))
    with (tmp_path / "a.parquet").open("rb") as file:
        assert undeclared([contextlib.nullcontext(file)], manifest) == {"mask"}
    shard = tar(tmp_path / "a.tar", ("0.label", b"1"), ("0.seg.txt", b"secret"))
    assert strange_members(shard, manifest, Seen()) == 1
