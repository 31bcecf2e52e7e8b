"""What did a tool do to a picture: is it the same one, of which size, and which faces are as they were?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anondata.crops import cut, outer_rects, resize
from anondata.regions import Regions

ROUNDING_PX = 1.5  # a resized picture's sides are rounded

# What is unchanged? The face's inner 60 % as 16 x 16 cells: how much of its detail (what a mean of 5 x 5 cells
# leaves) differs, beside how much differs around the face. Measured in root mean squares on 40 portraits and 48
# scenes with faces of 20 to 250 px, all written again as JPEG 75 unless another is named:
#   difference in the face by that around it: JPEG 95 to 30, WebP 75 and 30, half, quarter and double size at most
#   3.8, JPEG 75 in 95 % at most 2.5; a blur of 0.02 of the face's width and 24 blocks across at least 3.3, masks 4.4
#   difference by detail: a blur of 0.05 and 8 blocks at least .72, a fill 1.0; JPEG 30 at most .77, on 20 px
CELLS = 16
CORE = 0.6
AROUND = (2.0, 4.0)  # sides of the ring that is compared, relative to the box
SURELY_SAME = 0.1
ERROR_RATIO = 3.0
LOST_DETAIL = 0.7
NO_RING = 0.3  # where the face fills the picture, in place of the ratio
MIN_RING_CELLS = 20

ALIKE = 0.5  # correlation; re-encoded, resized and brightened pictures have .99
LEVELS = 12.0  # of 256, in the median: rest of a picture that is the same
MIN_CELLS = 100  # of 1024


def same_shape(before: Tensor, after: Tensor) -> tuple[float, float] | None:
    """Horizontal and vertical scale from one picture to the other; None where one is no resized form of the other."""
    (height, width), (h, w) = before.shape[1:], after.shape[1:]
    by_width, by_height = abs(height * w / width - h), abs(width * h / height - w)
    return (w / width, h / height) if min(by_width, by_height) <= ROUNDING_PX else None


def scaled(regions: Regions, scale: tuple[float, float]) -> Regions:
    """The same regions in a picture of another size."""
    pair = regions.boxes.new_tensor(scale)
    return replace(regions, boxes=regions.boxes * pair.repeat(2), landmarks=regions.landmarks * pair)


def alike(before: Tensor, after: Tensor, faces: Regions) -> bool:
    """Whether two pictures show the same around the faces, by their brightness in 32 x 32 cells.

    faces: in the pixels of ``after``. True where they leave too little of the picture to tell.
    """
    cells, size = 32, (after.shape[2] / 32, after.shape[1] / 32)
    centre = torch.arange(cells, device=before.device) + 0.5
    outside = torch.ones(cells, cells, dtype=torch.bool, device=before.device)
    for x0, y0, x1, y1 in faces.scaled(AROUND[0]).boxes.tolist():
        columns, rows = (
            (centre * step > low) & (centre * step < high)
            for step, low, high in ((size[0], x0, x1), (size[1], y0, y1))
        )
        outside &= ~(rows[:, None] & columns[None, :])
    if int(outside.sum()) < MIN_CELLS:
        return True
    then, now = (resize(p[None].float(), cells, cells).mean(dim=1)[0][outside] for p in (before, after))
    if float((then - now).abs().median()) <= LEVELS:  # a plain wall correlates with nothing, not even with itself
        return True
    a, b = then - then.mean(), now - now.mean()
    return float(a @ b) >= ALIKE * float(a.norm() * b.norm())


def unchanged(before: Tensor, after: Tensor, regions: Regions) -> Tensor:
    """``(R,)`` bool: a face is as it was, but for what re-encoding and resizing the whole picture did.

    regions: in the pixels of ``after``.
    """
    if not len(regions):
        return torch.zeros(0, dtype=torch.bool, device=before.device)
    frame = torch.tensor(after.shape[1:])
    cells = round(CELLS * AROUND[1] / CORE)
    rects = outer_rects(regions.boxes, AROUND[1], frame)
    original = resize(before[None], int(frame[0]), int(frame[1]))[0]
    then, now = (_detail(cut(picture, rects, cells)) for picture in (original, after))
    inner = slice((cells - CELLS) // 2, (cells + CELLS) // 2)
    detail, error = (_rms(x[:, inner, inner].flatten(1)) for x in (then, then - now))
    ring = torch.stack([_ring(i, rect, regions, frame, cells) for i, rect in enumerate(rects.tolist())])
    around = ((then - now).square() * ring).sum(dim=(1, 2)).div(ring.sum(dim=(1, 2)).clamp(min=1)).sqrt()
    alone = ring.sum(dim=(1, 2)) < MIN_RING_CELLS
    limit = torch.where(alone, NO_RING * detail, torch.maximum(ERROR_RATIO * around, SURELY_SAME * detail))
    return error <= torch.minimum(limit, LOST_DETAIL * detail)


def _detail(crops: Tensor) -> Tensor:
    """``(R, H, W)`` brightness less its mean over 5 x 5."""
    grey = crops.mean(dim=1, keepdim=True)
    wide = torch.nn.functional.pad(grey, (2, 2, 2, 2), mode="replicate")
    return (grey - torch.nn.functional.avg_pool2d(wide, 5, 1))[:, 0]


def _rms(rows: Tensor) -> Tensor:
    return rows.square().mean(dim=1).sqrt()


def _ring(number: int, rect: list[int], regions: Regions, frame: Tensor, cells: int) -> Tensor:
    """Cells around a face that lie in the picture and in no other face."""
    x0, y0, x1, y1 = rect
    place = (torch.arange(cells, device=regions.boxes.device) + 0.5) / cells
    x, y = x0 + place * (x1 - x0), y0 + place * (y1 - y0)
    off = (2 * place - 1).abs() > AROUND[0] / AROUND[1]
    ring = (off[None, :] | off[:, None]) & ((x >= 0) & (x < frame[1]))[None, :] & ((y >= 0) & (y < frame[0]))[:, None]
    for other, box in enumerate(regions.scaled(AROUND[0]).boxes):
        if other != number:
            ring &= ~(((x > box[0]) & (x < box[2]))[None, :] & ((y > box[1]) & (y < box[3]))[:, None])
    return ring
