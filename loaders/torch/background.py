"""The engine in a thread behind the consumer's, on CUDA with a stream of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from anondata.loaders._flow import Flow, Row, Settled
from anondata.records import Outcome
from anondata.samples import leaves


class Background:
    """Anonymizes batches one after the other while the consumer works on earlier ones.

    Only the engine runs there: it draws from no global generator, and no code of the user's is called. The thread is
    started with the first batch, so that a loader can fork its workers before.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._stopped = threading.Event()
        self._program_ends = sys.is_finalizing  # held here: when it is asked, modules may be empty
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="anondata")
        self._lane = _Lane(flow.anonymizer.device) if flow.anonymizer.device.type == "cuda" else None

    def submit(self, rows: Sequence[Row]) -> Future[list[Outcome]]:
        """The outcomes of a batch, in order, when they are there."""
        ready = self._lane.mark() if self._lane else None
        return self._thread.submit(self._run, rows, ready)

    def stop(self) -> None:
        """Gives up what is not done, after the micro-batch at hand. Does not wait: it may be called by anyone."""
        self._stopped.set()
        if not self._program_ends():  # which has waited for the thread
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, rows: Sequence[Row], ready: Any) -> list[Outcome]:
        with self._lane.after(ready) if self._lane else nullcontext():
            outcomes, size = list[Outcome](), self._flow.size
            for start in range(0, len(rows), size):
                # At the end of the program it waits for its threads; this one must not go on with the whole queue.
                if self._stopped.is_set() or not threading.main_thread().is_alive():
                    raise CancelledError
                outcomes += self._flow.outcomes(rows[start : start + size])
            if self._lane:
                self._lane.finish()
        return outcomes


class _Lane:
    """A CUDA stream beside the consumer's, so that neither waits for the other's kernels."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types for it

    def mark(self) -> Any:
        """Called by the consumer: what its stream has to have done before the samples may be read."""
        return torch.cuda.current_stream(self._device).record_event()

    def after(self, ready: Any) -> AbstractContextManager[Any]:
        self._stream.wait_event(ready)
        return torch.cuda.stream(self._stream)

    def finish(self) -> None:
        """Waits, so that the consumer needs not know of this stream. The thread waits, nobody else."""
        self._stream.synchronize()


def hand_over(settled: Iterable[Settled]) -> None:
    """Tells CUDA's allocator that the consumer's stream uses tensors that another one made."""
    for each in settled:
        for _, value in leaves(list((each.fields or {}).values()), ""):
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(torch.cuda.current_stream(value.device))


def failed(error: Exception) -> Future[list[Outcome]]:
    """A future that raises an error, as one of :meth:`Background.submit` would."""
    future: Future[list[Outcome]] = Future()
    future.set_exception(error)
    return future
