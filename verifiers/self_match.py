"""The first gate: is the result still this person?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import EMBEDDERS


@dataclass(frozen=True)
class SelfMatch:
    """Passes a face that is farther from itself before than the embedder's threshold.

    Before and after are aligned by the landmarks found *before*, which grants the attacker perfect alignment.
    The scores are Euclidean distances: 0 before (a face is itself), and how far the result is from it.

    Not guaranteed: that an attacker who anonymizes their own photos alike, or another network, fails too. One gate is
    one attacker; a policy should rest on an audit by several.

    embedder: whose templates. far: the false-accept rate of the threshold; a higher one is stricter.
    """

    embedder: str = "dlib-face-resnet"
    far: float = 0.01

    def __post_init__(self) -> None:
        if self.embedder not in EMBEDDERS:
            raise PolicyError(f"unknown embedder {self.embedder!r}; known: {', '.join(sorted(EMBEDDERS))}")
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
        threshold = shipped(self.embedder).at(self.far).distance
        return Verdicts(self.name, distance * 0, distance, threshold, distance > threshold)
