"""A flow that writes: it remembers originals for the leak scan, and counts what a file will deliver."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from anondata.ledger.costs import total
from anondata.loaders._flow import Flow, OnWithheld, Read, Row, Settled
from anondata.loaders._reports import Reports
from anondata.loaders.leaks import Traces
from anondata.records import Outcome, Released
from anondata.samples import Sample, Schema


@dataclass
class TracedTally:
    """What goes into a file.

    left: how many rows may still; None for all. rows: numbers of those that did, -1 where another stands in.
    cost: of them together, where there is an account. originals: keyed digests of what their pictures were made of.
    """

    left: int | None = None
    rows: list[int] = field(default_factory=list)
    cost: dict[str, dict[str, int]] = field(default_factory=dict)
    originals: list[str] = field(default_factory=list)
    _seen: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def see(self, key: str, originals: tuple[str, ...]) -> None:
        """Remembers what a sample of a key was made of."""
        self._seen[key] = originals

    def add(self, number: int, settled: Settled) -> None:
        if settled.given is not None:
            self.rows.append(-1 if settled.reason else number)
            self.cost = total([self.cost, settled.given.cost])
            self.originals += self._seen[settled.given.key]
            self.left = None if self.left is None else self.left - 1


@dataclass(frozen=True)
class Traced(Flow):
    """Charges nothing: a file is charged as a whole, before it is put in place."""

    traces: Traces = field(default_factory=Traces)
    tally: TracedTally = field(default_factory=TracedTally)

    def outcomes(self, rows: Sequence[Row], schema: Schema | None = None) -> list[Outcome]:
        """Also of rows that are read to stand in for others."""
        out = super().outcomes(rows, schema)
        names = (schema or self.schema).content()
        for row, outcome in zip(rows, out, strict=True):
            if isinstance(row, Sample):
                originals = {name: row[name] for name in names if name in row.fields}
                given = outcome.sample.fields if isinstance(outcome, Released) else {}
                released = {name: value for name, value in given.items() if name in names}
                kept = {name: value for name, value in given.items() if name not in names}
                self.traces.add(originals, outcome.record, released, kept)
                self.tally.see(row.key, self.originals(originals))
        return out

    def fetch(
        self,
        indices: Sequence[int],
        read: Read,
        candidates: Callable[[Hashable], Sequence[int]],
        groups: Sequence[Hashable] | None = None,
    ) -> list[Settled]:
        """No more rows than may still be written are even looked at."""
        out, at = list[Settled](), 0
        while at < len(indices) and self.tally.left != 0:
            end = len(indices) if self.tally.left is None else min(at + self.tally.left, len(indices))
            now, own = indices[at:end], None if groups is None else groups[at:end]
            settled = super().fetch(now, read, candidates, own)
            for number, each in zip(now, settled, strict=True):
                self.tally.add(int(number), each)
            out, at = out + settled, end
        return out

    def paid_whole(self, settled: list[Settled]) -> list[Settled]:
        return settled


def traced(flow: Flow, on_withheld: OnWithheld, reports: Reports, tally: TracedTally) -> Traced:
    """The same flow as one that writes a file."""
    same: Mapping[str, object] = {part.name: getattr(flow, part.name) for part in fields(Flow)}
    told = {**same, "on_withheld": on_withheld, "reports": reports, "tally": tally}
    return Traced(**told)  # type: ignore[arg-type]  # the fields of a Flow have the types that it takes
