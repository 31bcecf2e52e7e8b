"""A gate of utility: is it still a picture of the same kind of thing?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anondata.crops import resize
from anondata.errors import PolicyError
from anondata.models.category import CATEGORIES, MEAN, SIDE_PX, STD
from anondata.models.shared import network
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.gates._crops import crop_of


@dataclass(frozen=True)
class KeepsCategory:
    """Passes a region whose category before is among the best afterwards: a lake, if not Lake Tahoe.

    A generic classifier (MobileNetV2 on the thousand categories of ImageNet) looks at both. The scores are the places
    of the original's first category among the result's: 1 before, 1 to 1000 after; it passes up to ``best``.

    A gate of *utility*: it says nothing of privacy. What the classifier calls a picture of which it knows no category
    is arbitrary, and is asked for all the same.

    best: how many of the result's first categories count, 1 to 999. Chance is about ``best / 1000``; the benchmark
        ``places`` has what crops of the same photo, and other photos, reach.
    """

    networks: ClassVar[tuple[str, ...]] = ("mobilenet-v2",)

    best: int = 10
    embedders: ClassVar[Sequence[Embedder]] = ()

    def __post_init__(self) -> None:
        best: Any = self.best
        if isinstance(best, bool) or not isinstance(best, int) or not 1 <= best < CATEGORIES:
            raise PolicyError(f"best must be a whole number between 1 and {CATEGORIES - 1}, got {best!r}")

    @property
    def name(self) -> str:
        return f"keeps_category(best={self.best})"

    def judge(self, probe: Probe) -> Verdicts:
        after = [
            place_of_first(categories(crop_of(probe.original[i], box)), categories(crop_of(probe.result[i], box)))
            for i, box in zip(probe.regions.image.tolist(), probe.regions.boxes.tolist(), strict=True)
        ]
        places = torch.tensor(after, dtype=torch.float32, device=probe.regions.scores.device)
        bound = torch.full_like(places, self.best)
        return Verdicts(self.name, torch.ones_like(places), places, bound, places <= bound)


def categories(picture: Tensor) -> Tensor:
    """``(1000,)`` logits of a picture ``(3, H, W)`` uint8, seen whole whatever the ratio of its sides.

    Raises what :func:`anondata.models.shared.network` raises.
    """
    small = resize(picture[None].float() / 255, SIDE_PX, SIDE_PX)
    mean, std = (small.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    [logits] = network("mobilenet-v2", picture.device)((small - mean) / std)
    return logits


def place_of_first(before: Tensor, after: Tensor) -> float:
    """1 where the first category before is the first after, and so on; NaN where either is not finite."""
    if not bool(before.isfinite().all() and after.isfinite().all()):
        return float("nan")
    return 1.0 + float((after > after[before.argmax()]).sum())
