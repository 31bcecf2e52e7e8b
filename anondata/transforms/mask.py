"""A region hidden by a colour or by what surrounds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from anondata.crops import FLOATS, cut, outer_rects, paste, resize
from anondata.errors import ShapeError
from anondata.leakage import NO_BOUND, NOTHING, Leakage
from anondata.transforms._draws import like, one_of, working
from anondata.transforms._membrane import membrane
from anondata.transforms.base import Common, RegionTransform
from anondata.transforms.fill import fill

BY = ("inpaint", "mean", "solid")
RIM = 1.0  # how far around the covered area an inpainting looks, relative to its half side
SAME = 0.002  # half a grey level: pixels that differ by less may be repetitions of one


class Mask(RegionTransform):
    """Hides a region behind one colour, or behind a smooth surface spanned by what surrounds it.

    Args:
        by: ``"solid"`` for one fixed colour; ``"mean"`` for the region's own mean colour; ``"inpaint"`` for the
            membrane (the harmonic function, smoothest of all) that the pixels beyond the covered area span over it.
            No texture is made up: a large region looks like fog.
        color: red, green and blue in [0, 1] of ``"solid"``, and of an inpainting that has no surroundings to take
            from, as on bare crops, all of which are region.

    An inpainting takes nothing from the covered area. :meth:`change_around` is told which pixels lie outside it.
    :meth:`change` sees no more than the crop, so it looks only at the outer half of what should be surroundings, and
    at no side that may lie beyond the picture's border, where pixels of the region itself are repeated: that is right
    for boxes of 8 pixels and more, and plain backgrounds are mistaken for borders.

    Only ``"solid"`` has a bound: it leaves nothing. A mean is of the region. An inpainting is of what is around, and
    there lies the same person's hair and neck, or the neighbour whom another region covers: gates should look at it.

    Source: Pérez, Gangnet, Blake (2003), doi 10.1145/882262.882269, for membranes.

    >>> import torch
    >>> Mask("solid", color=(0.2, 0.2, 0.2))(torch.rand(1, 3, 8, 8)).unique()
    tensor([0.2000])
    """

    name = "mask"
    draws = False

    def __init__(
        self, by: str = "inpaint", color: Sequence[float] = (0.5, 0.5, 0.5), **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        self.by = one_of("by", by, BY)
        if not _is_color(color):
            raise ValueError(f"color must be three numbers in [0, 1], got {color!r}")
        self.color = tuple(map(float, color))
        self.looks_around = self.by == "inpaint"

    @property
    def extent(self) -> float:
        """Side of a crop relative to its region's box: with a rim of surroundings where it is inpainted."""
        return self.coverage * (1 + (max(self.feather, RIM) if self.by == "inpaint" else self.feather))

    def strength(self) -> dict[str, Any]:
        return {"by": self.by, "color": list(self.color)}

    def leakage(self) -> Leakage:
        return NOTHING if self.by == "solid" else NO_BOUND

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        if self.by == "solid":
            return fill(crops, color=self.color)
        if self.by == "mean":
            return crops.mean(dim=(-2, -1), keepdim=True).expand_as(crops).clone()
        return self._inpainted(crops, surely_around(crops, covered=self.coverage / extent))

    def change_around(self, crops: Tensor, *, extent: float, seeds: Sequence[int], known: Tensor) -> Tensor:
        if self.by != "inpaint":
            return self.change(crops, extent=extent, seeds=seeds)
        return self._inpainted(crops, known)

    def _inpainted(self, crops: Tensor, known: Tensor) -> Tensor:
        """Crops where they are known, and what spans them elsewhere."""
        spanned = membrane(working(crops), known)
        blank = fill(spanned, color=self.color)
        return like(torch.where(known.flatten(1).any(1).view(-1, 1, 1, 1), spanned, blank), crops)

    def change_regions(self, picture: Tensor, boxes: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        is_picture = picture.ndim == 3 and (picture.dtype == torch.uint8 or picture.dtype in FLOATS)
        if self.by != "inpaint" or not is_picture or len(boxes) == 0 or picture.numel() == 0:
            return super().change_regions(picture, boxes, seeds=seeds)
        rects = outer_rects(boxes, self.extent, torch.tensor(picture.shape[-2:]))
        weights = [self.weight(box, rect) for box, rect in zip(boxes.tolist(), rects.tolist(), strict=True)]
        known = around(weights, rects, torch.tensor(picture.shape[-2:]), crop_px=self.crop_px)
        changed = self._inpainted(cut(picture, rects, self.crop_px), known.to(picture.device))
        out = picture.clone()
        for rect, crop, weight in zip(rects.tolist(), changed, weights, strict=True):
            paste(out, rect, crop, weight)
        return out


def around(weights: Sequence[Tensor], rects: Tensor, frames: Tensor, *, crop_px: int) -> Tensor:
    """Which pixels of crops take nothing from the covered area: ``(R, 1, crop_px, crop_px)`` bool on the CPU.

    weights: ``(h, w)`` for each of ``rects (R, 4)``, how far its pixels are replaced; covered is what wholly is.
    frames: ``(2,)`` or ``(R, 2)``, height and width of the picture of each. Crops repeat its border beyond it,
        and what lies there is not known.

    A crop's pixel is known if all those that it was resampled from are.
    """
    rows = []
    frames = frames.expand(len(rects), 2)
    for weight, (x0, y0, x1, y1), frame in zip(weights, rects.tolist(), frames.tolist(), strict=True):
        if tuple(weight.shape) != (y1 - y0, x1 - x0):
            raise ShapeError(f"expected a weight for each pixel of its rectangle, got {tuple(weight.shape)}")
        free = (weight < 1).float()
        free[: max(0, -y0)], free[:, : max(0, -x0)] = 0, 0
        free[max(0, frame[0] - y0) :], free[:, max(0, frame[1] - x0) :] = 0, 0
        rows.append(resize(free[None, None], crop_px, crop_px) > 1 - 1e-5)
    return torch.cat(rows) if rows else torch.zeros(0, 1, crop_px, crop_px, dtype=torch.bool)


def surely_around(crops: Tensor, *, covered: float) -> Tensor:
    """The same by the crops alone, with care: ``(R, 1, H, W)`` bool for ``(R, C, H, W)`` floats.

    covered: side of the covered area relative to the crop's. The inner half of what lies around it is left to
    rounding and resampling. A side along which pixels only repeat outwards may lie beyond the picture.
    """
    height, width = crops.shape[-2:]
    margin = (1 - min(1.0, covered)) / 4
    high, wide = int(height * margin), int(width * margin)
    known = crops.new_zeros((len(crops), 1, height, width), dtype=torch.bool)
    sides = ((-2, 0, high), (-2, height - high, high), (-1, 0, wide), (-1, width - wide, wide))
    if min(high, wide) < 2:
        return known
    strips = [(known.narrow(*side), _repeats(crops.narrow(*side), side[0])) for side in sides]
    for strip, _ in strips:
        strip.fill_(True)
    for strip, repeats in strips:  # after the others: a corner belongs to two sides
        strip.logical_and_(~repeats)
    return known


def _repeats(strips: Tensor, axis: int) -> Tensor:
    """``(R, 1, 1, 1)`` bool: whether strips are the same all along an axis."""
    return (strips.amax(axis) - strips.amin(axis)).flatten(1).amax(1).view(-1, 1, 1, 1) < SAME


def _is_color(color: Any) -> bool:
    if isinstance(color, str) or not isinstance(color, Sequence) or len(color) != 3:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in color)
