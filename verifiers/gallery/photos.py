"""Photos of known people, from whatever holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anondata.errors import GalleryError

IDENTITY_COLUMNS = ("identity", "label")
IMAGE_COLUMNS = ("image", "jpg", "png")


@dataclass(frozen=True)
class Photo:
    """A photo and whose it is.

    identity: what the gallery knows the person by. label: for people to read, and may be empty.
    image: encoded bytes, a PIL image, an array or a tensor; or a function that returns one, called when it is needed.
    """

    identity: str = field(repr=False)
    image: Any = field(repr=False)
    label: str = field(default="", repr=False)


def photos_of_dataset(dataset: Any, *, image: str | None = None, identity: str | None = None) -> Iterator[Photo]:
    """The photos of a Hugging Face dataset (map-style or iterable), or of any iterable of rows.

    Pictures are read as they were stored and decoded later: one that is damaged then costs itself and not the run.
    Class labels become their names; a missing identity becomes an empty one, which is refused.

    image, identity: columns; by default the only column of pictures (or ``image``, ``jpg``, ``png``), and
        ``identity`` or ``label``.

    Raises:
        GalleryError: a column that is not there.
    """
    features = getattr(dataset, "features", None) or {}
    if features:
        image = _column(features, image, _pictures(features) or IMAGE_COLUMNS, "--image-column")
        identity = _column(features, identity, IDENTITY_COLUMNS, "--identity")
        if getattr(features[image], "decode", False):
            dataset = dataset.cast_column(image, type(features[image])(decode=False))
    for row in dataset:
        if image is None or identity is None:
            image = _column(row, image, IMAGE_COLUMNS, "--image-column")
            identity = _column(row, identity, IDENTITY_COLUMNS, "--identity")
        if image not in row or identity not in row:
            raise GalleryError("a row of the dataset lacks the column of pictures, or that of identities")
        yield Photo(name_of(row[identity], features.get(identity)), _stored(row[image]))


def name_of(value: Any, feature: Any = None) -> str:
    """An identity as a text: the name of a class label, an int as its digits, nothing for what is missing."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    names: Sequence[str] | None = getattr(feature, "names", None)
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _pictures(features: Mapping[str, Any]) -> tuple[str, ...]:
    """The only column of pictures, if there is just one."""
    found = tuple(name for name, feature in features.items() if type(feature).__name__ == "Image")
    return found if len(found) == 1 else ()


def _column(known: Iterable[str], asked: str | None, usual: Sequence[str], option: str) -> str:
    names = list(known)
    found = next((name for name in ([asked] if asked else usual) if name in names), None)
    if found is None:
        wanted = repr(asked) if asked else " or ".join(repr(name) for name in usual)
        raise GalleryError(f"no column {wanted}; say which one it is ({option}): {', '.join(names)}")
    return found


def _stored(value: Any) -> Any:
    """What a row holds of a picture: the datasets library keeps undecoded ones as bytes, or as a path."""
    if not isinstance(value, Mapping):
        return value
    if value.get("bytes") is not None:
        return value["bytes"]
    path = value.get("path")
    return Path(path).read_bytes if path else None
