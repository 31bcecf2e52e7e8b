"""What a run may take of the machine's memory, said before it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from anondata.policy import Policy

# Measured on a CPU with the policy `faces`: what a process takes, what each worker's networks need to work in, and
# what the way of one large picture takes at its peak, by what it takes decoded.
PROCESS_BYTES, WORKER_BYTES = 700 << 20, 600 << 20
TIMES_DECODED = 5
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """The memory of this machine, or what its container may take of it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP.read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


def tell_need(policy: Policy, workers: int, *, processes: bool) -> None:
    """Says on stderr where a run's workers could take more memory than the machine has."""
    most = max(content.decode.max_pixels for content in policy.content.values())
    if words := warning(workers, most, processes=processes):
        click.echo(words, err=True)


def warning(workers: int, max_pixels: int, *, processes: bool, machine: int | None = None) -> str:
    """What to say where workers could take more than the machine has; nothing where they cannot.

    processes: workers are processes, each with networks of its own, and not threads of one.

    >>> warning(8, 200_000_000, processes=False, machine=16 << 30).partition(":")[0]
    '8 workers may take 30 GB of memory and this machine has 17'
    >>> warning(2, 12_000_000, processes=True, machine=16 << 30)
    ''
    """
    has = machine_bytes() if machine is None else machine
    most = workers * (WORKER_BYTES + 3 * max_pixels * TIMES_DECODED) + PROCESS_BYTES * (workers if processes else 1)
    if most <= has:
        return ""
    return (
        f"{workers} workers may take {most / 1e9:.0f} GB of memory and this machine has {has / 1e9:.0f}: as much as "
        f"pictures of {max_pixels / 1e6:.0f} megapixels would take, all at once. Give fewer --workers or a lower "
        "--max-pixels if yours are so large"
    )
