"""Jobs over several processes that end when the run does, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from anondata.errors import OutputError
from anondata.loaders._cores import usable_cores

J = TypeVar("J")
R = TypeVar("R")

_work: Callable[[Any], Any] | None = None


def run_over(work: Callable[[J], R], jobs: Sequence[J], *, processes: int) -> Iterator[R]:
    """The results of jobs, as they come. ``work`` is pickled once for each process, which is spawned.

    When the iterator is closed, or this process ends, even by SIGKILL, so do the others, in the middle of a job.

    Raises:
        OutputError: a process was killed. What a job raised.
    """
    context = multiprocessing.get_context("spawn")  # CUDA, thread pools and locks do not survive a fork
    theirs, ours = context.Pipe(duplex=False)  # ends when this process does
    threads = max(1, usable_cores() // processes)
    pool = ProcessPoolExecutor(processes, context, _begin, (work, theirs, threads))
    try:
        for done in as_completed([pool.submit(_do, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise OutputError(
            "a process that wrote parts was killed, maybe for want of memory; what is done is kept: call again with "
            "fewer processes or smaller parts. A script must do this below `if __name__ == '__main__':`"
        ) from error
    except BaseException:
        ours.close()  # ends them all
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _begin(work: Callable[[Any], Any], pipe: Connection, threads: int) -> None:
    global _work
    import datasets
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one tells the others
    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    _work = work


def _end_with(pipe: Connection) -> None:
    """Ends this process when the other end of a pipe is closed, without waiting for the job at hand."""
    wait([pipe])
    os._exit(1)


def _do(job: Any) -> Any:
    if _work is None:
        raise RuntimeError("a process was given a job before it was told what to do")
    return _work(job)
