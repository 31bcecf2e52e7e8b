"""Several techniques, one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor

from anondata.components import build
from anondata.leakage import NO_BOUND, Leakage, least
from anondata.transforms.base import Common, RegionTransform

Step = str | Mapping[str, Mapping[str, Any] | None]
COMMON = frozenset({"coverage", "shape", "feather", "key"})


class Chain(RegionTransform):
    """Changes a region by several techniques one after another, each the result of the one before, as one rung.

    Coverage, shape and soft edge are the chain's own. The region is changed at the most pixels that any of its steps
    asks for, and leaves no more than the best of its steps: a later one cannot bring back what an earlier one took,
    unless it is told landmarks of the original; then there is no bound.

    Args:
        steps: techniques as a policy names them, ``name`` or ``{name: {parameter: value}}``, without the parameters
            that are the chain's. By default the two cheapest that together take detail and colour.

    Raises:
        PolicyError: for a step that is no technique, or whose parameters it does not accept.

    >>> import torch
    >>> chain = Chain([{"pixelate": {"blocks": 2}}, {"noise": {"std": 0.1}}])
    >>> list(chain.strength()["steps"][0])
    ['pixelate']
    """

    name = "chain"

    def __init__(self, steps: Sequence[Step] = ("gaussian_blur", "noise"), **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if isinstance(steps, str) or not isinstance(steps, Sequence) or not steps:
            raise ValueError(f"steps must be a list of at least one technique, got {steps!r}")
        shared = {"coverage": self.coverage, "shape": self.shape, "feather": self.feather}
        named = [_named(step) for step in steps]
        # Not as submodules: what nn.Module tells of itself is what config() tells.
        self._steps = tuple((name, build("technique", name, {**shared, **params})) for name, params in named)
        made = [technique for _, technique in self._steps]
        self.crop_px = max(technique.crop_px for technique in made)
        self.draws = any(technique.draws for technique in made)
        self.aligns = any(technique.aligns for technique in made)
        self.networks = tuple(dict.fromkeys(name for technique in made for name in technique.networks))
        self.generated_people = max(technique.generated_people for technique in made)
        self.redraws = any(technique.redraws for technique in made)
        self.moves = any(technique.moves for technique in made)

    def strength(self) -> dict[str, Any]:
        return {"steps": [{name: technique.strength()} for name, technique in self._steps]}

    def leakage(self) -> Leakage:
        return NO_BOUND if self.aligns else least(*(technique.leakage() for _, technique in self._steps))

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        for place, (_, technique) in enumerate(self._steps):
            crops = technique.change(crops, extent=extent, seeds=[_seed(seed, place) for seed in seeds])
        return crops

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        for place, (_, technique) in enumerate(self._steps):
            own = [_seed(seed, place) for seed in seeds]
            crops = technique.change_aligned(crops, extent=extent, seeds=own, landmarks=landmarks)
        return crops


def _named(step: Step) -> tuple[str, dict[str, Any]]:
    """A step's name and parameters."""
    written = {step: None} if isinstance(step, str) else step
    if not isinstance(written, Mapping) or len(written) != 1:
        raise ValueError(f"a step is written 'name' or {{'name': {{parameter: value}}}}, got {step!r}")
    ((name, params),) = written.items()
    if not isinstance(params, Mapping | None):
        raise ValueError(f"the parameters of step {name!r} must be a mapping, got {type(params).__name__}")
    common = COMMON & set(params or {})
    if common:
        raise ValueError(f"{min(common)} of step {name!r} is the chain's own; give it beside steps")
    return str(name), dict(params or {})


def _seed(seed: int, place: int) -> int:
    """A step's own seed in [0, 2^63): two steps that draw the same numbers could undo each other."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{place}".encode(), digest_size=8).digest(), "little") >> 1
