"""A matched filter for faces: which of all faces do the colours of a result fit, without any network?

A face is the mean colours of 12 x 12 cells over 1.5 times its box. How such colours vary among people is learnt once
(:mod:`anondata.tools.bench.face_pixels`). Whatever was done to a face, the result fits its own original no better
than that of a stranger if nothing of it is left; how well it would fit strangers follows from what was learnt, so the
measure needs to know nothing of the technique.

Source: Kelly, Reed, Root (1960), doi 10.1137/0108024, for filters matched to a signal in coloured noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from anondata.crops import cut, outer_rects, resize
from anondata.models.registry import bundled_file, check_sha256
from anondata.regions import Regions
from anondata.transforms.base import RegionTransform

NAME = "face-pixels"
FILE = "face_pixels.safetensors"
SHA256 = "ceae4ec933bc22049a8a1a409310f03290a834be157609adc99e0fc2d3f6f9c4"
FINGERPRINT = SHA256[:32]

GRID = 12
EXTENT = 1.5
CROP_PX = 96
PARTS = 40  # principal components of how faces vary
# Variances of a cell's noise, relative to the contrast that is left, for which filters are the best ones. That of
# 0.05 alone passes 28 % of mosaics with much noise, that of 0.5 alone 13 %, and is blind to detail.
RIDGES = (0.05, 0.5, 5.0)
GREY = 0.5  # what techniques take contrast away towards


def colors(views: Sequence[Tensor], regions: Regions) -> Tensor:
    """``(R, 432)`` float64 on the CPU: mean colours of the cells over each region, beyond a picture its border's.

    views: ``(3, H, W)`` uint8.
    """
    rows = []
    for image, rect in zip(regions.image.tolist(), _rects(views, regions), strict=True):
        crop = cut(views[image], rect[None], CROP_PX)
        rows.append(F.adaptive_avg_pool2d(crop, GRID).flatten().double().cpu())
    return torch.stack(rows) if rows else torch.zeros(0, 3 * GRID * GRID, dtype=torch.float64)


def covered(views: Sequence[Tensor], regions: Regions, techniques: Sequence[RegionTransform]) -> Tensor:
    """``(R, 432)`` bool: the cells that each region's technique covers wholly, and those of the face itself."""
    rows = []
    boxes, rects = regions.boxes.tolist(), _rects(views, regions)
    for box, rect, technique in zip(boxes, rects, techniques, strict=True):
        whole = (technique.weight(box, rect.tolist()) >= 1).float()
        share = F.adaptive_avg_pool2d(resize(whole[None, None], CROP_PX, CROP_PX), GRID)[0, 0]
        rows.append(((share > 1 - 1e-5) | _inner()).expand(3, -1, -1).flatten().cpu())
    return torch.stack(rows) if rows else torch.zeros(0, 3 * GRID * GRID, dtype=torch.bool)


def _rects(views: Sequence[Tensor], regions: Regions) -> Tensor:
    frames = torch.tensor([views[image].shape[-2:] for image in regions.image.tolist()]).reshape(-1, 2)
    return outer_rects(regions.boxes.detach().cpu(), EXTENT, frames)


@lru_cache(maxsize=1)
def _inner() -> Tensor:
    """Cells within the ellipse that is inscribed in the box: they are the face's, covered or not."""
    far = ((torch.arange(GRID) - (GRID - 1) / 2).abs() + 0.5) * (EXTENT / GRID)  # far edges from the centre, in boxes
    return (far[:, None].square() + far.square()).sqrt() <= 0.5


@dataclass(frozen=True, eq=False)
class Filter:
    """What results of one mask of cells are held against.

    mean: ``(D,)`` colours of the mean face. factor: ``(D, K)``, its product with itself is the covariance of faces.
    """

    mean: Tensor
    factor: Tensor

    def masked(self, known: Tensor) -> Filter:
        """The filter of ``known (432,)`` bool cells."""
        return Filter(self.mean[known], self.factor[known])

    def scores(self, results: Tensor, originals: Tensor) -> Tensor:
        """``(N, M)``: how well each result fits each original, by the filter of the ridge that it fits best.

        results: ``(N, D)``. originals: ``(M, D)``. NaN for a result or an original that is one grey.
        """
        return torch.stack([self.fits(results, originals, ridge=ridge) for ridge in RIDGES]).amax(dim=0)

    def fits(self, results: Tensor, originals: Tensor, *, ridge: float) -> Tensor:
        """``(N, M)``: how well each result fits each original, in standard deviations of strangers.

        The contrast of either does not matter, as techniques may lower it and photos be pale: the mean face, darker
        or lighter, is taken out of both, and what is left of originals is brought to the size that it has in faces.
        """
        grey = self.mean - GREY
        pulled = self._solved(grey, ridge)
        shown, own = (
            one - ((one @ pulled) / (grey @ pulled))[:, None] * grey for one in (results - GREY, originals - GREY)
        )
        filters = self._solved(shown.T, ridge).T
        filters = filters / (filters @ self.factor).norm(dim=1, keepdim=True)
        variances = torch.linalg.eigvalsh(self.factor.T @ self.factor).clamp(min=0)
        size = (self._solved(own.T, ridge).T * own).sum(dim=1) / (variances / (variances + ridge)).sum()
        scores: Tensor = filters @ own.T / size.clamp(min=0).sqrt()
        return scores

    def _solved(self, columns: Tensor, ridge: float) -> Tensor:
        """The inverse of (covariance + ridge) times columns ``(D,)`` or ``(D, N)``."""
        inner = self.factor.T @ self.factor
        inner = inner + ridge * torch.eye(len(inner), dtype=inner.dtype)
        left: Tensor = columns - self.factor @ torch.linalg.solve(inner, self.factor.T @ columns)
        return left / ridge


def strangers(scores: Tensor) -> Tensor:
    """The share of strangers whose originals a result fits at least as well, in [0, 1]."""
    share: Tensor = torch.special.ndtr(-scores)
    return share


def learn(faces: Tensor) -> Filter:
    """The filter of all cells from the colours of faces ``(N, 432)``, N at least 41."""
    mean = faces.mean(dim=0)
    _, spread, parts = torch.linalg.svd(faces - mean, full_matrices=False)
    return Filter(mean, (parts[:PARTS].T * spread[:PARTS]) / len(faces) ** 0.5)


@lru_cache(maxsize=1)
def learnt() -> Filter:
    """The filter that comes with the package."""
    path = bundled_file(FILE)
    check_sha256(path, SHA256, name=FILE)
    kept = load_file(path)
    return Filter(kept["mean"].double(), kept["factor"].double())
