"""What a run tells its user: one JSON object for programs, one table for people. Neither holds a file name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anondata.sources import others_in_words

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = "anondata.summary/1"


@dataclass(frozen=True)
class Summary:
    """The result of ``anondata anonymize``.

    samples: sources that this run was to do; equals released + all withheld + not_reached.
    released, withheld: how they stand now, whichever run did the work; withheld by reason.
    skipped_done: of these, done by an earlier run. not_reached: left over by an interruption or failure.
    regions: in the released samples. others, hidden: in the folders, left alone and not written; by suffix.
    outputs_without_source: released by an earlier run from sources that this one does not name; left in DST.
    unknown_files: in DST, that no run wrote and nobody verified; more than none is a failure.
    seconds, images_per_s: of this run's own work, None when there was none.
    first_withheld: why the first sample was withheld that this run looked at, for people.
    report: path of report.json, None when the run did not come to its end. error: why it did not.
    """

    policy: str
    fingerprint: str
    samples: int
    released: int
    withheld: Mapping[str, int]
    skipped_done: int
    not_reached: int
    regions: int
    others: Mapping[str, int]
    hidden: int
    outputs_without_source: int
    unknown_files: int
    seconds: float
    images_per_s: float | None
    report: str | None
    exit_code: int
    error: str | None = None
    first_withheld: str = ""

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``: every attribute under its name, the two kinds of files left alone together."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        left = {"other_files": sum(body.pop("others").values()), "hidden": body.pop("hidden")}
        body.pop("first_withheld")
        return {"format": FORMAT, **body, "withheld": dict(sorted(self.withheld.items())), "left_alone": left}

    def show(self, console: Console) -> None:
        """Prints the table."""
        from rich.table import Table

        table = Table(title=f"policy {self.policy}", show_header=False, title_justify="left", min_width=44)
        table.add_column()
        table.add_column(justify="right")
        for words, value in self._rows():
            table.add_row(words, value)
        console.print(table)
        if self.first_withheld:
            console.print(f"first withheld: {self.first_withheld}", soft_wrap=True, highlight=False, markup=False)
        if self.others or self.hidden:
            told = others_in_words(self.others, self.hidden)
            console.print(f"left alone: {told}", soft_wrap=True, highlight=False, markup=False)
        if self.outputs_without_source:
            console.print(
                f"left in DST: {self.outputs_without_source} outputs whose sources were not named this time"
            )
        if self.unknown_files:
            console.print(
                f"[red]{self.unknown_files} files in DST were not written by anondata and are not verified[/]; "
                "take them out before anything is published"
            )
        if self.report:
            console.print(f"report: {self.report}", soft_wrap=True, highlight=False)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("samples", str(self.samples)), ("released", f"[green]{self.released}[/]")]
        rows += [(f"withheld: {why}", f"[yellow]{n}[/]") for why, n in sorted(self.withheld.items())]
        if self.not_reached:
            rows.append(("not reached", f"[red]{self.not_reached}[/]"))
        if self.skipped_done:
            rows.append(("done by an earlier run", str(self.skipped_done)))
        rows.append(("regions anonymized", str(self.regions)))
        if self.images_per_s is not None:
            rows.append(("images per second", f"{self.images_per_s:.2f}"))
        return rows


@dataclass
class Tally:
    """Counts of a run while it goes on."""

    released: int = 0
    withheld: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    regions: int = 0

    @property
    def done(self) -> int:
        return self.released + sum(self.withheld.values())

    def add(self, reason: str, regions: int, *, skipped: bool = False) -> None:
        """Counts a sample: released when there is no reason."""
        self.skipped += skipped
        if reason:
            self.withheld[reason] = self.withheld.get(reason, 0) + 1
        else:
            self.released += 1
            self.regions += regions
