"""Components of one's own: what they must have is checked when a policy is read, what they may have has defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from anondata import Anonymizer, Regions, protocols
from anondata.components import NEEDED
from anondata.errors import PolicyError
from anondata.policy import Policy
from anondata.policy import from_yaml as read
from anondata.transforms.base import RegionTransform

PLAIN = """
name: plain
content:
  image:
    detect: [centerface]
    regions:
      face:
        ladder: [fill]
        verify: [self_match]
"""
MINE = __name__


def from_yaml(text: str) -> Policy:
    return read(text, own_code=[MINE])


def with_detector(written: str) -> str:
    return PLAIN.replace("[centerface]", f"[{written}]")


class Corner:
    """Nothing but what the protocol asks for."""

    def __init__(self, side: float = 24.0, *, note: Any = torch.float32) -> None:
        self.length = side

    def detect(self, views: Any) -> Regions:
        n = len(views)
        boxes = torch.tensor([[0.0, 0.0, self.length, self.length]]).repeat(n, 1)
        return Regions(torch.arange(n), boxes, torch.full((n, 5, 2), torch.nan), torch.ones(n), ("face",) * n)


class Lists:
    def detect(self, views: Any) -> Any:
        return [[0, 0, 10, 10] for _ in views]


class Elsewhere(Corner):
    def detect(self, views: Any) -> Regions:
        return super().detect(views).renumbered(-1)


class Blind:
    """Has no detect."""


class Breaks:
    def __init__(self) -> None:
        raise KeyError("who knows")


@dataclass
class Told(Corner):
    side: float = 24.0
    net: Any = field(default=None, init=False)

    @property
    def length(self) -> float:  # type: ignore[override]
        return self.side


class Tensors(Corner):
    def config(self) -> dict[str, Any]:
        return {"side": torch.tensor(1.0)}


class Technique:
    """As the gates would need it, but derived from nothing."""

    name, extent = "mine", 1.3

    def change(self, crops: Any, **_: Any) -> Any:
        return crops


class Gate:
    """Passes what it is told to."""

    embedders = ()

    def __init__(self, pass_all: bool = False) -> None:
        self.name, self.pass_all = "gate", pass_all

    def judge(self, probe: protocols.Probe) -> protocols.Verdicts:
        zeros = torch.zeros(len(probe.regions))
        passed = torch.full((len(probe.regions),), self.pass_all)
        return protocols.Verdicts(self.name, zeros, zeros, zeros, passed)


def test_a_detector_needs_detect_alone() -> None:
    outcome = Anonymizer(from_yaml(with_detector(f"'{MINE}:Corner': {{side: 30}}"))).anonymize(
        [np.full((64, 64, 3), 200, np.uint8)]
    )[0]
    assert outcome.released
    assert outcome.record.regions[0].box == (0, 0, 30, 30)
    assert (outcome.image[:30, :30] == 128).all()


def test_parameters_that_a_class_does_not_tell_are_what_the_policy_says_and_its_defaults() -> None:
    plain, given = (from_yaml(with_detector(f"'{MINE}:Corner'{p}")) for p in ("", ": {side: 30}"))
    assert plain.content["image"].detect[0].params == {"side": 24.0}  # what is no plain data is left out
    assert given.content["image"].detect[0].params == {"side": 30}
    assert plain.fingerprint != given.fingerprint
    assert from_yaml(given.to_yaml()) == given


def test_fields_of_a_dataclass_that_its_constructor_does_not_take_are_no_parameters() -> None:
    step = from_yaml(with_detector(f"'{MINE}:Told'")).content["image"].detect[0]
    assert step.params == {"side": 24.0}
    assert step.make().side == 24.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[centerface]", f"['{MINE}:Blind']"),
            "is not a detector: it has no 'detect'; see anondata.protocols.Detector",
        ),
        (("[centerface]", f"['{MINE}:Breaks']"), "cannot be made: its code raised KeyError"),
        (("[centerface]", f"['{MINE}:Tensors']"), "parameters of detector '.*Tensors' are not plain data"),
        (("[centerface]", f"['{MINE}:Corner': {{size: 3}}]"), "has no parameter 'size'"),
        (("[fill]", f"['{MINE}:Technique']"), "is not a technique; see anondata.transforms.base.RegionTransform"),
        (
            ("[self_match]", f"['{MINE}:Corner']"),
            "is not a verifier: it has no 'judge'; see anondata.protocols.Verifier",
        ),
        (("[self_match]", f"[all_of: {{gates: ['{MINE}:Corner']}}]"), "is not a verifier: it has no 'judge'"),
    ],
)
def test_what_a_component_lacks_is_said_when_the_policy_is_read(change: tuple[str, str], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        from_yaml(PLAIN.replace(*change))


def test_gates_among_gates_keep_the_parameters_that_they_were_given() -> None:
    text = PLAIN.replace("[self_match]", f"[all_of: {{gates: [self_match, '{MINE}:Gate': {{pass_all: true}}]}}]")
    policy = from_yaml(text)
    again = from_yaml(policy.to_yaml())
    assert again == policy
    assert again.content["image"].regions["face"].verify[0].make().gates[1].pass_all


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lists", "detector 'Lists' returned list; expected anondata.Regions"),
        ("Elsewhere", "'Elsewhere' returned regions of pictures that it was not shown"),
    ],
)
def test_what_is_returned_against_the_protocol_stops_the_run(name: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Anonymizer(from_yaml(with_detector(f"'{MINE}:{name}'"))).anonymize([np.zeros((32, 32, 3), np.uint8)])


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("cover", protocols.Cover),
        ("detector", protocols.Detector),
        ("pseudonyms", protocols.Pseudonyms),
        ("verifier", protocols.Verifier),
    ],
)
def test_what_is_checked_is_what_the_protocol_says(role: str, kind: type) -> None:
    assert set(NEEDED[role]) == {name for name in vars(kind) if not name.startswith("_")}


def test_techniques_are_checked_for_what_their_base_has() -> None:
    assert all(
        name in dir(RegionTransform) or name in RegionTransform.__annotations__ for name in NEEDED["technique"]
    )
