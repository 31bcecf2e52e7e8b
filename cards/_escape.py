"""Text of others in markdown: it reads as it was written, and can neither end a cell nor open a tag."""

from __future__ import annotations

import re
from typing import Any

_ACTIVE = re.compile(r"([\\`*_{}\[\]|~$])")
_OPENS = re.compile(r"(?m)^[ \t]*(?:([-+=#:>])|(\d+)([.)])(?=\s|$))")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Markdown(str):
    """Text that is markdown already."""


def finalized(value: Any) -> Any:
    """For jinja2: escapes every text that goes into a template and is not marked as markdown."""
    if value is None:
        raise TypeError("a card holds no value that is None")
    return value if isinstance(value, Markdown) or not isinstance(value, str) else escaped(value)


def escaped(text: str) -> Markdown:
    """A text on one line that renders as itself.

    >>> escaped("a | <b> *c*\\n# d")
    'a \\\\| &lt;b&gt; \\\\*c\\\\* # d'
    """
    line = " ".join(text.split())
    line = _ACTIVE.sub(r"\\\1", "".join(_HTML.get(char, char) for char in line))
    return Markdown(_OPENS.sub(_opened, line))


def paragraphs(text: str) -> Markdown:
    """A text of several paragraphs, each escaped."""
    return Markdown("\n\n".join(escaped(part) for part in re.split(r"\n\s*\n", text) if part.strip()))


def code(text: str) -> Markdown:
    """A text as code on one line, in a table, too.

    >>> code("a|b`c")
    '``a\\\\|b`c``'
    """
    line = " ".join(text.split()).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{ticks}{room}{line}{room}{ticks}")


def fenced(text: str, language: str) -> Markdown:
    """A text as a block of code, whatever it holds."""
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _opened(match: re.Match[str]) -> str:
    sign, digits, dot = match.groups()
    return f"\\{sign}" if sign else f"{digits}\\{dot}"
