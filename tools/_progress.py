"""How far a run is: a bar on a terminal, a line every so often elsewhere. Both on stderr, without file names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.anonymizer import Anonymizer

EVERY_S = 15.0

Show = Callable[[int, int], None]
"""Takes how many samples are done, and how many of them are withheld."""


Count = Callable[[int], None]
"""Takes how many photos are done."""


ShowPhase = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""


ShowShards = Callable[[int, int, int, int], None]
"""Takes how many shards are done, samples seen, samples withheld, and shards failed."""


def now_and_then(console: Console) -> Callable[[str], None]:
    """Prints a line every so often, and drops those between."""
    last = time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            console.print(line, highlight=False)

    return say


@contextmanager
def progress(console: Console, total: int) -> Iterator[Show]:
    """Shows how far a run is while the context lasts."""
    if console.is_terminal:
        with _bar(console, total) as show:
            yield show
        return
    say = now_and_then(console)
    yield lambda done, withheld: say(f"{done} of {total} samples, {withheld} withheld")


@contextmanager
def counted(console: Console, total: int, words: str) -> Iterator[Count]:
    """Shows how many photos are done while the context lasts: a bar on a terminal, now and then a line elsewhere."""
    if console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(words, total=total or None)
            yield lambda done: bar.update(task, completed=done)
        return
    say = now_and_then(console)
    yield lambda done: say(f"{words}: {done} of {total} photos" if total else f"{words}: {done} files")


@contextmanager
def phases(console: Console) -> Iterator[ShowPhase]:
    """Shows what is being done and how far it is while the context lasts: a bar for each thing that is done."""
    if not console.is_terminal:
        say = now_and_then(console)
        yield lambda what, done, total: say(f"{what}: {done} of {total}")
        return
    from rich.progress import Progress, TaskID

    with Progress(console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=max(total, done))

        yield update


def prepared(anonymizer: Anonymizer, console: Console) -> None:
    """Shows what is done once before the first sample, where that takes long. Raises: WeightsError."""
    with phases(console) as show:
        anonymizer.prepare(progress=show)


@contextmanager
def shards(console: Console, total: int) -> Iterator[ShowShards]:
    """Shows how many shards are done, and how fast samples are, while the context lasts."""
    start = time.monotonic()

    def words(samples: int, withheld: int, failed: int) -> str:
        speed = f"{samples} samples, {samples / max(time.monotonic() - start, 1e-9):.1f}/s, {withheld} withheld"
        return f"{speed}, {failed} failed" if failed else speed

    if console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task("", total=total, words="")
            yield lambda done, *counts: bar.update(task, completed=done, words=words(*counts))
        return
    say = now_and_then(console)
    yield lambda done, *counts: say(f"{done} of {total} shards, {words(*counts)}")


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Show]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("anonymizing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[yellow]{task.fields[withheld]}[/]"),
    )
    start = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, speed="", withheld="")

        def show(done: int, withheld: int) -> None:
            speed = f"{done / max(time.monotonic() - start, 1e-9):.1f}/s"
            bar.update(task, completed=done, speed=speed, withheld=f"{withheld} withheld" if withheld else "")

        yield show
