"""Does a card say what is so? Its figures against those of the run, and its text against its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from anondata.cards._block import block_of
from anondata.cards._text import SECTIONS, section
from anondata.cards.facts import Facts
from anondata.cards.readme import body_of, from_card

Json = Mapping[str, Any]

_HEADING = re.compile(r"(?m)^## .*$")
# Who checks has another machine: a model of the user's own is not there, and the key of the seal is not, either.
_OF_THE_MACHINE = ("sealed", "models")


def check_card(text: str, facts: Facts) -> list[str]:
    """Differences between a card and what is so, as sentences; none when the card is right.

    Every figure is compared but what only the publisher's machine knew (the seal; weights that are not here), and
    every part of the text that anondata wrote. Title, summary and parts that somebody added are not.

    Raises: CardError for what is no card.
    """
    block = from_card(text)
    expected = block_of(facts)
    found = [
        line for key in expected if key not in _OF_THE_MACHINE for line in _apart(key, block.get(key), expected[key])
    ]
    found += [f"{key}: the card has it, and it is none of a card's figures" for key in block if key not in expected]
    return [*found, *_models(block.get("models", []), expected["models"]), *_text(text, block)]


def _apart(where: str, said: Any, true: Any) -> Iterator[str]:
    """Leaves that differ, by their path."""
    if isinstance(said, Mapping) and isinstance(true, Mapping):
        for key in dict.fromkeys((*true, *said)):
            yield from _apart(f"{where}.{key}", said.get(key), true.get(key))
    elif isinstance(said, list) and isinstance(true, list) and len(said) == len(true):
        for i, (a, b) in enumerate(zip(said, true, strict=True)):
            yield from _apart(f"{where}[{i}]", a, b)
    elif said != true or type(said) is not type(true):
        yield f"{where}: {_told(said, true)}"


def _told(said: Any, true: Any) -> str:
    """Numbers as they are; no text, because it could be anything."""
    if isinstance(true, bool | int | float):
        other = repr(said) if isinstance(said, bool | int | float) else "something else"
        return f"the card says {other}, it is {true!r}"
    return "the card lacks it" if said is None else "the card says something else"


def _models(said: Any, true: list[dict[str, Any]]) -> Iterator[str]:
    known = {(one.get("name"), one.get("role")): one for one in said if isinstance(one, Mapping)}
    for one in true:
        other = known.get((one["name"], one["role"]))
        if other is None:
            yield f"models: {one['name']} is not among the card's"
            continue
        told = {key: value for key, value in one.items() if not (key == "sha256" and value is None)}
        yield from _apart(f"models.{one['name']}", {key: other.get(key) for key in told}, told)


def _text(text: str, block: Json) -> Iterator[str]:
    """Parts of the text that do not follow from the figures beside them."""
    parts = _parts(body_of(text))
    status = section("status", block).strip()
    if status not in parts.get("", [""])[0]:
        yield "the first lines of the card are not what its figures say"
    for name in SECTIONS:
        written = section(name, block)
        heading = written.split("\n", 1)[0]
        there = parts.get(heading, [])
        if len(there) != 1:
            yield f"the card has the part {heading!r} {len(there)} times, once is right"
        elif _lines(there[0]) != _lines(written):
            yield from _lines_apart(heading, _lines(there[0]), _lines(written))


def _parts(body: str) -> dict[str, list[str]]:
    """Text by heading; before the first one by an empty word."""
    starts = [match.start() for match in _HEADING.finditer(body)]
    out = {"": [body[: starts[0]] if starts else body]}
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        out.setdefault(body[start:end].split("\n", 1)[0].rstrip(), []).append(body[start:end])
    return out


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


def _lines_apart(heading: str, there: list[str], written: list[str]) -> Iterator[str]:
    """By number only: what somebody wrote into a card may be anything."""
    if len(there) != len(written):
        yield f"{heading!r} has {len(there)} lines, its figures make {len(written)}"
        return
    for number, (a, b) in enumerate(zip(there, written, strict=True), start=1):
        if a != b:
            yield f"{heading!r}, line {number}: not what the card's figures say"
