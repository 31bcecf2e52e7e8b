"""Templates as codes of a few bits a dimension, which FAISS scans in registers (*fast scan*)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 16_384  # templates at once
SAMPLE = 65_536  # rows whose spread gives the codes their levels

# Bits for each dimension, and the levels that quantize a normal variable with the least squared error (the positive
# half): Max (1960), doi 10.1109/TIT.1960.1057548. k-means would find nearly the same, but it would have to run when a
# gallery is opened, and took 3 to 40 s.
WIDE, WIDE_LEVELS = 256, (0.4528, 1.510)
NARROW_LEVELS = (0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733)


def coded(faiss: Any, templates: Floats, centroids: Floats, cells: NDArray[np.int32]) -> Any:
    """FAISS's index of the rows' codes, without training: levels come from the mean and spread of each dimension.

    templates: ``(N, D)``. centroids: ``(L, D)``. cells: ``(N,)``, each row's.
    """
    dimensions = templates.shape[1]
    bits, half = (2, WIDE_LEVELS) if dimensions >= WIDE and dimensions % 2 == 0 else (4, NARROW_LEVELS)
    levels = np.array([-v for v in reversed(half)] + list(half), np.float32)
    sample = templates[:: max(1, len(templates) // SAMPLE)]
    mean, spread = sample.mean(axis=0), sample.std(axis=0)
    quantizer = faiss.IndexFlatL2(dimensions)
    quantizer.add(np.ascontiguousarray(centroids))
    index = faiss.IndexIVFPQ(quantizer, dimensions, len(centroids), dimensions * bits // 4, 4)
    index.by_residual = False
    faiss.copy_array_to_vector(_codebook(levels, mean, spread, bits).ravel(), index.pq.centroids)
    index.is_trained = True
    bounds = mean + spread * ((levels[1:] + levels[:-1]) / 2)[:, None]
    cell_bytes = index.sa_code_size() - index.code_size
    for start in range(0, len(templates), BLOCK):
        where = cells[start : start + BLOCK].astype("<i4")[:, None].view(np.uint8)[:, :cell_bytes]
        codes = np.concatenate([where, _codes(templates[start : start + BLOCK], bounds, bits)], axis=1)
        rows = np.arange(start, start + len(codes))  # held by a name: FAISS up to 1.13 reads it after dropping it
        index.add_sa_codes(codes, rows)
    scan = faiss.IndexIVFPQFastScan(index)
    scan.referenced_objects = [quantizer]  # not ``index``: the scan has its own copy of the codes
    return scan


def _codebook(levels: Floats, mean: Floats, spread: Floats, bits: int) -> Floats:
    """``(D * bits / 4, 16, 4 / bits)``: what each 4 bits stand for, the first dimension in the low ones."""
    parts = np.arange(16)[:, None] >> (bits * np.arange(4 // bits)) & (2**bits - 1)
    grouped = (-1, 1, 4 // bits)
    return np.asarray(levels[parts] * spread.reshape(grouped) + mean.reshape(grouped), np.float32)


def _codes(part: Floats, bounds: Floats, bits: int) -> Bytes:
    """``(B, ceil(D * bits / 8))``: the level of each number, packed from the low bits up."""
    level = np.zeros((len(part), -(-part.shape[1] * bits // 8) * 8 // bits), np.uint8)
    for bound in bounds:
        level[:, : part.shape[1]] += part > bound
    grouped = level.reshape(len(part), -1, 8 // bits)
    packed: Bytes = np.bitwise_or.reduce(grouped << (bits * np.arange(8 // bits, dtype=np.uint8)), axis=2)
    return packed
