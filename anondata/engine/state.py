"""What the engine's loop keeps in mind of a sample that it works on. Nothing here leaves the engine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anondata.engine.rules import KindRules
from anondata.protocols import ContentType, Verdicts, Verifier
from anondata.records import RegionRecord, Verdict
from anondata.regions import Box, Regions, cat_regions, empty_regions
from anondata.transforms.base import RegionTransform, describe

HELD = "held"
"""How a region was found that no detector saw, where it must be by what was seen before and after."""

log = logging.getLogger("anondata")


@dataclass(eq=False)
class RegionState:
    """One region on its way up the ladder."""

    region: Regions
    rules: KindRules
    found_by: str
    order: int = 0
    look: int = -1  # the order of the first of those that look alike, because they are one that stays
    rung: int = 0
    patch: Any = None
    before: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    person: str = ""  # who it is to the policy's pseudonyms
    marked: bool = False  # as no face, by the publisher

    @property
    def size_px(self) -> float:
        return float(self.region.sizes.prod().sqrt())

    @property
    def held(self) -> bool:
        return self.found_by == HELD

    @property
    def tiny(self) -> bool:
        return self.size_px < self.rules.tiny_below_px

    @property
    def on_last_rung(self) -> bool:
        return self.rung + 1 >= len(self.rules.steps(self.tiny))

    @property
    def technique(self) -> RegionTransform:
        return self.rules.steps(self.tiny)[self.rung]

    @property
    def covered(self) -> Regions:
        """What its technique is to cover."""
        return self.rules.covered(self.region, self.technique)

    @property
    def judges(self) -> tuple[Verifier, ...]:
        """Who must pass it. Utility is not asked of what is filled because nothing else would do."""
        given_up = self.rules.fills and self.on_last_rung
        return self.rules.verifiers if given_up else (*self.rules.verifiers, *self.rules.utility)

    @property
    def passed(self) -> bool:
        """Tiny regions are exempt; every other needs a verdict of each of its judges, all of them passes."""
        if self.tiny:
            return True
        return len(self.verdicts) == len(self.judges) > 0 and all(v.passed for v in self.verdicts)

    @property
    def failed_by(self) -> str:
        return ", ".join(v.verifier for v in self.verdicts if not v.passed) or "verification"

    def record(self, place: str, box: Box, *, spared: bool = False) -> RegionRecord:
        x0, y0, x1, y1 = (round(value, 1) for value in box)
        return RegionRecord(
            place=place,
            box=(x0, y0, x1, y1),
            kind=self.region.kinds[0],
            size_px=round(self.size_px, 1),
            score=round(float(self.region.scores[0]), 4),
            found_by=self.found_by,
            tiny=self.tiny,
            rung=self.rung,
            technique="" if spared else describe(self.technique),
            verdicts=self.verdicts,
            spared=spared,
            denied=spared and self.marked,
        )


@dataclass(eq=False)
class Item:
    """One value of one sample.

    field: the field that it is in. name: its place there; the field's name unless the field holds a list.
    kind: the content type that takes it; the declared one, or one that is for such values in its fields.
    spared: regions that the policy does not cover, left as they are. given: regions that came with the sample.
    denied: boxes that came with it of what is no face.
    """

    sample: int
    field: str
    name: str
    key: str
    media: Any
    kind: str = ""
    states: list[RegionState] = dataclasses.field(default_factory=list)
    spared: list[RegionState] = dataclasses.field(default_factory=list)
    scans: int = 0
    value: Any = None
    shown: Any = None
    failure: tuple[str, str] | None = None
    raises: bool = False
    given: Regions = dataclasses.field(default_factory=empty_regions)
    denied: Regions = dataclasses.field(default_factory=empty_regions)

    def fail(self, reason: str, detail: str, *, raises: bool = False) -> None:
        self.failure, self.raises, self.value, self.shown = (reason, detail), raises, None, None

    def blame(self, error: Exception) -> None:
        """An unforeseen error withholds its sample. Its text is not logged: it could quote the sample."""
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        place = f"{where.tb_frame.f_globals.get('__name__')}:{where.tb_lineno}" if where else "unknown place"
        log.error("a sample was withheld because of %s at %s", type(error).__name__, place)
        self.states.clear()
        self.fail("error", f"{type(error).__name__} at {place}")

    def fresh(self) -> Item:
        return Item(
            self.sample,
            self.field,
            self.name,
            self.key,
            self.media,
            self.kind,
            given=self.given,
            denied=self.denied,
        )

    def follow(self, content: ContentType[Any]) -> bool:
        """Gives what is one region that stays one look and one rung; returns whether anybody is spared no more.

        Nobody stays as they are in one place whom the rules change in another.
        """
        states, before = [*self.states, *self.spared], len(self.spared)
        if not states:
            return False
        groups: dict[int, list[RegionState]] = {}
        labels = content.followed(self.media, cat_regions([t.region for t in states], states[0].region.boxes.device))
        for label, state in zip(labels, states, strict=True):
            groups.setdefault(label, []).append(state)
        for group in groups.values():
            if any(t in self.states for t in group):
                self._change([t for t in group if t in self.spared])
                _as_one(group)
        return len(self.spared) < before

    def _change(self, spared: Sequence[RegionState]) -> None:
        """Spares some no more."""
        for state in spared:
            state.order = len(self.states)
            self.states.append(state)
        self.spared = [state for state in self.spared if state not in spared]

    def with_alike(self, chosen: Sequence[RegionState]) -> list[RegionState]:
        """Some of its regions, and those that look like one of them. What is held changes nobody else."""
        looks = {(t.look, t.tiny) for t in chosen if not t.held}
        return [t for t in self.states if t in chosen or (t.look, t.tiny) in looks]

    def in_order(self) -> list[RegionState]:
        """As they are laid on: by layer; in one, what covers more, or was pushed further, comes last and wins."""
        return sorted(self.states, key=lambda t: (t.rules.layer, t.rung, t.size_px))

    def patches(self) -> list[Any]:
        return [t.patch for t in self.in_order()]

    def hiding(self, kind: str) -> list[tuple[Any, bool]]:
        """The patches that there are, in order, each with whether it hides regions of a kind.

        Only one that was made for it does, or one that leaves nothing: a styled person still has a face.
        """
        laid = [t for t in self.in_order() if t.patch is not None]
        return [(t.patch, t.technique.erases or kind in t.region.kinds) for t in laid]

    @property
    def notes(self) -> tuple[str, ...]:
        """Words on what the publisher marked as no face."""
        left = ("marked_as_no_face",) if any(t.marked for t in self.spared) else ()
        return (*left, "marked_as_no_face_but_changed") if any(t.marked for t in self.states) else left

    def records(self, content: ContentType[Any]) -> list[RegionRecord]:
        states = [*self.states, *self.spared]
        if not states:
            return []
        regions = cat_regions([t.region for t in states], states[0].region.boxes.device)
        return [
            state.record(self.name + within, box, spared=state in self.spared)
            for state, (within, box) in zip(states, content.places(self.media, regions), strict=True)
        ]


def _as_one(group: Sequence[RegionState]) -> None:
    """Gives some regions the look of their first, on the rung of those that went furthest; what changes is redone.

    Where nobody is seen, what is held may be on a higher rung than the others.
    """
    look = min(t.order for t in group)
    for tiny in {t.tiny for t in group}:
        alike = [t for t in group if t.tiny == tiny]
        least = max((t.rung for t in alike if not t.held), default=0)
        if any(t.look != look or t.patch is None or t.rung < least for t in alike):
            for state in alike:
                state.look, state.rung, state.patch = look, max(state.rung, least), None


def rows_of(verdicts: Verdicts, count: int) -> list[Verdict]:
    """A verdict for each of ``count`` regions.

    Raises:
        ValueError: verdicts that are not ``(count,)``, or not bool.
    """
    columns = (verdicts.before, verdicts.after, verdicts.threshold, verdicts.passed & verdicts.after.isfinite())
    if any(column.shape != (count,) for column in columns) or verdicts.passed.dtype != torch.bool:
        raise ValueError("a verifier returned verdicts of the wrong shape or type")
    parts = list(zip(*(rows_of(part, count) for part in verdicts.parts), strict=True)) or [()] * count
    rows = zip(*(column.tolist() for column in columns), parts, strict=True)
    return [
        Verdict(verdicts.verifier, round(b, 5), round(a, 5), round(threshold, 5), bool(ok), own)
        for b, a, threshold, ok, own in rows
    ]
