"""Masks that come with a sample, read into regions: the upright box around each. All of a box is treated as one
region; the outline itself is not followed.

A field of masks holds one of:

* ``{"masks": tv_tensors.Mask(…), "labels": [1, …]}`` as detection datasets have it: a plane ``(R, H, W)`` for each
  region, in which what is not 0 belongs to it, and their categories. Boxes, ids and areas may stand beside as in
  :mod:`anondata.content.given`; then the box around both is taken. Also its JSON text.
* a map of labels ``(H, W)`` or ``(1, H, W)``: an array, a tensor, a PIL image of mode 1, L, P or I;16, or the bytes
  of a PNG (or a lossless TIFF). 0 is background, every other value a category, and each connected part of a value a
  region of its own. The values of a picture with a palette are its indices; of mode 1 they are 0 and 1.

Masks are as large as the *upright* picture: where EXIF turns a photo, its masks are those of the turned one.
Categories mean what the policy's ``given:`` says, which may be ``ignore``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anondata.content._planes import plane_of, values_of
from anondata.content._runs import boxes_of_parts, runs_of
from anondata.content.given import BOXES, UNREADABLE, corners, kind_of, meanings, once, regions_of
from anondata.errors import FieldTypeError
from anondata.policy import IGNORE
from anondata.regions import Regions

MAX_PARTS = 10_000
"""More regions than that in one picture are noise, or no mask at all."""
MAX_RUNS = 4_000_000  # stretches of one value in a row; of noise there are as many as pixels
SMALLEST_PX = 2.0  # a box that is thinner is widened to it

_EXPECTED = "expected masks and their categories, or a map of labels, in one of the forms of anondata.content.masks"


def parse(value: Any, *, frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]) -> Regions:
    """The regions of one picture's masks, on the CPU, with score 1; as :func:`anondata.content.given.parse`.

    Raises:
        FieldTypeError: for what is in none of the forms above, of another size than the picture, stored by a lossy
            codec, empty or in too many parts, and for a category that means nothing.
    """
    try:
        value = _from_json(value)
        if isinstance(value, Mapping):
            return _of_planes(value, frame, kinds, meaning)
        if value is None or isinstance(value, str | int | float):
            raise FieldTypeError(f"a field of masks holds {type(value).__name__}; {_EXPECTED}")
        return _of_map(plane_of(value, frame), frame, kinds, meaning)
    except FieldTypeError:
        raise
    except UNREADABLE as error:
        raise FieldTypeError(f"a field of masks cannot be read ({type(error).__name__}); {_EXPECTED}") from error


def _from_json(value: Any) -> Any:
    """What a JSON text says; anything else as it is. No picture begins like such a text."""
    raw = isinstance(value, bytes | bytearray | memoryview)
    if isinstance(value, str) or (raw and bytes(value[:1]) in (b"{", b"[")):
        return json.loads(bytes(value) if raw else value, object_pairs_hook=once)
    return value


def _of_planes(
    columns: Mapping[str, Any], frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]
) -> Regions:
    if "masks" not in columns:
        raise FieldTypeError(
            f"a field of masks holds no masks; if it holds boxes only, declare it 'regions'. Otherwise {_EXPECTED}"
        )
    beside = {name: held for name, held in columns.items() if name != "masks"}
    meant, filled = meanings(beside, kinds, meaning), _planes(columns["masks"], frame)
    if len(filled) > MAX_PARTS:
        raise _too_many()
    boxes = _around(filled)
    if len(meant) == len(boxes):
        ignored = torch.tensor([kind is None for kind in meant], dtype=torch.bool)
        if bool((boxes[:, 2] == 0)[~ignored].any()):
            raise FieldTypeError(
                "a mask is empty, so nobody can tell where its region is; leave such regions out, or say that their "
                "category is to be ignored"
            )
        boxes = torch.where(ignored[:, None], torch.tensor([0.0, 0.0, frame[1], frame[0]]), boxes)
    drawn = [name for name in BOXES if name in beside]
    if len(drawn) > 1:
        raise FieldTypeError(f"a field of masks holds two kinds of boxes, {' and '.join(drawn)}; {_EXPECTED}")
    for name in drawn:
        boxes = _both(boxes, corners(beside.pop(name), BOXES[name], frame))
    return regions_of(_widened(boxes), beside, frame, kinds, meaning)


def _planes(held: Any, frame: tuple[int, int]) -> NDArray[np.bool_]:
    """``(R, H, W)``: what belongs to each region."""
    if isinstance(held, list | tuple):
        planes = [plane_of(one, frame) != 0 for one in held]
        return np.stack(planes) if planes else np.zeros((0, *frame), dtype=bool)
    values = values_of(held, frame)
    if values.shape[:1] == (0,):
        return np.zeros((0, *frame), dtype=bool)
    if values.ndim != 3 or values.shape[1:] != frame:
        raise FieldTypeError(
            f"masks have the shape {values.shape}, but the upright picture is {frame}; expected (R, H, W) of its size"
        )
    filled: NDArray[np.bool_] = values != 0
    return filled


def _around(filled: NDArray[np.bool_]) -> Tensor:
    """``(R, 4)`` boxes around planes; all 0 around an empty one."""
    sides = []
    for axis in (1, 2):  # over rows, which leaves x; over columns, which leaves y
        line: NDArray[np.bool_] = np.any(filled, axis=axis)
        near, far = line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)
        sides.append(np.stack([near, far]) * line.any(axis=1))
    (x0, x1), (y0, y1) = sides
    return torch.from_numpy(np.stack([x0, y0, x1, y1], axis=1)).double()


def _both(boxes: Tensor, drawn: Tensor) -> Tensor:
    """The boxes around two of each. One that was drawn may have no area: its mask has."""
    if len(boxes) != len(drawn):
        raise FieldTypeError(f"a field of masks has {len(boxes)} masks and {len(drawn)} boxes")
    if not bool((drawn[:, 2:] >= drawn[:, :2]).all()):  # also where one is not a number
        raise FieldTypeError("a box beside a mask is inside out, or not finite")
    return torch.cat([torch.minimum(boxes[:, :2], drawn[:, :2]), torch.maximum(boxes[:, 2:], drawn[:, 2:])], dim=1)


def _widened(boxes: Tensor) -> Tensor:
    """Boxes of at least :data:`SMALLEST_PX` in width and height, about the same middle."""
    lacking = (SMALLEST_PX - (boxes[:, 2:] - boxes[:, :2])).clamp(min=0) / 2
    return torch.cat([boxes[:, :2] - lacking, boxes[:, 2:] + lacking], dim=1)


def _of_map(
    labels: NDArray[Any], frame: tuple[int, int], kinds: Collection[str], meaning: Mapping[str, str]
) -> Regions:
    if meaning.get("0", IGNORE) != IGNORE:
        raise FieldTypeError(
            "the policy's given: says what 0 means, but 0 is the background of a map of labels; number them from 1"
        )
    runs = runs_of(labels, most=MAX_RUNS)
    if runs is None:
        raise _too_many()
    values, which = np.unique(runs.value, return_inverse=True)
    meant = [kind_of(int(value), kinds, meaning) for value in values]
    wanted = np.array([kind is not None for kind in meant], dtype=bool)
    boxes, held = boxes_of_parts(runs.select(wanted[which]))
    if len(boxes) > MAX_PARTS:
        raise _too_many()
    told = {"category": [int(value) for value in held]}
    return regions_of(_widened(torch.from_numpy(boxes)), told, frame, kinds, meaning)


def _too_many() -> FieldTypeError:
    return FieldTypeError(
        f"a field of masks has more than {MAX_PARTS} parts; is it a photo, or was it stored by a lossy codec? Store "
        "masks as PNG, and leave out specks"
    )
