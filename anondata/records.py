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

    score_before, score_after: the verifier's score of the original and of the result, in the verifier's unit.
    threshold: the bound that ``score_after`` was held against. parts: the verdicts that this one is composed of.
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

    place: the field that it is in, ``"frames[2]"`` in a list. box: x0, y0, x1, y1 in pixels, as it was detected.
    size_px: the geometric mean of its sides. found_by: ``"given"`` when it came with the sample, ``"detect"``, or
    ``"scan"`` when the first pass missed it.
    rung: index on its ladder, from 0. technique: what was done in the end. tiny: on the ladder for tiny regions.
    spared: left as it was, because the policy does not cover whose it is; then there is no technique.
    denied: left as it was, because the publisher marked it as no face and no gallery may know it; spared, too.
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

    notes: words on the decoding, such as ``"first_frame_only"``, and ``"marked_as_no_face"`` where a face that was
    found stayed as it was because of that (``…_but_changed`` where it did not). scans: passes of the output scan.
    """

    regions: tuple[RegionRecord, ...] = ()
    notes: tuple[str, ...] = ()
    scans: int = 0


@dataclass(frozen=True)
class Released:
    """A sample whose every check passed."""

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

    reason: one snake_case word for counting. detail: a sentence for people, without anything of the sample.
    """

    key: str = field(repr=False)
    reason: str
    detail: str
    record: SampleRecord = field(default_factory=SampleRecord)

    @property
    def released(self) -> bool:
        return False


Outcome: TypeAlias = Released | Withheld
