"""A ``DataLoader`` whose workers read and whose main process anonymizes."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, TypeAlias, Unpack

import torch
from torch.utils.data import DataLoader

from anondata.anonymizer import Anonymizer
from anondata.errors import PolicyError
from anondata.loaders._flow import Flow, OnWithheld, Settled
from anondata.loaders._spares import Spares
from anondata.loaders.quota import Quota
from anondata.loaders.torch.background import Background, failed, hand_over
from anondata.loaders.torch.inner import check_loader, index_sampler, inner_loader, made_batch, stop_workers
from anondata.loaders.torch.order import Order, Passed, Start, generators_of, start_of
from anondata.loaders.torch.reading import Numbered
from anondata.loaders.torch.source import GroupOf, Names, TorchSource, no_attribute
from anondata.records import Outcome
from anondata.report import Report

FORMAT = "anondata.torch/1"
Batch: TypeAlias = list[Numbered]


class AnonymizedLoader:
    """Wraps a ``DataLoader``: its workers read samples, this process anonymizes them, then batches are made.

    ::

        workers: dataset[i] ─► this process: engine, in a thread ─► transform ─► collate_fn ─► pin_memory ─► consumer

    Batches hold the same samples in the same order as the loader's own, and the generators that shuffling draws from
    are used alike. The dataset, sampler, transform and ``collate_fn`` run where a ``DataLoader`` with
    ``num_workers=0`` runs them, in the thread that iterates (reading: in workers where there are some). So what they
    draw at random stays repeatable; ``prefetch`` batches are read ahead, and with ``prefetch=0`` none.

    Leaving an iteration early stops its thread after the micro-batch at hand. An error comes up at the batch that it
    belongs to, and ends the iteration.

    ``len()`` is the loader's own: with ``on_withheld="drop"`` batches get smaller, and a batch of which nothing is
    left is left out. ``sampler`` and ``batch_sampler`` are those of the loader, for ``set_epoch``. There is no
    ``dataset``: it holds originals, which a sampler may lead to, too. A pickle of the loader holds the run key: keep
    it as secret.

    Lightning: return the loader from ``train_dataloader()`` (it saves and restores the state by itself; set a
    ``DistributedSampler`` yourself). Accelerate: ``prepare`` takes plain loaders alone, so leave this one out, and
    move batches by ``accelerate.utils.send_to_device``; or prepare a ``DataLoader`` over
    :func:`anondata.loaders.torch.anonymize`.
    """

    def __init__(self, loader: DataLoader[Any], source: TorchSource, prefetch: int) -> None:
        self._loader = loader
        self._source = source
        self._prefetch = prefetch
        self._order = None if source.is_stream else Order(index_sampler(loader), generators_of(loader))
        self._inner = inner_loader(loader, source, self._order)
        self._start = Start()
        self._passed: Passed | None = None

    @classmethod
    def from_dataloader(
        cls,
        loader: DataLoader[Any],
        anonymizer: Anonymizer,
        *,
        fields: Mapping[Any, str],
        keep: Names = (),
        drop: Names = (),
        on_withheld: OnWithheld | None = None,
        group: GroupOf = None,
        transform: Callable[[Any], Any] | None = None,
        batch: int | None = None,
        prefetch: int = 2,
        report_folder: str | os.PathLike[str] | None = None,
        **quota: Unpack[Quota],
    ) -> AnonymizedLoader:
        """An anonymized loader in place of a ``DataLoader``, which is left as it is.

        Args:
            loader: any, of any dataset; its ``collate_fn`` is called last.
            prefetch: batches that are read and anonymized ahead. 0 for a live stream, or to draw from global
                generators in exactly the order in which a ``DataLoader`` without workers does.

        The others are those of :func:`anondata.loaders.torch.anonymize`; ``"drop"`` is possible for map-style
        datasets, too. A batch is charged when it is given out: all of it, or an error and none; with
        ``at_limit="stop"`` the last one may be smaller. Samples that stand in for others are read in this process.

        Raises:
            PolicyError: a declaration that contradicts itself, the policy or the dataset.
            FieldTypeError: what is no ``DataLoader``, or one whose iteration is its own.
        """
        check_loader(loader, prefetch)
        source = TorchSource(
            loader.dataset,
            anonymizer,
            fields=fields,
            keep=keep,
            drop=drop,
            on_withheld=on_withheld,
            group=group,
            transform=transform,
            batch=batch,
            report_folder=report_folder,
            quota=quota,
        )
        return cls(loader, source, prefetch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source.flow.anonymizer!r})"

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        no_attribute(self, name, "ask that dataset or its loader itself")

    @property
    def sampler(self) -> Any:
        return self._loader.sampler

    @property
    def batch_sampler(self) -> Any:
        return self._loader.batch_sampler

    @property
    def batch_size(self) -> int | None:
        return self._loader.batch_size

    @property
    def drop_last(self) -> bool:
        return self._loader.drop_last

    @property
    def num_workers(self) -> int:
        return self._loader.num_workers

    @property
    def report(self) -> Report:
        """What was done to the samples that were given out, in all processes that share the folder."""
        return self._source.flow.report

    def state_dict(self) -> dict[str, Any]:
        """Where the last iteration is: what was given out counts, and what was read ahead does not.

        Plain values that fit into JSON, without any sample or secret. What else it takes to go on exactly: the same
        run key for the same pixels; and for the order of *later* epochs a generator that the loader was given, or
        torch's global one, which is yours to save. What a dataset or transform draws at random is drawn anew.

        Raises:
            PolicyError: the loader gives batches in no fixed order (``in_order=False``).
        """
        if not self._loader.in_order:
            raise PolicyError("a loader with in_order=False has no order to go on in; take in_order=True")
        place = self._passed.place() if self._passed else self._start
        if self._order is not None and not (self._passed or place.at_iter):
            place = Start(at_iter=self._order.now())
        return {**self._shape(), **asdict(place)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets the next iteration give the batches that were left when the state was saved.

        A map-style dataset is not asked for what is left out; an iterable one is read and not anonymized. A stream
        with ``on_withheld="replace"`` has no released samples yet to take others' places.

        Raises:
            PolicyError: a state of another policy, gallery or loader. That the sampler gives another *order* is
                found, and raised, when the iteration begins.
        """
        start = start_of(state)
        for name, own in self._shape().items():
            if state.get(name) != own:
                raise PolicyError(
                    f"the state is of another loader: its {name} is {state.get(name)!r}, and this one's {own!r}; "
                    "make the loader as it was, or begin anew without the state"
                )
        self._start, self._passed = start, None

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, Start()
        found = torch.get_rng_state()
        if self._order is not None:
            self._order.begin_at(start)
        try:
            inner = iter(self._inner)
        finally:
            if self._order is not None:
                self._order.begin_at(Start())
        if start.batches:
            torch.set_rng_state(found)  # what seeds workers was drawn when the epoch began
        self._passed = Passed(start, self._order, persistent=self._loader.persistent_workers)
        return self._batches(inner, self._passed)

    def _batches(self, inner: Iterator[Any], passed: Passed) -> Iterator[Any]:
        background, spares = Background(self._source.flow), Spares()
        # Called below, or when the program ends within an epoch: there, before its modules are emptied.
        end = weakref.finalize(background, _end, self._loader, inner, os.getpid(), self._source.flow)
        try:
            passed.skip(inner)
            for batch, outcomes in self._anonymized(inner, background):
                passed.read()
                if samples := self._source.given(self._settled(batch, outcomes, spares)):
                    made = made_batch(self._loader, samples)
                    passed.give()
                    yield made
                if self._source.flow.ended:
                    break
            passed.end()
        finally:
            background.stop()
            end()

    def _anonymized(self, inner: Iterator[Any], background: Background) -> Iterator[tuple[Batch, list[Outcome]]]:
        """Batches with their outcomes, in order; ``prefetch`` more are under way."""
        under_way: deque[tuple[Batch, Future[list[Outcome]]]] = deque()
        left = True
        while left or under_way:
            while left and len(under_way) <= self._prefetch:
                try:
                    read = next(inner)
                except StopIteration:
                    left = False
                except Exception as error:  # noqa: BLE001 - raised below, where its batch would have come
                    left = False
                    under_way.append(([], failed(error)))
                else:
                    batch: Batch = read if isinstance(read, list) else [read]
                    under_way.append((batch, background.submit([row for _, row in batch])))
            if under_way:
                batch, outcomes = under_way.popleft()
                yield batch, outcomes.result()

    def _settled(self, batch: Batch, outcomes: list[Outcome], spares: Spares) -> list[Settled]:
        rows = [row for _, row in batch]
        if self._source.is_stream:
            settled = self._source.flow.settle_outcomes(rows, outcomes, spares)
        else:
            settled = self._source.exchanged([key for key, _ in batch], rows, outcomes)
        paid = self._source.flow.paid_whole(settled)
        hand_over(paid)
        return paid

    def _shape(self) -> dict[str, Any]:
        """What must agree for a state to fit."""
        counted = not self._source.is_stream and hasattr(index_sampler(self._loader), "__len__")
        return {
            "format": FORMAT,
            "policy": self._source.flow.anonymizer.report([]).setting,
            "length": len(self._loader) if counted else None,
            "batch_size": self._loader.batch_size,
            "num_workers": self._loader.num_workers if self._source.is_stream else None,
            "generators": sorted(self._order.generators) if self._order else [],
        }


def _end(loader: DataLoader[Any], inner: Iterator[Any], process: int, flow: Flow) -> None:
    stop_workers(loader, inner, process)
    flow.settle_account()
