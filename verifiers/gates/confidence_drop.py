"""The success test of US12387004 (Disney): every classifier must be less sure of the result than of the original."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.embedders import embedder_of
from anondata.verifiers.gallery.gallery import Gallery
from anondata.verifiers.gates.base import ByDistance, WithGallery, distances

SURE = 0.9  # confidence at the threshold of the lowest calibrated FAR; at that of ``far`` it is one half


@dataclass(frozen=True)
class ConfidenceDrop(WithGallery, ByDistance):
    """Passes a face whose confidence fell by ``drop`` against before, or is negligible, for every classifier.

    A classifier's confidence is that of the class it found most likely *before*. Classifiers are:

    * the people of a gallery: the confidence that a face is the person nearest to it before, a logistic function of
      the squared distance through one half at the threshold of ``far`` and 0.9 at that of the lowest calibrated FAR;
    * any of your own, by dotted paths: components that are made like embedders, and whose rows ``(R, C)`` are
      confidences in [0, 1] of ``C`` classes.

    gallery: the name of the gallery, empty for none. classifiers: dotted paths. drop: in (0, 1].
    negligible: confidence at or below which nothing need fall any more, in [0, 1).
    """

    gallery: str = "protected"
    classifiers: tuple[str, ...] = ()
    drop: float = 0.5
    negligible: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.classifiers, str) or not all(isinstance(c, str) for c in self.classifiers):
            raise PolicyError("confidence_drop: classifiers must be a list of dotted paths")
        object.__setattr__(self, "classifiers", tuple(self.classifiers))
        self._number("drop", 0, 1)
        self._number("negligible", 0, 1)
        _ = [embedder_of(path) for path in self.classifiers]
        if not self.gallery and not self.classifiers:
            raise PolicyError("confidence_drop needs a gallery or classifiers")
        if not (0 < self.drop <= 1 and 0 <= self.negligible < 1):
            raise PolicyError("confidence_drop: drop must be in (0, 1], negligible in [0, 1)")
        if self.gallery and not self._lowest < self.threshold.distance:
            raise PolicyError("confidence_drop: far must be higher than the lowest calibrated rate")

    @property
    def name(self) -> str:
        return f"confidence_drop({self._told(*filter(None, (self.gallery, *self.classifiers)))}, drop={self.drop:g})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        own = [embedder_of(path) for path in self.classifiers]
        return [self.made, *own] if self.gallery else own

    @property
    def galleries(self) -> Sequence[str]:
        return (self.gallery,) if self.gallery else ()

    def bound(self, galleries: Mapping[str, Any]) -> Self:
        return super().bound(galleries) if self.gallery else self

    def check(self, gallery: Gallery) -> None:
        gallery.check_embedder(self.made.name, self.made.fingerprint)

    def judge(self, probe: Probe) -> Verdicts:
        parts = [self._verdicts(f"{self.name}: {self.gallery}", *self._of_gallery(probe))] if self.gallery else []
        for path in self.classifiers:
            name = embedder_of(path).name
            before, after = _of_classes(probe.before[name], probe.after[name])
            parts.append(self._verdicts(f"{self.name}: {name}", before, after))
        worst = torch.stack([p.after - p.threshold for p in parts]).argmax(dim=0)  # NaN counts as the largest
        rows = torch.arange(len(worst), device=worst.device)
        return Verdicts(
            self.name,
            before=torch.stack([p.before for p in parts])[worst, rows],
            after=torch.stack([p.after for p in parts])[worst, rows],
            threshold=torch.stack([p.threshold for p in parts])[worst, rows],
            passed=torch.stack([p.passed for p in parts]).all(dim=0),
            parts=tuple(parts),
        )

    def _verdicts(self, name: str, before: Tensor, after: Tensor) -> Verdicts:
        most = (before - self.drop).clamp(min=self.negligible)
        return Verdicts(name, before, after, most, after <= most)

    @property
    def _lowest(self) -> float:
        return min(t.distance for t in self.thresholds.thresholds)

    def _of_gallery(self, probe: Probe) -> tuple[Tensor, Tensor]:
        before, after = probe.before[self.made.name], probe.after[self.made.name]
        found = self.opened.search(before)
        owners = torch.from_numpy(self.opened.owners).to(before.device)
        nearest = torch.full_like(found.distance[:, 0], torch.nan)
        for i, row in enumerate(found.row[:, 0].tolist()):
            if row >= 0:
                theirs = self.opened.templates[(owners == owners[row]).cpu().numpy()]
                nearest[i] = distances(after[i][None], torch.from_numpy(theirs).to(after)).amin()
        return self._confidence(found.distance[:, 0]), self._confidence(nearest)

    def _confidence(self, distance: Tensor) -> Tensor:
        half, sure = self.threshold.distance**2, self._lowest**2
        slope = math.log(SURE / (1 - SURE)) / (half - sure)
        confidence = torch.sigmoid((half - distance.square()) * slope)
        return torch.where(distance.isfinite(), confidence, torch.nan)


def _of_classes(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """``(R,)`` each: the confidence of the class that was most likely before; NaN where a row is no confidences."""
    if before.shape != after.shape or not before.shape[1]:
        raise ValueError("a classifier returned confidences of the wrong shape")
    top = before.argmax(dim=1, keepdim=True)
    whole = ((before >= 0) & (before <= 1) & (after >= 0) & (after <= 1)).all(dim=1)
    none = before.new_tensor(torch.nan)
    return torch.where(whole, before.gather(1, top)[:, 0], none), torch.where(whole, after.gather(1, top)[:, 0], none)
