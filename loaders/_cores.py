"""How many cores there are to share."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0))
