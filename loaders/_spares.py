"""Released samples that may stand in for withheld ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

Group: TypeAlias = str | Callable[[Mapping[str, Any]], Hashable] | None
"""The name of a kept field, a function of a sample's kept fields, or None: all samples are of one group."""

MAX_BYTES = 32 << 20
MAX_SAMPLES = 64


def group_of(group: Group, kept: Mapping[str, Any]) -> Hashable:
    """Which group a sample belongs to, told from its kept fields alone."""
    value: Any = None if group is None else kept.get(group) if isinstance(group, str) else group(kept)
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # tensors hash by identity
    return value if isinstance(value, Hashable) else repr(value)


class Spares:
    """The samples that a stream released last, few enough to be held in memory."""

    def __init__(self) -> None:
        self._held: deque[tuple[Hashable, Mapping[str, Any], int]] = deque()

    def offer(self, group: Hashable, fields: Mapping[str, Any]) -> None:
        """Takes a copy of a released sample; the oldest ones go when there is no room."""
        own = {name: _copied(value) for name, value in fields.items()}
        self._held.append((group, own, sum(_size(value) for value in own.values())))
        while len(self._held) > 1 and (
            len(self._held) > MAX_SAMPLES or sum(size for _, _, size in self._held) > MAX_BYTES
        ):
            self._held.popleft()

    def choose(self, group: Hashable, number: int) -> Mapping[str, Any] | None:
        """A copy of the sample of a group (None: of any) that a number stands for; None where there is none."""
        members = [fields for own, fields, _ in self._held if group is None or own == group]
        if not members:
            return None
        return {name: _copied(value) for name, value in members[number % len(members)].items()}


def _size(value: Any) -> int:
    """Roughly the bytes that a value takes."""
    if isinstance(value, list | tuple):
        return sum(_size(item) for item in value)
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    size = getattr(value, "size", None)  # of a PIL image
    return size[0] * size[1] * 4 if isinstance(size, tuple) else 0


def _copied(value: Any) -> Any:
    """Consumers normalise in place what they got; that must not show in what stands in later."""
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    for name in ("clone", "copy"):  # of tensors; of arrays, PIL images and bytearrays
        if callable(getattr(value, name, None)):
            return getattr(value, name)()
    return value
