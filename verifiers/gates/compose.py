"""Gates made of gates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import torch

from anondata.components import build, name_of, params_of
from anondata.errors import PolicyError
from anondata.protocols import Embedder, NeedsGalleries, Probe, Verdicts, Verifier


class _Composed(ABC):
    """Several gates as one: how many must pass is the subclass's. Every gate's own verdict is kept.

    gates: verifiers, or what a policy's YAML holds of them: ``name`` or ``{name: {parameter: value}}``.
    The scores are counts of gates that pass: none before, how many after, and how many must.
    """

    word: ClassVar[str]

    def __init__(self, gates: Sequence[Any] = ()) -> None:
        if isinstance(gates, str | Mapping) or not gates:
            raise PolicyError(f"{self.word} needs a list of one gate or more")
        made = [_made(gate) for gate in gates]
        self.gates: tuple[Verifier, ...] = tuple(gate for gate, _ in made)
        self._given = [given for _, given in made]

    def config(self) -> dict[str, Any]:
        told = [params_of(gate, given) for gate, given in zip(self.gates, self._given, strict=True)]
        return {"gates": [{name_of("verifier", gate): params} for gate, params in zip(self.gates, told, strict=True)]}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.gates)!r})"

    @property
    def name(self) -> str:
        return f"{self.word}({'; '.join(gate.name for gate in self.gates)})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return [embedder for gate in self.gates for embedder in gate.embedders]

    @property
    def networks(self) -> Sequence[str]:
        return [name for gate in self.gates for name in getattr(gate, "networks", ())]

    @property
    def galleries(self) -> Sequence[str]:
        return [name for gate in self.gates if isinstance(gate, NeedsGalleries) for name in gate.galleries]

    def bound(self, galleries: Mapping[str, Any]) -> Self:
        gates = [gate.bound(galleries) if isinstance(gate, NeedsGalleries) else gate for gate in self.gates]
        twin = copy(self)
        twin.gates = tuple(gates)
        return twin

    @property
    @abstractmethod
    def needed(self) -> int:
        """How many gates must pass."""

    def judge(self, probe: Probe) -> Verdicts:
        parts = tuple(gate.judge(probe) for gate in self.gates)
        passes = torch.stack([part.passed & part.after.isfinite() for part in parts]).sum(dim=0)
        after = passes.to(torch.float32)
        needed = torch.full_like(after, self.needed)
        return Verdicts(self.name, torch.zeros_like(after), after, needed, passes >= self.needed, parts)


class AllOf(_Composed):
    """Passes what every gate passes."""

    word = "all_of"

    @property
    def needed(self) -> int:
        return len(self.gates)


class AnyOf(_Composed):
    """Passes what one gate or more passes. Weaker than each of them: for gates that ask the same in two ways."""

    word = "any_of"

    @property
    def needed(self) -> int:
        return 1


class Ensemble(AllOf):
    """Several networks look at the result, and none may recognise it: one gate passes what another network names.

    embedders: two or more. far: of each one's threshold. galleries: the name of a gallery for each embedder, to look
    for its people; without, each embedder compares with the face itself before.
    """

    word = "ensemble"

    def __init__(
        self,
        embedders: Sequence[str] = ("dlib-face-resnet", "mobilefacenet-ms1m"),
        far: float = 0.01,
        galleries: Sequence[str] = (),
    ) -> None:
        from anondata.verifiers.gates.gallery_match import GalleryMatch
        from anondata.verifiers.gates.self_match import SelfMatch

        if isinstance(embedders, str) or isinstance(galleries, str) or len(set(embedders)) < 2:
            raise PolicyError("an ensemble needs two embedders or more")
        if galleries and len(galleries) != len(embedders):
            raise PolicyError("an ensemble needs a gallery for each embedder: templates of two do not compare")
        self._params: dict[str, Any] = {"embedders": list(embedders), "far": far, "galleries": list(galleries)}
        if galleries:
            pairs = zip(embedders, galleries, strict=True)
            super().__init__([GalleryMatch(embedder=e, far=far, gallery=g) for e, g in pairs])
        else:
            super().__init__([SelfMatch(embedder=e, far=far) for e in embedders])

    def config(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, list) else v for name, v in self._params.items()}


def all_of(*gates: Any) -> AllOf:
    """A gate that passes what all of these pass."""
    return AllOf(gates)


def any_of(*gates: Any) -> AnyOf:
    """A gate that passes what one of these or more passes."""
    return AnyOf(gates)


def _made(gate: Any) -> tuple[Verifier, Mapping[str, Any] | None]:
    """A gate, with the parameters that it was given where they are known."""
    if isinstance(gate, str):
        gate = {gate: {}}
    if not isinstance(gate, Mapping):
        if not (hasattr(gate, "judge") and hasattr(gate, "embedders")):
            raise PolicyError(f"a gate is {type(gate).__name__}, expected a verifier or its name")
        return gate, None
    if len(gate) != 1:
        raise PolicyError("a gate is written 'name' or 'name: {parameter: value}'")
    ((name, params),) = gate.items()
    return build("verifier", str(name), params or {}), params or {}
