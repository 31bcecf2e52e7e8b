"""What the engine hands out: a released sample or a reason, and the record of how it came to be.

Records hold numbers and names of techniques. They never hold pixels, embeddings, keys or field values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from anondata.samples import Sample


@dataclass(frozen=True)
class Verdict:
    """What one verifier said of one region.

    Args:
        verifier: its name.
        score_before, score_after: its score of the original and of the result, in its own unit.
        threshold: the bound that ``score_after`` was compared with.
        passed: whether the region may be released, as far as this verifier can tell.
        parts: the verdicts that this one is composed of.
    """

    verifier: str
    score_before: float
    score_after: float
    threshold: float
    passed: bool
    parts: tuple[Verdict, ...] = ()

    def leaves(self) -> Iterator[Verdict]:
        """This verdict, or those that it is composed of."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class RegionRecord:
    """How one region was made safe, or was not.

    Args:
        place: the field that it is in; ``"frames[2]"`` in a list, or of several pictures in one file.
        box: x0, y0, x1, y1 in pixels, as it was detected.
        kind: such as ``"face"``.
        size_px: the geometric mean of its sides.
        score: the detector's.
        found_by: ``"given"`` if it came with the sample, ``"detect"``, ``"scan"`` if the first pass missed it, or
            ``"held"`` where no detector saw it, between others of the same region.
        tiny: whether it went through the ladder for tiny regions.
        rung: the index on its ladder, from 0.
        technique: what was done in the end; empty if the region was spared.
        verdicts: what the gates said of the result.
        spared: it was left as it was, because the policy does not cover the person.
        denied: it was left as it was, because the publisher marked it as not a face and no gallery may know it. It
            counts as spared, too.
    """

    place: str
    box: tuple[float, float, float, float]
    kind: str
    size_px: float
    score: float
    found_by: str
    tiny: bool
    rung: int
    technique: str
    verdicts: tuple[Verdict, ...] = ()
    spared: bool = False
    denied: bool = False


@dataclass(frozen=True)
class SampleRecord:
    """What was done to one sample.

    Args:
        regions: all regions that were found or given.
        notes: words on the decoding: ``"every_frame"`` of a file all of whose pictures were changed,
            ``"first_frame_only"`` of one of which only the first came out, because the policy has no ``frames``.
            ``"marked_as_no_face"``: a found face stayed as it was, because the publisher marked it so;
            ``"marked_as_no_face_but_changed"``: it was changed all the same.
        scans: how often the output was looked through.
    """

    regions: tuple[RegionRecord, ...] = ()
    notes: tuple[str, ...] = ()
    scans: int = 0


@dataclass(frozen=True)
class Released:
    """A sample that passed every check."""

    sample: Sample
    record: SampleRecord

    @property
    def released(self) -> bool:
        return True

    @property
    def image(self) -> object:
        """The field ``"image"``, for the common case of samples that hold one picture."""
        return self.sample["image"]


@dataclass(frozen=True)
class Withheld:
    """A sample that could not be made safe: why, and never the sample itself.

    Args:
        key: the sample's key.
        reason: one snake_case word, for counting.
        detail: a sentence for people that tells nothing of the sample.
        record: what was done before it was withheld.
    """

    key: str = field(repr=False)
    reason: str
    detail: str
    record: SampleRecord = field(default_factory=SampleRecord)

    @property
    def released(self) -> bool:
        return False


Outcome: TypeAlias = Released | Withheld
