"""Running a fully convolutional detector over pictures of any size, at every scale that may hold a face.

One scale is not enough. Networks of this kind find faces of some ten to some hundreds of pixels: at its native size a
2280 px close-up is found as its inner face only, and at a reduced size a 12 px face is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize
from anondata.regions import Regions, cat_regions, empty_regions

SCALE_STEP = 4.0  # between levels; a face of 32-128 px on one level is 8-32 px on the next
COARSEST_PX = 320  # no level below this long side: there a face that fills the picture is found whole
TILE_PX = 2048  # larger levels go through in tiles, so that memory does not grow with the picture
OVERLAP_PX = 256  # faces across a tile's edge are whole in its neighbour, or larger and found on the next level
MULTIPLE = 32  # networks want sides that are multiples of this
BATCH_PX = 16 * 2**20  # pixels in one call of the network on a GPU

Network = Callable[[Tensor], Regions]
"""``(B, 3, H, W)`` float32 in [0, 255] to regions in its own pixels, image index within the batch."""


@dataclass(frozen=True)
class _Tile:
    """A part of one picture at one level: what the network sees, and how to get back."""

    image: int
    pixels: Tensor
    origin: tuple[int, int]
    scale: tuple[float, float]


def levels(height: int, width: int, *, finest: float) -> list[float]:
    """Scales to look at, from the finest.

    >>> levels(960, 1280, finest=1.0)
    [1.0, 0.25]
    >>> levels(48, 64, finest=1.0)
    [1.0]
    """
    scales, longest = [finest], max(height, width)
    while longest * scales[-1] / SCALE_STEP >= COARSEST_PX:
        scales.append(scales[-1] / SCALE_STEP)
    return scales


def detect(
    views: Sequence[Tensor], network: Network, *, finest: float, iou: float, blue_first: bool = False
) -> Regions:
    """Regions of all pictures at all levels, in their own pixels, duplicates merged.

    views: ``(3, H, W)`` uint8 RGB each, sizes may differ. finest: scale of the first level, relative to native.
    iou: two regions that overlap more than this are one; the one with the higher score stays.
    blue_first: the network wants BGR.
    """
    groups: dict[tuple[int, int], list[_Tile]] = defaultdict(list)
    for i, view in enumerate(views):
        for scale in levels(view.shape[1], view.shape[2], finest=finest):
            for tile in _tiles(i, view, scale):
                groups[tile.pixels.shape[1], tile.pixels.shape[2]].append(tile)
    found = [_run(chunk, network, blue_first=blue_first) for tiles in groups.values() for chunk in _chunks(tiles)]
    device = views[0].device if views else "cpu"
    if not any(map(len, found)):
        return empty_regions(device)
    return merge(_inside(cat_regions(found, device), views), iou=iou)


def _tiles(image: int, view: Tensor, scale: float) -> Iterator[_Tile]:
    height, width = (max(1, round(side * scale)) for side in view.shape[1:])
    level = _shrink(view, height, width)
    actual = (width / view.shape[2], height / view.shape[1])
    for y in _starts(height):
        for x in _starts(width):
            yield _Tile(image, level[:, y : y + TILE_PX, x : x + TILE_PX], (x, y), actual)


def _starts(side: int) -> list[int]:
    if side <= TILE_PX:
        return [0]
    return list(range(0, side - OVERLAP_PX, TILE_PX - OVERLAP_PX))


def _shrink(view: Tensor, height: int, width: int) -> Tensor:
    if view.shape[1:] == (height, width):
        return view
    if view.device.type == "cpu":  # torch has an antialiasing kernel for bytes on the CPU only
        return F.interpolate(view[None], (height, width), mode="bilinear", antialias=True)[0]
    return resize(view[None].float(), height, width)[0].round().to(torch.uint8)


def _chunks(tiles: list[_Tile]) -> Iterator[list[_Tile]]:
    """Tiles of one shape, as many at once as fit: one by one on a CPU, where batching gains nothing."""
    height, width = tiles[0].pixels.shape[1:]
    many = 1 if tiles[0].pixels.device.type == "cpu" else max(1, BATCH_PX // (height * width))
    return (tiles[i : i + many] for i in range(0, len(tiles), many))


def _run(tiles: list[_Tile], network: Network, *, blue_first: bool) -> Regions:
    found = network(_batch([tile.pixels for tile in tiles], blue_first=blue_first))
    if not len(found):
        return found
    origin = found.boxes.new_tensor([tile.origin for tile in tiles])[found.image]
    scale = found.boxes.new_tensor([tile.scale for tile in tiles])[found.image]
    return Regions(
        image=found.image.new_tensor([tile.image for tile in tiles])[found.image],
        boxes=(found.boxes + origin.repeat(1, 2)) / scale.repeat(1, 2),
        landmarks=(found.landmarks + origin[:, None]) / scale[:, None],
        scores=found.scores,
        kinds=found.kinds,
    )


def _batch(pictures: Sequence[Tensor], *, blue_first: bool) -> Tensor:
    """Converts, pads with zeros and brings channels first in one pass over memory."""
    height, width = pictures[0].shape[1:]
    shape = (len(pictures), 3, height + -height % MULTIPLE, width + -width % MULTIPLE)
    batch = torch.empty(shape, device=pictures[0].device)
    batch[:, :, height:].zero_()
    batch[:, :, :height, width:].zero_()
    for i, picture in enumerate(pictures):
        for to, plane in enumerate(picture):
            batch[i, 2 - to if blue_first else to, :height, :width].copy_(plane)
    return batch


def _inside(found: Regions, views: Sequence[Tensor]) -> Regions:
    """Without the regions that lie in the padding: those whose centre is outside of their picture."""
    sides = found.boxes.new_tensor([[v.shape[2], v.shape[1]] for v in views]).reshape(-1, 2)[found.image]
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return found.select(((centre >= 0) & (centre <= sides)).all(dim=1))


def merge(found: Regions, *, iou: float) -> Regions:
    """Greedy non-maximum suppression within each picture and kind; ordered by picture, then by score."""
    keep: list[int] = []
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for row in found.scores.argsort(descending=True, stable=True).tolist():
        groups[int(found.image[row]), found.kinds[row]].append(row)
    overlap = box_iou(found.boxes, found.boxes).cpu() if len(found) else None
    for _, rows in sorted(groups.items()):
        left = rows
        while left and overlap is not None:
            first, left = left[0], left[1:]
            keep.append(first)
            left = [row for row in left if overlap[first, row] <= iou]
    return found.select(keep)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """``(N, M)`` intersection over union of ``(N, 4)`` and ``(M, 4)`` xyxy boxes."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(dim=1) for x in (a, b))
    return shared / (area_a[:, None] + area_b[None] - shared).clamp(min=1e-9)
