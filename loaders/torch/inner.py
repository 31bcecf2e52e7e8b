"""The loader behind an anonymized one: the user's own, with workers that only read."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from anondata.errors import FieldTypeError, PolicyError
from anondata.loaders.torch.order import Order
from anondata.loaders.torch.reading import Numbered, RowsOf, RowsOfStream, sendable
from anondata.loaders.torch.source import TorchSource


def check_loader(loader: object, prefetch: int) -> None:
    """Raises :class:`FieldTypeError` for what cannot be rebuilt, and :class:`PolicyError` for a negative prefetch."""
    if not isinstance(loader, DataLoader):
        raise FieldTypeError(f"the loader is a {type(loader).__name__}; expected a torch DataLoader")
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise FieldTypeError(
            f"{type(loader).__name__} iterates in its own way, which cannot be rebuilt: give the plain DataLoader, "
            "before it is prepared for anything, or anonymize its dataset"
        )
    if prefetch < 0:
        raise PolicyError(f"prefetch is {prefetch}; expected at least 0")


def index_sampler(loader: DataLoader[Any]) -> Any:
    """What tells a loader which samples to read: whole batches, or samples where it does not collate."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def inner_loader(loader: DataLoader[Any], source: TorchSource, order: Order | None) -> DataLoader[list[Numbered]]:
    """A loader of rows, in lists where the user's collates. order: stands before the sampler; None for a stream."""
    options: dict[str, Any] = {
        "collate_fn": sendable,
        "num_workers": loader.num_workers,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "generator": loader.generator,
        "in_order": loader.in_order,
    }
    if loader.num_workers:
        options["prefetch_factor"] = loader.prefetch_factor
        options["persistent_workers"] = loader.persistent_workers
        options["multiprocessing_context"] = loader.multiprocessing_context
    if order is None:
        stream: Any = RowsOfStream(source.reader)
        return DataLoader(stream, batch_size=loader.batch_size, drop_last=loader.drop_last, **options)
    rows: Any = RowsOf(source.reader)
    if loader.batch_sampler is None:
        return DataLoader(rows, batch_size=None, sampler=order, **options)
    return DataLoader(rows, batch_sampler=order, **options)


def stop_workers(loader: DataLoader[Any], iterator: Any, process: int) -> None:
    """Ends workers that are started for each epoch. Left to the garbage collector after an error, each takes 5 s.

    process: where the workers were started; a forked copy of the iterator must leave them alone.
    """
    if os.getpid() == process and loader.num_workers and not loader.persistent_workers:
        getattr(iterator, "_shutdown_workers", bool)()


def made_batch(loader: DataLoader[Any], samples: list[Any]) -> Any:
    """What the user's loader makes of some samples: collated, and pinned where there is an accelerator to pin for."""
    batch = loader.collate_fn(samples[0] if loader.batch_sampler is None else samples)
    where = torch.accelerator.current_accelerator() if loader.pin_memory else None
    if where is None or where.type == "mps":  # which cannot pin
        return batch
    return pin_memory(batch, where.type)  # type: ignore[no-untyped-call]  # torch has no types for it
