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
    """An anonymized view of a dataset, or an anonymized stream. Reads nothing.

    A ``Dataset`` becomes an :class:`AnonymizedDataset`, a ``DatasetDict`` an :class:`AnonymizedDatasetDict`, an
    ``IterableDataset`` or ``IterableDatasetDict`` one of its own kind.

    Every column is declared: in ``fields`` with its content type (by default ``{"image": "image"}``), in ``keep`` or
    in ``drop``. A column may hold a list of images. Members of structs are named with dots: ``"meta.photo"``, also in
    a list of structs. Names of classes are part of a kept label's type: where they are names of people, drop it.
    A kept image passes as it is, with all that its file tells (EXIF: place, time, camera). A column of boxes may be
    declared ``"regions"`` in ``fields``, one of masks ``"masks"``, which does not come out; see
    :class:`anondata.samples.Schema`.

    on_withheld: what consumers get instead of a withheld sample: ``"replace"`` (another one, and the column
        ``"anondata"`` says so; what views do unless told otherwise), ``"drop"`` (streams do) or ``"raise"``.
        Of a view it is another of the rows that the view shows.
    group: the name of a kept field, or a function of a sample's kept fields, without files: samples of one group may
        stand in for one another. batch: samples that go through the engine together. report_folder: where the
        report's parts lie; a shared folder if several machines work on one run.
    quota: whom to charge, ``client=`` and ``ledger=``; see :class:`anondata.loaders.quota.Quota`. Rows that are asked
        for at once are charged at once: all of them, or an error and none. Kept columns alone cost nothing.

    A stream that was resumed gives what it would have given, but ``"replace"`` starts without samples to stand in,
    and what is done again of a batch is counted again.

    Raises:
        UndeclaredFieldError: a column or a member of a struct that is not declared. Where a stream does not know its
            columns, it raises at the first row that has one.
        FieldTypeError: no dataset, a declared column that is not there, or that cannot hold its content type.
        PolicyError: a declaration that contradicts itself, or ``"drop"`` for a view, whose length could not be told.
        RefusedError: a dataset with a transform, or with a format that makes tables.
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
    """What was done so far to what :func:`anonymize` returned, by all processes; also of a stream made from that.

    Raises:
        FieldTypeError: for what is not anonymized.
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
