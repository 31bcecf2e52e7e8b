"""The first gate: is the result still this person?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anondata.protocols import Probe, Verdicts
from anondata.verifiers.gates.base import ByDistance, eased


@dataclass(frozen=True)
class SelfMatch(ByDistance):
    """Passes a face that is farther from itself before than the embedder's threshold.

    Before and after are aligned by the landmarks found *before*, which grants the attacker perfect alignment.
    The scores are Euclidean distances: 0 before (a face is itself), and how far the result is from it. For a region
    that was erased see :func:`anondata.verifiers.gates.base.eased`.

    Not guaranteed: that an attacker who anonymizes their own photos alike, another network, or one who compares
    colours without any network (:class:`anondata.verifiers.gates.pixel_match.PixelMatch`) fails too. A noisy mosaic
    passed of which the last named 51 % of 51 people. One gate is one attacker; a policy should rest on an audit by
    several.
    """

    @property
    def name(self) -> str:
        return f"self_match({self._told()})"

    def judge(self, probe: Probe) -> Verdicts:
        before, after = probe.before[self.made.name], probe.after[self.made.name]
        distance = (after - before).norm(dim=1)

        def blank(rows: Tensor) -> Tensor:
            apart: Tensor = (probe.blank(self.made.name, rows) - before[rows]).norm(dim=1)
            return apart

        threshold = eased(probe.erased, distance, torch.full_like(distance, self.threshold.distance), blank)
        return Verdicts(self.name, torch.zeros_like(distance), distance, threshold, distance > threshold)
