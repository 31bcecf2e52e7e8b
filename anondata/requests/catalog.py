"""Catalogs: which datasets clients may ask for, where they lie, and how each is anonymized.

::

    ledger: quotas.db                 # optional: a file, relative to the catalog, or a URL
    datasets:
      portraits:
        location: photos/             # a folder, a glob of parquet or tar files, or an id of the Hub
        builder: imagefolder          # or parquet, webdataset; left out, `datasets` finds out
        split: train
        fields: {image: image}        # columns with their content types; boxes of one's own: `objects: regions`
        keep: [label]
        drop: [caption]
        policy: {image: faces}        # by content type: a preset, or a file
        galleries: {protected: vips.gallery}
        clients: [acme, "*"]          # who may ask; "*" is everybody
        identity: person              # who it is, for the audit only: a dropped column, or a kept one
        insights: {key: file_name, file: notes.csv}   # texts of an editor, columns `key` and `insights`
        title: Portraits
        licence: cc-by-4.0

Paths are relative to the catalog.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from anondata._files import read_plain
from anondata._yaml import MAX_CHARS, YamlError, load_yaml
from anondata.errors import CatalogError, LimitError, PolicyError, RequestError
from anondata.ledger.values import Scope
from anondata.policy import explained
from anondata.samples import DROP, INSIGHTS, KEEP, Schema

ANYBODY = "*"

Builder = Literal["imagefolder", "parquet", "webdataset"]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _name(name: str) -> str:
    """What a ledger can hold, as the name of a dataset."""
    try:
        Scope("somebody", name, "image")
    except LimitError as error:
        raise ValueError(str(error)) from error
    return name


def _client(name: str) -> str:
    try:
        Scope("somebody" if name == ANYBODY else name, "dataset", "image")
    except LimitError as error:
        raise ValueError(str(error)) from error
    return name


def _kind(kind: str) -> str:
    if kind in (KEEP, DROP, INSIGHTS):
        raise ValueError(f"{kind!r} is no content type; name the column in keep: or drop: instead")
    return kind


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Texts(_Data):
    """An editor's texts, added to the insights as they are. key: a column whose value finds a row of the file.

    ``file_name`` is the path of the picture below the location, unless there is a column of that name.
    """

    key: Word
    file: Word


class CatalogEntry(_Data):
    """One dataset."""

    location: Word
    builder: Builder | None = None
    split: Word = "train"
    fields: dict[Word, Annotated[str, AfterValidator(_kind)]] = Field(min_length=1)
    keep: Annotated[list[Word], BeforeValidator(_listed)] = []
    drop: Annotated[list[Word], BeforeValidator(_listed)] = []
    group: str | None = None
    policy: dict[str, Word] = Field(min_length=1)
    galleries: dict[str, Word] = {}
    clients: list[Annotated[str, AfterValidator(_client)]] = Field(min_length=1)
    identity: str | None = None
    title: str | None = None
    summary: str | None = None
    licence: Word
    source: Annotated[list[Word], BeforeValidator(_listed)] = []
    insights: Texts | None = None

    @model_validator(mode="after")
    def _fits(self) -> CatalogEntry:
        named = [*self.fields, *self.keep, *self.drop]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"column {twice[0]!r} is declared twice; name it in one of fields, keep and drop")
        if not self.content_types:
            raise ValueError("fields: no column is declared to hold content")
        _check_regions(self.fields)
        if lacking := sorted(set(self.content_types) - set(self.policy)):
            raise ValueError(f"policy: no policy for the content type {lacking[0]!r}")
        if strange := sorted(set(self.policy) - set(self.content_types)):
            raise ValueError(f"policy: no column of fields holds the content type {strange[0]!r}")
        if self.group is not None and self.group not in self.keep:
            raise ValueError("group: must be one of the columns in keep")
        if self.identity is not None and self.identity not in (*self.keep, *self.drop):
            raise ValueError(
                "identity: must be one of the columns in drop, or of those in keep if clients may see it"
            )
        return self

    def open_to(self, client: str) -> bool:
        """Whether a client may ask for it."""
        return client in self.clients or ANYBODY in self.clients

    @property
    def content_types(self) -> tuple[str, ...]:
        return tuple(sorted(set(Schema(self.fields).content().values())))


def _check_regions(fields: Mapping[str, str]) -> None:
    try:
        Schema(fields).regions()
    except PolicyError as error:
        raise ValueError(f"fields: {error}") from error


class _Body(_Data):
    ledger: Word | None = None
    datasets: dict[Annotated[str, AfterValidator(_name)], CatalogEntry] = Field(min_length=1)


@dataclass(frozen=True)
class Catalog:
    """A catalog that was read.

    Args:
        folder: the folder of its file, which its paths are relative to.
        ledger: where quotas are kept; None if the catalog does not say.
    """

    folder: Path
    ledger: str | None
    datasets: Mapping[str, CatalogEntry]

    def open_to(self, client: str) -> dict[str, CatalogEntry]:
        """The datasets that a client may ask for, by name."""
        return {name: entry for name, entry in sorted(self.datasets.items()) if entry.open_to(client)}

    def entry(self, dataset: str, client: str) -> CatalogEntry:
        """A dataset that a client may ask for. Others are told to nobody, not even that they exist.

        Raises:
            RequestError: this client may not ask for a dataset of that name.
        """
        known = self.open_to(client)
        if dataset in known:
            return known[dataset]
        if not known:
            raise RequestError(
                f"client {client!r} may not ask for any dataset of this catalog; check the client's name"
            )
        near = difflib.get_close_matches(dataset, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`anondata request --list` tells those that it may"
        raise RequestError(f"client {client!r} may not ask for dataset {dataset!r}; {hint}")

    def path(self, place: str) -> Path:
        """A path of the catalog's."""
        return self.folder / Path(place).expanduser()


def load_catalog(source: str | Path | Catalog) -> Catalog:
    """Reads a catalog from its file. A :class:`Catalog` is returned as it is.

    Raises:
        CatalogError: it cannot be read, is not YAML, or does not validate: unknown keys, columns declared twice …
    """
    if isinstance(source, Catalog):
        return source
    path = Path(source)
    try:
        data = load_yaml(read_plain(path, limit=4 * MAX_CHARS + 1).decode())
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CatalogError(f"the catalog cannot be read: {said}") from error
    except YamlError as error:
        raise CatalogError(f"the catalog cannot be read as YAML: {error}") from error
    try:
        body = _Body.model_validate(data)
    except ValidationError as error:
        raise CatalogError("the catalog does not validate:\n" + explained(error, _KEYS, "catalog")) from error
    folder = path.resolve().parent
    return Catalog(folder, _ledger(body.ledger, folder), body.datasets)


def _ledger(place: str | None, folder: Path) -> str | None:
    return place if place is None or "://" in place else str(folder / Path(place).expanduser())


_KEYS = {name: None for model in (_Body, CatalogEntry, Texts) for name in model.model_fields}
