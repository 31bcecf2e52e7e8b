"""Finding parts of many originals in bytes of any length, wherever and however shifted they lie.

Windows of 32 bytes are chosen by their own first bytes, so that the same bytes give the same windows at any place
(content-defined sampling, as in Manber 1994, "Finding similar files in a large file system"). Of each original a few
hundred fingerprints are held; a file is searched for those of all originals at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = bytes | bytearray | memoryview
Fingerprints: TypeAlias = NDArray[np.uint64]

WINDOW = 32
SPARSE, DENSE = 4, 2
"""One window in 2^4 is chosen, or one in 2^2; the sparse ones are among the dense."""

_CHUNK = (
    1 << 18
)  # bytes; on one core 380 MB/s sparse, 130 MB/s dense, and 100 MB/s for a search of 170 000 fingerprints
_ANCHOR, _SPREAD = np.uint32(0x5BD1E995), np.uint32(0x9E3779B1)
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)


def differences(data: Bytes) -> bytes:
    """Each byte's XOR with the next: what stays as it is where all bytes were XORed with one and the same."""
    flat = np.frombuffer(data, np.uint8)
    return (flat[1:] ^ flat[:-1]).tobytes()


def fingerprints(data: Bytes, sampling: int = SPARSE) -> Fingerprints:
    """Of all windows that are chosen, in no order, with repeats. Less than 32 bytes have none."""
    chunks = [_window_hashes(chunk, _chosen(chunk, sampling)) for chunk in _chunks(data)]
    return np.concatenate(chunks) if chunks else np.empty(0, np.uint64)


def telling(
    data: Bytes, *, without: Fingerprints, most: int, sampling: int = SPARSE, variety: int = 12
) -> Fingerprints:
    """The fingerprints that an original is recognised by: sorted, at most ``most``, spread over all of it.

    without: of bytes that may be found anywhere, and so tell nothing. variety: how many different bytes a window must
    have. Flat areas repeat a few bytes in any JPEG (of period 3 to 7), while its detail has 25 or more in a window.
    """
    chunks = _chunks(data)
    chosen = [_chosen(chunk, sampling) for chunk in chunks]
    if not chunks:
        return np.empty(0, np.uint64)
    hashes = np.concatenate([_window_hashes(chunk, places) for chunk, places in zip(chunks, chosen, strict=True)])
    found, first = np.unique(hashes, return_index=True)
    fresh = ~np.isin(found, without)
    places = np.concatenate([part + i * _CHUNK for i, part in enumerate(chosen)])
    found, places = found[fresh], places[first][fresh]
    few = slice(4 * most)  # fingerprints are as good as random: the smallest lie anywhere in the data
    kept: Fingerprints = found[few][_variety(data, places[few]) >= variety]
    return kept[:most]


def _chunks(data: Bytes) -> list[memoryview]:
    view = memoryview(data).cast("B")
    return [view[at : at + _CHUNK + WINDOW - 1] for at in range(0, len(view) - WINDOW + 1, _CHUNK)]


def _chosen(chunk: memoryview, sampling: int) -> NDArray[np.int64]:
    """Where the chosen windows begin."""
    bound = np.uint32(1 << (32 - sampling))
    places = []
    for shift in range(4):  # numbers of four bytes, at every place: four arrays that begin one byte apart
        count = (len(chunk) - WINDOW - shift) // 4 + 1
        if count > 0:
            words = np.frombuffer(chunk, "<u4", count, shift)
            places.append(np.flatnonzero((words ^ _ANCHOR) * _SPREAD < bound) * 4 + shift)
    return np.concatenate(places)


def _window_hashes(chunk: memoryview, places: NDArray[np.int64]) -> Fingerprints:
    words = np.ndarray((len(chunk) - 7,), "<u8", chunk, strides=(1,))
    hashes = np.zeros(len(places), np.uint64)
    for i, factor in enumerate(_MIX):
        word = words[places + 8 * i]
        hashes += (word ^ (word >> np.uint64(29))) * factor
        hashes ^= hashes >> np.uint64(31)
    mixed: Fingerprints = hashes * _MIX[0]
    return mixed


def _variety(data: Bytes, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many different bytes the window at each place has."""
    flat = np.frombuffer(data, np.uint8)
    windows = np.sort(flat[places[:, None] + np.arange(WINDOW)], axis=1)
    different: NDArray[np.int64] = 1 + np.count_nonzero(np.diff(windows, axis=1), axis=1)
    return different


class Index:
    """The fingerprints of many originals, each with the number of them that gives it away."""

    def __init__(self) -> None:
        self._parts: list[Fingerprints] = []
        self._needed: list[int] = []
        self._tables: _Tables | None = None

    def add(self, prints: Fingerprints, needed: int) -> None:
        """Takes what an original is recognised by; one without fingerprints cannot be."""
        if len(prints):
            self._parts.append(prints)
            self._needed.append(max(1, min(needed, len(prints))))
            self._tables = None

    def search(self) -> Search:
        """A search of a file that has just begun."""
        if self._tables is None:
            self._tables = _Tables(self._parts, self._needed)
        return Search(self._tables)


class _Tables:
    """Sorted fingerprints with their owners, and a table that tells in one look that a fingerprint is not there."""

    def __init__(self, parts: Sequence[Fingerprints], needed: Sequence[int]) -> None:
        prints = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        order = np.argsort(prints)
        self.prints, self.owners = prints[order], owners[order]
        self.needed = np.array(needed, np.int64)
        bits = min(24, 10 + math.ceil(math.log2(len(prints) + 1)))
        self._shift = np.uint64(64 - bits)
        self._there = np.zeros(1 << bits, bool)
        self._there[self.prints >> self._shift] = True

    def places(self, prints: Fingerprints) -> NDArray[np.int64]:
        """Where those of some fingerprints that are in the table lie in it."""
        prints = np.unique(prints[self._there[prints >> self._shift]])
        low, high = np.searchsorted(self.prints, prints, "left"), np.searchsorted(self.prints, prints, "right")
        return np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)] or [np.empty(0, np.int64)])


class Search:
    """What was found in a file so far. Parts of an original add up, so that it may lie there in many pieces."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._seen = np.zeros(len(tables.prints), bool)

    def finds(self, data: Bytes) -> bool:
        """Whether enough of an original was found by now, this data included."""
        if not len(self._seen):
            return False
        fresh = False
        for chunk in _chunks(data):
            places = self._tables.places(_window_hashes(chunk, _chosen(chunk, DENSE)))
            fresh = fresh or not bool(self._seen[places].all())
            self._seen[places] = True
        if not fresh:
            return False
        counts = np.bincount(self._tables.owners[self._seen], minlength=len(self._tables.needed))
        return bool((counts >= self._tables.needed).any())
