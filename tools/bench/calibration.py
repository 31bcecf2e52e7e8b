"""The shipped thresholds: distances at stated false-accept rates, from pairs of different people.

    python -m anondata.tools.bench.calibration

Writes ``verifiers/thresholds/<embedder>.json``. Intervals by bootstrap over *people*, not pairs: pairs that share a
person are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from anondata.tools.bench._common import ROOT, embed, embedders, portraits, show
from anondata.verifiers.calibration import PAIRS_PER_ACCEPT

RATES = (0.05, 0.02, 0.01, 0.005, 0.002)
REPEATS = 1000
DATA = "Face Research Lab London Set (CC-BY 4.0): 51 people, neutral and smiling, 400 px, frontal, studio light"


def impostors(templates: Tensor, people: np.ndarray) -> np.ndarray:
    """Distances of all pairs of different people, ascending."""
    distance = torch.cdist(templates, templates).numpy()
    row, column = np.triu_indices(len(people), k=1)
    apart = people[row] != people[column]
    return np.sort(distance[row[apart], column[apart]])


def at_rate(ascending: np.ndarray, far: float) -> float:
    """The largest distance that lets at most this share of impostor pairs below it."""
    return float(ascending[int(far * len(ascending))])


def resampled(templates: Tensor, people: np.ndarray) -> Iterator[np.ndarray]:
    """Impostor distances of people drawn with replacement; a person drawn twice is not paired with themselves."""
    random = np.random.default_rng(0)
    distance = torch.cdist(templates, templates).numpy()
    names = np.unique(people)
    for _ in range(REPEATS):
        rows = np.concatenate([np.flatnonzero(people == name) for name in random.choice(names, len(names))])
        row, column = np.triu_indices(len(rows), k=1)
        apart = people[rows[row]] != people[rows[column]]
        yield np.sort(distance[rows[row[apart]], rows[column[apart]]])


def main() -> None:
    people = np.array([p.identity for p in portraits()])
    rows = []
    for embedder in embedders():
        templates = embed(embedder, [p.view for p in portraits()], [p.face for p in portraits()])
        pairs = impostors(templates, people)
        draws = list(resampled(templates, people))
        thresholds = []
        for far in RATES:
            if len(pairs) < PAIRS_PER_ACCEPT / far:
                continue
            low, high = np.quantile([at_rate(d, far) for d in draws], [0.025, 0.975])
            values = {"distance": at_rate(pairs, far), "low": float(low), "high": float(high)}
            thresholds.append({"far": far, **{k: round(v, 4) for k, v in values.items()}})
            rows.append([embedder.name, *thresholds[-1].values()])
        body = {
            "embedder": embedder.name,
            "data": DATA,
            "identities": len(set(people)),
            "impostor_pairs": len(pairs),
            "thresholds": thresholds,
        }
        path = ROOT / "verifiers" / "thresholds" / f"{embedder.name}.json"
        path.write_text(json.dumps(body, indent=1) + "\n")
    show("thresholds", ["embedder", "far", "distance", "low", "high"], rows)


if __name__ == "__main__":
    main()
