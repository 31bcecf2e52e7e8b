"""Where a request's samples come from: the dataset, the rows that are asked for, and the order they are drawn in."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata._files import insights_by
from anondata.errors import ArgumentError, CatalogError, RequestError, UnreadableSourceError
from anondata.requests.catalog import Catalog, CatalogEntry

if TYPE_CHECKING:
    from datasets import Dataset

    from anondata.randomness import RunKey
    from anondata.requests.terms import Terms

CHUNK = 10_000  # rows of a column that are looked at together
FILE_NAME = "file_name"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SUFFIXES = {".parquet": "parquet", ".tar": "webdataset"}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would be drawn into ours."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


# --- the dataset --------------------------------------------------------------------------------------------------


def loaded(terms: Terms) -> Dataset:
    """The dataset of an entry. No picture is read.

    Raises:
        UnreadableSourceError: it is not where the catalog says, or `datasets` cannot load it so.
        RequestError: it holds no row, or pictures that nobody would audit.
        UndeclaredFieldError, FieldTypeError: its columns are not those that the catalog declares.
    """
    from datasets import load_dataset

    builder, place = _how(terms.catalog, terms.entry, terms.asked.dataset)
    try:
        found: Dataset = load_dataset(builder, split=terms.entry.split, **place)
    except Exception as error:  # `datasets` raises what it likes; its text would name the files
        raise UnreadableSourceError(
            f"dataset {terms.asked.dataset!r} cannot be loaded ({type(error).__name__}); check location, builder and "
            "split of its entry"
        ) from error
    _check_columns(terms, found)
    return found


def check_place(terms: Terms) -> None:
    """Whether a dataset and what else its entry names is where the catalog says; quick, nothing is loaded.

    Raises:
        UnreadableSourceError: the dataset is not there. PolicyError: other galleries than the policy names.
        CatalogError: a file of a gallery or of insights is not there.
    """
    from anondata.engine.rules import check_galleries

    _how(terms.catalog, terms.entry, terms.asked.dataset)
    check_galleries(terms.policy, terms.galleries)
    files = {f"the gallery {name!r}": path for name, path in terms.galleries.items()}
    if terms.entry.insights is not None:
        files["the file of insights"] = terms.catalog.path(terms.entry.insights.file)
    for what, path in files.items():
        if not path.is_file():
            raise CatalogError(f"{what} is not where the catalog says")


def local_place(catalog: Catalog, entry: CatalogEntry) -> Path | None:
    """The folder or file that a location names, without what a glob says; None for a URL or an id of the Hub."""
    if "://" in entry.location:
        return None
    path = Path(*_plain_parts(catalog.path(entry.location)))
    return path if path.exists() else None


def _how(catalog: Catalog, entry: CatalogEntry, dataset: str) -> tuple[str, dict[str, Any]]:
    """The first argument and keywords of ``load_dataset``."""
    remote = "://" in entry.location
    path = entry.location if remote else str(catalog.path(entry.location))
    builder: str | None = entry.builder or _SUFFIXES.get(Path(entry.location).suffix)
    there = remote or bool(glob.glob(path, recursive=True))
    if not there and (builder or not _HUB_ID.fullmatch(entry.location)):
        raise UnreadableSourceError(
            f"dataset {dataset!r} is not where the catalog says; nothing lies at the location of its entry"
        )
    if builder is None:
        return (path if there else entry.location), {}
    if not remote and Path(path).is_dir():
        return builder, {"data_dir": path}
    return builder, {"data_files": {entry.split: path}}


def _plain_parts(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part


def _check_columns(terms: Terms, found: Dataset) -> None:
    from anondata.loaders.hf.layout import layout_of
    from anondata.publishing.pictures import has_images

    if not len(found):
        raise RequestError(f"dataset {terms.asked.dataset!r} holds no row")
    for name in terms.entry.keep:
        if name in found.features and has_images(found.features[name]):
            raise CatalogError(
                f"column {name!r} is kept and holds pictures, which would go out as they are and unaudited; declare "
                "them in fields, or drop the column"
            )
    for column in filter(None, (terms.entry.identity, *terms.asked.where)):
        if column not in found.features:
            raise CatalogError(
                f"the catalog declares a column {column!r}, which the dataset does not have; it has "
                f"{', '.join(found.features)}"
            )
    layout_of(found.features, terms.schema)


# --- which rows ---------------------------------------------------------------------------------------------------


def candidates(terms: Terms, found: Dataset) -> list[int]:
    """Numbers of the rows that the request may be met with, in the dataset's order.

    Raises:
        RequestError: no row has the values that were asked for, or a column holds none that can be compared.
    """
    if not terms.asked.where:
        return list(range(len(found)))
    wanted = {name: _wanted(name, found.features[name], value) for name, value in terms.asked.where.items()}
    rows = [number for number, row in enumerate(_values(found, list(wanted))) if row == tuple(wanted.values())]
    if not rows:
        raise RequestError(
            f"no sample of dataset {terms.asked.dataset!r} has what was asked for in {', '.join(wanted)}; check how "
            "the value is written"
        )
    return rows


def drawn(rows: Sequence[int], key: RunKey) -> list[int]:
    """The rows in an order that is drawn from the key: the first of them are a fair draw, and the same each time."""
    return sorted(rows, key=lambda number: key.digest("candidate", number))


def _wanted(name: str, feature: Any, text: str) -> Any:
    """A value as a column of this type holds it; None where it can hold none such, which then matches nothing."""
    from datasets import ClassLabel, Value

    if isinstance(feature, ClassLabel):
        return feature.names.index(text) if text in (feature.names or ()) else _NOTHING
    kind = feature.dtype if isinstance(feature, Value) else ""
    try:
        if "string" in kind:
            return text
        if kind == "bool":
            return {"true": True, "false": False}.get(text.lower(), _NOTHING)
        if "int" in kind:
            return int(text)
        if kind.startswith("float"):
            return float(text)
    except ValueError:
        return _NOTHING
    raise RequestError(f"column {name!r} cannot be chosen by: it holds neither text, numbers nor classes")


_NOTHING = object()


def _values(found: Dataset, names: list[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of some columns, as they are stored."""
    for table in found.select_columns(names).with_format("arrow").iter(CHUNK):
        yield from zip(*(table.column(name).to_pylist() for name in names), strict=True)


# --- an editor's texts --------------------------------------------------------------------------------------------


def texts_by_row(terms: Terms, found: Dataset) -> dict[int, str]:
    """An editor's texts by the number of the row that they are about.

    Raises:
        CatalogError: the file cannot be read, names a row twice, or fits no row.
    """
    if terms.entry.insights is None or terms.insights is None:
        return {}
    texts, key = _texts(terms.catalog.path(terms.entry.insights.file)), terms.entry.insights.key
    if key in found.features and key not in terms.entry.fields:
        names: Iterator[str] = (str(value) for (value,) in _values(found, [key]))
    elif key == FILE_NAME:
        names = _file_names(terms, found)
    else:
        raise CatalogError(f"insights: the dataset has no column {key!r} that finds a row of the file")
    out = {number: texts[name] for number, name in enumerate(names) if name in texts}
    if not out:
        raise CatalogError(f"insights: no {key} in the file matches a row of the dataset")
    return out


def _texts(path: Path) -> Mapping[str, str]:
    try:
        return {key: text.strip() for key, text in insights_by("key", path).items()}
    except ArgumentError as error:
        raise CatalogError(f"insights: {error}") from error


def _file_names(terms: Terms, found: Dataset) -> Iterator[str]:
    """Paths of the pictures below the location, or their bare names where the dataset tells no more."""
    from datasets import Image

    content = next(iter(terms.schema.content()))
    place = local_place(terms.catalog, terms.entry)
    if not isinstance(found.features.get(content), Image):
        raise CatalogError("insights: file_name finds pictures by their files, and the dataset has none")
    for stored in _paths(found, content):
        path = Path(stored or "")
        inside = place is not None and path.is_absolute() and path.is_relative_to(place)
        yield path.relative_to(place).as_posix() if inside and place is not None else path.name


def _paths(found: Dataset, column: str) -> Iterator[str | None]:
    """Paths of the pictures of a column, without the pictures."""
    import pyarrow.compute as pc

    for table in found.select_columns([column]).with_format("arrow").iter(CHUNK):
        yield from pc.struct_field(table.column(column), "path").to_pylist()
