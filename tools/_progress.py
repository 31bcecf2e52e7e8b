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


@contextmanager
def progress(console: Console, total: int) -> Iterator[Show]:
    """Shows how far a run is while the context lasts."""
    if console.is_terminal:
        with _bar(console, total) as show:
            yield show
    else:
        yield _lines(console, total)


@contextmanager
def counted(console: Console, total: int, words: str) -> Iterator[Count]:
    """Shows how many photos are done while the context lasts: a bar on a terminal, now and then a line elsewhere."""
    if console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(words, total=total or None)
            yield lambda done: bar.update(task, completed=done)
        return
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            console.print(
                f"{words}: {done} of {total} photos" if total else f"{words}: {done} files", highlight=False
            )

    yield show


@contextmanager
def phases(console: Console) -> Iterator[ShowPhase]:
    """Shows what is being done and how far it is while the context lasts: a bar for each thing that is done."""
    if not console.is_terminal:
        last = time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= EVERY_S:
                last = time.monotonic()
                console.print(f"{what}: {done} of {total}", highlight=False)

        yield show
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
    start = last = time.monotonic()

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

    def show(done: int, *counts: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            console.print(f"{done} of {total} shards, {words(*counts)}", highlight=False)

    yield show


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


def _lines(console: Console, total: int) -> Show:
    last = time.monotonic()

    def show(done: int, withheld: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            console.print(f"{done} of {total} samples, {withheld} withheld", highlight=False)

    return show
