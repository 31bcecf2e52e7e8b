"""Nearest templates: FAISS against brute force, and recall that is measured rather than believed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from anondata.errors import GalleryError, MissingExtraError, ShapeError
from anondata.verifiers.gallery import index
from anondata.verifiers.gallery.index import Ivf, Recall, Searcher, build_index, exact_is_cheap

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def people(count: int, dimensions: int = 32, *, each: int = 4, noise: float = 0.5, seed: int = 0) -> Floats:
    """``(count * each, D)`` templates of unit length, those of a person in a row and about 0.65 apart."""
    rng = np.random.default_rng(seed)
    faces = np.repeat(rng.standard_normal((count, dimensions)), each, axis=0)
    faces += noise * rng.standard_normal(faces.shape)
    return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), np.float32)


def brute_force(templates: Floats, queries: Tensor, k: int) -> tuple[Floats, Ints]:
    """The oracle: differences in double precision, no matrix product."""
    distances = np.stack([np.sqrt(((templates - q.astype(np.float64)) ** 2).sum(axis=1)) for q in queries.numpy()])
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


def near(templates: Floats, count: int, *, by: float = 0.5, seed: int = 1) -> Tensor:
    """Queries about ``by`` away from templates."""
    rng = np.random.default_rng(seed)
    step = rng.standard_normal((count, templates.shape[1])) * by / np.sqrt(templates.shape[1])
    return torch.from_numpy((templates[rng.integers(len(templates), size=count)] + step).astype(np.float32))


@pytest.fixture(scope="module")
def templates() -> Floats:
    return people(2000)


@pytest.fixture(scope="module")
def ivf(templates: Floats) -> Ivf:
    return build_index(templates, np.repeat(np.arange(2000), 4), radius=0.7)


@pytest.fixture(scope="module", params=["exact", "codes"])
def searcher(request: pytest.FixtureRequest, templates: Floats, ivf: Ivf) -> Searcher:
    return Searcher(templates, ivf if request.param == "codes" else None)


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("k", [1, 5])
def test_the_nearest_are_those_of_brute_force(searcher: Searcher, count: int, k: int) -> None:
    queries = near(searcher.templates, count)
    distances, rows = searcher.nearest(queries, k)
    expected = brute_force(searcher.templates, queries, k)
    assert (distances.dtype, rows.dtype, distances.shape) == (torch.float32, torch.int64, (count, k))
    np.testing.assert_array_equal(rows[:, 0], expected[1][:, 0])
    np.testing.assert_allclose(distances[:, 0], expected[0][:, 0], atol=1e-6)
    assert (rows.numpy() == expected[1]).mean() > 0.99  # beyond the radius codes may miss one


def test_exact_search_is_exact_to_the_last_neighbour(templates: Floats) -> None:
    queries = near(templates, 300, by=3.0)
    distances, rows = Searcher(templates).nearest(queries, 20)
    expected = brute_force(templates, queries, 20)
    np.testing.assert_allclose(distances, expected[0], atol=1e-6)
    np.testing.assert_array_equal(rows, expected[1])


@pytest.mark.parametrize("dimensions", [3, 128, 257, 258, 512])
def test_any_number_of_dimensions_has_codes(dimensions: int) -> None:
    templates = people(300, dimensions, noise=0.2) * np.linspace(1, 2, 1200, dtype=np.float32)[:, None]
    one_cell = Ivf(templates[:1], np.zeros(1200, np.int32), 1, Recall(0, 0, 0.5))
    queries = near(templates, 40, by=0.3)
    np.testing.assert_array_equal(
        Searcher(templates, one_cell).nearest(queries)[1], brute_force(templates, queries, 1)[1]
    )


def test_near_identical_templates_have_exact_distances(searcher: Searcher) -> None:
    """|x|² + |y|² - 2xy would be off by more than these distances."""
    queries = torch.from_numpy(searcher.templates[:600].copy())
    queries[:, 3] += 1e-4
    distances, rows = searcher.nearest(queries)
    np.testing.assert_allclose(distances[:, 0], 1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows[:, 0], np.arange(600))


def test_of_equal_distances_the_first_row_comes_first(templates: Floats, ivf: Ivf) -> None:
    twice = np.concatenate([templates, templates])
    both = replace(ivf, cells=np.concatenate([ivf.cells, ivf.cells]))
    for searcher in (Searcher(twice), Searcher(twice, both)):
        distances, rows = searcher.nearest(torch.from_numpy(templates[:300].copy()), 2)
        np.testing.assert_array_equal(distances, np.zeros((300, 2)))
        np.testing.assert_array_equal(rows, np.arange(300)[:, None] + [0, len(templates)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_query_that_is_not_finite_gets_no_answer(searcher: Searcher, bad: float) -> None:
    queries = near(searcher.templates, 5)
    expected = searcher.nearest(queries, 2)
    queries[3, 7] = bad
    distances, rows = searcher.nearest(queries, 2)
    assert distances[3].isnan().all()
    assert rows[3].tolist() == [-1, -1]
    others = [0, 1, 2, 4]
    assert torch.equal(distances[others], expected[0][others])
    assert torch.equal(rows[others], expected[1][others])


def test_more_neighbours_than_rows_are_padded() -> None:
    templates = people(1, each=3)
    few = build_index(templates, np.zeros(3, np.int64), radius=0.9)
    for searcher in (Searcher(templates), Searcher(templates, few)):
        distances, rows = searcher.nearest(torch.from_numpy(templates), 5)
        assert rows.sort(dim=1).values.tolist() == [[-1, -1, 0, 1, 2]] * 3
        assert torch.equal(distances.isinf(), torch.tensor([[False] * 3 + [True] * 2] * 3))


def test_an_empty_gallery_and_no_queries_have_empty_answers(searcher: Searcher) -> None:
    distances, rows = Searcher(np.zeros((0, 8), np.float32)).nearest(torch.zeros(2, 8), 2)
    assert (distances.tolist(), rows.tolist()) == ([[float("inf")] * 2] * 2, [[-1, -1]] * 2)
    assert [tuple(t.shape) for t in searcher.nearest(torch.zeros(0, 32), 3)] == [(0, 3), (0, 3)]


def test_the_place_in_the_batch_does_not_matter(searcher: Searcher) -> None:
    queries = near(searcher.templates, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    together, shuffled = searcher.nearest(queries, 3), searcher.nearest(queries[order], 3)
    alone = [searcher.nearest(query[None], 3) for query in queries[:50]]
    for i in (0, 1):
        assert torch.equal(together[i][order], shuffled[i])
        assert torch.equal(together[i][:50], torch.cat([answer[i] for answer in alone]))


def test_threads_share_a_searcher(searcher: Searcher) -> None:
    batches = [near(searcher.templates, 20, seed=seed) for seed in range(24)]
    expected = [searcher.nearest(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(searcher.nearest, batches))
    assert all(torch.equal(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True))


def test_a_search_leaves_the_threads_of_its_caller_alone(searcher: Searcher) -> None:
    faiss = index._faiss()
    before = faiss.omp_get_max_threads()
    searcher.nearest(near(searcher.templates, 300))
    assert faiss.omp_get_max_threads() == before


def test_queries_of_the_wrong_shape_are_refused(searcher: Searcher) -> None:
    for queries, k in ((torch.zeros(2, 31), 1), (torch.zeros(32), 1), (torch.zeros(2, 32), 0)):
        with pytest.raises(ShapeError, match=r"expected \(R, 32\) and k of at least 1"):
            searcher.nearest(queries, k)


def test_templates_that_nothing_would_match_are_refused(templates: Floats) -> None:
    broken = templates.copy()
    broken[7, 3] = np.nan
    with pytest.raises(GalleryError, match="enrol its face again"):
        Searcher(broken)
    with pytest.raises(ShapeError, match="float64"):
        Searcher(templates.astype(np.float64))


@pytest.mark.parametrize(
    "change",
    [
        lambda ivf: replace(ivf, cells=ivf.cells[:-1]),
        lambda ivf: replace(ivf, cells=ivf.cells + len(ivf.centroids)),
        lambda ivf: replace(ivf, cells=ivf.cells - 1),
        lambda ivf: replace(ivf, centroids=ivf.centroids[:, :-1]),
        lambda ivf: replace(ivf, centroids=ivf.centroids * np.float32("nan")),
        lambda ivf: replace(ivf, probes=0),
        lambda ivf: replace(ivf, probes=len(ivf.centroids) + 1),
    ],
)
def test_an_index_of_other_templates_is_refused(templates: Floats, ivf: Ivf, change: Callable[[Ivf], Ivf]) -> None:
    with pytest.raises(GalleryError, match="does not belong to these templates"):
        Searcher(templates, change(ivf))


def test_templates_may_be_mapped_from_a_file_that_cannot_be_written(templates: Floats, ivf: Ivf) -> None:
    readonly = templates.copy()
    readonly.flags.writeable = False
    queries = near(templates, 10)
    for index_of in (None, ivf):
        assert torch.equal(Searcher(readonly, index_of).nearest(queries)[1], Searcher(templates).nearest(queries)[1])


def test_a_built_index_reaches_its_bound_on_probes_that_it_has_not_seen(templates: Floats, ivf: Ivf) -> None:
    assert ivf.recall.share >= 0.9999
    assert ivf.recall.of >= 10_000
    assert ivf.recall.radius == 0.7
    queries = near(templates, 3000, by=0.6, seed=9)
    wanted = brute_force(templates, queries, 1)[0][:, 0] <= 0.7
    found = Searcher(templates, ivf).nearest(queries)[0][:, 0].numpy() <= 0.7
    assert wanted.sum() > 2000
    assert (found & wanted).sum() >= 0.999 * wanted.sum()
    assert not (found & ~wanted).any()


def test_the_same_templates_give_the_same_index(templates: Floats, ivf: Ivf) -> None:
    again = build_index(templates, np.repeat(np.arange(2000), 4), radius=0.7)
    np.testing.assert_array_equal(again.centroids, ivf.centroids)
    np.testing.assert_array_equal(again.cells, ivf.cells)
    assert (again.probes, again.recall) == (ivf.probes, ivf.recall)


def test_cells_are_those_of_the_nearest_centroids(templates: Floats, ivf: Ivf) -> None:
    nearest = brute_force(ivf.centroids, torch.from_numpy(templates[:500]), 1)[1][:, 0]
    np.testing.assert_array_equal(ivf.cells[:500], nearest)


def test_a_lower_bound_looks_into_fewer_cells(templates: Floats, ivf: Ivf) -> None:
    loose = build_index(templates, np.repeat(np.arange(2000), 4), radius=0.7, bound=0.9)
    assert loose.probes < ivf.probes
    assert 0.9 <= loose.recall.share < 0.9999


def test_a_gallery_that_codes_cannot_tell_apart_is_refused() -> None:
    """1000 templates within less than a code's step of each other, and a radius that is smaller still."""
    alike = np.concatenate([c + people(250, noise=0.0) * 1e-3 for c in people(4, each=1)]).astype(np.float32)
    alike += np.random.default_rng(3).standard_normal(alike.shape, dtype=np.float32) * 1e-4
    with pytest.raises(GalleryError, match=r"its recall is [\d.]+%, expected at least 99\.990%"):
        build_index(alike, np.arange(len(alike)), radius=1e-5)


def test_progress_is_told(templates: Floats) -> None:
    told: list[tuple[int, int]] = []
    build_index(templates[:400], np.arange(400), radius=0.7, show=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(("radius", "bound"), [(0.0, 0.99), (float("inf"), 0.99), (0.7, 0.0), (0.7, 1.1)])
def test_a_senseless_radius_or_bound_is_refused(templates: Floats, radius: float, bound: float) -> None:
    with pytest.raises(GalleryError, match="expected a positive distance and a share"):
        build_index(templates, np.arange(len(templates)), radius=radius, bound=bound)


def test_every_template_needs_an_owner(templates: Floats) -> None:
    with pytest.raises(GalleryError, match="each with its owner"):
        build_index(templates, np.arange(3), radius=0.7)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_recall_is_measured_on_probes_whose_answer_brute_force_confirms(scale: float) -> None:
    """Both kinds of probes, for templates of unit length and others."""
    templates = people(300) * np.float32(scale)
    owners = np.random.default_rng(0).permutation(np.repeat(np.arange(300), 4))
    templates = templates[np.argsort(np.argsort(owners, kind="stable"))]  # persons in no order
    radius = 0.7 * scale
    known = index._known(templates, owners, radius, np.random.default_rng(0))
    some = np.random.default_rng(1).permutation(len(known.probes))[:2000]
    for probe, matches, without in zip(known.probes[some], known.matches[some], known.without[some], strict=True):
        distances = np.linalg.norm(templates - probe, axis=1)
        rows = matches[matches >= 0]
        assert len(rows)
        assert (distances[rows] <= radius + 1e-6).all()
        assert without not in rows
        if without >= 0:
            assert (owners[rows] == owners[without]).all()
            assert distances[without] == 0
    assert (known.without >= 0).sum() > 500
    moved = known.probes[known.without < 0]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1).mean(), scale, rtol=1e-3 if scale == 1 else 0.2)
    distance = np.linalg.norm(moved - templates[known.matches[known.without < 0, 0]], axis=1) / radius
    assert np.histogram(distance, bins=4, range=(0, 1))[0].min() > 0.2 * len(moved)


def test_recall_has_an_interval() -> None:
    recall = Recall(9999, 10_000, 0.7)
    assert recall.share == 0.9999
    assert recall.low == pytest.approx(0.99943, abs=1e-5)  # statsmodels.stats.proportion.proportion_confint, wilson
    assert (Recall(0, 0, 0.7).share, Recall(0, 0, 0.7).low) == (0.0, 0.0)
    assert Recall(0, 10, 0.7).low == 0.0


@pytest.mark.parametrize(
    ("count", "dimensions", "cheap"),
    [(0, 128, True), (100_000, 128, True), (120_000, 128, False), (25_000, 512, True), (30_000, 512, False)],
)
def test_exact_search_is_cheap_up_to_100_000_short_templates(count: int, dimensions: int, cheap: bool) -> None:
    assert exact_is_cheap(count, dimensions) is cheap


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, templates: Floats) -> None:
    index._faiss.cache_clear()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anondata\[cpu\]'"):
        Searcher(templates)


FORKED = """
import multiprocessing, numpy, torch
from anondata.verifiers.gallery.index import Searcher
templates = numpy.random.default_rng(0).standard_normal((20_000, 64), dtype=numpy.float32)
searcher, queries = Searcher(templates), torch.from_numpy(templates[:64])
searcher.nearest(queries)
worker = multiprocessing.get_context("fork").Process(target=searcher.nearest, args=(queries,))
worker.start()
worker.join(30)
worker.kill()
raise SystemExit(worker.exitcode != 0)
"""


@pytest.mark.skipif(not hasattr(index.os, "fork"), reason="this system has no fork")
def test_a_forked_process_can_search_after_its_parent_did() -> None:
    """FAISS's OpenMP would wait for ever for the parent's threads."""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=60, check=False).returncode == 0


def test_without_a_gpu_build_cuda_searches_on_the_cpu(templates: Floats) -> None:
    if hasattr(index._faiss(), "StandardGpuResources"):
        pytest.skip("this FAISS is built for GPUs")
    queries = near(templates, 5)
    rows = Searcher(templates, device="cuda").nearest(queries)[1]
    np.testing.assert_array_equal(rows, brute_force(templates, queries, 1)[1])


@pytest.mark.gpu
def test_a_gpu_finds_what_brute_force_finds(templates: Floats, ivf: Ivf) -> None:
    if not torch.cuda.is_available() or not hasattr(index._faiss(), "StandardGpuResources"):
        pytest.skip("no CUDA device, or FAISS is not built for GPUs")
    queries = near(templates, 300)
    distances, rows = Searcher(templates, ivf, device="cuda").nearest(queries.cuda(), 5)
    expected = brute_force(templates, queries, 5)
    assert rows.device.type == "cuda"
    np.testing.assert_array_equal(rows.cpu(), expected[1])
    np.testing.assert_allclose(distances.cpu(), expected[0], atol=1e-6)
