"""Hugging Face datasets: anonymized views for training, anonymized streams, and parquet files that may be given away.

::

    view = anonymize(load_dataset(...), Anonymizer("faces"), keep="label", drop="caption")
    view[0]["image"]                  # anonymized when it is asked for
    view.materialize("out")           # parquet files, each scanned for originals before it is put in place
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Unpack, overload

from anondata.anonymizer import Anonymizer
from anondata.errors import FieldTypeError, MissingExtraError, PolicyError, RefusedError

try:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
except ImportError as error:
    raise MissingExtraError("datasets is not installed: pip install 'anondata[hf]'") from error

from anondata.loaders._flow import Flow, OnWithheld
from anondata.loaders._kept import say_kept
from anondata.loaders._reports import Reports
from anondata.loaders._spares import Group
from anondata.loaders.hf.dicts import AnonymizedDatasetDict
from anondata.loaders.hf.form import FORMATS
from anondata.loaders.hf.layout import NOTE, layout_of
from anondata.loaders.hf.source import HfSource
from anondata.loaders.hf.streaming import anonymize_stream, flows_of
from anondata.loaders.hf.view import AnonymizedColumn, AnonymizedDataset
from anondata.loaders.quota import Quota, account_of
from anondata.report import Report
from anondata.samples import DROP, declare

IMAGES: Mapping[str, str] = MappingProxyType({"image": "image"})

__all__ = ["AnonymizedColumn", "AnonymizedDataset", "AnonymizedDatasetDict", "anonymize", "report"]


class Options(Quota, total=False):
    """Keywords of :func:`anonymize`."""

    fields: Mapping[str, str]
    keep: Iterable[str] | str
    drop: Iterable[str] | str
    on_withheld: OnWithheld | None
    group: Group
    batch: int | None
    report_folder: str | os.PathLike[str] | None


# mypy sees no types of `datasets`, so all of these look alike to it; pyright and editors see them.
@overload
def anonymize(source: Dataset, anonymizer: Anonymizer, **options: Unpack[Options]) -> AnonymizedDataset: ...
@overload
def anonymize(  # type: ignore[overload-cannot-match]  # see above
    source: DatasetDict, anonymizer: Anonymizer, **options: Unpack[Options]
) -> AnonymizedDatasetDict: ...
@overload
def anonymize(  # type: ignore[overload-cannot-match]  # see above
    source: IterableDataset, anonymizer: Anonymizer, **options: Unpack[Options]
) -> IterableDataset: ...
@overload
def anonymize(  # type: ignore[overload-cannot-match]  # see above
    source: IterableDatasetDict, anonymizer: Anonymizer, **options: Unpack[Options]
) -> IterableDatasetDict: ...
def anonymize(
    source: Any,
    anonymizer: Anonymizer,
    *,
    fields: Mapping[str, str] = IMAGES,
    keep: Iterable[str] | str = (),
    drop: Iterable[str] | str = (),
    on_withheld: OnWithheld | None = None,
    group: Group = None,
    batch: int | None = None,
    report_folder: str | os.PathLike[str] | None = None,
    **quota: Unpack[Quota],
) -> Any:
    """Makes an anonymized view of a dataset, or an anonymized stream. Reads nothing.

    A ``Dataset`` becomes an :class:`AnonymizedDataset`, a ``DatasetDict`` an :class:`AnonymizedDatasetDict`, an
    ``IterableDataset`` or ``IterableDatasetDict`` one of its own kind.

    Every column must be declared, in ``fields``, ``keep`` or ``drop``. Members of structs are named with dots:
    ``"meta.photo"``, also in a list of structs.

    Args:
        source: a dataset of the library ``datasets``, or a dict of them.
        anonymizer: holds the policy and the run key.
        fields: the content type of each column that holds content. A column may hold a list of images. ``"regions"``
            is for boxes; ``"masks"`` is for masks, which do not come out; see :class:`anondata.samples.Schema`.
        keep: columns that pass as they are. A kept image keeps all that its file tells (EXIF: place, time, camera).
            The names of classes are part of a kept label's type: drop the label if they are names of people.
        drop: columns that do not come out.
        on_withheld: what comes instead of a withheld sample. ``"replace"``: another one, and the column
            ``"anondata"`` says so; the default of views, which take another of the rows that they show. ``"drop"``:
            nothing; the default of streams. ``"raise"``: an error.
        group: the name of a kept field, or a function of a sample's kept fields without files. Samples of one group
            may stand in for each other.
        batch: how many samples go through the engine together; None chooses by the device.
        report_folder: where processes keep their counts; a shared folder if several machines work on one run.
        client, ledger, dataset_name, at_limit: whom to charge; see :class:`anondata.loaders.quota.Quota`. Rows that
            are asked for at once are charged at once: all of them, or none and an error. Kept columns alone cost
            nothing.

    Returns:
        A view or a stream. A stream that was resumed gives what it would have given, but ``"replace"`` starts without
        samples to stand in, and what is done again of a batch is counted again.

    Raises:
        UndeclaredFieldError: a column or a member of a struct is not declared. A stream that does not know its
            columns raises this at the first row.
        FieldTypeError: this is not a dataset, or a declared column is not there or cannot hold its content type.
        PolicyError: the declarations contradict each other, or ``"drop"`` was asked of a view, which has a length.
        RefusedError: the dataset has a transform, or a format that makes tables.
    """
    schema = declare(fields, keep, drop)
    schema.regions()
    streams = isinstance(source, IterableDataset | IterableDatasetDict)
    if not streams and not isinstance(source, Dataset | DatasetDict):
        raise FieldTypeError(
            f"anonymize takes a Dataset, IterableDataset or a dict of them from the library datasets, "
            f"not {type(source).__name__}; for torch datasets there is anondata.loaders.torch"
        )
    if not streams and on_withheld == "drop":
        raise PolicyError(
            "a view cannot drop samples, because its length must be right before they are looked at; take 'replace' "
            "or 'raise', or drop them when they are written: view.materialize(folder)"
        )
    if NOTE in schema.fields and schema.fields[NOTE] != DROP:
        raise PolicyError(f"a column is named {NOTE!r}, like the one that says what came of a sample; rename it")
    flow = Flow(
        anonymizer,
        schema,
        on_withheld or ("drop" if streams else "replace"),
        group,
        batch,
        Reports(report_folder),
        account_of(quota, anonymizer, may_stop=streams),
    )
    if isinstance(source, IterableDatasetDict):
        return IterableDatasetDict({name: anonymize_stream(part, flow) for name, part in source.items()})
    if isinstance(source, DatasetDict):
        return AnonymizedDatasetDict({name: _view(part, flow) for name, part in source.items()})
    return anonymize_stream(source, flow) if streams else _view(source, flow)


def _view(ds: Dataset, flow: Flow) -> AnonymizedDataset:
    form = ds.format
    if form["type"] not in FORMATS:
        raise RefusedError(
            f"the dataset has the format {form['type']!r}; anonymize it without: ds.with_format(None), and set a "
            "format or transform on the view"
        )
    layout = layout_of(ds.features, flow.schema)
    say_kept(layout.kept_files())
    view = AnonymizedDataset(HfSource(ds, flow, layout))._with(split=_name(ds))
    if form["type"] is None:
        return view
    shown = [name for name in view.column_names if name in form["columns"] or name == NOTE]
    return view.with_format(form["type"], shown, form["output_all_columns"], **form["format_kwargs"])


def _name(ds: Dataset) -> str | None:
    """The name of the split, if it is a plain one: slices such as ``train[:10%]`` are none."""
    name = str(ds.split) if ds.split is not None else None
    return name if name and name.isidentifier() else None


def report(ds: Any) -> Report:
    """What was done so far, by all processes.

    Args:
        ds: what :func:`anonymize` returned, or a stream made from that.

    Raises:
        FieldTypeError: ``ds`` is not anonymized.
    """
    if isinstance(ds, AnonymizedDataset | AnonymizedDatasetDict):
        return ds.report
    streams = ds.values() if isinstance(ds, IterableDatasetDict) else [ds]
    for stream in streams:
        for flow in flows_of(stream):
            return flow.report
    raise FieldTypeError(f"there is no report of a {type(ds).__name__} that was not anonymized")


def __dir__() -> list[str]:
    return sorted(__all__)
