"""What a gallery of protected people costs to search: build, memory, load, time a face and recall, by size.

    python -m anondata.tools.bench.gallery [--sizes 1000 ...] [--dimensions 128 512] [--rejected 100000 ...]

Templates are synthetic, because nobody publishes a million faces with a licence. They are of unit length, 5 a person
about 0.75 apart; different people spread mostly in some dozens of directions around a common mean, so that their
distances have the mean, the spread and the lower tail of a real network's: ``data`` in the results, beside
MobileFaceNet's 1.184 and 1.130 at false-accept rates (FAR) of 0.01 and 0.002. The radius is the distance at a FAR of
1e-6: at 0.01 everybody would match somebody of a million, and recall would mean nothing.

Recall is the share of probes for which somebody is said to be within the radius, of those for which brute force finds
somebody: half are new photos of enrolled people, half templates changed by up to the radius in directions that faces
spread in. The index's own measurement at its build is on other probes. The gate's searches take as many
threads as torch, the rejected ones as many as FAISS takes by itself.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from anondata.tools.bench._common import RESULTS, save, show
from anondata.verifiers._pairs import wilson
from anondata.verifiers.gallery.index import Searcher, build_index, exact_is_cheap

SIZES, DIMENSIONS = (1_000, 10_000, 100_000, 1_000_000), (128, 512)
PER_PERSON = 5
BATCHES = (1, 8, 64, 256)
FAR = 1e-6
BOUND = 0.9999
FACES_PER_IMAGE = 2.3  # of the scenes that throughput.json was measured on

Floats = NDArray[np.float32]
Answer = Callable[[Floats], NDArray[np.bool_]]  # probes (R, D) to whether somebody is within the radius


@dataclass(frozen=True)
class Faces:
    """A network's templates: the decays say in how few directions people, and photos of a person, vary."""

    dimensions: int
    identity_decay: float
    photo_decay: float

    @cached_property
    def turn(self) -> Floats:
        """Directions that are not the axes, as in a network."""
        square = np.random.default_rng(0).standard_normal((self.dimensions, self.dimensions))
        return np.linalg.qr(square)[0].astype(np.float32)

    def spread(self, decay: float) -> Floats:
        variance = np.arange(1.0, self.dimensions + 1) ** -decay
        return np.asarray(np.sqrt(variance / variance.sum()), np.float32)

    def of(self, people: int, photos: int, *, series: int = 0) -> Floats:
        """``(people * photos, D)``; another ``series`` has other photos of the same people."""
        out = np.empty((people * photos, self.dimensions), np.float32)
        for block, start in enumerate(range(0, people, 4000)):
            count = min(4000, people - start)
            out[start * photos : (start + count) * photos] = self._block(block, count, photos, series)
        return out

    def _block(self, block: int, people: int, photos: int, series: int) -> Floats:
        who, shot = np.random.default_rng([1, block]), np.random.default_rng([2, block, series])
        mean = np.full(self.dimensions, 0.3 / math.sqrt(self.dimensions), np.float32)
        person = mean + who.standard_normal((people, self.dimensions), dtype=np.float32) * self.spread(
            self.identity_decay
        )
        person = np.repeat(person / np.linalg.norm(person, axis=1, keepdims=True), photos, axis=0)
        quality = 0.62 * np.exp(0.15 * shot.standard_normal((len(person), 1), dtype=np.float32))
        noise = shot.standard_normal(person.shape, dtype=np.float32) * self.spread(self.photo_decay)
        return _unit((person + quality * noise) @ self.turn)


FACES = {128: Faces(128, 0.6, 0.45), 512: Faces(512, 0.9, 0.7)}


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def likeness(faces: Faces) -> dict[str, Any]:
    """Distances of the same and of different people, from 2e8 pairs."""
    templates = faces.of(4000, PER_PERSON)
    counts, edges = np.zeros(2000, np.int64), np.linspace(0, 2, 2001)
    same: list[Floats] = []
    for start in range(0, 10_000, 500):
        far = np.sqrt(np.maximum(0, 2 - 2 * templates[start : start + 500] @ templates.T))
        own = np.arange(start, start + 500)[:, None] // PER_PERSON == np.arange(len(templates)) // PER_PERSON
        counts += np.histogram(far[~own], bins=edges)[0]
        same.append(far[own][far[own] > 1e-2])
    share, middles = np.cumsum(counts) / counts.sum(), (edges[1:] + edges[:-1]) / 2
    mean = float((middles * counts).sum() / counts.sum())
    return {
        "same_person_5_50_95_percent": [
            round(float(q), 3) for q in np.quantile(np.concatenate(same), [0.05, 0.5, 0.95])
        ],
        "different_people_mean": round(mean, 3),
        "different_people_sd": round(math.sqrt(((middles - mean) ** 2 * counts).sum() / counts.sum()), 3),
        "at_far": {f"{far:g}": round(float(edges[1:][np.searchsorted(share, far)]), 3) for far in (0.01, 0.002, FAR)},
    }


def probes(faces: Faces, templates: Floats, radius: float, count: int) -> Floats:
    """New photos of enrolled people, and templates changed by less than the radius: half each, mixed."""
    rng = np.random.default_rng(7)
    people = len(templates) // PER_PERSON
    each = max(1, count // 2 // people)
    new = faces.of(people, each, series=1)
    new = new[rng.permutation(len(new))[: count // 2]]
    origin = templates[rng.integers(len(templates), size=count // 2)]
    weights = rng.standard_normal((16, count // 2, 1), dtype=np.float32)
    direction = sum(
        w * templates[rng.integers(len(templates), size=count // 2)] for w in weights - weights.mean(axis=0)
    )
    direction = _unit(direction - (direction * origin).sum(axis=1, keepdims=True) * origin)
    cosine = 1 - (0.999 * radius * rng.random((count // 2, 1), dtype=np.float32)) ** 2 / 2
    changed = cosine * origin + np.sqrt(1 - cosine**2) * direction
    return np.asarray(rng.permutation(np.concatenate([new, changed])), np.float32)


def truth(templates: Floats, queries: Floats, radius: float) -> NDArray[np.bool_]:
    """Brute force: whether any template is within the radius."""
    best = torch.full((len(queries),), -2.0)
    for start in range(0, len(templates), 50_000):
        block = torch.from_numpy(templates[start : start + 50_000]).T
        for first in range(0, len(queries), 2_000):
            part = best[first : first + 2_000]
            torch.maximum(part, (torch.from_numpy(queries[first : first + 2_000]) @ block).amax(dim=1), out=part)
    return (best >= 1 - radius**2 / 2).numpy()


def recall(answer: Answer, queries: Floats, wanted: NDArray[np.bool_]) -> dict[str, Any]:
    said = np.concatenate([answer(queries[start : start + 256]) for start in range(0, len(queries), 256)])
    found, of = int((said & wanted).sum()), int(wanted.sum())
    return {"recall": round(found / of, 5), "recall_low": round(wilson(found / of, of)[0], 5), "recall_of": of}


def ms_a_face(answer: Answer, queries: Floats, *, seconds: float) -> dict[str, Any]:
    """Median and range of repeats on queries that are never the same twice in a row."""
    out: dict[str, Any] = {}
    for batch in BATCHES:
        answer(queries[:batch])
        taken: list[float] = []
        until = time.perf_counter() + seconds
        while len(taken) < 5 or (time.perf_counter() < until and len(taken) < 200):
            first = len(taken) * batch % (len(queries) - batch)
            start = time.perf_counter()
            answer(queries[first : first + batch])
            taken.append(1e3 * (time.perf_counter() - start) / batch)
        out[f"ms_face_{batch}"] = round(statistics.median(taken), 3)
        out[f"ms_face_{batch}_range"] = [round(float(q), 3) for q in np.quantile(taken, [0.1, 0.9])]
        out[f"queries_per_s_{batch}"] = round(1e3 / statistics.median(taken))
    return out


def resident_mib() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096 / 2**20


def ours(templates: Floats, radius: float, *, exact: bool) -> tuple[dict[str, Any], Answer]:
    """A searcher as the gate has it: what building, opening and holding it costs."""
    start, ivf = time.perf_counter(), None
    if not exact:
        owners = np.arange(len(templates)) // PER_PERSON
        ivf = build_index(templates, owners, radius=radius, bound=BOUND)
    built, before = time.perf_counter(), resident_mib()
    opened = time.perf_counter()
    searcher = Searcher(templates, ivf)
    row: dict[str, Any] = {
        "build_s": round(built - start, 1) if ivf else 0.0,
        "load_s": round(time.perf_counter() - opened, 2),
        "index_mib": round(max(0.0, resident_mib() - before), 1),
    }
    if ivf:
        row["index_mib"] = round(row["index_mib"] + (ivf.centroids.nbytes + ivf.cells.nbytes) / 2**20, 1)
        row |= {"cells": len(ivf.centroids), "probes": ivf.probes, "own_recall": ivf.recall.share}
        row |= {"own_recall_low": round(ivf.recall.low, 5), "own_recall_of": ivf.recall.of}

    def answer(queries: Floats) -> NDArray[np.bool_]:
        return np.asarray(searcher.nearest(torch.from_numpy(queries))[0][:, 0] <= radius)

    return row, answer


@dataclass(frozen=True)
class Rejected:
    """Another FAISS index. setting: what trades time for recall, with the values to try. exactly: re-rank so many."""

    name: str
    factory: str
    setting: str
    values: tuple[int, ...]
    exactly: int = 64


def alternatives(count: int, dimensions: int) -> list[Rejected]:
    cells = round(math.sqrt(count))
    probed = tuple(round(cells * f) for f in (0.2, 0.5, 0.8, 0.9, 1))
    return [
        Rejected("IVF, float32", f"IVF{cells},Flat", "nprobe", probed, 1),
        Rejected("IVF, 8 bits a dimension", f"IVF{cells},SQ8", "nprobe", probed),
        Rejected("IVF, 1 bit a dimension, fast scan", f"IVF{cells},PQ{dimensions // 4}x4fs", "nprobe", probed),
        Rejected("IVF, RaBitQ, fast scan", f"IVF{cells},RaBitQfs", "nprobe", probed),
        Rejected("HNSW, 32 links", "HNSW32,Flat", "efSearch", (64, 256, 1024, 2048), 1),
    ]


def rejected(
    other: Rejected, templates: Floats, radius: float, queries: Floats, wanted: NDArray[np.bool_], seconds: float
) -> dict[str, Any]:
    """The cheapest setting that reaches the bound, or the dearest that was tried."""
    before, start = resident_mib(), time.perf_counter()
    index = faiss.index_factory(templates.shape[1], other.factory)
    index.train(templates[:: max(1, len(templates) // 65_536)])
    for first in range(0, len(templates), 65_536):
        index.add(templates[first : first + 65_536])
    row: dict[str, Any] = {"build_s": round(time.perf_counter() - start, 1), "load_s": None}
    row["index_mib"] = round(max(0.0, resident_mib() - before), 1)
    space = faiss.ParameterSpace()

    def answer(batch: Floats) -> NDArray[np.bool_]:
        squared, rows = index.search(batch, other.exactly)
        if other.exactly == 1:
            return np.asarray(squared[:, 0] <= radius**2)
        best = [np.square(templates[r] - q).sum(axis=1).min() for r, q in zip(rows, batch, strict=True)]
        return np.asarray(np.array(best) <= radius**2)

    for value in other.values:
        space.set_index_parameter(index, other.setting, value)
        row |= {other.setting: value} | recall(answer, queries, wanted)
        if row["recall"] >= BOUND:
            break
    return row | ms_a_face(answer, queries, seconds=seconds)


def pipeline_ms() -> float:
    """An image through ``anondata faces``, from the results of the throughput benchmark."""
    rows = json.loads((RESULTS / "throughput.json").read_text())["rows"]
    return 1e3 / float(next(row["images_per_s"] for row in rows if row["tool"] == "anondata faces"))


def measured(count: int, faces: Faces, radius: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    templates = faces.of(count // PER_PERSON, PER_PERSON)
    queries = probes(faces, templates, radius, options.probes)
    wanted = truth(templates, queries, radius)
    common = {
        "templates": count,
        "dimensions": faces.dimensions,
        "radius": radius,
        "templates_mib": round(templates.nbytes / 2**20, 1),
    }
    rows = []
    for exact in {True, exact_is_cheap(count, faces.dimensions)}:
        name = "exact" if exact else "codes"
        cost, answer = ours(templates, radius, exact=exact)
        chosen = exact == exact_is_cheap(count, faces.dimensions)
        row = {**common, "search": name, "chosen": chosen, **cost}
        some = slice(None if chosen else 1000)  # brute force against brute force takes minutes and says nothing
        row |= recall(answer, queries[some], wanted[some])
        rows.append(row | ms_a_face(answer, queries, seconds=options.seconds))
        print(rows[-1], flush=True)
    for other in alternatives(count, faces.dimensions) if count in options.rejected else ():
        cost = rejected(other, templates, radius, queries[:10_000], wanted[:10_000], options.seconds)
        rows.append({**common, "search": other.name, "chosen": False, **cost})
        print(rows[-1], flush=True)
    image = pipeline_ms()
    for row in rows:
        row["pipeline_percent"] = round(100 * FACES_PER_IMAGE * row["ms_face_8"] / image, 1)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS, choices=DIMENSIONS)
    parser.add_argument(
        "--rejected", type=int, nargs="*", default=[100_000], help="sizes to measure other indexes at"
    )
    parser.add_argument("--probes", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of repeats for each time")
    options = parser.parse_args(arguments)
    data = {str(d): likeness(FACES[d]) for d in options.dimensions}
    rows: list[dict[str, Any]] = []
    for dimensions in options.dimensions:
        radius = data[str(dimensions)]["at_far"][f"{FAR:g}"]
        for count in options.sizes:
            rows += measured(count, FACES[dimensions], radius, options)
    times = [f"ms_face_{batch}" for batch in BATCHES]
    header = [
        "templates",
        "dimensions",
        "search",
        "chosen",
        "build_s",
        "load_s",
        "index_mib",
        "probes",
        "recall",
        *times,
    ]
    header.append("pipeline_percent")
    show("gallery search", header, [[row.get(name, "") for name in header] for row in rows])
    about: dict[str, Any] = {"far_of_radius": FAR, "bound": BOUND, "per_person": PER_PERSON}
    about |= {"faces_per_image": FACES_PER_IMAGE, "pipeline_ms_per_image": round(pipeline_ms(), 1)}
    about |= {"pipeline_from": "throughput.json", "faiss": faiss.__version__}
    save("gallery", {**about, "data": data, "rows": rows})


if __name__ == "__main__":
    main()
