"""A person as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import bounded, resize
from anondata.randomness import normal
from anondata.transforms.base import Common, RegionTransform, in_range
from anondata.transforms.blur import gaussian_blur
from anondata.transforms.fill import fill

WORK_PX = 64  # side at which a crop is parted into figure and background; an outline is smoothed by more than a pixel
COLOURS = 16  # of a crop's palette, one to begin with from each cell of a 4 x 4 grid
DARK, LIGHT = 0.2, 0.8
EDGE = 0.1  # half width of the outline's soft edge, of the parting's probability


class Silhouette(RegionTransform):
    """Replaces a person by a flat or shaded figure that keeps outline and pose, before a smooth background.

    The figure is found by colour: the crop's palette is parted into person and background, starting from where in
    their box persons usually are. Nothing but the figure's outline, and its shades if asked for, comes from inside of
    the region: what lies beside the figure is interpolated from the crop's border, so that a hand which the parting
    missed is not left behind. What the parting takes for the person is a guess: of a picture where both have the same
    colours, it is a blob in the shape that persons usually have.

    **Does not hide who somebody is from those who know their figure**: hair, build and pose remain. For faces a
    policy should have a ladder of its own, whose patches lie on top.

    Args:
        color: ``"auto"`` for dark or light grey, whichever is farther from the background; ``"random"`` for one
            drawn for each region; or red, green and blue in [0, 1].
        outline: standard deviation of the outline's smoothing relative to the region's side, 0.01 to 0.5. The more,
            the less of hair, hands and profile.
        shades: levels of brightness within the figure, 1 (flat) to 8, of the region's own light.
        softness: standard deviation of that light's smoothing relative to the region's side, 0.02 to 1.

    Source: Rother, Kolmogorov, Blake (2004), GrabCut, for alternating colour models and parting; He, Sun, Tang
    (2013), Guided Image Filtering, for what takes the place of its graph cut here.

    >>> import torch
    >>> Silhouette(color=(0.5, 0.5, 0.5))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    name = "silhouette"
    kinds = ("person",)

    def __init__(
        self,
        color: str | Sequence[float] = "auto",
        outline: float = 0.02,
        shades: int = 1,
        softness: float = 0.1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if not (color in ("auto", "random") if isinstance(color, str) else _is_color(color)):
            raise ValueError(f"color must be 'auto', 'random' or three numbers in [0, 1], got {color!r}")
        if isinstance(shades, bool) or not isinstance(shades, int) or not 1 <= shades <= 8:
            raise ValueError(f"shades must be a whole number between 1 and 8, got {shades!r}")
        self.color: str | tuple[float, ...] = color if isinstance(color, str) else tuple(map(float, color))
        self.outline = in_range("outline", outline, 0.01, 0.5)
        self.shades = shades
        self.softness = in_range("softness", softness, 0.02, 1.0)
        self.draws = color == "random"

    def strength(self) -> dict[str, Any]:
        color = self.color if isinstance(self.color, str) else list(self.color)
        return {"color": color, "outline": self.outline, "shades": self.shades, "softness": self.softness}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        # Halves have too few digits to tell palettes apart, and no kernels for what follows.
        work = crops.contiguous() if crops.dtype == torch.float64 else crops.float().contiguous()
        small = resize(work, WORK_PX, WORK_PX)
        # Row by row: sums over a batch of another size round otherwise, and a sample's result would depend on it.
        share = torch.cat([parted(row[None], extent=extent) for row in small])
        behind = torch.cat([from_border(row[None]) for row in small])
        share = gaussian_blur(share, sigma_px=(self.outline * WORK_PX / extent,) * 2)
        figure = ((share - 0.5) / (2 * EDGE) + 0.5).clamp(0, 1)
        front = self._front(small, behind, seeds=seeds, extent=extent)
        height, width = crops.shape[-2:]
        figure, behind, front = (resize(layer, height, width) for layer in (figure, behind, front))
        return bounded(torch.lerp(behind, front, figure)).to(crops.dtype)

    def _front(self, small: Tensor, behind: Tensor, *, seeds: Sequence[int], extent: float) -> Tensor:
        """The figure's colour at every pixel, ``(R, C, S, S)``."""
        if isinstance(self.color, tuple):
            flat = fill(small, color=self.color)
        elif self.color == "random":
            drawn = normal(seeds, (small.shape[1], 1, 1)).to(small)
            flat = (0.5 + 0.5 * torch.erf(drawn / math.sqrt(2))).expand_as(small)
        else:
            light = behind.mean(dim=(1, 2, 3), keepdim=True) < (DARK + LIGHT) / 2
            flat = torch.where(light, LIGHT, DARK).to(small).expand_as(small)
        if self.shades == 1:
            return flat
        grey = gaussian_blur(small.mean(dim=1, keepdim=True), sigma_px=(self.softness * WORK_PX / extent,) * 2)
        low, high = grey.amin(dim=(2, 3), keepdim=True), grey.amax(dim=(2, 3), keepdim=True)
        level = ((grey - low) / (high - low).clamp(min=1e-3) * self.shades).floor().clamp(0, self.shades - 1)
        step = gaussian_blur(level / (self.shades - 1), sigma_px=(1.0, 1.0))  # or their edges would be stairs
        return bounded(flat + (step - 0.5) * 0.4)


def parted(crops: Tensor, *, extent: float, rounds: int = 6) -> Tensor:
    """How sure each pixel is the person's, ``(R, 1, S, S)`` in [0, 1], of square crops ``(R, C, S, S)``.

    extent: side of a crop relative to the person's box, which is in its middle.
    """
    side = crops.shape[-1]
    usual = _usual(side, extent).to(crops)
    member = _memberships(crops)
    share = usual.expand(len(crops), 1, -1, -1)
    for _ in range(rounds):
        ours, theirs = _mean(member, share), _mean(member, 1 - share)
        says = (member * ((ours + 0.01) / (theirs + 0.01)).log()).sum(dim=1, keepdim=True)
        share = _guided(torch.sigmoid(1.5 * says + torch.logit(usual)), _contrast(crops, share))
        share = share.clamp(0.001, 0.999)
    return share


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    return (x * weight).sum(dim=(2, 3), keepdim=True) / weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)


def _contrast(crops: Tensor, share: Tensor) -> Tensor:
    """``(R, 1, S, S)`` each pixel's place between the mean colours of background and person.

    Brightness would not do for a guide: a red coat before a blue wall may be as bright.
    """
    apart = _mean(crops, share) - _mean(crops, 1 - share)
    return (crops * apart).sum(dim=1, keepdim=True) / apart.abs().sum(dim=1, keepdim=True).clamp(min=1e-3)


def _usual(side: int, extent: float) -> Tensor:
    """``(1, 1, S, S)`` how often a pixel of a person's box is the person's: narrow at the head, wide below."""
    along = ((torch.arange(side) + 0.5) / side * 2 - 1) * extent  # -1 to 1 across the box
    down, across = along[:, None], along[None, :].abs()
    half = 0.35 + 0.4 * ((down + 1) / 0.8).clamp(0, 1)
    beyond = torch.maximum(across - half, (down.abs() - 0.95)) / 0.12
    return (0.02 + 0.93 * torch.sigmoid(-beyond))[None, None]


def _memberships(crops: Tensor, rounds: int = 6) -> Tensor:
    """``(R, K, S, S)`` how far each pixel is of each of the palette's colours, which are found by soft k-means."""
    r, c, side, _ = crops.shape
    pixels = crops.reshape(r, c, 1, -1)
    colours = F.adaptive_avg_pool2d(crops, math.isqrt(COLOURS)).reshape(r, c, -1, 1)
    for _ in range(rounds):
        member = torch.softmax(-(pixels - colours).square().sum(dim=1) / (2 * 0.06**2), dim=1)  # (R, K, N)
        weight = member.sum(dim=2).clamp(min=1e-6)
        colours = ((member[:, None] * pixels).sum(dim=3) / weight[:, None])[..., None]
    return member.reshape(r, -1, side, side)


def _guided(share: Tensor, guide: Tensor, radius: int = 4, eps: float = 1e-3) -> Tensor:
    """The shares smoothed, but not across the edges of the guide, ``(R, 1, S, S)`` both."""
    mean, spread = _box(guide, radius), _box(guide * guide, radius)
    slope = (_box(guide * share, radius) - mean * _box(share, radius)) / (spread - mean * mean + eps)
    level = _box(share, radius) - slope * mean
    return _box(slope, radius) * guide + _box(level, radius)


def _box(x: Tensor, radius: int) -> Tensor:
    return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def from_border(crops: Tensor) -> Tensor:
    """Smooth pictures ``(R, C, S, S)`` that continue the outermost pixels of square crops into their middle."""
    side = crops.shape[-1]
    border = torch.cat([crops[..., 0, :], crops[..., -1, :], crops[..., :, 0], crops[..., :, -1]], dim=-1)
    return (border @ _reach(side).to(border).T).reshape(*crops.shape[:2], side, side)


@cache
def _reach(side: int) -> Tensor:
    """``(S x S, 4 x S)`` weights of the border's pixels in each pixel, by the inverse cube of their distance."""
    at = torch.arange(side, dtype=torch.float64)
    zero, last = torch.zeros(side, dtype=torch.float64), torch.full((side,), side - 1.0, dtype=torch.float64)
    ys, xs = torch.cat([zero, last, at, at]), torch.cat([at, at, zero, last])
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    apart = ((rows.reshape(-1, 1) - ys).square() + (columns.reshape(-1, 1) - xs).square()).sqrt()
    weight = (apart + 2).pow(-3)  # two pixels more: the border itself is smoothed along, too
    return weight / weight.sum(dim=1, keepdim=True)


def _is_color(color: Any) -> bool:
    if isinstance(color, str) or not isinstance(color, Sequence) or len(color) != 3:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in color)
