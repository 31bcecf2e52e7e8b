"""Face chips: every face turned, scaled and shifted to where an embedder expects its landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize, similarity
from anondata.regions import USUAL_LANDMARKS, Regions

MIN_SPREAD = 0.2  # of a box's longer side; real faces have about half


def landmarks_or_usual(regions: Regions) -> Tensor:
    """``(R, 5, 2)`` landmarks in pixels; where a region has none, the usual places in its box.

    Landmarks that cannot be a face's (far outside of the box, or all in one place) count as none: an embedder that is
    shown the wrong part of a picture would let anything pass.
    """
    usual = regions.boxes.new_tensor(USUAL_LANDMARKS)[None] * regions.sizes[:, None] + regions.boxes[:, None, :2]
    return torch.where(sane_landmarks(regions)[:, None, None], regions.landmarks, usual)


def sane_landmarks(regions: Regions) -> Tensor:
    """``(R,)`` bool: regions with five landmarks that can be a face's."""
    near = regions.scaled(2.0).boxes[:, None]
    inside = (regions.landmarks >= near[..., :2]) & (regions.landmarks <= near[..., 2:])
    spread = regions.landmarks.amax(dim=1) - regions.landmarks.amin(dim=1)
    wide = spread.amax(dim=1) >= MIN_SPREAD * regions.sizes.amax(dim=1)
    return regions.has_landmarks & inside.flatten(1).all(dim=1) & wide


def chips(views: Sequence[Tensor], regions: Regions, *, template: Tensor, chip_px: int) -> Tensor:
    """Aligned faces ``(R, 3, chip_px, chip_px)`` float32 in [0, 1].

    views: ``(3, H, W)`` uint8 each. template: ``(5, 2)`` landmarks in pixels of the chip.
    Faces larger than the chip are shrunk with antialiasing before they are sampled; outside of a picture is black.
    """
    if not len(regions):
        device = views[0].device if views else "cpu"
        return torch.zeros(0, 3, chip_px, chip_px, device=device)
    transforms = similarity(landmarks_or_usual(regions), template.to(regions.boxes))
    rows = zip(regions.image.tolist(), transforms, strict=True)
    return torch.cat([_chip(views[i], transform, chip_px) for i, transform in rows])


def _chip(view: Tensor, transform: Tensor, chip_px: int) -> Tensor:
    back = _inverse(transform)
    corners = back.new_tensor([[0, 0, 1], [chip_px, 0, 1], [0, chip_px, 1], [chip_px, chip_px, 1]]) @ back.T
    x0, y0 = (int(v) for v in corners.amin(dim=0).floor().clamp(min=-1e6).tolist())
    x1, y1 = (int(v) for v in corners.amax(dim=0).ceil().clamp(max=1e6).tolist())
    x0, y0 = max(x0 - 2, 0), max(y0 - 2, 0)
    part = view[:, y0 : max(y1 + 2, 0), x0 : max(x1 + 2, 0)]
    if 0 in part.shape:
        return torch.zeros(1, 3, chip_px, chip_px, device=view.device)
    pixels, shrink = part[None].float() / 255, math.hypot(float(back[0, 0]), float(back[1, 0]))
    back = back - back.new_tensor([[0, 0, x0], [0, 0, y0]])
    if shrink > 1:
        height, width = (max(1, round(side / shrink)) for side in pixels.shape[2:])
        ratio = back.new_tensor([[width / pixels.shape[3]], [height / pixels.shape[2]]])
        pixels, back = resize(pixels, height, width), back * ratio
    grid = _grid(back, chip_px, pixels.shape[3], pixels.shape[2])
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _inverse(transform: Tensor) -> Tensor:
    turn = torch.linalg.pinv(transform[:, :2])
    return torch.cat([turn, -turn @ transform[:, 2:]], dim=1)


def _grid(back: Tensor, chip_px: int, width: int, height: int) -> Tensor:
    """``(1, chip_px, chip_px, 2)`` places in [-1, 1] of the picture part that each chip pixel's centre comes from."""
    centre = torch.arange(chip_px, device=back.device) + 0.5
    x, y, shift = (back / back.new_tensor([[width], [height]]) * 2).unbind(dim=1)
    return (centre[:, None] * x + (centre[:, None, None] * y + (shift - 1)))[None]  # a matrix product is 20x slower
