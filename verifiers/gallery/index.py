"""Nearest templates: exact in small galleries, by codes in large ones, with a recall that is measured first.

Distances are Euclidean, not squared. Whatever found the rows, the distances that come back are computed from the
templates themselves, so nothing is ever said to be nearer than it is.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anondata.errors import GalleryError, MissingExtraError, ShapeError
from anondata.verifiers._pairs import wilson
from anondata.verifiers.gallery.codes import coded

# Numbers (rows x dimensions) up to which every template is looked at. On 2 cores a face then costs 0.8 ms in batches
# of 2 to 8 and up to 3.3 ms alone, 5 % of the 66 ms that an image takes.
EXACT_NUMBERS = 14_000_000

CANDIDATES = 64  # compared exactly after codes; at 10^6 rows 16 were enough for 8192 probes at the radius's very edge
BATCH = 256  # queries at once: bounds memory
SPLIT = 16_000_000  # numbers compared (queries x rows x dimensions), 2 ms, from which threads share the work
CODES_SPLIT = 8 * SPLIT
BLOCK = 16_384  # templates at once
PROBES = 20_000  # whose answer is known, to measure recall by
SEED = 0x5EED

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recall:
    """How often an index said *somebody is within the radius* where somebody is: ``found`` out of ``of`` probes."""

    found: int
    of: int
    radius: float

    @property
    def share(self) -> float:
        return self.found / self.of if self.of else 0.0

    @property
    def low(self) -> float:
        """The lower end of the share's 95 % interval (Wilson 1927)."""
        return wilson(self.share, self.of)[0]


@dataclass(frozen=True, eq=False)
class Ivf:
    """Which cell each row lies in, and how many cells to look into (an inverted file: Jégou et al. 2011, section IV).

    Plain arrays: FAISS's own files would be read by code that must not see bytes from elsewhere.

    centroids: ``(L, D)`` float32. cells: ``(N,)`` int32. probes: how many cells to look into. recall: measured so.
    """

    centroids: Floats
    cells: NDArray[np.int32]
    probes: int
    recall: Recall


def exact_is_cheap(count: int, dimensions: int) -> bool:
    """Whether looking at every template costs less than 5 % of what an image costs."""
    return count * dimensions <= EXACT_NUMBERS


class Searcher:
    """The templates nearest to queries. Any number of threads may search at once.

    Without ``ivf`` every template is compared. With it, rows in the cells nearest to a query are compared by codes of
    2 or 4 bits a dimension, scanned in registers (FAISS's *fast scan*: André et al. 2015, doi
    10.14778/2856318.2856324), and the best 64 exactly. On a CUDA device every template is compared there if FAISS was
    built for GPUs; otherwise the search stays on the CPU.

    templates: ``(N, D)`` float32, kept and not copied: they may be mapped from a file, and must not change.
    Raises :class:`GalleryError` if they are not finite or ``ivf`` is not theirs.
    """

    def __init__(self, templates: Floats, ivf: Ivf | None = None, *, device: torch.device | str = "cpu") -> None:
        self.templates = _checked(templates)
        self._index: Any = None
        self._exact, self._settings = True, {}
        self._alone: threading.Lock | None = None
        faiss, where = _faiss(), torch.device(device)
        if where.type == "cuda" and hasattr(faiss, "StandardGpuResources"):
            self._index, self._alone = _gpu_index(self.templates, where.index or 0), threading.Lock()
        elif ivf is not None:
            self._index, self._exact = _fitted(self.templates, ivf), False
            self._settings = {"params": faiss.SearchParametersIVF(nprobe=ivf.probes)}

    def nearest(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """``(R, k)`` float32 distances, ascending, and ``(R, k)`` int64 rows, on the device of ``queries (R, D)``.

        Rows of equal distance come in their order. What there are too few rows for is ``inf`` and -1. A query that
        is not finite, or so long that its square is not, has ``nan`` and -1: no answer, and never *far*. A query's
        place in the batch does not matter.
        """
        if queries.ndim != 2 or queries.shape[1] != self.templates.shape[1] or k < 1:
            expected = f"(R, {self.templates.shape[1]}) and k of at least 1"
            raise ShapeError(f"queries of shape {tuple(queries.shape)} and k={k}; expected {expected}")
        probes = queries.detach().float().cpu().contiguous().numpy()
        distances = np.full((len(probes), k), np.nan, np.float32)
        rows = np.full((len(probes), k), -1, np.int64)
        parts = self._parts(np.flatnonzero(_finite(probes)))
        for part, found in zip(parts, _pool().map(lambda part: self._ranked(probes[part], k), parts), strict=True):
            distances[part], rows[part] = found
        return torch.from_numpy(distances).to(queries.device), torch.from_numpy(rows).to(queries.device)

    def _parts(self, queries: Ints) -> list[Ints]:
        large = len(queries) * self.templates.size > (SPLIT if self._exact else CODES_SPLIT)
        size = max(1, min(BATCH, math.ceil(len(queries) / (torch.get_num_threads() if large else 1))))
        return [queries[start : start + size] for start in range(0, len(queries), size)]

    def _ranked(self, probes: Floats, k: int) -> tuple[Floats, Ints]:
        # FAISS computes |x|² + |y|² - 2xy in large batches, which is off by up to 1e-3 for near-identical templates.
        few = max(16, 2 * k) if self._exact else max(CANDIDATES, 4 * k)
        rows = np.sort(self._candidates(probes, min(len(self.templates), few)), axis=1)
        distances = _distances(self.templates, rows, probes)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        missing = ((0, 0), (0, k - order.shape[1]))
        best = np.pad(np.take_along_axis(distances, order, axis=1), missing, constant_values=np.inf)
        return best, np.pad(np.take_along_axis(rows, order, axis=1), missing, constant_values=-1)

    def _candidates(self, probes: Floats, count: int) -> Ints:
        if not count:
            return np.zeros((len(probes), 0), np.int64)
        if self._index is None:
            found = _faiss().knn(probes, self.templates, count)[1]
        elif self._alone is None:
            found = self._index.search(probes, count, **self._settings)[1]
        else:
            with self._alone:  # a GPU index may not be shared between threads
                found = self._index.search(probes, count)[1]
        return np.asarray(found, np.int64)

    def _looking_into(self, probes: int) -> Searcher:
        other = copy.copy(self)
        other._settings = {"params": _faiss().SearchParametersIVF(nprobe=probes)}
        return other


def build_index(
    templates: Floats,
    owners: Ints,
    *,
    radius: float,
    bound: float = 0.9999,
    show: Callable[[int, int], None] | None = None,
) -> Ivf:
    """Cells for a large gallery, and as many of them to look into as it takes to find a share ``bound`` of matches.

    Recall is measured on 20,000 probes that have somebody within ``radius``, which needs no brute force to know
    because of how they are made: up to half are templates that have another one of their person within it, and are
    left out themselves; the others are templates moved by up to the radius in random directions that the templates
    spread in, because a changed face is still a face. That is far harder for cells than any direction at all. How
    many cells is decided on other probes of the same kind. The same arrays give the same index.

    templates: ``(N, D)`` float32. owners: ``(N,)`` identity of each row. show: called with (steps done, of steps).
    Raises :class:`GalleryError` if not even looking into all cells reaches the bound.
    """
    templates = _checked(templates)
    if not len(templates) or owners.shape != templates.shape[:1]:
        raise GalleryError(
            f"{len(templates)} templates with owners {owners.shape}; expected some, each with its owner"
        )
    if not (0 < radius < math.inf and 0 < bound <= 1):
        raise GalleryError(f"radius {radius:g} and bound {bound:g}; expected a positive distance and a share")
    tell, rng = show or (lambda done, total: None), np.random.default_rng(SEED)
    centroids = _centroids(templates, rng)
    tell(1, 4)
    cells = _cells(templates, centroids)
    tell(2, 4)
    probes = _probes_needed(_known(templates, owners, radius, rng), centroids, cells, bound)
    ivf = Ivf(centroids, cells, probes, Recall(0, 0, radius))
    searcher, known = Searcher(templates, ivf), _known(templates, owners, radius, rng)
    tell(3, 4)
    ivf = _reaching(bound, ivf, searcher, known)
    tell(4, 4)
    return ivf


def _reaching(bound: float, ivf: Ivf, searcher: Searcher, known: _Known) -> Ivf:
    """The index with its measured recall, and with more probes if the bound needs them."""
    radius = ivf.recall.radius
    distances, rows = searcher._looking_into(ivf.probes).nearest(torch.from_numpy(known.probes), 2)
    answers = (distances.numpy() <= radius) & (rows.numpy() != known.without[:, None])
    recall = Recall(int(answers.any(axis=1).sum()), len(answers), radius)
    if recall.share >= bound:
        return replace(ivf, recall=recall)
    if ivf.probes == len(ivf.centroids):
        raise GalleryError(
            f"the index finds {recall.found} of {recall.of} matches within {radius:g}: its recall is "
            f"{recall.share:.3%}, expected at least {bound:.3%}. Search exactly, or accept a lower bound"
        )
    more = min(len(ivf.centroids), ivf.probes + ivf.probes // 2 + 1)
    return _reaching(bound, replace(ivf, probes=more), searcher, known)


@dataclass(frozen=True, eq=False)
class _Known:
    """Probes that are known to have a match.

    probes: ``(P, D)``. matches: ``(P, 8)`` rows within the radius, -1 for none. without: ``(P,)`` the row that does
    not count because the probe is a copy of it, or -1.
    """

    probes: Floats
    matches: Ints
    without: Ints


def _known(templates: Floats, owners: Ints, radius: float, rng: np.random.Generator) -> _Known:
    left_out = rng.permutation(len(templates))[: PROBES // 2]
    others = _others_of_owner(owners, left_out)
    others[_distances(templates, others, templates[left_out]) > radius] = -1
    matched = others.max(axis=1) >= 0
    left_out, others = left_out[matched], others[matched]
    rows = rng.integers(len(templates), size=PROBES - len(left_out))
    moved = _moved(templates, rows, radius, rng)
    own = np.full((len(rows), others.shape[1]), -1)
    own[:, 0] = rows
    within = _distances(templates, own[:, :1], moved)[:, 0] <= radius  # else rounding pushed it out
    return _Known(
        np.concatenate([templates[left_out], moved[within]]),
        np.concatenate([others, own[within]]),
        np.concatenate([left_out, np.full(within.sum(), -1)]),
    )


def _others_of_owner(owners: Ints, rows: Ints) -> Ints:
    """``(R, 8)``: for each row up to 8 other ones of its owner, -1 where there are fewer."""
    order = np.argsort(owners, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    first = np.searchsorted(owners[order], owners[rows])[:, None]
    count = np.searchsorted(owners[order], owners[rows], side="right")[:, None] - first
    step = np.arange(1, 9)
    return np.where(step < count, order[first + (place[rows][:, None] - first + step) % count], -1)


def _moved(templates: Floats, rows: Ints, radius: float, rng: np.random.Generator) -> Floats:
    """Templates moved by up to just under the radius, to where others spread; those of unit length keep it."""
    origin, direction = templates[rows], 1e-3 * rng.standard_normal((len(rows), templates.shape[1]), dtype=np.float32)
    weights = rng.standard_normal((16, len(rows), 1), dtype=np.float32)
    weights -= weights.mean(axis=0)  # else all would go along or against the templates' mean
    for weight, other in zip(weights, rng.integers(len(templates), size=(16, len(rows))), strict=True):
        direction += weight * templates[other]
    distance = 0.999 * radius * rng.random((len(rows), 1), dtype=np.float32)
    unit = bool(np.abs(np.linalg.norm(origin, axis=1) - 1).max() < 1e-3)
    if unit:
        direction -= (direction * origin).sum(axis=1, keepdims=True) * origin
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    if not unit:
        return origin + distance * direction
    cosine = 1 - np.minimum(distance, 2) ** 2 / 2
    return np.asarray(cosine * origin + np.sqrt(1 - cosine**2) * direction, np.float32)


def _probes_needed(known: _Known, centroids: Floats, cells: NDArray[np.int32], bound: float) -> int:
    """How many of the nearest cells hold a match of enough probes: a quarter of what the bound may miss."""
    needed, lengths = [], (centroids**2).sum(axis=1)
    for start in range(0, len(known.probes), BATCH):
        probes, matches = known.probes[start : start + BATCH], known.matches[start : start + BATCH]
        far = lengths - 2 * probes @ centroids.T
        best = np.where(matches >= 0, np.take_along_axis(far, cells[matches].astype(np.int64), axis=1), np.inf).min(
            axis=1
        )
        needed.append((far <= best[:, None]).sum(axis=1))
    return int(np.quantile(np.concatenate(needed), 1 - (1 - bound) / 4, method="inverted_cdf"))


def _centroids(templates: Floats, rng: np.random.Generator) -> Floats:
    """√N of them: at recalls near 1 more cells prune no more, because faces have no gaps between cells."""
    count = max(1, round(math.sqrt(len(templates))))
    sample = templates[np.sort(rng.permutation(len(templates))[: 64 * count])]
    kmeans = _faiss().Kmeans(
        templates.shape[1], count, niter=10, seed=SEED, min_points_per_centroid=1, max_points_per_centroid=64
    )
    kmeans.train(sample)
    return np.ascontiguousarray(kmeans.centroids, np.float32)


def _cells(templates: Floats, centroids: Floats) -> NDArray[np.int32]:
    nearest = [_faiss().knn(part, centroids, 1)[1][:, 0] for part in _blocks(templates)]
    return np.concatenate(nearest).astype(np.int32)


def _gpu_index(templates: Floats, device: int) -> Any:
    faiss = _faiss()
    resources, settings = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    settings.device = device
    index = faiss.GpuIndexFlatL2(resources, templates.shape[1], settings)
    index.referenced_objects = [resources]
    for part in _blocks(templates):
        index.add(part)
    return index


def _distances(templates: Floats, rows: Ints, probes: Floats) -> Floats:
    """``(R, K)`` exact distances from ``probes (R, D)`` to ``rows (R, K)``; ``inf`` for row -1."""
    out = np.empty(rows.shape, np.float32)
    for i, (mine, probe) in enumerate(zip(rows, probes, strict=True)):
        difference = templates[mine] - probe
        out[i] = np.einsum("kd,kd->k", difference, difference)
    return np.where(rows >= 0, np.sqrt(out), np.inf).astype(np.float32)


def _blocks(templates: Floats) -> Iterator[Floats]:
    return (templates[start : start + BLOCK] for start in range(0, len(templates), BLOCK))


def _finite(vectors: Floats) -> NDArray[np.bool_]:
    """``(N,)``: whether a vector's squared length is finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(np.einsum("nd,nd->n", vectors, vectors))
    return finite


def _checked(templates: Floats) -> Floats:
    if templates.ndim != 2 or not templates.shape[1] or templates.dtype != np.float32:
        raise ShapeError(f"templates of shape {templates.shape} and {templates.dtype}; expected (N, D) float32")
    if not all(_finite(part).all() for part in _blocks(templates)):
        raise GalleryError("a template is not finite, so nothing would ever be near it; enrol its face again")
    return np.ascontiguousarray(templates)


def _fitted(templates: Floats, ivf: Ivf) -> Any:
    """The index of the codes; one of other templates is refused, because FAISS would look into cells that are not."""
    count = len(ivf.centroids)
    fits = ivf.centroids.shape == (count, templates.shape[1]) and ivf.cells.shape == (len(templates),)
    sane = fits and ivf.centroids.dtype == np.float32 and bool(np.isfinite(ivf.centroids).all())
    if not sane or not 1 <= ivf.probes <= count or (ivf.cells < 0).any() or (ivf.cells >= count).any():
        raise GalleryError("the index does not belong to these templates; build it again")
    return coded(_faiss(), templates, ivf.centroids, ivf.cells)


@cache
def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("galleries are searched by FAISS: pip install 'anondata[cpu]'") from error
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_without_threads)
    return faiss


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that FAISS searches in, on one core each.

    Its own OpenMP threads spin while they wait, and so do those of ONNX Runtime: after a network ran, a search of
    0.5 ms took 12 ms on 2 busy cores.
    """
    return ThreadPoolExecutor(os.cpu_count(), initializer=_faiss().omp_set_num_threads, initargs=(1,))


def _without_threads() -> None:
    """In a forked process (a loader's worker), which has none: to wait for them would be for ever."""
    _pool.cache_clear()
    _faiss().omp_set_num_threads(1)
