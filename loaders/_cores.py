"""How many cores there are to share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0))


@contextmanager
def shared_threads(workers: int) -> Iterator[None]:
    """Divides the cores between workers while the context lasts.

    Networks take their number of threads when they are loaded, so load them within.
    """
    import torch

    before = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(max(1, usable_cores() // workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
