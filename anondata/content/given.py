"""Regions that come with a sample: boxes that people drew, or another tool found, read into what detectors return.

A field of regions holds one of:

* ``{"bbox": [[x, y, w, h], …], "category": [2, …]}``, as in COCO and its kin; beside it ids and areas may stand
* ``{"boxes": tv_tensors.BoundingBoxes(…), "labels": [1, …]}``; the canvas must be as large as the picture
* a list of ``{"box": [x0, y0, x1, y1], "kind": "face"}``, or of ``{"bbox": …, "category": …}``
* the JSON text of one of these

Boxes are in pixels of the upright picture. Categories are texts or whole numbers, and may be called ``kind``,
``category`` or ``labels``. ``landmarks`` may stand beside: for each region five points x, y, or None: left eye, right
eye, nose, left and right corner of the mouth, as seen in the picture. For masks see :mod:`anondata.content.masks`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anondata.detectors.pyramid import box_iou
from anondata.errors import FieldTypeError
from anondata.policy import IGNORE
from anondata.regions import LANDMARKS, Regions, cat_regions

BOXES = {"box": "XYXY", "bbox": "XYWH", "boxes": ""}  # plain numbers called boxes could be either
_KINDS = ("kind", "category", "labels")
_BESIDE = ("id", "bbox_id", "image_id", "area", "iscrowd")  # numbers; an outline or a text could tell who it is
UNREADABLE = (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
_EXPECTED = "expected boxes and their categories in one of the forms of anondata.content.given"


def parse(value: Any, *, frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]) -> Regions:
    """The regions of one picture, on the CPU, with score 1.

    frame: height and width of the picture. kinds: those that may be. meaning: kinds by category, or ``"ignore"``.

    Raises:
        FieldTypeError: for what is in none of the forms above, coordinates that are not finite or make no box, a box
            outside of the picture, a canvas of another size, or a category that means nothing.
    """
    try:
        return cat_regions([_read(columns, frame, kinds, meaning) for columns in _columns(value)])
    except FieldTypeError:
        raise
    except UNREADABLE as error:
        raise FieldTypeError(f"a field of regions cannot be read ({type(error).__name__}); {_EXPECTED}") from error


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


def _columns(value: Any) -> Iterator[Mapping[str, Any]]:
    """Lists by name, as in the first form; a list of regions is one such for each."""
    if isinstance(value, str | bytes | bytearray):
        value = json.loads(value, object_pairs_hook=once)
    if isinstance(value, Mapping):
        yield value
        return
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise FieldTypeError(f"a field of regions holds {type(value).__name__}; {_EXPECTED}, for each picture")
    for item in value:
        yield {name: [part] for name, part in item.items()}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON that says everything once: its text comes out as it is, and what is read is the last."""
    if len(dict(pairs)) < len(pairs):
        raise FieldTypeError("a field of regions says something twice; write each name once")
    return dict(pairs)


def _read(
    columns: Mapping[str, Any], frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]
) -> Regions:
    if "masks" in columns:
        raise FieldTypeError(
            "a field of regions holds masks, whose outlines can tell who it is; declare it 'masks', and it will not "
            "come out"
        )
    named = _one(columns, BOXES)
    return regions_of(corners(columns[named], BOXES[named], frame), columns, frame, kinds, meaning)


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
            "a given box is inside out, or at most one pixel wide or high; expected pixels, no shares of the picture"
        )
    if not bool(((far > 0) & (near < size) & (near > -size) & (far < 2 * size)).all()):
        raise FieldTypeError("a given box is outside of its picture, or larger by far; are they of one size?")
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
    if type(category) not in (str, int):
        raise FieldTypeError(f"a category is {type(category).__name__}; expected a text or a whole number")
    kind = meaning.get(str(category), str(category))
    if str(category) in meaning and kind == IGNORE:
        return None
    if kind not in kinds:
        raise FieldTypeError(
            f"a given region has a category that is none of the policy's kinds ({', '.join(sorted(kinds))}), and "
            "that its given: does not name; say there what it means, or that it is to be ignored: CATEGORY: ignore"
        )
    return kind
