"""Pure functions between pictures and region crops: cut, cover, paste.

A region is changed on a square crop of fixed size, so that all regions of a batch, whatever their size, are
changed in a few batched kernels and a technique's strength is relative to the region by construction. Only
cutting and pasting touch pictures of different sizes, one small slice a region.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = Literal["ellipse", "rectangle"]


def outer_rects(boxes: Tensor, extent: float) -> Tensor:
    """Whole-pixel rectangles around boxes scaled about their centres by ``extent``, rounded outwards.

    boxes: ``(R, 4)`` float xyxy. Returns ``(R, 4)`` int64 xyxy, each side at least one pixel; they may reach
    out of the picture, so that the scale inside every crop is the same.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (extent / 2)
    low = torch.floor(centre - half).long()
    high = torch.maximum(torch.ceil(centre + half).long(), low + 1)
    return torch.cat([low, high], dim=1)


def cut(picture: Tensor, rects: Tensor, crop_px: int) -> Tensor:
    """Crops of one picture, resampled with antialiasing to a fixed square.

    picture: ``(C, H, W)`` uint8 in [0, 255] or float in [0, 1], any device.
    rects: ``(R, 4)`` int64 xyxy; pixels outside the picture repeat its border.
    Returns ``(R, C, crop_px, crop_px)``: float32 for uint8 pictures, else the picture's dtype.
    """
    if len(rects) == 0:
        dtype = torch.float32 if picture.dtype == torch.uint8 else picture.dtype
        return torch.zeros(0, picture.shape[0], crop_px, crop_px, dtype=dtype, device=picture.device)
    return torch.cat([_cut_one(picture, rect, crop_px) for rect in rects.tolist()])


def _cut_one(picture: Tensor, rect: list[int], crop_px: int) -> Tensor:
    (x0, y0, x1, y1), (h, w) = rect, picture.shape[-2:]
    inside = picture[:, min(max(y0, 0), h - 1) : max(y1, 1), min(max(x0, 0), w - 1) : max(x1, 1)]
    crop = inside[None].float() / 255 if inside.dtype == torch.uint8 else inside[None]
    # At least one row and column is kept, so a rectangle that misses the picture repeats its border.
    left, top = max(-x0, 0), max(-y0, 0)
    right, bottom = max(x1 - x0 - left - crop.shape[3], 0), max(y1 - y0 - top - crop.shape[2], 0)
    if left or top or right or bottom:
        crop = F.pad(crop, (left, right, top, bottom), mode="replicate")
    return resize(crop, crop_px, crop_px)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resampling of ``(B, C, H, W)`` floats, antialiased where it shrinks."""
    if images.shape[-2:] == (height, width):
        return images
    small = images.dtype in (torch.float16, torch.bfloat16)  # no antialiasing kernel for them on CPU
    out = F.interpolate(images.float() if small else images, (height, width), mode="bilinear", antialias=True)
    return out.to(images.dtype)


def cover_weight(box: list[float], rect: list[int], *, coverage: float, shape: Shape, feather: float) -> Tensor:
    """How far each pixel of a rectangle is replaced: 1 in the covered area, falling to 0 outside it.

    The covered area is the ellipse or rectangle inscribed in the box scaled by ``coverage``. Feathering lies
    *outside* of it, over ``feather`` of its half-axes, so that softness never uncovers anything.

    Returns ``(height, width)`` float32 in [0, 1] on the CPU, for the pixel centres of ``rect``.
    """
    x0, y0, x1, y1 = rect
    half_w = max(box[2] - box[0], 1e-6) * coverage / 2
    half_h = max(box[3] - box[1], 1e-6) * coverage / 2
    u = (torch.arange(x0, x1) + 0.5 - (box[0] + box[2]) / 2).abs() / half_w
    v = (torch.arange(y0, y1) + 0.5 - (box[1] + box[3]) / 2).abs() / half_h
    if shape == "ellipse":
        distance = (u[None, :].square() + v[:, None].square()).sqrt()
    else:
        distance = torch.maximum(u[None, :], v[:, None])
    # A pixel that the covered area touches counts as covered: half a pixel of slack, in units of the half-axis.
    slack = 0.5 / min(half_w, half_h)
    beyond = (distance - 1 - slack).clamp(min=0)
    if feather <= 0:
        return (beyond == 0).float()
    ramp = (1 - beyond / feather).clamp(min=0)
    return ramp * ramp * (3 - 2 * ramp)


def paste(picture: Tensor, rect: list[int], crop: Tensor, weight: Tensor) -> None:
    """Blends one changed crop into a picture **in place**: callers own the copy they pass.

    picture: ``(C, H, W)`` uint8 or float. crop: ``(C, S, S)`` float in [0, 1]. weight: ``(h, w)`` for ``rect``.
    Pixels of weight 1 take nothing from the picture, whatever it held (NaN included).
    """
    (x0, y0, x1, y1), (h, w) = rect, picture.shape[-2:]
    ys, xs = slice(max(y0, 0), min(y1, h)), slice(max(x0, 0), min(x1, w))
    if ys.start >= ys.stop or xs.start >= xs.stop:
        return
    part = (slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
    grown = resize(crop[None], y1 - y0, x1 - x0)[0, :, part[0], part[1]].clamp(0, 1)
    mix = weight[part].to(grown)
    target = picture[:, ys, xs]
    if picture.dtype == torch.uint8:
        blended = torch.lerp(target.float(), grown.float() * 255, mix.float()).round()
    else:
        blended = torch.lerp(target.to(grown), grown, mix)
    full = mix >= 1
    replaced = (grown.float() * 255).round() if picture.dtype == torch.uint8 else grown
    picture[:, ys, xs] = torch.where(full, replaced, blended).to(picture.dtype)


def mark(mask: Tensor, rect: list[int], weight: Tensor) -> None:
    """Sets ``mask (H, W)`` bool **in place** where a paste with this weight left nothing of the original."""
    (x0, y0, x1, y1), (h, w) = rect, mask.shape
    ys, xs = slice(max(y0, 0), min(y1, h)), slice(max(x0, 0), min(x1, w))
    if ys.start < ys.stop and xs.start < xs.stop:
        mask[ys, xs] |= (weight >= 1).to(mask.device)[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0]
