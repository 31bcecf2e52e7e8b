"""What ``anondata shards`` tells its user: one JSON object for programs, one table for people, without any name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anondata.errors import AnondataError, PolicyError, QuotaExceeded, UndeclaredFieldError
from anondata.tools import cli

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.loaders.shards import Shards

FORMAT = "anondata.shards/1"


@dataclass(frozen=True)
class ShardsSummary:
    """A run and how it is told."""

    result: Shards

    @property
    def exit_code(self) -> int:
        result = self.result
        if result.error:
            return cli.USAGE if isinstance(result.error, PolicyError | UndeclaredFieldError) else cli.FAILURE
        if result.interrupted:
            return cli.INTERRUPTED
        if result.failed or result.unknown:
            return cli.FAILURE
        return cli.SOME_WITHHELD if result.report.withheld else cli.OK

    @property
    def words(self) -> str | None:
        """Why the run did not come to a good end; None when it did."""
        result = self.result
        if result.error:
            return str(result.error) if isinstance(result.error, AnondataError) else type(result.error).__name__
        if result.interrupted:
            return "interrupted; the same command goes on from here"
        if result.failed:
            failed = f"{len(result.failed)} of {result.shards} shards could not be done"
            return f"{failed}; repair or leave them out, and the same command does the rest"
        return None

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``.

        shards = done + failed + not_reached; skipped_done of them were done by earlier runs. samples, released and
        withheld are those of all shards that are done. report, index: names in DST, None while they are not written.
        """
        result, report = self.result, self.result.report
        stopped = result.error is not None and not isinstance(result.error, QuotaExceeded)
        ended = not (stopped or result.interrupted or self._stopped)
        return {
            "format": FORMAT,
            "policy": report.policy,
            "fingerprint": report.fingerprint,
            "shards": result.shards,
            "done": result.done,
            "skipped_done": result.skipped,
            "failed": [{"shard": number, "error": str(error)} for number, error in result.failed.items()],
            "not_reached": self._not_reached,
            "samples": report.seen,
            "released": report.released,
            "withheld": dict(sorted(report.withheld.items())),
            "instead": dict(report.counts.get("instead", {"dropped": 0, "replaced": 0})),
            "written": result.samples,
            "left_alone": result.left_alone,
            "outputs_without_source": result.orphans,
            "unknown_files": result.unknown,
            "seconds": round(result.seconds, 3),
            "samples_per_s": round(result.seen / result.seconds, 3) if result.seen and result.seconds else None,
            "report": "report.json" if ended else None,
            "index": "index.json" if ended else None,
            "exit_code": self.exit_code,
            "error": self.words,
        }

    @property
    def _not_reached(self) -> int:
        return self.result.shards - self.result.done - len(self.result.failed)

    @property
    def _stopped(self) -> bool:
        return bool(self.result.failed) and self._not_reached > 0

    def show(self, console: Console) -> None:
        """Prints the table, and what needs attention."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"policy {self.result.report.policy}", show_header=False, title_justify="left")
        table.add_column(min_width=30)
        table.add_column(justify="right")
        for words, value in self._rows():
            table.add_row(words, value)
        console.print(table)
        if self.result.first_withheld:
            words = f"first withheld: {self.result.first_withheld}"
            console.print(words, soft_wrap=True, highlight=False, markup=False)
        for error in self.result.failed.values():
            console.print(f"[red]failed[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        if self.result.left_alone:
            console.print(f"left alone: {self.result.left_alone} files in shards that are no part of a sample")
        if self.result.orphans:
            console.print(f"left in DST: {self.result.orphans} shards whose sources were not named this time")
        if self.result.unknown:
            console.print(
                f"[red]{self.result.unknown} files in DST were not written by anondata and are not verified[/]; "
                "take them out before anything is published"
            )

    def _rows(self) -> list[tuple[str, str]]:
        result, report = self.result, self.result.report
        rows = [("shards done", f"{result.done} of {result.shards}"), ("samples", str(report.seen))]
        rows.append(("released", f"[green]{report.released}[/]"))
        rows += [(f"withheld: {why}", f"[yellow]{n}[/]") for why, n in sorted(report.withheld.items())]
        rows += [(f"of these {what}", str(n)) for what, n in sorted(report.counts.get("instead", {}).items()) if n]
        if result.skipped:
            rows.append(("shards done by an earlier run", str(result.skipped)))
        if result.seen and result.seconds:
            rows.append(("samples per second", f"{result.seen / result.seconds:.2f}"))
        return rows
