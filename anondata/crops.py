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

from anondata.errors import ShapeError

Shape = Literal["ellipse", "rectangle", "rounded"]
SHAPES: tuple[Shape, ...] = ("ellipse", "rectangle", "rounded")
ROUNDNESS = 4  # exponent of the superellipse: from 2, an ellipse, to infinity, a rectangle

# What pictures and crops may hold. Other dtypes (8-bit floats, uint16, …) lack kernels that are needed here.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def outer_rects(boxes: Tensor, extent: float, frames: Tensor) -> Tensor:
    """Whole-pixel rectangles around boxes scaled about their centres by ``extent``, rounded outwards.

    boxes: ``(R, 4)`` xyxy in pixels. A box of no area is a point or a line, and what it touches is covered.
    frames: ``(2,)`` or ``(R, 2)``, height and width of the picture that each box lies in.

    Returns ``(R, 4)`` int64 xyxy, each side at least one pixel. They may reach out of the picture, so that the
    scale inside every crop is the same, but by no more than its own size: an absurd box costs no memory.

    Raises:
        ShapeError: for boxes of another shape, boxes that are not finite and far sides before near ones.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"expected boxes (R, 4) as x0, y0, x1, y1, got {tuple(boxes.shape)}")
    exact = boxes.detach().to("cpu", torch.float64)
    near, far = exact[:, :2], exact[:, 2:]
    if not exact.isfinite().all():
        raise ShapeError("boxes must be finite; drop the detections that are not, or withhold the picture")
    if (far < near).any():
        raise ShapeError("boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1; convert other formats first")
    size = frames.to("cpu", torch.float64).flip(-1)
    centre, half = (near + far) / 2, (far - near) * (extent / 2)
    low = torch.minimum(torch.maximum(torch.floor(centre - half), -size), 2 * size - 1)
    high = torch.maximum(torch.minimum(torch.ceil(centre + half), 2 * size), low + 1)
    return torch.cat([low, high], dim=1).long().to(boxes.device)


def cut(picture: Tensor, rects: Tensor, crop_px: int) -> Tensor:
    """Crops of one picture, resampled with antialiasing to a fixed square.

    picture: ``(C, H, W)`` uint8 in [0, 255] or float in [0, 1], any device.
    rects: ``(R, 4)`` int64 xyxy; pixels outside the picture repeat its border.
    Returns ``(R, C, crop_px, crop_px)`` in [0, 1]: float32 for uint8 pictures, else the picture's dtype.
    """
    if len(rects) == 0:
        crops = picture.new_zeros(0, picture.shape[0], crop_px, crop_px)
    else:
        crops = torch.cat([resize(_inside(picture, rect)[None], crop_px, crop_px) for rect in rects.tolist()])
    return crops.float() / 255 if picture.dtype == torch.uint8 else bounded(crops)


def _inside(picture: Tensor, rect: list[int]) -> Tensor:
    (x0, y0, x1, y1), (h, w) = rect, picture.shape[-2:]
    if x0 >= 0 and y0 >= 0 and x1 <= w and y1 <= h:
        inside = picture[:, y0:y1, x0:x1]
    else:
        rows = torch.arange(y0, y1, device=picture.device).clamp(0, h - 1)
        columns = torch.arange(x0, x1, device=picture.device).clamp(0, w - 1)
        inside = picture.index_select(1, rows).index_select(2, columns)
    # One NaN would spread over the crop and turn the technique's result into NaN.
    return bounded(inside) if picture.is_floating_point() else inside


def mirrored(picture: Tensor, rows: range, columns: range) -> Tensor:
    """The part ``(C, h, w)`` of a picture ``(C, H, W)``; beyond its edges it is mirrored, as often as need be."""
    return _mirrored(_mirrored(picture, rows, dim=1), columns, dim=2)


def _mirrored(picture: Tensor, places: range, *, dim: int) -> Tensor:
    """Along one side. By slices, nine times as fast as picking rows by an index."""
    size, parts, at = picture.shape[dim], list[Tensor](), places.start
    while at < places.stop:
        turn, inside = divmod(at, size)
        length = min(size - inside, places.stop - at)
        if turn % 2:
            parts.append(picture.narrow(dim, size - inside - length, length).flip(dim))
        else:
            parts.append(picture.narrow(dim, inside, length))
        at += length
    return parts[0] if len(parts) == 1 else torch.cat([picture.narrow(dim, 0, 0), *parts], dim)


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The rotation, scale and shift that bring points ``source`` closest to ``target``, as ``(R, 2, 3)``.

    One of them is ``(R, P, 2)``, the other that or ``(P, 2)`` for all. Least squares over similarities without
    reflection, in closed form: Umeyama (1991), doi 10.1109/34.88573. No row depends on the others of its batch.
    """
    batch = source if source.dim() == 3 else target
    source, target = source.expand_as(batch), target.expand_as(batch)
    mean_s, mean_t = source.mean(dim=1, keepdim=True), target.mean(dim=1, keepdim=True)
    s, t = source - mean_s, target - mean_t
    norm = s.square().sum(dim=(1, 2)).clamp(min=1e-9)
    a = (s * t).sum(dim=(1, 2)) / norm
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(dim=1) / norm
    turn = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    shift = mean_t[:, 0] - (turn * mean_s).sum(dim=2)
    return torch.cat([turn, shift[..., None]], dim=2)


def bounded(images: Tensor) -> Tensor:
    """Floats kept in [0, 1], NaN as 0."""
    return images.clamp(0, 1).nan_to_num(0.0)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resampling of ``(B, C, H, W)`` floats or uint8, antialiased where it shrinks; same dtype out."""
    if images.shape[-2:] == (height, width):
        return images
    is_bytes = images.dtype == torch.uint8
    # Only the CPU has an antialiasing kernel for uint8. It is four times as fast as for floats, but wrong where a
    # side is one pixel (torch 2.15: by up to 200 grey levels, or an internal assertion). It has none for halves.
    fast = images.device.type == "cpu" and min(*images.shape[-2:], height, width) > 1
    native = images.dtype in (torch.float32, torch.float64) or (is_bytes and fast)
    work = images if native else images.float()
    out = F.interpolate(work, (height, width), mode="bilinear", antialias=True)
    return out if native else (out.round() if is_bytes else out).to(images.dtype)


def cover_weight(box: list[float], rect: list[int], *, coverage: float, shape: Shape, feather: float) -> Tensor:
    """How far each pixel of a rectangle is replaced: 1 in the covered area, falling to 0 outside it.

    The covered area is the ellipse, rectangle or rounded rectangle (a superellipse of exponent 4) inscribed in the
    box scaled by ``coverage``; a pixel that it touches counts as covered. Feathering lies *outside* of it, over
    ``feather`` of its half-axes, so that softness never uncovers anything. An ellipse leaves the corners of the box
    uncovered below a coverage of 1.42, a rounded rectangle below 1.19.

    Returns ``(height, width)`` float32 in [0, 1] on the CPU, for the pixels of ``rect``.
    """
    x0, y0, x1, y1 = rect
    u = _distance(x0, x1, box[0], box[2], coverage)
    v = _distance(y0, y1, box[1], box[3], coverage)
    if shape == "rectangle":  # the further axis decides: no need for a distance of each pixel
        return torch.minimum(_fall_off(u, feather)[None, :], _fall_off(v, feather)[:, None])
    return _fall_off(norm(u, v, shape), feather)


def norm(across: Tensor, down: Tensor, shape: Shape) -> Tensor:
    """Distances ``(H, W)`` from a centre, 1 on the outline of a shape: of ``across (W,)`` and ``down (H,)``, >= 0."""
    if shape == "rectangle":
        return torch.maximum(across[None, :], down[:, None])
    power = 2 if shape == "ellipse" else ROUNDNESS
    return (across.pow(power)[None, :] + down.pow(power)[:, None]).pow_(1 / power)


def _distance(start: int, stop: int, near: float, far: float, coverage: float) -> Tensor:
    """Of each pixel's point next to the centre, along one axis, in half-axes of the covered area."""
    half = max((far - near) * coverage / 2, 1e-6)
    centres = torch.arange(start, stop, dtype=torch.float64) + (0.5 - (near + far) / 2)
    return ((centres.abs() - 0.5).clamp(min=0) / half).clamp(max=1e6).float()


def _fall_off(distance: Tensor, feather: float) -> Tensor:
    """The weight at a distance, which is overwritten: fresh memory for each step would take most of the time."""
    beyond = distance.sub_(1 + 1e-5)  # rounding must not uncover the last row
    if feather <= 0:
        return (beyond <= 0).float()
    ramp = beyond.div_(-feather).add_(1).clamp_(0, 1)
    return (ramp * -2).add_(3).mul_(ramp).mul_(ramp)


def paste(picture: Tensor, rect: list[int], crop: Tensor, weight: Tensor) -> None:
    """Blends one changed crop into a picture **in place**: callers own the copy they pass.

    picture: ``(C, H, W)`` uint8 or float. crop: ``(C, S, S)`` float in [0, 1]. weight: ``(h, w)`` for ``rect``.
    Pixels of weight 1 take nothing from the picture, whatever it held (NaN included); those of weight 0 keep it.
    """
    places = _places(rect, picture.shape[-2], picture.shape[-1])
    if places is None:
        return
    on_picture, on_rect = places
    target, mix = picture[:, *on_picture], weight[on_rect].to(picture.device)
    whole = bounded(crop)[None].to(picture.device)
    height, width = rect[3] - rect[1], rect[2] - rect[0]
    if picture.dtype == torch.uint8:
        patch = resize((whole.float() * 255).round().to(torch.uint8), height, width)[0][:, *on_rect]
        for before, after in zip(target, patch, strict=True):  # a channel at a time allocates less: half the time
            before.copy_(torch.lerp(before.float(), after.float(), mix).round_())
        return
    # Linear interpolation alone would carry what is not finite: 0 x NaN.
    patch = resize(whole, height, width)[0][:, *on_rect].to(target)
    blended = torch.lerp(target, patch, mix.to(target))
    target.copy_(torch.where(mix >= 1, patch, torch.where(mix > 0, blended, target)))


def mark(mask: Tensor, rect: list[int], weight: Tensor) -> None:
    """Sets ``mask (H, W)`` bool **in place** where a paste with this weight left nothing of the original."""
    places = _places(rect, mask.shape[0], mask.shape[1])
    if places is not None:
        on_picture, on_rect = places
        mask[on_picture] |= (weight[on_rect] >= 1).to(mask.device)


def unmark(mask: Tensor, rect: list[int], weight: Tensor) -> None:
    """Clears ``mask (H, W)`` bool **in place** wherever a paste with this weight shows anything of its own."""
    places = _places(rect, mask.shape[0], mask.shape[1])
    if places is not None:
        on_picture, on_rect = places
        mask[on_picture] &= (weight[on_rect] <= 0).to(mask.device)


def _places(rect: list[int], h: int, w: int) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """A rectangle's visible part, as rows and columns of the picture and of the rectangle itself, if there is any."""
    x0, y0, x1, y1 = rect
    top, bottom, left, right = max(y0, 0), min(y1, h), max(x0, 0), min(x1, w)
    if top >= bottom or left >= right:
        return None
    on_rect = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
    return (slice(top, bottom), slice(left, right)), on_rect
