"""Networks loaded once a process, for components that are plain values and hold none."""

from __future__ import annotations

import os
import threading
from functools import lru_cache

import torch

from anondata.models.runtime import Network, load_network

_lock = threading.Lock()


def network(name: str, device: torch.device | str = "cpu") -> Network:
    """The network of a registered name on a device, loaded on first use and kept for this process.

    Raises what :func:`anondata.models.runtime.load_network` raises.
    """
    with _lock:
        return _load(name, str(device), torch.get_num_threads(), os.getpid())


@lru_cache(maxsize=16)
def _load(name: str, device: str, threads: int, process: int) -> Network:
    """``threads`` and ``process`` are part of the key: a session keeps its threads, and none survives a fork."""
    return load_network(name, device=device)


def _free_lock() -> None:
    """In a forked child: had another thread of the parent held the lock, it would stay locked for ever."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_free_lock)
