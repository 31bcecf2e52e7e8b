"""Fields of WebDataset samples: declared by name, with alternatives, and checked for each sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anondata.errors import PolicyError, UndeclaredFieldError
from anondata.samples import DROP, Schema, declare

IMAGES: Mapping[str, str] = {"jpg;jpeg;png;webp": "image"}


@dataclass(frozen=True)
class Fields:
    """What every field of a stream's samples is.

    schema: of all names that a sample may have. either: names of content, of each group of which a sample must have
    at least one; it may have several, and then all of them are anonymized.
    """

    schema: Schema
    either: tuple[tuple[str, ...], ...]

    def of(self, names: Iterable[str]) -> Schema:
        """The schema of one sample: its content, and all that is kept. What is dropped needs not reach the engine.

        Of a group that the sample lacks the first name is in it, so that it is withheld.

        Raises:
            UndeclaredFieldError: a field that nobody declared.
        """
        there = list(names)
        for name in there:
            if name not in self.schema.fields:
                raise UndeclaredFieldError(_undeclared(name))
        wanted = {name for name in there if self.schema.fields[name] != DROP} | set(self.schema.kept())
        wanted |= {group[0] for group in self.either if not set(group) & wanted}
        return Schema({name: kind for name, kind in self.schema.fields.items() if name in wanted})

    @property
    def words(self) -> str:
        """What decides on the output: content and kept fields. What is dropped does not, so more may be later."""
        content = [f"{';'.join(group)}: {self.schema.fields[group[0]]}" for group in self.either]
        return ", ".join([*sorted(content), *(f"{name}: keep" for name in sorted(self.schema.kept()))])


def declare_fields(fields: Mapping[str, str], keep: Iterable[str] | str, drop: Iterable[str] | str) -> Fields:
    """Fields from names, each of which may hold alternatives as WebDataset writes them: ``"jpg;png"``.

    Raises:
        PolicyError: a name that is declared twice, or nothing that holds content.

    >>> declare_fields({"jpg;png": "image"}, "cls", ()).of(["png", "cls"]).fields
    {'png': 'image', 'cls': 'keep'}
    """
    either = tuple(_split(names) for names in fields)
    content = [(name, kind) for group, kind in zip(either, fields.values(), strict=True) for name in group]
    names = [name for name, _ in content]
    if not all(either):
        raise PolicyError("a name in fields is empty")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PolicyError(
            f"field {twice[0]!r} is declared twice, once maybe by default as a picture; each field is declared once"
        )
    schema = declare(dict(content), _names(keep), _names(drop))
    Schema({group[0]: schema.fields[group[0]] for group in either}).regions()  # of alternatives a sample has one
    return Fields(schema, either)


def _names(given: Iterable[str] | str) -> list[str]:
    return [name for names in ((given,) if isinstance(given, str) else given) for name in _split(names)]


def _split(names: str) -> tuple[str, ...]:
    return tuple(name for name in names.split(";") if name)


def _undeclared(name: str) -> str:
    """WebDataset takes all after the first dot of a file name for the field: most of that may name somebody."""
    *more, last = name.split(".")
    shown = f"'*.{last}' (of {len(more) + 1} parts, the last is shown)" if more else repr(last)
    return (
        f"field {shown} is not declared; declare it as a content type, keep or drop. A field's name is all that "
        "follows the first dot of a file name in the shard: if keys hold dots, as in a.b.jpg, rename them (a_b.jpg)"
    )
