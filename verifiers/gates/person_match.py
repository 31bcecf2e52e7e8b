"""Is the figure still this person? Asked of the pixels, and of an appearance network where the user has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import cut, outer_rects
from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.regions import Regions
from anondata.transforms.base import in_range
from anondata.transforms.blur import gaussian_blur
from anondata.verifiers.embedders import embedder_of

CROP_PX = 64
# Strangers' likeness, measured by tools/bench/persons.py: half of the pairs of 51 people in one studio, pose and
# light are less alike in structure than these; a tenth of the pairs of 14 people in six photos are more so in colour.
# Of the pairs of 20 fresh people none is beyond these in structure, and 2 % are in colour.
FINE = 0.41
COARSE = 0.61
COLOUR = 0.81


@dataclass(frozen=True)
class PersonMatch:
    """Passes a person of whose look no more is left than a stranger would share.

    Needs no weights. Two things are held against what strangers share, within the region's box:

    * structure: how much of the original's light, patch by patch, the result explains (its squared correlation), in
      patches of an eighth and of a quarter of the box;
    * colour: the cosine of the colours, without their light, of the box's middle in a grid of six by two.

    The scores are the worst of these as a share of its bound: how alike the original is to itself, and the result to
    it; at 1 it is as alike as strangers are. Of an original that is too dim or plain to reach 1 itself, no more than
    half of its own score may be left, unless it was erased.

    strictness: divides the bounds, 0.5 to 4. Calibrated at 1.
    embedder: an appearance (re-identification) network of your own, see
        :func:`anondata.verifiers.embedders.embedder_of`; none comes with the package.
    distance: of its templates, at or below which two are the same person to it. It must be given.

    Not guaranteed: that nobody knows the person by figure, hair, gait, place or company; **an outline
    that a technique keeps is meant to be kept, and is hardly held against it**. Nor that a re-identification network
    fails: without one the gate says that cloth and colours are gone, not that the person cannot be found.
    """

    kinds: ClassVar[tuple[str, ...]] = ("person",)

    strictness: float = 1.0
    embedder: str = ""
    distance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strictness", in_range("strictness", self.strictness, 0.5, 4))
        if bool(self.embedder) != (self.distance is not None):
            raise PolicyError("an embedder and its distance are given together, or neither")
        if self.distance is not None:
            object.__setattr__(self, "distance", in_range("distance", self.distance, 0, 1e6))
        _ = self.embedders

    @cached_property
    def made(self) -> Embedder:
        """The user's embedder."""
        return embedder_of(self.embedder)

    @property
    def embedders(self) -> Sequence[Embedder]:
        return (self.made,) if self.embedder else ()

    @property
    def name(self) -> str:
        told = f"strictness={self.strictness:g}"
        return (
            f"person_match({told}, {self.made.name}, {self.distance:g})" if self.embedder else f"person_match({told})"
        )

    def judge(self, probe: Probe) -> Verdicts:
        original, result = (boxed(pictures, probe.regions) for pictures in (probe.original, probe.result))
        before, after = (self._share(original, other) for other in (original, result))
        # An original in which too little is seen to be told from a stranger would pass as it is.
        bound = torch.where(before < 1, before / 2, torch.ones_like(after))
        bound = torch.where(probe.erased, torch.ones_like(after), bound)
        look = Verdicts(self.name, before, after, bound, after < bound)
        if self.distance is None:
            return look
        apart = (probe.after[self.made.name] - probe.before[self.made.name]).norm(dim=1)
        most = torch.full_like(apart, self.distance)
        network = Verdicts(self.made.name, torch.zeros_like(apart), apart, most, apart > most)
        return Verdicts(self.name, before, after, bound, look.passed & network.passed, (look, network))

    def _share(self, original: Tensor, other: Tensor) -> Tensor:
        """``(R,)`` likeness as a share of its bound, the worst of structure and colour."""
        shares = [
            structure(original, other, patches=8) / FINE,
            structure(original, other, patches=4) / COARSE,
            colour(original, other) / COLOUR,
        ]
        return torch.stack(shares).amax(dim=0) * self.strictness


def boxed(pictures: Sequence[Tensor], regions: Regions) -> Tensor:
    """``(R, 3, S, S)`` float in [0, 1]: what is in each region's box."""
    if not len(regions):
        return torch.zeros(0, 3, CROP_PX, CROP_PX, device=regions.boxes.device)
    out = []
    for number, box in zip(regions.image.tolist(), regions.boxes, strict=True):
        picture = pictures[number]
        out.append(cut(picture, outer_rects(box[None], 1.0, torch.tensor(picture.shape[-2:])), CROP_PX))
    return torch.cat(out).to(regions.boxes.device)


def structure(original: Tensor, other: Tensor, *, patches: int) -> Tensor:
    """``(R,)`` in [0, 1], how much of the original's light another picture explains, patch by patch.

    The squared correlation of the two within each patch, whatever their contrast and polarity, averaged over patches,
    which overlap by half; patches in which the original is flat count little. ``(R, C, S, S)`` both.
    """
    side = original.shape[-1] // patches
    x, y = (gaussian_blur(p.mean(dim=1, keepdim=True), sigma_px=(side / 12, side / 12)) for p in (original, other))

    def mean(t: Tensor) -> Tensor:
        return F.avg_pool2d(t, side, stride=side // 2)

    mean_x, mean_y = mean(x), mean(y)
    spread_x, spread_y = mean(x * x) - mean_x * mean_x, mean(y * y) - mean_y * mean_y
    together = mean(x * y) - mean_x * mean_y
    tiny = 2e-4  # noise of an encoder: 3.6 grey levels
    explained = together * together / ((spread_x + tiny) * (spread_y + tiny))
    weight = spread_x.clamp(min=0) / (spread_x.clamp(min=0) + 1e-3)
    return (explained * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1)


def colour(original: Tensor, other: Tensor) -> Tensor:
    """``(R,)`` in [-1, 1], the cosine of two pictures' colours without their light, in the middle of the box."""
    a, b = _tints(original), _tints(other)
    return (a * b).sum(dim=1)


def _tints(crops: Tensor) -> Tensor:
    side = crops.shape[-1]
    middle = crops[..., side // 10 : side - side // 20, side // 4 : side - side // 4]
    cells = F.adaptive_avg_pool2d(middle, (6, 2))
    tints = torch.stack([cells[:, 0] - cells[:, 1], cells[:, 2] - cells[:, 1]], dim=1).flatten(1)
    much: Tensor = tints.norm(dim=1, keepdim=True).clamp(min=0.15)  # what is grey to the eye is grey
    return tints / much
