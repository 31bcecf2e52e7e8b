"""A gate for places: can the result still be matched with the photo that it was made of?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.gates._crops import crop_of
from anondata.verifiers.gates._places import Features, features, like_neighbours, matches, under_one_homography

# False-accept rate -> how many matches of two different places agree at most: under one homography, and with their
# neighbours. From the benchmark `places`; its 561 pairs say nothing of lower rates.
LIMITS: Mapping[float, tuple[int, int]] = {0.05: (9, 5), 0.01: (11, 8)}
SIDE_PX = 640


@dataclass(frozen=True)
class PlaceMatch:
    """Passes a region of which no matcher of local features sees that it is the same place as before.

    Keypoints of the original and of the result are described by XFeat and matched; what counts is how many matches
    agree on where things went: under one homography (RANSAC), or each with its neighbours, which a smooth warp does
    not hide from. The score is the greater of the two counts, each relative to what different places exceed at
    the rate ``far`` alone: it passes at 1 and below. The score before is that of all keypoints of the original.

    An original with too few keypoints to be matched with itself would pass as it is, so it passes only when erased.

    It compares with the original itself, from the same viewpoint: somebody who has their own photo of the place has
    less. Text is another gate's, and so is what people know a place by who look at it: **it is one matcher's word**.

    far: the share of pairs of different places that score above 1: 0.05 or 0.01. A higher one is stricter.
    """

    networks: ClassVar[tuple[str, ...]] = ("xfeat",)

    far: float = 0.01
    embedders: ClassVar[Sequence[Embedder]] = ()

    def __post_init__(self) -> None:
        far: Any = self.far
        if isinstance(far, bool) or far not in LIMITS:
            known = ", ".join(f"{rate:g}" for rate in LIMITS)
            raise PolicyError(f"far must be one of the rates that were calibrated, {known}, got {far!r}")

    @property
    def name(self) -> str:
        return f"place_match(xfeat, far={self.far:g})"

    def judge(self, probe: Probe) -> Verdicts:
        rows = []
        for image, box in zip(probe.regions.image.tolist(), probe.regions.boxes.tolist(), strict=True):
            original = features(crop_of(probe.original[image], box), side_px=SIDE_PX)
            result = features(crop_of(probe.result[image], box), side_px=SIDE_PX)
            rows.append((len(original) / min(LIMITS[self.far]), self.score(original, result)))
        before, after = torch.tensor(rows, device=probe.regions.scores.device).reshape(-1, 2).unbind(dim=1)
        seen = before * min(LIMITS[self.far]) > max(LIMITS[self.far])
        return Verdicts(self.name, before, after, torch.ones_like(after), (after <= 1) & (seen | probe.erased))

    def score(self, one: Features, other: Features) -> float:
        """How far two pictures' features agree, relative to those of different places."""
        return max(count / limit for count, limit in zip(counts(*matches(one, other)), LIMITS[self.far], strict=True))


def counts(a: Tensor, b: Tensor) -> tuple[int, int]:
    """How many matches agree under one homography, and how many with their neighbours."""
    return under_one_homography(a, b), like_neighbours(a, b)
