"""What detectors are shown of a picture beside the picture: turned, stretched in range and shape, channel by channel.

A detector of faces finds upright faces of natural shape, in natural light. Pictures that people have are also turned
(scans, lost EXIF tags), squeezed to a fixed size, too dark or too bright in part; and whoever wants a face to get out
draws it in one channel, or in a few grey levels. Each look is one such picture made natural again, with the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import mirrored, resize
from anondata.protocols import Look

RANGE_PX = 640  # long side of looks at another range
GLANCE_PX = 256  # long side at which it is decided whether a look is called for
SHAPE_PX = 320  # side of a square as large as a look in another shape: squeezed pictures are close-ups
LARGEST_SCALE = 4.0  # of pictures of a few pixels
SHAPE_RATIO = 3.0  # what is between 2 and 4 is within a third of it, which the detector does not mind
LARGER = 2  # times the picture's size: of 27 faces of 10-12 px in grey one was missed, and at its own size 24
SMALL_PX = 640  # long side of small pictures, which are looked at larger whatever their colours
TURNED_LARGER = 1.5  # times that of small ones: of 19 grey faces of 12-16 px none was missed, and at their size 8
GREY_PX = 2048  # long side of grey ones that are
GREY = 16  # levels between channels, on average, below which a picture counts as grey
CHANNEL_PX = 512  # long side of a look at one channel
TILES = 8  # along the long side; each is looked at by itself
FAINT_LEVELS = 10  # of 256: a tile with less holds nothing, and its noise is not blown up; no face was found in 8
FLAT_LEVELS = 64  # a tile with more than that shows what it holds as it is
DARK = 26  # of 256
IN_BAND = 0.002  # of the pixels, from which on what is darker (or brighter) is looked at
ALIKE = 0.25  # channels of most photos correlate by more, gradient by gradient
STEEP = 8.0  # levels: gradients of less are noise


def turned(view: Tensor) -> Iterator[Look]:
    """The picture turned by 90, 180 and 270 degrees, a small one larger.

    At its full size, though that is two thirds of what all looks cost: of 144 turned grey faces of 16-30 px none was
    missed, but 34 at 0.7 of it, and 62 at half.
    """
    small = max(view.shape[1:]) <= SMALL_PX
    large = resize(view[None], *(round(TURNED_LARGER * side) for side in view.shape[1:]))[0] if small else view
    height, width = large.shape[1:]
    back = ([[0, -1, width], [1, 0, 0]], [[-1, 0, width], [0, -1, height]], [[0, 1, 0], [-1, 0, height]])
    for turned_view, places in zip(_turns(large), back, strict=True):
        yield Look(turned_view, "turned", _scale(view, large) * torch.tensor(places, dtype=torch.float32))


def _turns(view: Tensor) -> Iterator[Tensor]:
    """By 90, 180 and 270 degrees. Across memory only once, by NumPy: that takes torch as long as all of this."""
    across = view.transpose(1, 2)
    across = torch.from_numpy(across.numpy().copy(order="C")) if view.device.type == "cpu" else across.contiguous()
    yield across.flip(1)
    yield view.flip((1, 2))
    yield across.flip(2)


def shapes(view: Tensor) -> Iterator[Look]:
    """The picture stretched in one direction and in the other, and as it is with a border, in few pixels each."""
    height, width = view.shape[1:]
    for ratio in (SHAPE_RATIO, 1 / SHAPE_RATIO):
        sides = (math.sqrt(height / width / ratio), math.sqrt(width / height * ratio))
        high, wide = (max(1, min(round(SHAPE_PX * side), 4 * SHAPE_PX)) for side in sides)
        yield _plain(view, resize(view[None], high, wide)[0], "shape")
    yield _bordered(view)


def _bordered(view: Tensor) -> Look:
    """For tight pictures: what is cut off at an edge is completed by its mirror image."""
    scale = min(SHAPE_PX / max(view.shape[1:]), LARGEST_SCALE)
    high, wide = (max(1, round(side * scale)) for side in view.shape[1:])
    small = resize(view[None], high, wide)[0]
    border = max(high, wide) // 4
    look = mirrored(small, range(-border, high + border), range(-border, wide + border))
    back = _scale(view, small) * torch.tensor([[1.0, 0, -border], [0, 1, -border]])
    return Look(look, "shape", back, (view.shape[1], view.shape[2]))


def ranges(view: Tensor) -> Iterator[Look]:
    """The picture with its dark, bright and faint parts over the full range, where it has any."""
    glance, small = _at_most(view, GLANCE_PX).float(), _at_most(view, RANGE_PX)
    bounds = _bounds(glance)
    if bool(((bounds[1] - bounds[0] >= FAINT_LEVELS) & (bounds[1] - bounds[0] < FLAT_LEVELS)).any()):
        yield _plain(view, _locally(small.float(), bounds), "range")
    if float((glance < DARK).float().mean()) >= IN_BAND:
        yield _plain(view, _lifted(small), "range")
    if float((glance > 255 - DARK).float().mean()) >= IN_BAND:
        yield _plain(view, _lifted(255 - small), "range")


def larger(view: Tensor) -> Iterator[Look]:
    """The picture at twice its size, where it is small or grey: detectors miss small faces without colour."""
    longest = max(view.shape[1:])
    if longest <= SMALL_PX or (longest <= GREY_PX and _is_grey(view)):
        height, width = (LARGER * side for side in view.shape[1:])
        yield _plain(view, resize(view[None], height, width)[0], "larger")


def channels(view: Tensor) -> Iterator[Look]:
    """Each channel by itself, where they show different things."""
    if differ(_at_most(view, GLANCE_PX).float()):
        for channel in _at_most(view, CHANNEL_PX):
            yield _plain(view, channel.expand(3, -1, -1).contiguous(), "channels")


def _is_grey(view: Tensor) -> bool:
    low, high = torch.aminmax(_at_most(view, GLANCE_PX), dim=0)
    return float((high - low).float().mean()) < GREY


def _at_most(view: Tensor, side_px: int) -> Tensor:
    longest = max(view.shape[1:])
    if longest <= side_px:
        return view
    height, width = (max(1, round(side * side_px / longest)) for side in view.shape[1:])
    return resize(view[None], height, width)[0]


def _scale(view: Tensor, small: Tensor) -> Tensor:
    return torch.tensor([[view.shape[2] / small.shape[2]], [view.shape[1] / small.shape[1]]])


def _plain(view: Tensor, small: Tensor, name: str) -> Look:
    way = _scale(view, small) * torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    return Look(small, name, None if small.shape == view.shape else way)


def _bounds(glance: Tensor) -> Tensor:
    """``(2, h, w)``: the least and the greatest level of each tile, single pixels left out of account."""
    smooth = F.avg_pool2d(glance[None], min(3, *glance.shape[1:]), stride=1)
    tile = max(3, -(-max(smooth.shape[2:]) // TILES))
    high, low = (F.max_pool2d(x, min(tile, *x.shape[2:]), ceil_mode=True).amax(dim=1) for x in (smooth, -smooth))
    return torch.cat([-low, high])


def _locally(levels: Tensor, bounds: Tensor) -> Tensor:
    """Each part of the picture over the full range."""
    low, high = F.interpolate(bounds[None], levels.shape[1:], mode="bilinear")[0]
    stretched: Tensor = (levels - low) * (255 / (high - low).clamp(min=FAINT_LEVELS))
    return stretched.clamp(0, 255).round().to(torch.uint8)


def _lifted(levels: Tensor) -> Tensor:
    """The dark part lifted, by the logarithm: a tenth of the range gets half of it, and a hundredth a seventh."""
    table = (torch.arange(256, device=levels.device) / 2.55 + 1).log() * (255 / math.log(101))
    return table.round().to(torch.uint8).index_select(0, levels.flatten().int()).reshape(levels.shape)


def differ(glance: Tensor) -> bool:
    """Whether two channels of some part of the picture have different outlines."""
    right, down = glance[:, 1:].diff(dim=2), glance[:, :, 1:].diff(dim=1)
    if 0 in right.shape:
        return False
    tile = max(4, -(-max(glance.shape[1:]) // TILES))

    def along(one: int, other: int) -> Tensor:
        both = right[one] * right[other] + down[one] * down[other]
        return F.avg_pool2d(both[None], min(tile, *both.shape), ceil_mode=True)[0]

    power = [along(i, i) for i in range(3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        steep = torch.minimum(power[one], power[other]) > STEEP**2
        if bool((steep & (along(one, other) < ALIKE * (power[one] * power[other]).sqrt())).any()):
            return True
    return False


LOOKS: Mapping[str, Callable[[Tensor], Iterator[Look]]] = {
    "turned": turned,
    "range": ranges,
    "shape": shapes,
    "channels": channels,
    "larger": larger,
}
