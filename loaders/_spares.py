"""Released samples that may stand in for withheld ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

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


@dataclass(frozen=True)
class Delivery:
    """A released sample: its fields, its key, and its cost by content type and unit, where somebody counts that."""

    fields: Mapping[str, Any]
    cost: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    key: str = field(default="", repr=False)


class Spares:
    """The samples that a stream released last, few enough to be held in memory."""

    def __init__(self) -> None:
        self._held: deque[tuple[Hashable, Delivery, int]] = deque()

    def offer(self, group: Hashable, released: Delivery) -> None:
        """Takes a copy of a released sample; the oldest ones go when there is no room."""
        own = _copy(released)
        self._held.append((group, own, sum(_size(value) for value in own.fields.values())))
        while len(self._held) > 1 and (
            len(self._held) > MAX_SAMPLES or sum(size for _, _, size in self._held) > MAX_BYTES
        ):
            self._held.popleft()

    def choose(self, group: Hashable, number: int) -> Delivery | None:
        """A copy of the sample of a group (None: of any) that a number stands for; None where there is none."""
        members = [released for own, released, _ in self._held if group is None or own == group]
        return _copy(members[number % len(members)]) if members else None


def _copy(released: Delivery) -> Delivery:
    return replace(released, fields={name: copied(value) for name, value in released.fields.items()})


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


def copied(value: Any) -> Any:
    """Values that nobody else can change any more, also within lists, tuples and dicts.

    A dataset may read each sample into the same buffer, and goes on reading while the engine works. Without workers
    the engine sees that buffer; with workers, too, as a tensor that is sent becomes shared memory. And consumers
    normalise in place what they got, which must not show in what stands in later.
    """
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    if type(value) is Image.Image:  # one that was opened from a file is read anew each time
        return value.copy()
    if isinstance(value, memoryview) and value.format == "B":
        return memoryview(value.tobytes())
    return bytearray(value) if type(value) is bytearray else value
