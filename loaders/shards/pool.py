"""Shards over several processes, each of which holds an anonymizer of its own.

A pipe to each process, and not ``concurrent.futures``: there a killed worker breaks the whole pool, nobody knows
which job it had, and the workers of a parent that was killed live on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias, cast

from anondata.errors import AnondataError, ShardsError
from anondata.loaders._cores import usable_cores
from anondata.loaders._parts import Part, Parts
from anondata.loaders.shards.sources import Shard
from anondata.loaders.shards.work import OF_ONE_SHARD, Lost, Recipe, make

Result: TypeAlias = Part | AnondataError
"""What became of one shard."""

Seen: TypeAlias = Callable[[Shard, int, int, Sequence[Lost]], None]
"""Takes a shard, and how many of its samples were seen and withheld so far."""

PATIENCE_S = 10.0  # for workers that were told to stop
TRIES = 2  # a worker that was killed may have wanted memory just when another one did


def run_here(
    recipe: Recipe, parts: Parts, shards: Sequence[Shard], seen: Seen, *, stopping: Callable[[], bool]
) -> Generator[tuple[Shard, Result], None, None]:
    """Does shards one after the other in this process; see :func:`run_over`."""
    for shard in shards:
        if stopping():
            return
        yield shard, _attempt(recipe, parts, shard, seen)


def run_over(
    recipe: Recipe, parts: Parts, shards: Sequence[Shard], seen: Seen, *, workers: int, stopping: Callable[[], bool]
) -> Generator[tuple[Shard, Result], None, None]:
    """Does shards in several processes, and yields each as it is done.

    stopping: asked before a shard is begun. When the iterator is closed, workers are told to stop, and what they have
    not put in place is removed.

    Raises: what stopped a worker and would stop the next one, too.
    """
    todo, pool = deque((shard, 1) for shard in shards), list[_Worker]()
    threads = max(1, usable_cores() // workers)
    try:
        while True:
            while todo and not stopping():
                idle = next((worker for worker in pool if worker.shard is None), None)
                if idle is None and len(pool) < workers:
                    pool.append(idle := _Worker.start(recipe, parts, threads))
                if idle is None:
                    break
                idle.give(*todo.popleft())
            busy = {worker.pipe: worker for worker in pool if worker.shard is not None}
            if not busy:
                return
            for pipe in wait(list(busy)):
                yield from _news(busy[cast(Any, pipe)], pool, todo, seen, recipe.total)
    finally:
        _stop(pool)


@dataclass
class _Worker:
    """A process, the pipe to it, and the shard that it has, with the number of the try."""

    process: BaseProcess
    pipe: Connection
    shard: Shard | None = None
    attempt: int = 1

    @classmethod
    def start(cls, recipe: Recipe, parts: Parts, threads: int) -> _Worker:
        context = multiprocessing.get_context("spawn")  # CUDA, thread pools and locks do not survive a fork
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, recipe, parts, threads), daemon=True)
        # Ctrl-C on a terminal goes to all processes; workers are born deaf to it, and told by this one.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()  # so that the end of the process is the end of the pipe
        return cls(process, ours)

    def give(self, shard: Shard, attempt: int) -> None:
        self.shard, self.attempt = shard, attempt
        with contextlib.suppress(OSError):  # it has died, which the pipe tells when it is read
            self.pipe.send(shard)


def _news(
    worker: _Worker, pool: list[_Worker], todo: deque[tuple[Shard, int]], seen: Seen, total: int
) -> Iterator[tuple[Shard, Result]]:
    """Takes in what a busy worker says, or that it died."""
    shard = cast(Shard, worker.shard)
    try:
        kind, told = worker.pipe.recv()
    except (EOFError, OSError):
        pool.remove(worker)
        worker.pipe.close()
        worker.process.join()
        if worker.attempt < TRIES:
            todo.append((shard, worker.attempt + 1))
        else:
            yield shard, _lost(shard, total, worker.process.exitcode)
        return
    if kind == "seen":
        seen(shard, *told)
    elif kind == "done":
        worker.shard = None
        yield shard, told
    else:
        raise told


def _lost(shard: Shard, total: int, code: int | None) -> ShardsError:
    which = f"shard {shard.number} of {total}"
    if code is not None and code < 0:
        return ShardsError(
            f"{which} was given up: its process was killed {TRIES} times (signal {-code}), "
            "maybe for want of memory; try fewer workers, or smaller shards"
        )
    return ShardsError(
        f"{which} was given up: its process ended {TRIES} times before it was done (code {code}). A script that "
        "anonymizes with several workers must do so below `if __name__ == '__main__':`"
    )


def _stop(pool: list[_Worker]) -> None:
    """Ends idle workers at once, and busy ones when they have cleaned up, or after a while without that."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        for worker in pool:
            if worker.shard is not None:
                worker.process.terminate()
            worker.pipe.close()
        for worker in pool:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:  # a second Ctrl-C comes here at once
        for worker in pool:
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _work(pipe: Connection, recipe: Recipe, parts: Parts, threads: int) -> None:
    """A worker's life: shards in, results out, until the pipe ends or SIGTERM comes."""
    import torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exception, which cleans up
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody is there any more
        while True:
            shard = pipe.recv()
            try:
                pipe.send(("done", _attempt(recipe, parts, shard, lambda _, *n: pipe.send(("seen", n)))))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:  # noqa: BLE001 - raised again where the run is
                pipe.send(("stop", _portable(error)))


def _portable(error: Exception) -> Exception:
    """An error that another process can read."""
    try:
        return cast(Exception, pickle.loads(pickle.dumps(error)))
    except Exception:  # noqa: BLE001 - anything may be wrong with a library's exception
        return RuntimeError(f"a worker stopped because of {type(error).__name__}")


def _attempt(recipe: Recipe, parts: Parts, shard: Shard, seen: Seen) -> Result:
    try:
        return make(recipe, parts, shard, lambda done, withheld, lost: seen(shard, done, withheld, lost))
    except OF_ONE_SHARD as error:
        return error
