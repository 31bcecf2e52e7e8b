"""What a run tells its user: one JSON object for programs, one table for people. Neither holds a file name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anondata.errors import AnondataError, PolicyError
from anondata.sources import others_in_words
from anondata.tools import cli

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.loaders.files.job import Files
    from anondata.policy import Policy

FORMAT = "anondata.summary/1"


@dataclass(frozen=True)
class Summary:
    """The result of ``anondata anonymize``. policy: that was applied. result: what the run left behind."""

    policy: Policy
    result: Files

    @property
    def exit_code(self) -> int:
        result = self.result
        if result.error is not None:
            return cli.USAGE if isinstance(result.error, PolicyError) else cli.FAILURE
        if result.interrupted:
            return cli.INTERRUPTED
        return cli.FAILURE if result.unknown else cli.SOME_WITHHELD if result.withheld else cli.OK

    @property
    def error(self) -> str | None:
        """Why the run did not come to its end, in words without names."""
        error = self.result.error
        if error is not None:
            return str(error) if isinstance(error, AnondataError) else type(error).__name__
        return "interrupted; the same command goes on from here" if self.result.interrupted else None

    @property
    def images_per_s(self) -> float | None:
        result = self.result
        own = result.samples - result.not_reached - result.skipped
        return round(own / result.seconds, 3) if own and result.seconds else None

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        result = self.result
        return {
            "format": FORMAT,
            "policy": self.policy.name,
            "fingerprint": self.policy.fingerprint,
            "samples": result.samples,
            "released": result.released,
            "withheld": dict(sorted(result.withheld.items())),
            "skipped_done": result.skipped,
            "not_reached": result.not_reached,
            "regions": result.regions,
            "outputs_without_source": result.orphans,
            "unknown_files": result.unknown,
            "seconds": round(result.seconds, 3),
            "images_per_s": self.images_per_s,
            "report": str(result.report_path) if result.report_path else None,
            "exit_code": self.exit_code,
            "error": self.error,
            "left_alone": {"other_files": sum(result.others.values()), "hidden": result.hidden},
        }

    def show(self, console: Console) -> None:
        """Prints the table."""
        from rich.table import Table

        result = self.result
        table = Table(title=f"policy {self.policy.name}", show_header=False, title_justify="left", min_width=44)
        table.add_column()
        table.add_column(justify="right")
        for words, value in self._rows():
            table.add_row(words, value)
        console.print(table)
        if result.first_withheld:
            console.print(f"first withheld: {result.first_withheld}", soft_wrap=True, highlight=False, markup=False)
        if result.others or result.hidden:
            told = others_in_words(result.others, result.hidden)
            console.print(f"left alone: {told}", soft_wrap=True, highlight=False, markup=False)
        if result.orphans:
            console.print(f"left in DST: {result.orphans} outputs whose sources were not named this time")
        if result.unknown:
            console.print(
                f"[red]{result.unknown} files in DST were not written by anondata and are not verified[/]; "
                "take them out before anything is published"
            )
        if result.report_path:
            console.print(f"report: {result.report_path}", soft_wrap=True, highlight=False)

    def _rows(self) -> list[tuple[str, str]]:
        result = self.result
        rows = [("samples", str(result.samples)), ("released", f"[green]{result.released}[/]")]
        rows += [(f"withheld: {why}", f"[yellow]{n}[/]") for why, n in sorted(result.withheld.items())]
        if result.not_reached:
            rows.append(("not reached", f"[red]{result.not_reached}[/]"))
        if result.skipped:
            rows.append(("done by an earlier run", str(result.skipped)))
        rows.append(("regions anonymized", str(result.regions)))
        if self.images_per_s is not None:
            rows.append(("images per second", f"{self.images_per_s:.2f}"))
        return rows
