"""What an enrolment tells its user: one JSON object for programs, one table for people. Neither holds a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from anondata.tools import cli

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from anondata.verifiers.gallery.enrolment import Enrolled

FORMAT = "anondata.enrolment/1"

NOT_ENCRYPTED = (
    "[yellow]not encrypted[/]: the file is biometric data of the people in it. A key (--key-file, or "
    "ANONDATA_GALLERY_KEY) encrypts it"
)
_NO_NAMES = "; nothing says who is in them: --identity COLUMN names the column or field that does"


@dataclass(frozen=True)
class Doubtful:
    """What a person should look at, in numbers.

    look_alikes: pairs of people who look like one; nearest: how far the nearest two are from each other.
    photos, by_chance: of how many photos that is true, and of how many it would be were nobody there twice.
    astray: photos that are near to no other one of their person.
    """

    look_alikes: int
    nearest: float | None
    photos: int
    by_chance: float
    astray: int


@dataclass(frozen=True)
class EnrolSummary:
    """The result of ``anondata gallery build`` and ``add``.

    photos: of the sources; equals taken + all refused. refused: by reason. people_left_out: named in the sources and
        not in the gallery, because none of their photos was taken.
    doubtful: None where it was not looked for, because that takes hours or the embedder has no calibration.
    gallery: what ``anondata gallery info`` tells of the file, None where nothing was written.
    resumed: photos that an earlier run had done. photos_per_s: of this run's own.
    """

    photos: int
    taken: int
    refused: Mapping[str, int]
    people_left_out: int
    doubtful: Doubtful | None
    gallery: Mapping[str, Any] | None
    encrypted: bool
    resumed: int
    seconds: float
    photos_per_s: float | None
    exit_code: int
    error: str

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``: every attribute under its name."""
        return {"format": FORMAT, **asdict(self), "error": self.error or None}

    def show(self, console: Console) -> None:
        """Prints the table, and what it does not say."""
        from rich.table import Table

        table = Table(title="enrolment", show_header=False, title_justify="left", min_width=44)
        table.add_column()
        table.add_column(justify="right")
        for words, value in self._rows():
            table.add_row(words, value)
        console.print(table)
        for line in self._remarks():
            console.print(line, highlight=False)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("photos", str(self.photos)), ("taken", f"[green]{self.taken}[/]")]
        rows += [(f"refused: {why}", f"[yellow]{n}[/]") for why, n in self.refused.items()]
        if self.people_left_out:
            rows.append(("people left out", f"[yellow]{self.people_left_out}[/]"))
        if self.resumed:
            rows.append(("done by an earlier run", str(self.resumed)))
        if self.photos_per_s is not None:
            rows.append(("photos per second", f"{self.photos_per_s:.2f}"))
        return rows + (gallery_rows(self.gallery) if self.gallery else [])

    def _remarks(self) -> list[str]:
        lines, found = [], self.doubtful
        if self.gallery and found is None:
            lines.append(
                "not looked for: people under two names, photos under a wrong one (too many, or no calibration)"
            )
        if found and found.look_alikes:
            lines.append(
                f"[yellow]{found.look_alikes} pairs of people look alike[/], the nearest {found.nearest:.2f} apart; "
                f"{found.photos} photos, where chance alone gives {found.by_chance:.1f}"
            )
        if found and found.astray:
            lines.append(f"[yellow]astray: {found.astray} photos[/] are near to no other one of their person")
        return [*lines, NOT_ENCRYPTED] if self.gallery and not self.encrypted else lines


def summarize(done: Enrolled, file: Path, *, resumed: int, seconds: float) -> EnrolSummary:
    """What to tell of an enrolment whose gallery lies in a file, unless nobody was taken."""
    from anondata.verifiers.gallery.sealed import inspect

    refused = Counter(refusal.reason for refusal in done.refusals)
    photos = done.taken + len(done.refusals)
    code = cli.FAILURE if not done.taken else cli.SOME_WITHHELD if refused else cli.OK
    return EnrolSummary(
        photos=photos,
        taken=done.taken,
        refused=dict(sorted(refused.items())),
        people_left_out=done.people_left_out,
        doubtful=_doubtful(done) if done.doubted else None,
        gallery=done.gallery.info() if done.taken else None,
        encrypted=bool(done.taken) and inspect(file).encrypted,
        resumed=resumed,
        seconds=round(seconds, 3),
        photos_per_s=round((photos - resumed) / seconds, 3) if photos > resumed and seconds else None,
        exit_code=code,
        error="" if done.taken else _nobody(photos, refused),
    )


def _doubtful(done: Enrolled) -> Doubtful:
    nearest = round(done.look_alikes[0].distance, 4) if done.look_alikes else None
    return Doubtful(len(done.look_alikes), nearest, done.near, round(done.by_chance, 1), len(done.astray))


def _nobody(photos: int, refused: Mapping[str, int]) -> str:
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items()))
    hint = _NO_NAMES if set(refused) == {"no_identity"} else ""
    return f"nobody was enrolled, nothing was written: {photos} photos refused ({why}){hint}"


def gallery_rows(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The table's rows about a gallery."""
    fewest, most = info["templates_per_identity"]
    index = info["index"]
    told = "exact, by brute force"
    if index:
        told = f"{index['cells']} cells, recall {index['recall']:.5f} (at least {index['recall_low']:.5f})"
    return [
        ("role", info["role"]),
        ("people", str(info["identities"])),
        ("templates", f"{info['templates']} ({fewest} to {most} each)"),
        ("portraits kept", str(info["portraits"])),
        ("embedder", info["embedder"]),
        ("search", told),
        ("fingerprint", info["fingerprint"]),
    ]
