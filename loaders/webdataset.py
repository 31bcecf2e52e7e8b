"""A stage for WebDataset pipelines: samples in, verified anonymized samples out.

>>> import webdataset as wds
>>> from anondata import Anonymizer
>>> from anondata.loaders.webdataset import anonymize
>>> stage = anonymize(Anonymizer("faces"), fields={"jpg;png": "image"}, keep=("cls",), drop=("json",))
>>> dataset = wds.WebDataset("shards-{0000..0099}.tar", shardshuffle=False).compose(stage).decode("pil")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Unpack

from anondata.anonymizer import Anonymizer
from anondata.errors import FieldTypeError, PolicyError
from anondata.loaders._flow import Flow, OnWithheld, Settled
from anondata.loaders._kept import are_media, say_kept
from anondata.loaders._reports import Reports
from anondata.loaders._spares import Group, Spares
from anondata.loaders._wds_fields import IMAGES, Fields, declare_fields
from anondata.loaders.quota import Quota, account_of
from anondata.report import Report
from anondata.samples import Schema

__all__ = ["Stage", "anonymize"]

KEY = "__key__"
"""The one thing that passes without being declared: later stages of WebDataset need it. Names identify, too, and
``anondata shards --rename-keys`` makes new ones."""

PLACES = ("__url__", "__local_path__")
"""Where a sample was read from. No later stage needs these file names (webdataset 1.0.2 puts them into messages of
errors), and an earlier stage may have put anything there: they do not come out."""

NOTE = "__anondata__"
"""What became of the sample: ``"released"``, or ``"replaced: REASON"``."""


def anonymize(
    anonymizer: Anonymizer,
    *,
    fields: Mapping[str, str] = IMAGES,
    keep: Iterable[str] | str = (),
    drop: Iterable[str] | str = (),
    on_withheld: OnWithheld = "drop",
    group: Group = None,
    batch: int | None = None,
    report_folder: str | os.PathLike[str] | None = None,
    **quota: Unpack[Quota],
) -> Stage:
    """Makes a stage for ``wds.WebDataset(…).compose(stage)`` and ``wds.DataPipeline(…, stage, …)``.

    Put it before ``.decode()``: then a corrupt picture is withheld here, and not left to WebDataset's handlers. The
    stage also takes what ``.decode`` makes (PIL images, arrays, tensors), but not tuples or batches. An encoded
    picture keeps its field's name, also if it is written in another format (GIF becomes PNG): decoders look at the
    bytes. ``__key__`` passes; ``__url__`` and ``__local_path__``, which are names of files, do not.

    Args:
        anonymizer: holds the policy and the run key.
        fields: the content type of each field that holds content; ``"jpg;png"`` stands for one or the other.
            ``"json": "regions"`` is for boxes; ``"seg.png": "masks"`` for masks, which do not come out; see
            :class:`anondata.samples.Schema`.
        keep: fields that pass as they are.
        drop: fields that do not come out.
        on_withheld: what comes instead of a withheld sample. ``"drop"``: nothing. ``"replace"``: another sample that
            this process released, under the key of the one withheld, or nothing while there is none. ``"raise"``: an
            error.
        group: a kept field, or a function of the kept fields. Samples of one group may stand in for each other.
        batch: how many samples go through the engine together; None chooses by the device.
        report_folder: where processes keep their counts; a shared folder if several machines work on one run.
        client, ledger, dataset_name, at_limit: whom to charge; see :class:`anondata.loaders.quota.Quota`.

    Raises:
        PolicyError: the declarations contradict each other.
    """
    declared = declare_fields(fields, keep, drop)
    for name in declared.schema.fields:
        if name.startswith("__"):
            raise PolicyError(f"field {name!r} is WebDataset's own or anondata's; it is not to be declared")
    say_kept(are_media(declared.schema.kept()))
    account = account_of(quota, anonymizer)
    flow = Flow(anonymizer, declared.schema, on_withheld, group, batch, Reports(report_folder), account)
    return Stage(flow, declared)


@dataclass(frozen=True)
class Stage:
    """Anonymizes a stream of dict samples, in order and in micro-batches; made by :func:`anonymize`.

    It can be pickled, so workers of a DataLoader may be forked or spawned. Errors are raised where the samples come
    out, so no ``handler=`` of another stage can mistake them for a bad sample.
    """

    flow: Flow
    fields: Fields

    def __call__(self, samples: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The samples that may be released.

        Raises:
            UndeclaredFieldError: a sample has a field that nobody declared.
            FieldTypeError: something in the stream is not a sample.
            WithheldError: a sample was withheld and ``on_withheld`` says so, or nothing was ever released.
        """
        spares = Spares()
        try:
            for batch in self.flow.batches(samples):
                declared = [(self._schema(sample), sample) for sample in batch]
                for schema, part in groupby(declared, key=lambda pair: pair[0]):
                    yield from self._given([sample for _, sample in part], schema, spares)
                    if self.flow.ended:
                        return
        finally:
            self.flow.settle_account()

    def _given(self, samples: Sequence[dict[str, Any]], schema: Schema, spares: Spares) -> Iterator[dict[str, Any]]:
        rows = [{name: value for name, value in sample.items() if name in schema.fields} for sample in samples]
        settled = self.flow.settle(rows, spares, schema)
        for sample, each in zip(samples, self.flow.paid(settled), strict=False):  # fewer at a limit
            if each.fields is not None:
                yield _given(sample, each, schema)

    @property
    def report(self) -> Report:
        """What was done so far, by all processes that hold a copy of this stage."""
        return self.flow.report

    def _schema(self, sample: Any) -> Schema:
        if not isinstance(sample, dict):
            raise FieldTypeError(
                f"the stage got {type(sample).__name__}; expected dict samples: put it before to_tuple and batched"
            )
        if not isinstance(sample.get(KEY, ""), str):
            raise FieldTypeError("the stage got a sample whose __key__ is not a text; put it before batched")
        return self.fields.of(name for name in sample if name != KEY and name not in PLACES)


def _given(sample: Mapping[str, Any], settled: Settled, schema: Schema) -> dict[str, Any]:
    """The sample's key, and the fields that may be seen, in the sample's order.

    Beside content that is still encoded insights are, too, for the same decoders.
    """
    fields = dict(settled.fields or {})
    if all(isinstance(fields[name], bytes) for name in schema.content() if name in fields):
        fields |= {name: fields[name].encode() for name in schema.insights() if name in fields}
    first = {name: fields.get(name, sample[name]) for name in sample if name == KEY or name in fields}
    return {**first, **fields, NOTE: settled.note}


def __dir__() -> list[str]:
    return sorted(__all__)
