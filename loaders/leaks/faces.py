"""Is a face in one picture a near-copy of the face at the same place in another?

Both are brought to one size and freed of coarse light and shade, which a blur or mosaic keeps; what is left is
compared by concordance (Lin 1989): 1 for the same detail at the same contrast, near 0 for other or for no detail.
Channels count singly, as techniques colour blocks at random.

Measured on 702 faces (NASA's astronaut, insightface's t1, photos and scenes of London, each also at 0.3, 0.15 and
0.08 of its size); of near-copies the lowest, of what presets make the highest:

=====================================  ======  ======  ======  =======
side of the face, px                   9-16    16-24   24-48   48-350
=====================================  ======  ======  ======  =======
same pixels, PNG or JPEG of 75 and up  0.89    0.93    0.97    0.97
JPEG of quality 30                     0.67    0.85    0.92    0.96
halved, and brought back               0.54    0.69    0.84    0.96
brighter, darker, contrast x 0.7, 1.4  0.88    0.93    0.92    0.92
shifted by 3 %, turned by 3 degrees    0.84    0.91    0.91    0.91
mirrored in its place                  0.71    0.73    0.75    0.74
``unsafe-mosaic``                      0.52    0.45    0.37    0.34
``faces``                              0.45    0.42    0.36    0.34
``unsafe-blur``                        0.24    0.19    0.12    0.06
``faces-fill``                         0.06    0.05    0.04    0.00
=====================================  ======  ======  ======  =======

The mosaic's score grows with a face's contrast: with that of photos raised by 1.8, and 20 draws of noise each, it was
0.29 on average with a deviation of 0.07 at 16 px and more, 0.34 and 0.08 below. The bounds lie five deviations
above. So below 16 px a copy at JPEG quality 30 or half size is missed; a thing without detail (one of the 702
was) cannot be told from another at any size.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize

Box = tuple[float, float, float, float]

NEAR, NEAR_SMALL, SMALL_PX = 0.65, 0.75, 16
# Of 204 generated faces and averages the highest was 0.82, of 208 that were 10 to 30 px wide 0.81, of swapped texts
# 0.68. Copies of small faces are less alike, see the table's first row.
NEAR_REDRAWN, NEAR_REDRAWN_SMALL, SMALL_REDRAWN_PX = 0.93, 0.86, 24
MIRRORED = 0.8  # where the face would be in a mirrored picture there is as yet other, unchanged content
SIDE_PX = 32
SHIFT_PX = 3  # a tenth of the face, each way
SCALES = (0.92, 1.0, 1.09)
FINE_PX, COARSE_PX = 0.5, 4.0  # Gaussians between which detail lies
SOFT_BELOW_PX = 80  # smaller faces lose detail when they are halved and brought back
NOISE = 8.0  # squared grey levels of all channels: below that detail is the encoder's


def near_copy(original: Tensor, other: Tensor, box: Box, *, redrawn: bool = False) -> bool:
    """Whether the other picture's face is a near-copy of the original's, or its mirror image.

    original, other: ``(3, H, W)`` uint8. The other may be of another size, and then so is the box in it; it may be
    mirrored as a whole, which brings the face to another place.
    box: of the face in the original, in pixels. redrawn: by another face in the same pose, of which only the same
    pixels, as they are or at a JPEG's quality of 75 and up, can be told.
    """
    here, mirrored = concordances(original, other, box)
    if here > _bound(_size_px(box), redrawn):
        return True
    return mirrored > MIRRORED and is_mirrored(original, other)


def _bound(size_px: float, redrawn: bool) -> float:
    if redrawn:
        return NEAR_REDRAWN if size_px >= SMALL_REDRAWN_PX else NEAR_REDRAWN_SMALL
    return NEAR if size_px >= SMALL_PX else NEAR_SMALL


def is_mirrored(original: Tensor, other: Tensor) -> bool:
    """Whether the other picture is more like the original's mirror image than like the original: symmetric things, a
    cup or a front door, are like their mirror image themselves. Brightness and contrast do not matter."""
    before, after = (_evened(resize(picture[None].float(), SIDE_PX, SIDE_PX)[0]) for picture in (original, other))
    away, apart = float((after - before.flip(-1)).abs().mean()), float((after - before).abs().mean())
    return away < (1 - 1e-4) * apart  # rounding tells nothing


def _evened(picture: Tensor) -> Tensor:
    """Each channel with mean 0 and deviation 1: the difference to a brighter picture is the same either way round."""
    centred = picture - picture.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=1e-3)


def concordances(original: Tensor, other: Tensor, box: Box) -> tuple[float, float]:
    """-1 to 1: of the face with what is at its place in the other picture, and in that picture's mirror image."""
    templates = _templates(original, box)
    across, down = other.shape[-1] / original.shape[-1], other.shape[-2] / original.shape[-2]
    here = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    there = (other.shape[-1] - here[2], here[1], other.shape[-1] - here[0], here[3])
    boxes = [_scaled(place, scale) for place in (here, there) for scale in SCALES]
    near = _concordance(templates, detail(_views(other, boxes)))
    return float(near[: len(SCALES)].max()), float(near[len(SCALES) :].max())


def _templates(original: Tensor, box: Box) -> Tensor:
    """``(T, 3, S, S)``: the detail of a face, of a small one also at half its size, and all of them mirrored."""
    face = _views(original, [box])
    looks = [face]
    if _size_px(box) < SOFT_BELOW_PX:
        half = max(8, int(_size_px(box) / 2))
        looks.append(resize(resize(face, half, half), *face.shape[-2:]))
    details = detail(torch.cat(looks))[..., SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX]
    return torch.cat([details, details.flip(-1)])


def _size_px(box: Box) -> float:
    return float(((box[2] - box[0]) * (box[3] - box[1])) ** 0.5)


def _scaled(box: Box, scale: float) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across, down = (box[2] - box[0]) * scale / 2, (box[3] - box[1]) * scale / 2
    return (x - across, y - down, x + across, y + down)


def _views(picture: Tensor, boxes: list[Box]) -> Tensor:
    """``(B, 3, S, S)`` float in [0, 255] of boxes with the room that shifts take; beyond the picture its border."""
    side = SIDE_PX + 2 * SHIFT_PX
    height, width = picture.shape[-2:]
    views = []
    for box in boxes:
        x0, y0, x1, y1 = (round(value) for value in _scaled(box, side / SIDE_PX))
        x0, y0 = max(x0, -width), max(y0, -height)  # an absurd box costs no memory
        x1, y1 = max(min(x1, 2 * width), x0 + 1), max(min(y1, 2 * height), y0 + 1)
        left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        right, bottom = max(min(x1, width), left + 1), max(min(y1, height), top + 1)
        inside = picture[:, top:bottom, left:right][None].float()
        beyond = (max(left - x0, 0), max(x1 - right, 0), max(top - y0, 0), max(y1 - bottom, 0))
        views.append(resize(F.pad(inside, beyond, mode="replicate") if any(beyond) else inside, side, side))
    return torch.cat(views)


def detail(views: Tensor) -> Tensor:
    """What is finer than a face's light and shade. Twice, as once leaves a sixth of what a blur keeps."""
    fine = views - _blurred(views, COARSE_PX)
    return _blurred(fine - _blurred(fine, COARSE_PX), FINE_PX)


def _blurred(views: Tensor, sigma_px: float) -> Tensor:
    rows = _gaussian_rows(views.shape[-1], sigma_px)
    return rows @ views @ rows.T


@cache
def _gaussian_rows(side: int, sigma_px: float) -> Tensor:
    """``(S, S)`` weights of every pixel in the blur of each; beyond the border its last pixel is repeated."""
    radius = int(3 * sigma_px + 1)
    place = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (place / sigma_px).square())
    rows = torch.zeros(side, side)
    for row in range(side):
        rows[row].index_add_(0, (row + place).clamp(0, side - 1), kernel / kernel.sum())
    return rows


def _concordance(templates: Tensor, views: Tensor) -> Tensor:
    """Of each of ``T`` templates with each of ``B`` views at each shift: ``(B, T, shifts, shifts)``."""
    place = (torch.arange(SIDE_PX) - (SIDE_PX - 1) / 2).square()
    weight = torch.exp(-0.5 * (place[:, None] + place) / 9.0**2)  # the middle, not the box's corners
    weight = weight / weight.sum()
    means = (templates * weight).sum(dim=(-2, -1), keepdim=True)
    centred = templates - means
    own = (centred.square() * weight).sum(dim=(1, 2, 3))[:, None, None]
    window = weight.expand(views.shape[1], 1, -1, -1)
    mean = F.conv2d(views, window, groups=views.shape[1])
    square = F.conv2d(views.square(), window, groups=views.shape[1])
    theirs = (square - mean.square()).sum(dim=1, keepdim=True)
    shared = F.conv2d(views, centred * weight)
    return 2 * shared / (own + theirs + NOISE)
