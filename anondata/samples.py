"""Samples: a key, and fields that are each declared with a content type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from anondata.components import suggest
from anondata.errors import PolicyError, UndeclaredFieldError

KEEP = "keep"
DROP = "drop"
INSIGHTS = "insights"
REGIONS = "regions"
MASKS = "masks"


@dataclass(frozen=True)
class Sample:
    """One sample on its way through the engine.

    Args:
        key: names the sample within its source. It may identify somebody (a file name does), so it is never shown:
            reports and errors use an index or a keyed hash.
        fields: the values, by field name.
    """

    key: str = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Sample, (self.key, dict(self.fields)))


@dataclass(frozen=True)
class Schema:
    """What each field of a sample is: a content type of the policy, or one of these words.

    * ``"keep"``: the field passes as it is. ``"drop"``: it does not come out.
    * ``"insights"``: comes out with a text about what was in the other fields, in words that identify nobody (see
      :mod:`anondata.content.insights`). The field need not exist; a value under its name is dropped.
    * ``"regions"``: boxes that are to be anonymized, too, in a form of :mod:`anondata.content.given`. If there are
      several fields of content, name the one that the boxes are of: ``"regions:left"``. The field must exist, and
      comes out as it is. If the boxes are a part of a JSON text, give its path, ``"regions.objects"``; only that part
      comes out.
    * ``"masks"`` (or ``"masks:left"``): masks of the same, in a form of :mod:`anondata.content.masks`. The field must
      exist, and does *not* come out, because an outline can tell who somebody is. A mask that a model is to learn
      from is declared ``"keep"``; then nothing is anonymized because of it.

    Args:
        fields: a word for each field.

    >>> schema = Schema({"image": "image", "label": "keep", "caption": "drop"})
    >>> schema.check({"image": b"", "label": 3, "caption": ""})
    >>> schema.check({"image": b"", "path": "x"})
    Traceback (most recent call last):
    ...
    anondata.errors.UndeclaredFieldError: field 'path' is not declared; declare it as a content type, 'keep' or 'drop'
    """

    fields: Mapping[str, str]

    def check(self, names: Iterable[str]) -> None:
        """Checks that all fields are declared.

        Raises:
            UndeclaredFieldError: names the first field that is not.
        """
        for name in names:
            if name not in self.fields:
                raise UndeclaredFieldError(
                    f"field {name!r} is not declared; declare it as a content type, 'keep' or 'drop'"
                )

    def content(self) -> dict[str, str]:
        """The fields that hold content, with their content types."""
        other = (KEEP, DROP, INSIGHTS)
        return {name: kind for name, kind in self.fields.items() if kind not in other and not is_regions(kind)}

    def regions(self) -> dict[str, str]:
        """The fields that hold boxes or masks, each with the field of content that they belong to.

        Raises:
            PolicyError: a field names a field of content that does not exist, or names none though there are several.
        """
        content = list(self.content())
        found = {name: kind.partition(":")[2] for name, kind in self.fields.items() if is_regions(kind)}
        for name, whose in found.items():
            if path_of(self.fields[name]) and (is_masks(self.fields[name]) or not all(path_of(self.fields[name]))):
                raise PolicyError(
                    f"field {name!r} is declared {self.fields[name]!r}; a path is told as regions.NAME.NAME"
                )
            if whose not in content and (whose or len(content) != 1):
                raise PolicyError(
                    f"field {name!r} is declared {self.fields[name]!r}; name the field of content whose regions it "
                    f"holds, such as '{self.fields[name].partition(':')[0]}:{next(iter(content), 'image')}'"
                )
        return {name: whose or content[0] for name, whose in found.items()}

    def insights(self) -> tuple[str, ...]:
        """The fields that come out with insights."""
        return tuple(name for name, kind in self.fields.items() if kind == INSIGHTS)

    def kept(self) -> tuple[str, ...]:
        """The fields that pass as they are, because somebody wrote that down."""
        return tuple(name for name, kind in self.fields.items() if kind == KEEP)

    def unchanged(self) -> tuple[str, ...]:
        """The fields that come out as they went in: what is kept, and boxes."""
        return tuple(n for n, kind in self.fields.items() if kind == KEEP or (is_regions(kind) and comes_out(kind)))

    def check_content_types(self, known: Iterable[str]) -> None:
        """Checks that the policy has rules for the content type of each field.

        Raises:
            PolicyError: names the first field that it has no rules for.
        """
        known = sorted(known)
        for name, kind in self.content().items():
            if kind not in known:
                words = dict.fromkeys([*known, KEEP, DROP, INSIGHTS, REGIONS, MASKS])
                raise PolicyError(
                    f"field {name!r} is declared {kind!r}, but the policy has rules for {', '.join(known)} only; "
                    + suggest(kind, words)
                )


def is_regions(kind: str) -> bool:
    """Whether a field is declared to hold regions, as boxes or as masks.

    >>> [is_regions(kind) for kind in ("regions", "regions.objects:left", "masks", "image")]
    [True, True, True, False]
    """
    return kind.partition(":")[0].partition(".")[0] in (REGIONS, MASKS)


def path_of(kind: str) -> tuple[str, ...]:
    """Where in its JSON text a field's regions are, as it is declared.

    >>> path_of("regions.meta.objects:left"), path_of("regions")
    (('meta', 'objects'), ())
    """
    return tuple(kind.partition(":")[0].split(".")[1:])


def is_masks(kind: str) -> bool:
    """Whether a field is declared to hold masks.

    >>> [is_masks(kind) for kind in ("masks:left", "regions")]
    [True, False]
    """
    return kind.partition(":")[0].partition(".")[0] == MASKS


def comes_out(kind: str) -> bool:
    """Whether a field is in a released sample: what is dropped is not, nor are masks, which are only looked at.

    >>> [comes_out(kind) for kind in ("keep", "image", "regions", "masks", "drop")]
    [True, True, True, False, False]
    """
    return kind != DROP and not is_masks(kind)


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The values of a field with their places: itself, or those of a list or tuple, also nested.

    >>> dict(leaves(["a", ["b"]], "frames"))
    {'frames[0]': 'a', 'frames[1][0]': 'b'}
    """
    if type(value) in (list, tuple):
        for i, item in enumerate(value):
            yield from leaves(item, f"{place}[{i}]")
    else:
        yield place, value


def beside(value: Any, other: Any, place: str) -> Iterator[tuple[str, Any]]:
    """What another field holds for each value of a field, by place; for a list of another shape, at its own.

    >>> dict(beside(["a", ["b"]], [1, [2]], "frames"))
    {'frames[0]': 1, 'frames[1][0]': 2}
    """
    if type(value) in (list, tuple) and type(other) in (list, tuple) and len(other) == len(value):
        for i, (item, its) in enumerate(zip(value, other, strict=True)):
            yield from beside(item, its, f"{place}[{i}]")
    else:
        yield place, other


def with_leaves(value: Any, place: str, changed: Mapping[str, Any]) -> Any:
    """A field of the same shape with other values, by their places; one that has none is an error."""
    if type(value) in (list, tuple):
        return type(value)(with_leaves(item, f"{place}[{i}]", changed) for i, item in enumerate(value))
    return changed[place]


def declare(fields: Mapping[str, str], keep: Iterable[str] | str = (), drop: Iterable[str] | str = ()) -> Schema:
    """A schema from fields with their content types, and the names of those that are kept or dropped.

    Raises:
        PolicyError: a name that is declared twice, or nothing that holds content.

    >>> declare({"image": "image"}, keep="label").fields
    {'image': 'image', 'label': 'keep'}
    """
    declared = dict(fields)
    for names, what in ((keep, KEEP), (drop, DROP)):
        for name in (names,) if isinstance(names, str) else names:
            if name in declared:
                raise PolicyError(f"field {name!r} is declared twice, as {declared[name]!r} and as {what!r}")
            declared[name] = what
    schema = Schema(declared)
    if not schema.content():
        raise PolicyError("no field is declared to hold content; name one, such as fields={'image': 'image'}")
    return schema
