"""Regions that come with a sample: boxes that people drew, or another tool found, read into what detectors return.

A field of regions holds one of:

* ``{"bbox": [[x, y, w, h], …], "category": [2, …]}``, as in COCO and its kin; beside it ids and areas may stand
* ``{"boxes": tv_tensors.BoundingBoxes(…), "labels": [1, …]}``; the canvas must be as large as the picture. Plain
  lists called ``boxes`` are x0, y0, x1, y1, as in torchvision's targets
* a list of ``{"box": [x0, y0, x1, y1], "kind": "face"}``, or of ``{"bbox": …, "category": …}``
* the text of one of these, or of YOLO or Pascal VOC: see :mod:`anondata.content._notations`

Boxes are in pixels of the upright picture. Categories are texts or whole numbers, and may be called ``kind``,
``category`` or ``labels``. ``landmarks`` may stand beside: for each region five points x, y, or None: left eye, right
eye, nose, left and right corner of the mouth, as seen in the picture. For masks see :mod:`anondata.content.masks`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from anondata.content._notations import EXPECTED, columns_of, without_the_rest
from anondata.content._notations import once as once
from anondata.detectors.pyramid import box_iou
from anondata.errors import FieldTypeError
from anondata.policy import IGNORE, NO_FACE
from anondata.regions import LANDMARKS, Regions, cat_regions

BOXES = {"box": "XYXY", "bbox": "XYWH", "boxes": ""}  # a tensor of plain numbers could be either
_KINDS = ("kind", "category", "labels")
_BESIDE = ("id", "bbox_id", "image_id", "area", "iscrowd")  # numbers; an outline or a text could tell who it is
# What data sets call what is not told of somebody: words of such categories are shown in messages.
_CLASSES = frozenset(
    [
        "animal",
        "baby",
        "background",
        "bicycle",
        "body",
        "boy",
        "bus",
        "car",
        "cat",
        "child",
        "crowd",
        "cyclist",
        "dog",
        "driver",
        "eye",
        "face",
        "female",
        "girl",
        "hand",
        "head",
        "human",
        "ignore",
        "kid",
        "licence",
        "license",
        "logo",
        "male",
        "man",
        "mask",
        "masked",
        "motorcycle",
        "mouth",
        "no",
        "none",
        "nose",
        "number",
        "object",
        "occluded",
        "other",
        "passenger",
        "pedestrian",
        "people",
        "person",
        "phone",
        "plate",
        "rider",
        "screen",
        "sign",
        "text",
        "truck",
        "unmasked",
        "vehicle",
        "visible",
        "with",
        "without",
        "woman",
    ]
)
UNREADABLE = (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
_EXPECTED = EXPECTED


@dataclass(frozen=True)
class Told:
    """A value that comes out as it is, beside what it says: names of classes, say, that it has numbers of."""

    value: Any = field(repr=False)
    read: Any = field(repr=False)


class ClassNumber(int):
    """A category by number, of which its data set knows the name, too."""

    label: str

    def __new__(cls, number: int, label: str) -> ClassNumber:
        made = super().__new__(cls, number)
        made.label = label
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return ClassNumber, (int(self), self.label)


def parse(
    value: Any,
    *,
    frame: tuple[int, int],
    kinds: Collection[str],
    meaning: Mapping[str, str],
    name: str = "",
    path: Sequence[str] = (),
) -> Regions:
    """The regions of one picture, on the CPU, with score 1; of the kind :data:`NO_FACE` where that is what is meant.

    name, path: of the field, and to where in its JSON text they are.
    frame: height and width of the picture. kinds: those that may be. meaning: kinds by category, or ``"ignore"``.

    Raises:
        FieldTypeError: for what is in none of the forms above, coordinates that are not finite or make no box, a box
            outside of the picture, a canvas of another size, or a category that means nothing.
    """
    try:
        held = [_told(one) for one in value] if isinstance(value, list | tuple) else _told(value)
        columns = columns_of(held, name=name, path=path, frame=frame)
        return cat_regions([_read(one, frame, kinds, meaning) for one in columns])
    except FieldTypeError:
        raise
    except UNREADABLE as error:
        raise FieldTypeError(f"a field of regions cannot be read ({type(error).__name__}); {_EXPECTED}") from error


def _told(value: Any) -> Any:
    return value.read if isinstance(value, Told) else value


def released(value: Any, *, name: str, path: Sequence[str]) -> Any:
    """What a field of regions comes out as: as it is, or the part that was read, where that is not all.

    Raises: FieldTypeError, and those of :data:`UNREADABLE`.
    """
    if type(value) in (list, tuple):
        return type(value)(released(item, name=name, path=path) for item in value)
    return value.value if isinstance(value, Told) else without_the_rest(value, name=name, path=path)


def join(given: Regions, found: Regions, *, iou: float) -> tuple[Regions, Regions, Tensor]:
    """Given regions, what detectors found beside them, and ``(R,)`` bool: which of the given ones they found, too.

    A given region is the one of its kind that overlaps it most, by more than ``iou``: the box around both is taken,
    because one that was drawn too small would leave a rim, and the detector's landmarks where it has some, which
    recognizers are calibrated on. It is never two: of neighbours in one box each is looked at by itself.
    """
    if not len(given) or not len(found):
        return given, found, torch.zeros(len(given), dtype=torch.bool, device=given.boxes.device)
    kind = torch.tensor([[a == b for b in found.kinds] for a in given.kinds], device=found.boxes.device)
    same = kind & (given.image[:, None] == found.image[None])
    most, which = (box_iou(given.boxes, found.boxes) * same).max(dim=1)
    agreed, other = most > iou, found.select(which)
    around = torch.cat(
        [
            torch.minimum(given.boxes[:, :2], other.boxes[:, :2]),
            torch.maximum(given.boxes[:, 2:], other.boxes[:, 2:]),
        ],
        dim=1,
    )
    boxes = torch.where(agreed[:, None], around, given.boxes)
    lent = agreed & other.has_landmarks
    landmarks = torch.where(lent[:, None, None], other.landmarks, given.landmarks)
    left = torch.ones(len(found), dtype=torch.bool, device=found.boxes.device)
    left[which[agreed]] = False
    return replace(given, boxes=boxes, landmarks=landmarks), found.select(left), agreed


def _read(
    columns: Mapping[str, Any], frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]
) -> Regions:
    if "masks" in columns:
        raise FieldTypeError(
            "a field of regions holds masks, whose outlines can tell who it is; declare it 'masks', and it will not "
            "come out"
        )
    named = _one(columns, BOXES)
    form = "XYXY" if named == "boxes" and isinstance(columns[named], list | tuple) else BOXES[named]
    return regions_of(corners(columns[named], form, frame), columns, frame, kinds, meaning)


def regions_of(
    boxes: Tensor,
    columns: Mapping[str, Any],
    frame: tuple[int, int],
    kinds: Collection[str],
    meaning: Mapping[str, str],
) -> Regions:
    """Regions of boxes ``(R, 4)`` and of what is told of them by name, without those to be ignored.

    Raises: FieldTypeError, and those of :data:`UNREADABLE`.
    """
    if set(columns) - {*BOXES, *_KINDS, *_BESIDE, "landmarks"}:
        raise FieldTypeError(f"a field of regions holds more than regions; {_EXPECTED}, and drop what else there is")
    meant, count = meanings(columns, kinds, meaning), len(boxes)
    if len(meant) != count:
        raise FieldTypeError(f"a field of regions has {count} boxes and {len(meant)} categories")
    if any(_numbers(columns[name]).numel() not in (1, count) for name in _BESIDE if name in columns):
        raise FieldTypeError("a field of regions holds ids or areas that are not one for each region")
    landmarks = _landmarks(columns.get("landmarks"), count)
    _check(boxes, landmarks, frame)
    image = torch.zeros(count, dtype=torch.int64)
    regions = Regions(image, boxes.float(), landmarks.float(), torch.ones(count), tuple(k or "" for k in meant))
    return regions.select([i for i, kind in enumerate(meant) if kind is not None])


def meanings(columns: Mapping[str, Any], kinds: Collection[str], meaning: Mapping[str, str]) -> list[str | None]:
    """Kinds by the categories of some regions; None for those to be ignored. Raises as :func:`regions_of`."""
    return [kind_of(category, kinds, meaning) for category in _listed(columns[_one(columns, _KINDS)])]


def _one(columns: Mapping[str, Any], names: Collection[str]) -> str:
    there = [name for name in names if name in columns]
    if len(there) != 1:
        raise FieldTypeError(f"a field of regions holds {len(there)} of {', '.join(names)}; {_EXPECTED}")
    return there[0]


def _listed(values: Any) -> list[Any]:
    """A list, tensor or array as a list, down to numbers."""
    values = _plain(values)
    if not isinstance(values, list | tuple):
        raise FieldTypeError(f"a field of regions holds {type(values).__name__} where a list should be; {_EXPECTED}")
    return [_plain(item) for item in values]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _numbers(values: Any) -> Tensor:
    """float64, so that a far side is not rounded twice; raises TypeError or ValueError for what is no number."""
    values = _plain(values)
    return torch.tensor(_listed(values) if isinstance(values, list | tuple) else values, dtype=torch.float64)


def corners(boxes: Any, form: str, frame: tuple[int, int]) -> Tensor:
    """``(R, 4)`` x0, y0, x1, y1. A tensor of torchvision knows its own form; nothing is imported to ask it."""
    if hasattr(boxes, "canvas_size"):
        form = boxes.format.value
        if tuple(boxes.canvas_size) != frame:
            raise FieldTypeError(f"boxes are of a canvas of {tuple(boxes.canvas_size)}, but the picture is {frame}")
    if form not in ("XYXY", "XYWH", "CXCYWH"):
        raise FieldTypeError(f"boxes are of the form {form or 'of plain numbers'}; {_EXPECTED}")
    rows = _numbers(boxes)
    rows = rows if rows.numel() else rows.reshape(0, 4)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise FieldTypeError(f"boxes have the shape {tuple(rows.shape)}, expected (R, 4)")
    a, b = rows[:, :2], rows[:, 2:]
    near = a - b / 2 if form == "CXCYWH" else a
    return torch.cat([near, b if form == "XYXY" else near + b], dim=1)


def _landmarks(points: Any, count: int) -> Tensor:
    unknown = [[float("nan")] * 2] * LANDMARKS
    rows = [unknown] * count if points is None else [unknown if p is None else p for p in _listed(points)]
    found = _numbers(rows).reshape(-1, LANDMARKS, 2)
    if len(found) != count:
        raise FieldTypeError(f"a field of regions has {count} boxes and landmarks of {len(found)}")
    return found


def _check(boxes: Tensor, landmarks: Tensor, frame: tuple[int, int]) -> None:
    """A box may hang over the picture's edge: an ellipse in what is left of it would cover less."""
    size = torch.tensor([frame[1], frame[0]], dtype=torch.float64)
    near, far = boxes[:, :2], boxes[:, 2:]
    if not bool(boxes.isfinite().all()):
        raise FieldTypeError("a given box has coordinates that are not finite")
    if not bool((far - near > 1).all()):
        raise FieldTypeError(
            "a given box is inside out, or at most one pixel wide or high; expected pixels, not fractions of the "
            "picture"
        )
    if not bool(((far > 0) & (near < size) & (near > -size) & (far < 2 * size)).all()):
        raise FieldTypeError(
            "a given box is outside of its picture, or far larger; were the boxes drawn on a picture of this size?"
        )
    if bool(((landmarks < -size) | (landmarks > 2 * size)).any()):
        raise FieldTypeError("a given region has landmarks far outside of its picture")
    across, down = landmarks[:, 1] - landmarks[:, 0], landmarks[:, 2:4].mean(dim=1) - landmarks[:, 0]
    if bool((across[:, 0] * down[:, 1] < across[:, 1] * down[:, 0]).any()):  # however it is turned
        raise FieldTypeError(
            "a given region has landmarks in mirrored order; the eye and the corner of the mouth come first that are "
            "on the left in the picture"
        )


def kind_of(category: Any, kinds: Collection[str], meaning: Mapping[str, str]) -> str | None:
    """What a category means; None to ignore it. It is not quoted: a category may be somebody's name."""
    if type(category) not in (str, int, ClassNumber):
        raise FieldTypeError(f"a category is {type(category).__name__}; expected a text or a whole number")
    words = [str(int(category)), category.label] if isinstance(category, ClassNumber) else [str(category)]
    named = next((word for word in words if word in meaning), words[-1])
    kind = meaning.get(named, named)
    if named in meaning and kind == IGNORE:
        return None
    if named in meaning and kind == NO_FACE:
        return NO_FACE
    if kind not in kinds:
        raise FieldTypeError(
            f"a given region has the category {told_category(words[-1], kinds)}, which is none of the policy's kinds "
            f"({', '.join(sorted(kinds))}), and which its given: does not name; say there what it means, or that it "
            "is to be ignored: CATEGORY: ignore"
        )
    return kind


def told_category(category: str, kinds: Collection[str]) -> str:
    """A category in a message: a number, a usual name of a class, or one like a kind; others may name somebody.

    >>> told_category("Faces", ["face"]), told_category("7", ["face"])
    ("'Faces'", "'7'")
    >>> told_category("Jane Doe", ["face"])
    '(a text of 8 characters, not shown: it may be a name)'
    """
    plain = category.strip().lower()
    parts = {part.rstrip("s") for part in re.split(r"[^a-z]+", plain) if part}
    if category.lstrip("-").isdecimal() and len(category) < 12:
        return repr(category)
    if len(category) < 30 and parts and parts <= {*_CLASSES, *(kind.rstrip("s") for kind in kinds)}:
        return repr(category)
    return f"(a text of {len(category)} characters, not shown: it may be a name)"
