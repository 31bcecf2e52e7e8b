"""The whole picture as one region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anondata.regions import LANDMARKS, Regions


@dataclass(frozen=True)
class FrameDetector:
    """Finds one region of kind ``frame`` in every picture: all of it.

    For what gives a place away: techniques for whole pictures go where there is nothing to detect. As a scan detector
    it has no use, for it finds every picture again.
    """

    kinds: ClassVar[tuple[str, ...]] = ("frame",)

    networks: ClassVar[tuple[str, ...]] = ()

    def detect(self, views: Sequence[Tensor]) -> Regions:
        device = views[0].device if views else torch.device("cpu")
        count = len(views)
        sizes = [[0, 0, view.shape[-1], view.shape[-2]] for view in views]
        return Regions(
            image=torch.arange(count, device=device),
            boxes=torch.tensor(sizes, dtype=torch.float32, device=device).reshape(count, 4),
            landmarks=torch.full((count, LANDMARKS, 2), torch.nan, device=device),
            scores=torch.ones(count, device=device),
            kinds=("frame",) * count,
        )
