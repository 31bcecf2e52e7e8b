"""Utility gate: as many persons or faces as before. It protects nobody."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions
from anondata.verifiers.gates.face_utility import _Detects, detect_in


@dataclass(frozen=True)
class KeepsCount(_Detects):
    """Passes regions of a picture in which a detector still counts as many of a kind as before.

    All regions of a picture pass or fail together: a count belongs to the picture. The detector looks at the original
    and at the result alike, so that what it always misses is missed in both. No network here takes silhouettes for
    persons (0 of 14): for them, count with a detector that was trained on figures, or not at all.

    detector: by name. kind: what is counted, ``"person"`` or ``"face"`` or another that the detector finds.
    slack: by how many the counts may differ.
    """

    detector: str = "persons"
    kind: str = "person"
    slack: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.slack, bool) or not isinstance(self.slack, int) or self.slack < 0:
            raise PolicyError(f"slack must be a whole number of 0 or more, got {self.slack!r}")
        if not isinstance(self.kind, str) or not self.kind:
            raise PolicyError("kind must be a name, such as 'person'")

    @property
    def name(self) -> str:
        return f"keeps_count({self.detector}, {self.kind}, slack={self.slack})"

    def judge(self, probe: Probe) -> Verdicts:
        looks = (
            detect_in(pictures, probe.regions, self.made, self.kind) for pictures in (probe.original, probe.result)
        )
        before, after = (_counts(found, probe.regions) for found in looks)
        return Verdicts(self.name, before, after, before, (after - before).abs() <= self.slack)


def _counts(found: Regions, regions: Regions) -> Tensor:
    """``(R,)`` float, how many were found in the picture of each region."""
    same = found.image[None, :].to(regions.image.device) == regions.image[:, None]
    return same.sum(dim=1).to(torch.float32)
