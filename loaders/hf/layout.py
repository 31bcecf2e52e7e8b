"""What each column is declared to be, down to the members of structs, and rows taken apart and put together by it.

A struct's members are named with dots: ``meta.photo``, and ``shots.photo`` for a list of structs. A list of images is
named like its column. Nothing that no name leads to is ever picked out of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import pyarrow as pa
from datasets import ClassLabel, Features, Image, LargeList, List, Translation, TranslationVariableLanguages, Value

from anondata.errors import FieldTypeError, PolicyError, UndeclaredFieldError
from anondata.samples import DROP, INSIGHTS, KEEP, Schema, comes_out, is_masks, is_regions

NOTE = "anondata"
"""The column that says of each row whether it was released or replaced."""


@dataclass(frozen=True)
class Leaf:
    """A value that was declared. kind: as it was. feature: its type, or None where unknown."""

    name: str
    kind: str
    feature: Any = None


@dataclass(frozen=True)
class Many:
    """A list of structs. of: the type of the list."""

    of: Any
    item: Tree


Tree: TypeAlias = "Leaf | Many | dict[str, Tree]"
"""What is left of a column's type without what was dropped."""


@dataclass(frozen=True)
class Layout:
    """What is looked at and what comes out.

    source: the columns that are not dropped, in order, masks included. dropped: those that are not even read.
    """

    source: Mapping[str, Tree]
    dropped: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> Mapping[str, Tree]:
        """The columns that come out, in order: those of ``source`` without masks."""
        left = {name: _without_masks(tree) for name, tree in self.source.items()}
        return {name: tree for name, tree in left.items() if tree is not None}

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that come from the dataset; insights are made."""
        return tuple(name for name, tree in self.source.items() if not _is_told(tree))

    def leaves(self, column: str) -> list[Leaf]:
        return list(_leaves(self.columns[column]))

    def columns_with(self, holds: Callable[[Leaf], bool]) -> list[str]:
        """The columns, masks included, of which a leaf is such a one."""
        return [name for name, tree in self.source.items() if any(map(holds, _leaves(tree)))]

    def kept_files(self) -> list[str]:
        """The names of what is kept and stored as files: pictures, videos, sound."""
        return [leaf.name for leaf in self.by_name().values() if leaf.kind == KEEP and is_file(item_of(leaf.feature))]

    def by_name(self) -> dict[str, Leaf]:
        """All leaves that are read."""
        return {leaf.name: leaf for tree in self.source.values() for leaf in _leaves(tree)}

    def is_kept(self, column: str) -> bool:
        """Whether a column holds no content at all."""
        return all(leaf.kind == KEEP for leaf in self.leaves(column))

    def take_apart(self, row: Mapping[str, Any], columns: Collection[str] | None = None) -> dict[str, Any]:
        """The declared values of a row by their dotted names; a value within a list of structs is a list.

        Raises:
            FieldTypeError: where a struct or a list should be and is not.
        """
        out: dict[str, Any] = {}
        for name in columns if columns is not None else self.source:
            if name in row:
                out |= _apart(self.source[name], row[name])
        return out

    def put_together(self, values: Mapping[str, Any], columns: Collection[str] | None = None) -> dict[str, Any]:
        """The row of such values."""
        names = columns if columns is not None else self.columns
        return {name: _together(self.columns[name], values) for name in names}

    def features(self) -> Features:
        """The types of the columns that come out. Labels keep their names."""
        return Features({name: _feature(tree) for name, tree in self.columns.items()})


def layout_of(features: Mapping[str, Any], schema: Schema) -> Layout:
    """The layout of columns of known types.

    Raises:
        UndeclaredFieldError: a column, a member of a struct, or media inside a kept struct that nobody declared.
        FieldTypeError: a declared column that is not there, or whose type cannot hold what it was declared to; a
            struct that would come out as a file with its path.
        PolicyError: a name that means two things.
    """
    seen: list[str] = []
    found = {name: _resolve(name, feature, schema.fields, seen) for name, feature in features.items()}
    for name in schema.insights():
        if name in found:
            raise PolicyError(f"field {name!r} is declared 'insights', but is a column; drop it, and name another")
        seen.append(name)
        found[name] = Leaf(name, INSIGHTS, Value("string"))
    if missing := sorted(set(schema.fields) - set(seen)):
        raise FieldTypeError(
            f"field {missing[0]!r} is declared, but the dataset has no such column or member; it has "
            f"{', '.join(features)}"
        )
    if twice := sorted(name for name in set(seen) if seen.count(name) > 1):
        raise PolicyError(f"field {twice[0]!r} is both a column and a member of a struct; rename one of them")
    kept = {name: tree for name, tree in found.items() if tree is not None}
    return Layout(kept, tuple(name for name in found if name not in kept))


def unknown_layout(schema: Schema) -> Layout:
    """The layout of a stream whose types are not known: each field is a column.

    The types of what comes are looked at row by row; see :func:`anondata.loaders.hf.rows.check_kept`.
    """
    columns: dict[str, Tree] = {n: Leaf(n, kind) for n, kind in schema.fields.items() if kind != DROP}
    return Layout(columns, tuple(n for n, kind in schema.fields.items() if kind == DROP))


def _resolve(name: str, feature: Any, declared: Mapping[str, str], seen: list[str]) -> Tree | None:
    item = item_of(feature)
    members = dict(item) if isinstance(item, Mapping) else {}
    inside = [
        n for member in members for n in declared if n == f"{name}.{member}" or n.startswith(f"{name}.{member}.")
    ]
    if name in declared:
        seen.append(name)
        if inside:
            raise PolicyError(
                f"field {name!r} and its member {inside[0]!r} are both declared; declare one of the two"
            )
        kind = declared[name]
        if kind == DROP:
            return None
        if not is_masks(kind):  # which hold any type, and do not come out
            (_check_kept if kind == KEEP or is_regions(kind) else _check_content)(name, kind, item)
        return Leaf(name, kind, feature)
    if not inside:
        raise UndeclaredFieldError(
            f"field {name!r} is not declared; declare it as a content type, 'keep' or 'drop'"
            + (f", or its members: {', '.join(f'{name}.{member}' for member in members)}" if members else "")
        )
    found = {member: _resolve(f"{name}.{member}", part, declared, seen) for member, part in members.items()}
    kept = {member: tree for member, tree in found.items() if tree is not None}
    _check_no_file(name, [member for member, tree in kept.items() if _without_masks(tree) is not None])
    return _wrapped(feature, kept) if kept else None


def _without_masks(tree: Tree) -> Tree | None:
    """What comes out of a column; None for nothing."""
    if isinstance(tree, Leaf):
        return tree if comes_out(tree.kind) else None
    if isinstance(tree, Many):
        inner = _without_masks(tree.item)
        return None if inner is None else Many(tree.of, inner)
    left = {member: _without_masks(sub) for member, sub in tree.items()}
    return {member: sub for member, sub in left.items() if sub is not None} or None


def _wrapped(feature: Any, members: dict[str, Tree]) -> Tree:
    return Many(feature, _wrapped(feature.feature, members)) if isinstance(feature, List | LargeList) else members


def item_of(feature: Any) -> Any:
    """What lists of lists hold in the end."""
    while isinstance(feature, List | LargeList):
        feature = feature.feature
    return feature


def is_bytes(feature: Any) -> bool:
    """Whether a type is that of plain bytes."""
    return isinstance(feature, Value) and "binary" in feature.dtype


def is_file(feature: Any) -> bool:
    """Whether a type is stored as the bytes or the path of a file: Image, Audio, Video, …"""
    kind = getattr(feature, "pa_type", None)
    return isinstance(kind, pa.StructType) and kind.get_field_index("path") >= 0


def _check_content(name: str, kind: str, item: Any) -> None:
    if kind != "image" or isinstance(item, Image) or is_bytes(item):
        return  # of other content types the engine says what it takes
    if isinstance(item, Mapping):
        raise FieldTypeError(
            f"field {name!r} is declared {kind!r}, but holds structs; declare their members, "
            f"such as '{name}.{next(iter(item), 'photo')}'"
        )
    found = item.dtype if isinstance(item, Value) else type(item).__name__
    raise FieldTypeError(
        f"field {name!r} is declared {kind!r}, but holds {found}; expected images or encoded bytes. Where it holds "
        f"paths of images or their pixels, cast it first: ds.cast_column({name!r}, datasets.Image())"
    )


def _check_kept(name: str, kind: str, item: Any) -> None:
    """A struct is kept whole only where nothing in it could be a picture that nobody thought of."""
    if not isinstance(item, Mapping):
        return
    _check_no_file(name, item)
    for member, feature in item.items():
        inner = item_of(feature)
        if not isinstance(inner, Mapping) and not _is_plain(inner):
            raise UndeclaredFieldError(
                f"field {name!r} is kept, but its member '{name}.{member}' holds {type(inner).__name__}; declare the "
                f"members of {name!r} one by one instead, and so say that this one is anonymized, kept or dropped"
            )
        _check_kept(f"{name}.{member}", kind, inner)


def _check_no_file(name: str, members: Collection[str]) -> None:
    """A struct of bytes and path is how files are stored, and readers would open the path."""
    if set(members) == {"bytes", "path"}:
        raise FieldTypeError(
            f"field {name!r} is a struct of bytes and path, which readers take for a file, whose path must not come "
            f"out; drop '{name}.path', or rename it in the dataset, or cast images: "
            f"ds.cast_column({name!r}, datasets.Image())"
        )


def _is_plain(feature: Any) -> bool:
    plain = (Value, ClassLabel, Translation, TranslationVariableLanguages)
    return isinstance(feature, plain) and not is_bytes(feature)


def _leaves(tree: Tree) -> Iterator[Leaf]:
    if isinstance(tree, Leaf):
        yield tree
    else:
        for part in [tree.item] if isinstance(tree, Many) else tree.values():
            yield from _leaves(part)


def _apart(tree: Tree, value: Any) -> dict[str, Any]:
    if isinstance(tree, Leaf):
        return {tree.name: value}
    if value is None:
        return {leaf.name: None for leaf in _leaves(tree)}
    if isinstance(tree, Many):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise FieldTypeError(f"a column of lists of structs holds {type(value).__name__}")
        items = [_apart(tree.item, item) for item in value]
        return {leaf.name: [item[leaf.name] for item in items] for leaf in _leaves(tree)}
    if not isinstance(value, Mapping):
        raise FieldTypeError(f"a column of structs holds {type(value).__name__}")
    return {name: part for member, sub in tree.items() for name, part in _apart(sub, value.get(member)).items()}


def _together(tree: Tree, values: Mapping[str, Any]) -> Any:
    if isinstance(tree, Leaf):
        return values.get(tree.name)
    if isinstance(tree, dict):
        return {member: _together(sub, values) for member, sub in tree.items()}
    lists = {leaf.name: values.get(leaf.name) for leaf in _leaves(tree)}
    count = max((len(items) for items in lists.values() if items is not None), default=None)
    if count is None:
        return None
    filled = {name: [None] * count if items is None else items for name, items in lists.items()}
    return [_together(tree.item, {name: items[i] for name, items in filled.items()}) for i in range(count)]


def _is_told(tree: Tree) -> bool:
    return isinstance(tree, Leaf) and tree.kind == INSIGHTS


def _feature(tree: Tree) -> Any:
    if isinstance(tree, Leaf):
        return tree.feature
    if isinstance(tree, dict):
        return {member: _feature(sub) for member, sub in tree.items()}
    inner = _feature(tree.item)
    return LargeList(inner) if isinstance(tree.of, LargeList) else List(inner, length=tree.of.length)
