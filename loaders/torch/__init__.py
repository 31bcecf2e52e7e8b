"""Anonymized torch datasets and loaders.

Two ways, and which one to take:

* :func:`anonymize` of a dataset gives a dataset. Each worker of a ``DataLoader`` anonymizes what it reads, on the CPU
  (or, with ``multiprocessing_context="spawn"``, on CUDA). Right where there are many CPU cores, and for code that
  wants a dataset.
* :func:`anonymize` of a ``DataLoader`` gives an :class:`AnonymizedLoader`. Workers only read, and the main process
  anonymizes whole batches. Right with CUDA, which never meets a fork then.

Both must come before what normalises pictures: give that as ``transform``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

from torch.utils.data import DataLoader, Dataset, IterableDataset

from anondata.anonymizer import Anonymizer
from anondata.errors import PolicyError
from anondata.loaders._flow import OnWithheld
from anondata.loaders.quota import Quota
from anondata.loaders.torch.inner import check_loader
from anondata.loaders.torch.loader import AnonymizedLoader
from anondata.loaders.torch.reading import one
from anondata.loaders.torch.source import GroupOf, Names, TorchSource, no_attribute
from anondata.report import Report

__all__ = ["AnonymizedDataset", "AnonymizedIterableDataset", "AnonymizedLoader", "anonymize"]


class AnonymizedDataset(Dataset[Any]):
    """A map-style dataset whose every sample is anonymized when it is asked for; see :func:`anonymize`.

    Batches are read at once (``__getitems__``, which a ``DataLoader`` calls) and anonymized in micro-batches. A slice
    or a list of indices gives a list of samples. A pickle of the dataset holds the run key: keep it as secret.
    """

    def __init__(self, source: TorchSource) -> None:
        if source.flow.on_withheld == "drop":
            raise PolicyError(
                "on_withheld is 'drop', but a dataset with a length cannot leave samples out: take 'replace' or "
                "'raise', or drop from batches with AnonymizedLoader"
            )
        if source.flow.account is not None and source.flow.account.at_limit == "stop":
            raise PolicyError("at_limit is 'stop', but a dataset with a length cannot end before it; take 'raise'")
        self._source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} samples, {self._source.flow.anonymizer!r})"

    def __len__(self) -> int:
        return self._source.size()

    def __getitem__(self, key: Any) -> Any:
        """One sample; a list of them for a slice or a list.

        Raises:
            FieldTypeError: another key that may be for several samples.
        """
        if isinstance(key, slice):
            return self.__getitems__(range(len(self))[key])
        if isinstance(key, list):
            return self.__getitems__(key)
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        return self._source.fetch([self._key(key) for key in keys])

    def __iter__(self) -> Iterator[Any]:
        size = self._source.flow.size
        for start in range(0, len(self), size):
            yield from self.__getitems__(range(start, min(start + size, len(self))))

    def __getattr__(self, name: str) -> Any:
        no_attribute(self, name, "ask that dataset itself")

    @property
    def report(self) -> Report:
        """What was done so far, in all processes."""
        return self._source.flow.report

    def _key(self, key: Any) -> Any:
        """An index within the dataset; what else a sampler may give is left to the dataset."""
        index = one(key)
        if not isinstance(index, int):
            return index
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} of a dataset of {count} samples")
        return index % count


class AnonymizedIterableDataset(IterableDataset[Any]):
    """An iterable dataset whose every sample is anonymized; see :func:`anonymize`.

    Splitting among workers is up to the dataset's own ``__iter__``. Where a ``worker_init_fn`` does it, it finds no
    attribute of the dataset here; take :class:`AnonymizedLoader` then. A pickle of the dataset holds the run key:
    keep it as secret.
    """

    def __init__(self, source: TorchSource) -> None:
        self._source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source.flow.anonymizer!r})"

    def __len__(self) -> int:
        """Samples before any is dropped.

        Raises:
            TypeError: the dataset does not say.
        """
        return self._source.size()

    def __iter__(self) -> Iterator[Any]:
        return self._source.stream()

    def __getattr__(self, name: str) -> Any:
        no_attribute(self, name, "ask that dataset itself; what a worker_init_fn sets up works with AnonymizedLoader")

    @property
    def report(self) -> Report:
        """What was done so far, in all processes."""
        return self._source.flow.report


class Options(Quota, total=False):
    """Keywords of :func:`anonymize` beside ``fields``."""

    keep: Names
    drop: Names
    on_withheld: OnWithheld | None
    group: GroupOf
    transform: Callable[[Any], Any] | None
    batch: int | None
    report_folder: str | os.PathLike[str] | None


@overload
def anonymize(
    source: DataLoader[Any],
    anonymizer: Anonymizer,
    *,
    fields: Mapping[Any, str],
    prefetch: int = 2,
    **options: Unpack[Options],
) -> AnonymizedLoader: ...
@overload
def anonymize(  # type: ignore[overload-overlap]  # an IterableDataset is a Dataset, too: the narrower is first
    source: IterableDataset[Any], anonymizer: Anonymizer, *, fields: Mapping[Any, str], **options: Unpack[Options]
) -> AnonymizedIterableDataset: ...
@overload
def anonymize(
    source: Dataset[Any] | Sequence[Any],
    anonymizer: Anonymizer,
    *,
    fields: Mapping[Any, str],
    **options: Unpack[Options],
) -> AnonymizedDataset: ...
@overload
def anonymize(
    source: Any, anonymizer: Anonymizer, *, fields: Mapping[Any, str], **options: Unpack[Options]
) -> AnonymizedDataset | AnonymizedIterableDataset: ...
def anonymize(
    source: Any,
    anonymizer: Anonymizer,
    *,
    fields: Mapping[Any, str],
    keep: Names = (),
    drop: Names = (),
    on_withheld: OnWithheld | None = None,
    group: GroupOf = None,
    transform: Callable[[Any], Any] | None = None,
    batch: int | None = None,
    prefetch: int | None = None,
    report_folder: str | os.PathLike[str] | None = None,
    **quota: Unpack[Quota],
) -> AnonymizedLoader | AnonymizedDataset | AnonymizedIterableDataset:
    """Makes an anonymized view of a torch dataset or ``DataLoader``. Nothing is read before a sample is asked for.

    A ``DataLoader`` becomes an :class:`AnonymizedLoader`, a map-style dataset an :class:`AnonymizedDataset`, an
    iterable one an :class:`AnonymizedIterableDataset`.

    Samples are tuples or lists (fields by position), dicts (by key), namedtuples (by either) or bare images (position
    0). Every field must be declared. A dropped position is left out of the tuple, and later ones move up; a
    namedtuple that loses a field becomes a plain tuple. Images come back as the kind that they were.

    A sample that the dataset cannot decode is withheld. Other errors of the dataset are raised without their text.

    Works in a ``DataLoader`` with any number of workers, forked or spawned, if the dataset does; on CUDA they must be
    spawned. A pickle of it holds the run key (spawned workers are sent one): keep it as secret as the key.

    Args:
        source: a ``DataLoader``, or a dataset, map-style or iterable.
        anonymizer: holds the policy and the run key; results depend on them and on the content alone.
        fields: the content type of each field that holds content, as ``{0: "image"}`` or ``{"image": "image"}``;
            ``"regions"`` is for boxes, ``"masks"`` for masks, which do not come out; see
            :class:`anondata.samples.Schema`.
        keep: fields that pass as they are.
        drop: fields that do not come out.
        on_withheld: what comes instead of a withheld sample. ``"replace"``: another one of its group that was
            released; a dict then says under ``"anondata"`` which it is, a tuple cannot. The default of map-style
            datasets. ``"drop"``: nothing; the default of iterable ones. ``"raise"``: an error.
        group: a kept field, a function of a dict of the kept fields, or each sample's group in the dataset's order,
            such as ``dataset.targets`` (then no sample must be read to learn its group). Samples of one group may
            stand in for each other.
        transform: called with each anonymized sample, whole, as ``lambda s: (normalize(s[0]), s[1])``.
        batch: samples that go through the engine together; None chooses by the device.
        report_folder: where the processes keep their counts; by default a temporary folder of this machine.
        prefetch: only for a ``DataLoader``: how many batches are read and anonymized ahead; 2 by default.
        client, ledger, dataset_name, at_limit: whom to charge; see :class:`anondata.loaders.quota.Quota`. Samples
            that are asked for at once are charged at once: all of them, or none and an error.

    Raises:
        PolicyError: the declarations contradict each other, the policy or the dataset.
        FieldTypeError: this is not a dataset. Reading a sample can raise it, too.
        UndeclaredFieldError: raised when a sample is read that has a field that nobody declared.

    >>> import numpy as np
    >>> from anondata import Anonymizer
    >>> photos = [(np.zeros((32, 32, 3), np.uint8), "a caption", 7)]
    >>> safe = anonymize(photos, Anonymizer("faces"), fields={0: "image"}, keep=(2,), drop=(1,))
    >>> image, label = safe[0]
    >>> image.shape, label
    ((32, 32, 3), 7)
    """
    if isinstance(source, DataLoader):
        check_loader(source, 2 if prefetch is None else prefetch)
    elif prefetch is not None:
        raise PolicyError("prefetch is for a DataLoader; a dataset is read by the workers of whoever reads it")
    made = TorchSource(
        source.dataset if isinstance(source, DataLoader) else source,
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
    if isinstance(source, DataLoader):
        return AnonymizedLoader(source, made, 2 if prefetch is None else prefetch)
    return AnonymizedIterableDataset(made) if made.is_stream else AnonymizedDataset(made)


def anonymize_dataset(
    dataset: Any, anonymizer: Anonymizer, *, fields: Mapping[Any, str], **options: Unpack[Options]
) -> AnonymizedDataset | AnonymizedIterableDataset:
    """The name that :func:`anonymize` had up to 0.1."""
    warnings.warn("anonymize_dataset is now called anonymize", DeprecationWarning, stacklevel=2)
    made: AnonymizedDataset | AnonymizedIterableDataset = anonymize(dataset, anonymizer, fields=fields, **options)
    return made


def __dir__() -> list[str]:
    return sorted(__all__)
