"""The gate without a network: does a result still fit its own original better than those of strangers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.regions import Regions
from anondata.transforms.base import in_range
from anondata.verifiers import face_pixels
from anondata.verifiers.calibration import Calibration, Threshold, shipped


@dataclass(frozen=True)
class PixelMatch:
    """Passes a face whose result fits the originals of enough strangers at least as well as its own.

    A matched filter on the mean colours of 12 x 12 cells, see :mod:`anondata.verifiers.face_pixels`: what an attacker
    does with a clear photo and no network, and what networks do not see. Only cells that the technique covers wholly
    count, and those of the face itself. The scores are the share of strangers whom the result fits as well: 0 before,
    and a half on average where nothing of a face is left. A result that was erased passes unseen.

    **A weak gate.** Of 51 people in mosaics (8 blocks, noise 0.13, contrast 0.2) it passes 18 %. The same filter
    with *another* photo of each candidate named 27 % of all of them and none of those that passed; an attacker who
    learnt on results of the technique named 53 % of all and still 4 of the 16 that passed (chance is 2 %;
    tools/bench/face_pixels.py). What may be called safe is told by :meth:`RegionTransform.leakage`, or measured.

    **Not for techniques that lay another face over one** (``synthetic_face``, ``ksame``): the strangers that were
    learnt are portraits of one studio, and any natural face fits a photo that was taken elsewhere better than it fits
    those. Of 24 new faces on such a photo 18 fitted it as fewer than 1 % of these strangers do, and failed; but they
    fitted two thirds of 64 generated people as well. So the gate fails them for nothing.

    Not guaranteed: that averages of several releases fail as well. A result in which nothing is left fails at the
    false-accept rate, too, unless its technique erases: the next rung is tried. A face without a usable box fails.

    far: the false-accept rate of the threshold; a higher one is stricter. Calibrated on clear faces; of results that
        noise changed, which vary less, about half as many fail by chance.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    far: float = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.far, str):
            raise PolicyError(f"far is the text {self.far!r}, expected a number; YAML wants 1.0e-5, not 1e-5")
        object.__setattr__(self, "far", in_range("far", self.far, 0, 1))
        _ = self.threshold

    @property
    def name(self) -> str:
        return f"pixel_match(far={self.far:g})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return ()

    @property
    def thresholds(self) -> Calibration:
        return shipped(face_pixels.NAME)

    @property
    def threshold(self) -> Threshold:
        return self.thresholds.at(self.far)

    def judge(self, probe: Probe) -> Verdicts:
        share = torch.full((len(probe.regions),), torch.nan, dtype=torch.float64)
        rows = (~probe.erased).nonzero().flatten().tolist()
        if rows:
            share[rows] = _shares(probe, rows)
        share = share.to(probe.regions.boxes.device, torch.float32)
        share = torch.where(probe.erased, torch.ones_like(share), share)
        threshold = torch.full_like(share, self.threshold.distance)
        return Verdicts(self.name, torch.zeros_like(share), share, threshold, share > threshold)


def _shares(probe: Probe, rows: Sequence[int]) -> Tensor:
    """``(len(rows),)`` float64: the share of strangers whom the result of each of these regions fits as well."""
    regions: Regions = probe.regions.select(list(rows))
    before, after = (face_pixels.colors(views, regions) for views in (probe.original, probe.result))
    known = face_pixels.covered(probe.original, regions, [probe.techniques[row] for row in rows])
    out = []
    for cells, shown, own in zip(known, after, before, strict=True):
        fit = face_pixels.learnt().masked(cells)
        out.append(fit.scores(shown[None, cells], own[None, cells])[0, 0])
    return face_pixels.strangers(torch.stack(out))
