"""Reads samples of a dataset that is not ours: what it raises for one sample, and what its errors may say.

A file that cannot be decoded withholds its sample. Any other error stops the run: it keeps its class and traceback,
and loses its text, which could quote a path or a label.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import pickle
import struct
import traceback
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import EllipsisType, GeneratorType, NoneType
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from anondata.errors import AnondataError, FieldTypeError, UndecodableError, UnreadableSourceError
from anondata.loaders._flow import HOPELESS, Row
from anondata.loaders._kept import say_kept
from anondata.loaders._spares import copied
from anondata.loaders.torch.samples import Layout
from anondata.records import Withheld
from anondata.samples import leaves

Key: TypeAlias = Any
"""What a sampler gives for a sample: an index as a rule. None in a stream. See :func:`one`."""
Numbered: TypeAlias = tuple[Key, Row]

_BAD_FILE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    UndecodableError,
    Image.DecompressionBombError,
)
_BAD_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
"""Errors of the system that say nothing of a sample: every later one would be withheld, too."""
_END = object()
_SEVERAL = (bool, np.bool_, slice, EllipsisType, NoneType)
"""What is no index of one sample, though some can be hashed: arrays take them for masks, ranges and new axes."""
_PLAIN = (Tensor, np.ndarray, Image.Image, bytes, str, int, float, type(None))


class SampleReader:
    """Reads rows of a map-style dataset by what its sampler gives, or of the samples of a stream."""

    def __init__(self, dataset: Any, layout: Layout) -> None:
        self.dataset = dataset
        self.layout = layout
        self._said = False

    def rows(self, keys: Sequence[Key]) -> list[Row]:
        """The rows of some samples, in order; :class:`Withheld` where one cannot be read.

        Raises:
            UndeclaredFieldError, FieldTypeError: see :func:`one` and :meth:`Layout.row`.
            Exception: what the dataset raised, without its text.
        """
        keys = [one(key) for key in keys]
        many = getattr(self.dataset, "__getitems__", None)
        samples = None
        if callable(many) and len(keys) > 1:
            with contextlib.suppress(Exception):  # read again below, one by one, where it is told whose it is
                samples = [_loaded(sample) for sample in many(keys)]
        if samples is None or len(samples) != len(keys):
            samples = [self._read(partial(operator.getitem, self.dataset, key), key) for key in keys]
        return [self._row(sample) for sample in samples]

    def stream(self) -> Iterator[Row]:
        """The rows of all samples of an iterable dataset.

        Raises:
            UnreadableSourceError: the dataset ended with an error, or raises nothing but errors.
        """
        left, bad = self._read(lambda: iter(self.dataset), None, last=True), 0
        last = isinstance(left, GeneratorType)  # which has ended when it raised
        while (sample := self._read(lambda: next(left, _END), None, last=last)) is not _END:
            bad = bad + 1 if isinstance(sample, Withheld) else 0
            if bad > HOPELESS:
                raise UnreadableSourceError(f"the last {bad} samples of the dataset could not be read")
            yield self._row(sample)
        if bad:
            raise UnreadableSourceError(
                "the dataset's iterator ended right after an error, so what may have followed is missing: let the "
                "dataset catch what it raises for a sample, or give undecoded bytes"
            )

    def _row(self, sample: Any) -> Row:
        if isinstance(sample, Withheld):
            return sample
        row = self.layout.row(sample)
        if not self._said:  # of the first sample: others look alike, or cannot be put into a batch with it
            self._said = True
            say_kept(name for name in self.layout.schema.kept() if isinstance(row.get(name), Image.Image))
        return row

    @staticmethod
    def _read(read: Callable[[], Any], key: Key, *, last: bool = False) -> Any:
        """What ``read`` gives, or :class:`Withheld`. last: nothing can be read after an error."""
        try:
            return _loaded(read())
        except Exception as error:  # noqa: BLE001 - whatever a dataset raises must not quote a sample
            if _is_bad_file(error) and not last:
                return Withheld(f"unreadable {key!r}", "unreadable", f"reading it raised {type(error).__name__}")
            failure, trace = _untold(error, key), error.__traceback__
        raise failure.with_traceback(trace)  # here, where the error itself is no part of it


def one(key: Key) -> Key:
    """A key that is for one sample: an index, as an int, or a name.

    A dataset's answer to others could be taken for one sample: three grey pictures, stacked, for one in colour.

    Raises:
        FieldTypeError: it may be for several.
    """
    if not isinstance(key, _SEVERAL):
        with contextlib.suppress(TypeError):
            return int(operator.index(key))
        if isinstance(key, str | bytes) or (isinstance(key, Hashable) and not isinstance(key, Iterable)):
            return key
    raise FieldTypeError(
        f"a key of the dataset is a {type(key).__name__}, which may be for several samples; expected an index or a "
        "name of one: give the DataLoader batch_size=N and a plain sampler, or batch_sampler=BatchSampler(…) in "
        "place of sampler=BatchSampler(…) with batch_size=None"
    )


def _loaded(sample: Any) -> Any:
    """A sample with its pictures read: a lazy one that broke on its way out of a worker would be waited for."""
    for _, value in leaves(_values(sample), ""):
        if isinstance(value, Image.Image):
            value.load()
    return sample


def _values(sample: Any) -> list[Any]:
    if isinstance(sample, Mapping):
        return list(sample.values())
    return list(sample) if isinstance(sample, tuple | list) else [sample]


def _is_bad_file(error: Exception) -> bool:
    """Whether an error is of a kind that decoders raise for bytes that they cannot read."""
    if isinstance(error, AnondataError) and not isinstance(error, UndecodableError):
        return False
    if isinstance(error, OSError) and error.errno in _BAD_MACHINE:
        return False
    if type(error) is RuntimeError:  # torchvision's decoders raise nothing better
        frames = traceback.walk_tb(error.__traceback__)
        return any(str(f.f_globals.get("__name__")).startswith("torchvision.io") for f, _ in frames)
    return isinstance(error, _BAD_FILE)


def _untold(error: Exception, key: Key) -> Exception:
    """An error of the same class that tells where it was raised, and not its text."""
    if isinstance(error, AnondataError):
        return error
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    which, look = (f"sample {key}", f"dataset[{key}]") if type(key) is int else ("a sample", "the dataset alone")
    text = (
        f"reading {which} raised {type(error).__name__} at {frame.f_globals.get('__name__')}:{line}; its text is "
        f"not shown because it may quote the sample: read {look} to see it"
    )
    if isinstance(error, StopIteration):  # which would end the epoch in silence
        return RuntimeError(text)
    try:
        return type(error)(text)
    except Exception:  # noqa: BLE001 - a class that is made from other things
        return RuntimeError(text)


class _Proxy:
    """Stands before a dataset within a loader's workers, so that a ``worker_init_fn`` can set the dataset up."""

    _reader: SampleReader

    def __init__(self, reader: SampleReader) -> None:
        object.__setattr__(self, "_reader", reader)

    def __getattr__(self, name: str) -> Any:
        if name == "_reader" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self._reader.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._reader.dataset, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._reader,))


class RowsOf(_Proxy, Dataset[Numbered]):
    """A map-style dataset's rows, each with its key, for a loader of our own; nobody else may see it."""

    def __getitem__(self, key: Key) -> Numbered:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Numbered]:
        return list(zip(keys, self._reader.rows(keys), strict=True))


class RowsOfStream(_Proxy, IterableDataset[Numbered]):
    """An iterable dataset's rows, for a loader of our own; nobody else may see it."""

    def __iter__(self) -> Iterator[Numbered]:
        return ((None, row) for row in self._reader.stream())


def sendable(batch: Any) -> Any:
    """A loader's batch, copied, and checked that it can leave a worker: multiprocessing drops what it cannot, unsaid.

    Raises:
        FieldTypeError: it cannot be pickled.
    """
    batch = copied(batch)
    if get_worker_info() is not None:
        for _, row in batch if isinstance(batch, list) else [batch]:
            for _, value in leaves(_values(row), ""):
                if not isinstance(value, _PLAIN):
                    _check_pickles(value)
    return batch


def _check_pickles(value: Any) -> None:
    try:
        pickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - classes raise what they like
        failure = type(error).__name__
    else:
        return
    raise FieldTypeError(
        f"a sample holds a {type(value).__name__} that cannot be sent from a worker process ({failure}): drop the "
        "field, or read with num_workers=0"
    )
