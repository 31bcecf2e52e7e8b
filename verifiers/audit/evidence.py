"""What attackers of an audit may use, and how they say which photo a face is nearest to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from anondata.transforms.base import RegionTransform
from anondata.verifiers.audit import crops
from anondata.verifiers.audit.attacks import FaceTable
from anondata.verifiers.audit.crops import Alignment
from anondata.verifiers.audit.metrics import Bools, Floats, Integers
from anondata.verifiers.audit.rerun import releases_of

FOLDS = 5  # of the people: what is learnt is learnt on the people of the others


@dataclass(frozen=True, eq=False)
class Way:
    """One way of comparing faces in results with photos of candidates.

    how: in words. distances: ``(F, F)`` from each face in a result to each photo; NaN where a face cannot be used,
    or a photo is not the attacker's to have. network: whose templates are compared, empty for none.
    """

    how: str
    distances: Floats
    network: str = ""
    against: str = "originals"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that an attacker who knows all but the run key has, of ``F`` faces of known people.

    table: the faces and their templates. before, after: crops of originals and results, by alignment.
    technique: what the tool did, where that is known; it was then run again with other keys: ``singles (F, K, 3, S,
    S)`` uint8, and ``means`` of 2, 5, … runs ``(F, 3, S, S)``, by their number. All crops are in [0, 1] but the
    singles. places: ``(F, 4)`` height, width by height, and x and y of the middle of what covers hide, all but the
    second in sides of the photo.
    """

    table: FaceTable
    before: Mapping[Alignment, Floats] = field(repr=False)
    after: Mapping[Alignment, Floats] = field(repr=False)
    technique: RegionTransform | None = None
    singles: Floats | None = field(default=None, repr=False)
    means: Mapping[int, Floats] = field(default_factory=dict, repr=False)
    places: Floats | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.table.owners)

    @property
    def releases(self) -> tuple[int, ...]:
        """How many releases of one photo may be averaged."""
        if self.technique is None or not self.table.labelled:
            return ()
        return tuple(n for n in releases_of(self.technique) if n in self.means)

    @property
    def model(self) -> Floats | None:
        """``(F, 3, S, S)`` what the known technique makes of each photo but for its noise."""
        return self.means[max(self.means)] if self.means else None

    @cached_property
    def seen(self) -> Bools:
        """The area that an attack on the cover looks at: the face, and all that is covered.

        Without identities, the attacker has the very photos, whose uncovered pixels prove nothing: the cover alone,
        if there is one.
        """
        if self.table.labelled or not crops.side_of(self.covered):
            return self.covered | crops.face_area()
        return self.covered

    @cached_property
    def covered(self) -> Bools:
        """Where the tool covered, less a rim."""
        if self.technique is not None:
            return crops.covered_by(self.technique)
        return crops.eroded(self._changed, (1 - crops.INNER) / 2)

    @cached_property
    def around(self) -> Bools:
        """What lies outside of the face and of the cover."""
        touched = self._changed if self.technique is None else crops.touched_by(self.technique)
        return ~(touched | crops.face_area())

    @cached_property
    def _changed(self) -> Bools:
        pairs = zip(self.before["box"], self.after["box"], strict=True)
        apart = np.median([np.abs(a - b).mean(axis=0) for a, b in pairs], axis=0)
        changed: Bools = apart > crops.CHANGED
        return changed

    @cached_property
    def allowed(self) -> Bools:
        """``(F, F)``: a face in a result may be compared with a photo."""
        return self.table.comparable

    @cached_property
    def other_photo(self) -> Integers:
        """``(F,)`` another photo of the same person, -1 where there is none; the same one without identities."""
        own = (self.table.owners[:, None] == self.table.owners) & self.allowed
        following = own[:, np.r_[: len(own), : len(own)]]  # the first after one's own place, all the way round
        places = np.arange(len(own))
        following &= np.arange(2 * len(own)) > places[:, None]
        found = np.where(own.any(axis=1), following.argmax(axis=1) % len(own), -1)
        return found if self.table.labelled else places

    @cached_property
    def folds(self) -> Integers:
        """``(F,)`` to which part of the people each face belongs."""
        return self.table.owners % FOLDS

    @property
    def areas(self) -> tuple[float, ...]:
        """Sides of the areas that are divided into cells, relative to the box: the face's, and the cover's."""
        whole = crops.side_of(self.covered)
        if whole and not self.table.labelled:
            return (whole,)
        return (1.0, crops.FACE, whole) if whole > crops.FACE + 0.05 else (1.0, crops.FACE)


class Attacker(Protocol):
    """One who knows everything but the run key.

    name: in audits and policies. counts: whether the composite attacker takes its ways, too.
    """

    @property
    def name(self) -> str: ...
    @property
    def counts(self) -> bool: ...

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        """All that it tries. Whatever is learnt is learnt on other people than it is tried on."""
        ...


def euclidean(probes: Floats, gallery: Floats) -> Floats:
    """``(P, G)``, exact for near rows."""
    a, b = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float64)) for side in (probes, gallery))
    found: Floats = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return found


def even(distances: Floats, allowed: Bools) -> Floats:
    """Distances less each row's mean, by its spread, so that ways and rows can be compared; NaN where not allowed."""
    open_ = np.where(allowed, distances, np.nan)
    usable = np.isfinite(open_).any(axis=1)
    out = np.full_like(open_, np.nan)
    rows = open_[usable]
    if not len(rows):
        return out
    middle, spread = np.nanmean(rows, axis=1, keepdims=True), np.nanstd(rows, axis=1, keepdims=True)
    flat = spread <= 1e-9 * np.maximum(1.0, np.abs(middle))
    out[usable] = np.where(
        np.isfinite(rows), np.where(flat, 0.0, (rows - middle) / np.where(flat, 1.0, spread)), rows
    )
    return out


def named(distances: Floats, owners: Integers, allowed: Bools) -> Floats:
    """``(F,)`` how likely each face is named by the nearest photo, ties broken at random; NaN where it cannot be."""
    open_ = np.where(allowed & np.isfinite(distances), distances, np.inf)
    own = (owners[:, None] == owners) & np.isfinite(open_)
    nearest = open_.min(axis=1, initial=np.inf)
    tied = np.isfinite(open_) & (open_ <= nearest[:, None] + 1e-6)
    with np.errstate(invalid="ignore"):
        found: Floats = (tied & own).sum(axis=1) / tied.sum(axis=1)
    return np.where(own.any(axis=1), found, np.nan)


def _halves(owners: Integers) -> list[tuple[Bools, Bools]]:
    """(chosen on, judged on), both ways round; even and odd numbers of people are mixed in each fold of five."""
    odd = owners % 2 == 1
    return [(~odd, odd), (odd, ~odd)]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best of several ways, chosen on one half of the people and judged on the other, both ways round."""

    how: str
    distances: Floats


MIN_PEOPLE = 8  # in all; of fewer, a half chooses by luck


def best_of(ways: Sequence[Way], evidence: Evidence) -> Chosen:
    """One way for each half of the people: the best of the other half.

    With fewer than :data:`MIN_PEOPLE` people the one that is best of all, which flatters the attacker.
    """
    owners, allowed = evidence.table.owners, evidence.allowed
    rows = [even(way.distances, allowed) for way in ways]
    tried = [*zip((way.how for way in ways), rows, strict=True)]
    if len(rows) > 2:
        tried.append(("the mean of all", _mean_of(rows)))
    marks = np.stack([named(row, owners, allowed) + 0.01 * _closeness(row, owners, allowed) for _, row in tried])
    can = np.isfinite(marks).any(axis=0)
    if not can.any():
        return Chosen("", np.full_like(rows[0], np.nan))
    few = len(np.unique(owners[can])) < MIN_PEOPLE
    halves = [(can, np.ones_like(can))] if few else _halves(owners)
    out, told = np.full_like(rows[0], np.nan), []
    for chosen_on, judged_on in halves:
        scores = np.nan_to_num(marks[:, chosen_on & can], nan=0.0).mean(axis=1)
        best = int(scores.argmax())
        out[judged_on] = tried[best][1][judged_on]
        told.append(tried[best][0])
    return Chosen("; ".join(dict.fromkeys(told)), out)


def _mean_of(rows: Sequence[Floats]) -> Floats:
    """The mean of those that are there; NaN where none is."""
    total, there = np.zeros_like(rows[0]), np.zeros_like(rows[0])
    for row in rows:
        total += np.nan_to_num(row)
        there += np.isfinite(row)
    return np.where(there > 0, total / np.maximum(there, 1), np.nan)


def _closeness(row: Floats, owners: Integers, allowed: Bools) -> Floats:
    """``(F,)`` how far ahead of others the nearest own photo is, in [0, 1]: breaks ties between ways."""
    own = (owners[:, None] == owners) & allowed
    usable = np.isfinite(row) & allowed
    nearest = np.where(own & usable, row, np.inf).min(axis=1, initial=np.inf)
    ahead = ((row > nearest[:, None]) & usable).sum(axis=1) / np.maximum(1, usable.sum(axis=1))
    return np.where(np.isfinite(nearest), ahead, 0.0)
