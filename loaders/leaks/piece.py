"""A part of a written file, and what is said when it holds what it should not."""

from __future__ import annotations

from typing import Literal, NamedTuple

from anondata.errors import LeakError


class Piece(NamedTuple):
    """Some bytes of a file. where: for people, without names of anything.

    kind: ``"picture"`` is where released pictures belong and nothing else; ``"value"`` may be one, or text, or stand
    for one; ``"raw"`` are bytes out of their order, in which parts of released pictures may lie, too.
    """

    where: str
    kind: Literal["picture", "value", "raw"]
    data: bytes


def leak(where: str, found: str) -> LeakError:
    """The error for what was found somewhere."""
    return LeakError(f"{where} {found}. Do not publish what was written; write it anew, and please report it")
