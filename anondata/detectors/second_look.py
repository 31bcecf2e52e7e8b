"""A second look at what a detector took for a face: alone, at other sizes.

What is no face is taken for one at one size and one place, mostly; a face is one at others, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anondata.crops import mirrored, outer_rects, resize
from anondata.models.shared import network
from anondata.regions import Regions

SIDES_PX = (64, 96, 192)  # of what is shown to the network
MARGIN = 2.0  # of it to a region's longer side
LEAST_PX = 12.0  # geometric mean of a region's sides: of smaller ones too little is left to judge by

# The best of the three sizes had as much for 78 of 80 hard faces (two behind bars had less), and for 10 of 418
# animals and things that a detector had taken for faces.
AGREED = 0.45
FLAT_LEVELS = 64  # of 256
AT_ONCE = 32  # regions in one call of the network


def without_doubtful(views: Sequence[Tensor], found: Regions, *, sure: float) -> Regions:
    """The faces that CenterFace finds again at another size, and those that cannot be or need not be judged.

    views: those in which they were found. sure: a detector's score from which on a region is not judged.

    Raises:
        ValueError: the network's output is not finite.
    """
    judged = (found.scores < sure) & (found.sizes.prod(dim=1).sqrt() >= LEAST_PX)
    rows, kept = judged.nonzero().flatten(), ~judged
    if not len(rows):
        return found
    for side in SIDES_PX:  # the small ones first: they settle most
        for part in (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)):
            kept[part] = _scores(views, found.select(part), side) >= AGREED
        rows = rows[~kept[rows]]
    return found.select(kept)


def _scores(views: Sequence[Tensor], found: Regions, side: int) -> Tensor:
    """``(R,)``: of each region at one size, the highest score of a face about its middle."""
    centre, half = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2, found.sizes.amax(dim=1, keepdim=True) / 2
    frames = torch.tensor([views[image].shape[-2:] for image in found.image.tolist()])
    rects = outer_rects(torch.cat([centre - half, centre + half], dim=1), MARGIN, frames).tolist()
    parts = [_crop(views[i], rect, side) for i, rect in zip(found.image.tolist(), rects, strict=True)]
    heat = network("centerface", found.boxes.device)(_lit(torch.cat(parts).float()))[0][:, 0]
    if not bool(heat.isfinite().all()):
        raise ValueError("the detector's heatmap is not finite")
    rim = heat.shape[1] // 4
    return heat[:, rim:-rim, rim:-rim].flatten(1).amax(dim=1)


def _crop(view: Tensor, rect: list[int], side: int) -> Tensor:
    """``(1, 3, side, side)``: beyond the picture's edge its mirror image, which makes a face of one that is cut."""
    x0, y0, x1, y1 = rect
    return resize(mirrored(view, range(y0, y1), range(x0, x1))[None], side, side)


def _lit(crops: Tensor) -> Tensor:
    """Crops ``(R, 3, side, side)`` of few levels over the full range: a dark face is one, too."""
    low, high = (bound.reshape(-1, 1, 1, 1) for bound in torch.aminmax(crops.flatten(1), dim=1))
    spread = (high - low).clamp(min=1)
    return torch.where(spread < FLAT_LEVELS, (crops - low) * (255 / spread), crops)
