"""YAML of somebody else's, read in little time and memory, or refused.

A short text can stand for gigabytes: by aliases of aliases, by nesting that exhausts the stack, by numbers of
thousands of digits. All that is bounded here before anything is made of it, so policies, catalogs and cards are read
by no other function.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARS = 1 << 18  # policies have some thousands, a catalog of four hundred datasets a hundred thousand
MAX_DEPTH = 32  # policies are nested eight deep
MAX_NODES = 10_000  # with each alias counted as what it stands for
MAX_NUMBER = 64  # characters of a number

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


class YamlError(ValueError):
    """A text that is not YAML, or more than anybody writes by hand. The message is the end of a sentence."""


def load_yaml(text: str, *, aliases: bool = True) -> Any:
    """What a YAML text holds, as plain data.

    Args:
        text: of at most :data:`MAX_CHARS` characters.
        aliases: whether it may use them.

    Raises:
        YamlError: what is not YAML, asks for other types than plain data, or is too large, too deep or repetitive.

    >>> load_yaml("a: [1, 2]")
    {'a': [1, 2]}
    """
    if len(text) > MAX_CHARS:
        raise YamlError(f"it has more than {MAX_CHARS} characters")
    loader = _Loader(text, aliases)
    try:
        return loader.get_single_data()
    except YamlError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its own text would quote the line
        where = f"line {mark.line + 1}: " if mark else ""
        raise YamlError(f"{where}{getattr(error, 'problem', None) or type(error).__name__}") from error
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
        # What PyYAML's constructors raise for a date of no day, a key that is a list, a number of no digits.
        raise YamlError(f"it holds a value of no plain type ({type(error).__name__})") from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Counts what it composes, and stops at the bounds."""

    def __init__(self, text: str, aliases: bool) -> None:
        super().__init__(text)
        self._aliases, self._depth, self._nodes = aliases, 0, 0
        self._sizes: dict[int, int] = {}  # nodes in what an anchor names, by its identity

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # types-PyYAML leaves it out
        if self.check_event(yaml.AliasEvent):
            if not self._aliases:
                raise YamlError(f"line {line} has an alias; write out what it stands for")
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise YamlError(f"line {line} has an alias that holds itself")
            self._count(self._sizes[id(node)], line)
            return node
        before, self._depth = self._nodes, self._depth + 1
        if self._depth > MAX_DEPTH:
            raise YamlError(f"line {line} is nested more than {MAX_DEPTH} deep")
        self._count(1, line)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
            raise YamlError(f"line {line} has a number of {len(node.value)} characters")
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        return node

    def _count(self, more: int, line: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise YamlError(f"line {line} brings it to more than {MAX_NODES} values, each alias counted in full")
