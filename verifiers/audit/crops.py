"""Low-resolution views of a face for attackers without a network: canonical crops, and means of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import cover_weight, cut, outer_rects
from anondata.regions import USUAL_LANDMARKS, Regions
from anondata.transforms.base import RegionTransform
from anondata.verifiers.alignment import chips
from anondata.verifiers.audit.metrics import Bools, Floats

Alignment = Literal["box", "landmarks"]
ALIGNMENTS: tuple[Alignment, ...] = ("box", "landmarks")

REACH = 2.2  # side of a crop relative to the face's box: what lies around a cover names 25-50 % of 51 people
SIDE_PX = 88  # of a crop, 40 of them for the box
ASPECT = 0.77  # of a usual box: its width by its height
FACE = 1.3  # side of the area that counts as face, covered or not, relative to the box
GREY = 128
INNER = 0.9  # of a cover's side: JPEG blocks at its edge carry what lies around it
CHANGED = 6.0 / 255  # of a pixel, in the median over all faces: a tool did more to it than write it again
ENOUGH_SEEN = 0.6  # of a cell must lie in the area that is looked at


def crops_of(view: Tensor, face: Regions) -> dict[Alignment, Tensor]:
    """``(3, SIDE_PX, SIDE_PX)`` uint8 of the one face of a picture, by how it is aligned."""
    by_box = cut(view, outer_rects(face.boxes, REACH, torch.tensor(view.shape[-2:])), SIDE_PX)
    by_marks = chips([view], face.renumbered(0), template=_template(), chip_px=SIDE_PX)
    return {"box": _bytes(by_box[0]), "landmarks": _bytes(by_marks[0])}


def face_alone(view: Tensor, face: Regions) -> tuple[Tensor, Regions]:
    """The one face of a picture on grey, for networks: what lies around it would reach into their chips.

    It has no landmarks, so that chips follow the box, as covers do: where a cover ends in a chip tells nothing then.
    """
    [(x0, y0, x1, y1)] = outer_rects(face.boxes, FACE, torch.tensor(view.shape[-2:])).clamp(min=0).tolist()
    alone = torch.full_like(view, GREY)
    alone[:, y0:y1, x0:x1] = view[:, y0:y1, x0:x1]
    return alone, replace(face, landmarks=torch.full_like(face.landmarks, torch.nan))


def _bytes(crop: Tensor) -> Tensor:
    return (crop * 255).round().to("cpu", torch.uint8)


def _template() -> Tensor:
    """Where landmarks lie in a crop that is aligned by them."""
    box_px = SIDE_PX / REACH
    return (torch.tensor(USUAL_LANDMARKS) - 0.5) * torch.tensor([ASPECT * box_px, box_px]) + SIDE_PX / 2


def cells(crops: Floats, seen: Bools, *, area: float, count: int, alignment: Alignment) -> Floats:
    """``(N, D)`` mean colours of the cells that lie in what is looked at.

    crops: ``(N, 3, SIDE_PX, SIDE_PX)`` in [0, 1]. seen: ``(SIDE_PX, SIDE_PX)``. area: side of what is divided into
    ``count x count`` cells, relative to the box.
    """
    rows, columns = (_middle(area * share) for share in (1.0, ASPECT if alignment == "landmarks" else 1.0))
    mask = torch.from_numpy(seen[rows, columns]).float()[None, None]
    part = torch.from_numpy(np.ascontiguousarray(crops[..., rows, columns], dtype=np.float32))
    weight = F.adaptive_avg_pool2d(mask, count)
    means = F.adaptive_avg_pool2d(part * mask, count) / weight.clamp(min=1e-6)
    kept: Floats = means[..., weight[0, 0] >= ENOUGH_SEEN].flatten(1).double().numpy()
    return kept


def _middle(area: float) -> slice:
    half = max(1, round(min(area, REACH) / REACH * SIDE_PX / 2))
    return slice(SIDE_PX // 2 - half, SIDE_PX // 2 + half)


def side_of(area: Bools) -> float:
    """Side of the largest square in the middle that lies wholly in an area, relative to the box; 0 for none."""
    for half in range(SIDE_PX // 2, 0, -1):
        middle = slice(SIDE_PX // 2 - half, SIDE_PX // 2 + half)
        if area[middle, middle].all():
            return 2 * half / SIDE_PX * REACH
    return 0.0


def face_area() -> Bools:
    """``(SIDE_PX, SIDE_PX)``: what counts as face wherever a tool's cover ends."""
    area = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    area[_middle(FACE), _middle(FACE)] = True
    return area


def covered_by(technique: RegionTransform, *, inner: float = INNER) -> Bools:
    """Where a technique leaves nothing of a picture as it was, less its rim."""
    half = SIDE_PX / REACH / 2
    box = [SIDE_PX / 2 - half, SIDE_PX / 2 - half, SIDE_PX / 2 + half, SIDE_PX / 2 + half]
    weight = cover_weight(
        box, [0, 0, SIDE_PX, SIDE_PX], coverage=technique.coverage * inner, shape=technique.shape, feather=0.0
    )
    covered: Bools = (weight >= 1).numpy()
    return covered


def touched_by(technique: RegionTransform) -> Bools:
    """Where a technique may change a picture, soft edge and JPEG blocks included."""
    return covered_by(technique, inner=(1 + technique.feather) / INNER)


def covered_in(before: Sequence[Tensor], after: Sequence[Tensor]) -> Bools:
    """Where a tool changed most of the faces: crops before and after, aligned by their boxes."""
    apart = [(a.float() - b.float()).abs().mean(dim=0) / 255 for a, b in zip(before, after, strict=True)]
    if not apart:
        return np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    changed: Bools = (torch.stack(apart).median(dim=0).values > CHANGED).numpy()
    return changed


def eroded(area: Bools, share: float) -> Bools:
    """An area less a rim of a share of its side on each side."""
    rim = max(1, round(share * float(area.any(axis=0).sum())))
    outside = torch.from_numpy(~area).float()[None, None]
    grown = F.max_pool2d(F.pad(outside, (rim, rim, rim, rim), value=0.0), 2 * rim + 1, 1)
    found: Bools = (grown[0, 0] < 0.5).numpy()
    return found
