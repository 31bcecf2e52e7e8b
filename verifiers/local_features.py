"""Whether two pictures show one place: local features, their matches, and how many of these agree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize
from anondata.models import registry
from anondata.models.shared import network
from anondata.models.xfeat import STRIDE, peaks

SIDE_PX = 640  # of the long side of a picture, as it is looked at
MOST = 1024  # features of a picture; the likeliest

# A homography that is none of a photographer's: mirrored, or shrunk, stretched or tilted beyond what is seen.
AREA = (0.05, 20.0)
TILT = 1.0
OFF = 0.008  # of the long side: how far a match may lie from where the homography puts it; 5 px of 640

NEIGHBOURS = 12
LIKE = 5  # of the neighbours: so many must have moved alike
BENT = 0.15  # by how much of their distance two matches may have moved apart
SLACK = 0.004  # of the long side, besides


@dataclass(frozen=True, eq=False)
class Features:
    """Local features of a picture: ``places (N, 2)`` x, y over its long side, unit ``descriptors (N, 64)``."""

    places: Tensor
    descriptors: Tensor

    def __len__(self) -> int:
        return len(self.places)


@cache
def fingerprint() -> str:
    """32 hexadecimal digits that change when features do."""
    made = f"{registry.entry('xfeat').sha256} {SIDE_PX} {MOST}"
    return hashlib.sha256(made.encode()).hexdigest()[:32]


def features(picture: Tensor, *, side_px: int) -> Features:
    """The likeliest features of a picture ``(3, H, W)`` uint8, looked at with its long side at ``side_px``.

    On the CPU, because so few numbers are handled faster there. Raises what
    :func:`anondata.models.shared.network` raises, and ``ValueError`` for outputs that are not finite.
    """
    height, width = picture.shape[-2:]
    scale = side_px / max(height, width)
    rows, columns = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width))
    shown = resize(picture[None].float() / 255, rows, columns)
    descriptors, logits, reliability = network("xfeat", picture.device)(shown)
    if not all(bool(out.isfinite().all()) for out in (descriptors, logits, reliability)):
        raise ValueError("the features of a place are not finite")  # NaN would be no feature anywhere, and no match
    likely = peaks(logits[0]) * F.interpolate(reliability, (rows, columns), mode="bilinear")[0, 0]
    best = likely.flatten().topk(min(MOST, int((likely > 0).sum()))).indices
    places = (torch.stack([best % columns, best // columns], dim=1) + 0.5) / best.new_tensor([columns, rows])
    found = F.grid_sample(
        F.normalize(descriptors, dim=1), places[None, None] * 2 - 1, mode="bicubic", align_corners=False
    )
    sides = places.new_tensor([width, height]) / max(height, width)
    return Features((places * sides).cpu(), F.normalize(found[0, :, 0].T, dim=1).cpu())


def matches(one: Features, other: Features) -> tuple[Tensor, Tensor]:
    """``(M, 2)`` places in the one and in the other of features that are each other's nearest."""
    if not len(one) or not len(other):
        return one.places[:0], other.places[:0]
    likeness = one.descriptors @ other.descriptors.T
    there, back = likeness.argmax(dim=1), likeness.argmax(dim=0)
    mutual = back[there] == torch.arange(len(there))
    return one.places[mutual], other.places[there[mutual]]


def under_one_homography(a: Tensor, b: Tensor, *, tries: int = 1000) -> int:
    """How many matches ``(M, 2)`` to ``(M, 2)`` one change of a flat scene's viewpoint explains, by RANSAC.

    Always the same number for the same matches.

    Source: Fischler, Bolles (1981), doi 10.1145/358669.358692.
    """
    if len(a) < 4:
        return 0
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(tries, len(a), generator=generator).topk(4, dim=1).indices
    models = _homographies(a[chosen], b[chosen])
    if not len(models):
        return 0
    moved = F.pad(a, (0, 1), value=1.0) @ models.transpose(1, 2)
    off = (moved[..., :2] / moved[..., 2:].clamp(min=1e-6) - b).norm(dim=2)
    return int((off < OFF).sum(dim=1).max())


def _homographies(a: Tensor, b: Tensor) -> Tensor:
    """``(K, 3, 3)`` of four matches each, ``(T, 4, 2)`` to ``(T, 4, 2)``; those that no camera sees are left out."""
    (x, y), (u, v) = a.double().unbind(dim=2), b.double().unbind(dim=2)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    across = torch.stack([x, y, one, none, none, none, -u * x, -u * y], dim=2)
    down = torch.stack([none, none, none, x, y, one, -v * x, -v * y], dim=2)
    solved, singular = torch.linalg.solve_ex(torch.cat([across, down], dim=1), torch.cat([u, v], dim=1))
    models = F.pad(solved, (0, 1), value=1.0).reshape(-1, 3, 3)
    area = models[:, 0, 0] * models[:, 1, 1] - models[:, 0, 1] * models[:, 1, 0]
    sane = (area > AREA[0]) & (area < AREA[1]) & (models[:, 2, :2].abs().amax(dim=1) < TILT)
    return models[sane & (singular == 0) & models.isfinite().flatten(1).all(dim=1)].float()


def like_neighbours(a: Tensor, b: Tensor) -> int:
    """How many matches ``(M, 2)`` to ``(M, 2)`` moved as those around them did.

    For a picture that was bent: no homography explains it, but what lies near each other moved alike. It takes the
    same viewpoint, which whoever compares a result with its original has.
    """
    if len(a) <= NEIGHBOURS:
        return 0
    near = torch.cdist(a, a).topk(NEIGHBOURS + 1, largest=False).indices[:, 1:]
    before, after = a[near] - a[:, None], b[near] - b[:, None]
    alike = (before - after).norm(dim=2) < BENT * before.norm(dim=2) + SLACK
    return int((alike.sum(dim=1) >= LIKE).sum())
