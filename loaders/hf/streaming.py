"""Streams: a real ``datasets.IterableDataset``, all of whose samples come out of one anonymizing ``map``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from datasets import DatasetInfo, Features, IterableDataset

from anondata.errors import RefusedError
from anondata.loaders._flow import Flow
from anondata.loaders._kept import say_kept
from anondata.loaders._spares import Spares
from anondata.loaders.hf.form import FORMATS
from anondata.loaders.hf.layout import NOTE, layout_of, unknown_layout
from anondata.loaders.hf.rows import RowReader
from anondata.loaders.hf.source import HfSource, Stored


@dataclass
class Stage:
    """For a batched ``map``: originals in, anonymized rows out, as a table stores them. It can be pickled."""

    reader: RowReader
    spares: Spares = field(default_factory=Spares, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"reader": self.reader, "spares": Spares()}

    def __call__(self, batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
        if indices and indices[0] == 0:  # a new pass: what it gives must not depend on the one before
            self.spares = Spares()
        count = len(next(iter(batch.values()), ()))
        rows = [self.reader.sample({name: batch[name][i] for name in batch}) for i in range(count)]
        flow = self.reader.flow
        settled = [] if flow.ended else flow.paid_whole(flow.settle(rows, self.spares))
        given = [(self.reader.row(s.fields), s.note) for s in settled if s.fields is not None]
        out = {name: [row[name] for row, _ in given] for name in self.reader.layout.columns}
        if self.reader.flow.on_withheld == "replace":
            out[NOTE] = [note for _, note in given]
        return out


def anonymize_stream(stream: IterableDataset, flow: Flow) -> IterableDataset:
    """The anonymized stream: `datasets`' own, so that shuffling, sharding, resuming and writing are its own, too.

    Nothing is read. Where the types of columns are not known, undeclared ones raise at the first row that has them.
    """
    kind = _format_of(stream)
    plain = stream.with_format(None)
    if stream.features is None:
        layout, known = unknown_layout(flow.schema), Features()
    else:
        layout = layout_of(stream.features, flow.schema)
        say_kept(layout.kept_files())
        known = layout.features()
        if flow.on_withheld == "replace":
            known = HfSource.with_note(known)
        plain = plain.decode(False)
    tokens = getattr(stream, "_token_per_repo_id", {})  # what load_dataset(token=…) was given
    # All that may be in a row: a batched map hands on what is not named here, and the reader refuses all else.
    removed = list({**flow.schema.fields, **(stream.features or {})})
    mapped = plain.map(
        Stage(RowReader(flow, layout, pictures=False, tokens=tokens)),
        batched=True,
        batch_size=flow.size,
        with_indices=True,
        remove_columns=removed,
    )
    # Told by a cast, not to map: what map is told it takes for decoded, and consumers would get file structs.
    out = _without_source(mapped.cast(known) if known else mapped)
    return out.with_format(kind) if kind else out


def _format_of(stream: IterableDataset) -> str | None:
    kind: str | None = getattr(getattr(stream, "_formatting", None), "format_type", None)
    if kind not in FORMATS:
        raise RefusedError(
            f"the stream has the format {kind!r}; anonymize it without: ds.with_format(None), and set the format on "
            "what comes out"
        )
    return kind


def _without_source(stream: IterableDataset) -> IterableDataset:
    """Without description, homepage, checksums by URL and all else that tells where the stream comes from."""
    for part in fields(DatasetInfo):
        if part.init and part.name != "features":
            default = part.default_factory() if part.default_factory is not MISSING else part.default
            setattr(stream.info, part.name, default)
    return stream


def flows_of(stream: IterableDataset) -> Iterator[Flow]:
    """How a stream's samples were anonymized, by the steps that they come through."""
    step = getattr(stream, "_ex_iterable", None)
    while step is not None:
        function = getattr(step, "function", None)
        if isinstance(function, Stage):
            yield function.reader.flow
        elif isinstance(function, Stored):
            yield function.source.flow
        step = getattr(step, "ex_iterable", None)
