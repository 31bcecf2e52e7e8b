"""The first gate: is the result still this person?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anondata.components import suggest
from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import EMBEDDERS

BLANK_SLACK = 0.02  # of a distance: encoding alone moves the template of a blanked region by less


@dataclass(frozen=True)
class SelfMatch:
    """Passes a face that is farther from itself before than the embedder's threshold.

    Before and after are aligned by the landmarks found *before*, which grants the attacker perfect alignment.
    The scores are Euclidean distances: 0 before (a face is itself), and how far the result is from it.

    A region that no threshold can part from a blank one, because the detector took a bush for a face, passes when it
    was erased and is no nearer to its original than a blanked-out region would be. A technique that leaves anything
    of a region is always held against the calibrated threshold.

    Not guaranteed: that an attacker who anonymizes their own photos alike, or another network, fails too. One gate is
    one attacker; a policy should rest on an audit by several.

    embedder: whose templates. far: the false-accept rate of the threshold; a higher one is stricter.
    """

    embedder: str = "dlib-face-resnet"
    far: float = 0.01

    def __post_init__(self) -> None:
        if self.embedder not in EMBEDDERS:
            raise PolicyError(f"unknown embedder {self.embedder!r}; {suggest(self.embedder, EMBEDDERS)}")
        shipped(self.embedder).at(self.far)

    @property
    def name(self) -> str:
        return f"self_match({self.embedder}, far={self.far:g})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return (EMBEDDERS[self.embedder](),)

    def judge(self, probe: Probe) -> Verdicts:
        before, after = probe.before[self.embedder], probe.after[self.embedder]
        distance = (after - before).norm(dim=1)
        threshold = torch.full_like(distance, shipped(self.embedder).at(self.far).distance)
        near = (~(distance > threshold) & probe.erased).nonzero().flatten()
        if len(near):
            blank = (probe.blank(self.embedder, near) - before[near]).norm(dim=1)
            threshold[near] = torch.minimum(threshold[near], blank - BLANK_SLACK)
        return Verdicts(self.name, torch.zeros_like(distance), distance, threshold, distance > threshold)
