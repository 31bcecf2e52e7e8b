"""A torch dataset together with how its samples are declared and anonymized; what its wrappers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch.utils.data
from torch.utils.data import DataLoader, IterableDataset

from anondata.anonymizer import Anonymizer
from anondata.errors import FieldTypeError, PolicyError, RefusedError
from anondata.loaders._flow import Flow, OnWithheld, Row, Settled
from anondata.loaders._reports import Reports
from anondata.loaders.quota import Quota, account_of
from anondata.loaders.torch.groups import GroupOf, Groups, in_rows
from anondata.loaders.torch.reading import Key, SampleReader
from anondata.loaders.torch.samples import Name, Names, layout_of
from anondata.records import Outcome

_PIPES = tuple(getattr(torch.utils.data, name, SampleReader) for name in ("IterDataPipe", "MapDataPipe"))


class TorchSource:
    """A dataset, and how its samples are read, anonymized and given out. Can be pickled where the dataset can.

    Args: see :func:`anondata.loaders.torch.anonymize`.

    Raises:
        PolicyError: a declaration that contradicts itself, the policy or the dataset.
        FieldTypeError: what is no dataset.
    """

    def __init__(
        self,
        dataset: Any,
        anonymizer: Anonymizer,
        *,
        fields: Mapping[Any, str],
        keep: Names,
        drop: Names,
        on_withheld: OnWithheld | None,
        group: GroupOf,
        transform: Callable[[Any], Any] | None,
        batch: int | None,
        report_folder: str | os.PathLike[str] | None,
        quota: Quota,
    ) -> None:
        self.is_stream = _is_stream(dataset)
        self.layout = layout_of(fields, keep, drop)
        self.flow = Flow(
            anonymizer,
            self.layout.schema,
            on_withheld or ("drop" if self.is_stream else "replace"),
            in_rows(group, self.layout),
            batch,
            Reports(report_folder),
            account_of(quota, anonymizer),
        )
        self.reader = SampleReader(dataset, self.layout)
        known = None if group is None or isinstance(group, str | int) or callable(group) else group
        if known is not None and self.is_stream:
            raise PolicyError("group is a sequence, but a stream has no order to look it up by; give a function")
        self.groups = Groups(self.reader, known)
        self.transform = transform

    def fetch(self, keys: Sequence[Key]) -> list[Any]:
        """The samples of a map-style dataset that a consumer gets for some keys."""
        rows = self.reader.rows(keys)
        return self.given(self.flow.paid_whole(self.exchanged(keys, rows, self.flow.outcomes(rows))))

    def exchanged(self, keys: Sequence[Key], rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[Settled]:
        """What a consumer gets for outcomes of a map-style dataset; counts them."""
        return self.flow.fetch_outcomes(
            rows,
            outcomes,
            self.reader.rows,
            lambda group: self.groups.candidates(self.flow, group),
            self.groups.of(keys),
        )

    def stream(self) -> Iterator[Any]:
        """The samples of an iterable dataset, in micro-batches."""
        for _, settled in self.flow.stream(self.reader.stream(), lambda row: row):
            yield from self.given([settled])

    def given(self, settled: Iterable[Settled]) -> list[Any]:
        """Samples put together and transformed, without those that were dropped."""
        note = self.flow.on_withheld == "replace"
        samples = [self.layout.sample(each, note=note) for each in settled if each.fields is not None]
        return samples if self.transform is None else [self.transform(sample) for sample in samples]

    def size(self) -> int:
        """Samples of the dataset.

        Raises:
            TypeError: it does not say.
        """
        return len(self.reader.dataset)


def no_attribute(wrapper: object, name: str, instead: str) -> NoReturn:
    """Raises :class:`RefusedError`: a wrapper passes nothing of the dataset on."""
    raise RefusedError(
        f"{type(wrapper).__name__} has no {name!r}, and passes no attribute of the dataset that it wraps, because it "
        f"may hold originals: {instead}"
    )


def _is_stream(dataset: Any) -> bool:
    if isinstance(dataset, _PIPES):
        raise FieldTypeError(
            "the dataset is a datapipe, which a DataLoader splits among workers only where it sees it: wrap it in an "
            "IterableDataset that splits itself"
        )
    if isinstance(dataset, DataLoader):
        raise FieldTypeError("this is a DataLoader, not a dataset: take anondata.loaders.torch.anonymize(loader, …)")
    if isinstance(dataset, IterableDataset):
        return True
    if isinstance(dataset, str | bytes) or not (hasattr(dataset, "__getitem__") or hasattr(dataset, "__iter__")):
        raise FieldTypeError(f"the dataset is a {type(dataset).__name__}; expected a map-style or iterable dataset")
    return not hasattr(dataset, "__getitem__")


__all__ = ["GroupOf", "Name", "Names", "TorchSource", "no_attribute"]
