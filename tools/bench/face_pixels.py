"""Learns how the colours of faces vary, calibrates the gate ``pixel_match``, and measures what it catches.

    python -m anondata.tools.bench.face_pixels

Learns ``anondata/models/weights/face_pixels.safetensors`` from both photos of 51 people (its digest, printed, is
also in :mod:`anondata.verifiers.face_pixels`), and writes
``verifiers/thresholds/face-pixels.json``: shares of strangers below which at most so many pairs of different people
fall, each held against a filter that was learnt without both of them. Then the gate looks at results of techniques
through filters that were learnt without the person, and an attacker takes the same filter, with *another* photo of
each candidate, to what passed and to all: rank-1, chance 2 %.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from anondata.components import build
from anondata.models.registry import bundled_file
from anondata.regions import cat_regions
from anondata.tools.bench._common import ROOT, cell, portraits, save, share, show
from anondata.tools.bench.calibration import DATA, rounded
from anondata.tools.bench.privacy_utility import KEY, changed
from anondata.transforms import RegionTransform, describe
from anondata.verifiers import face_pixels
from anondata.verifiers._pairs import Pairs
from anondata.verifiers.calibration import Calibration, thresholds_of
from anondata.verifiers.face_pixels import Filter, colors, covered, learn, strangers

FOLDS = 6
RATES = (0.2, 0.1, 0.05, 0.02, 0.01)
EARLIER: dict[str, Any] = {"blocks": 8, "noise": 0.13, "contrast": 0.2, "coverage": 1.5, "shape": "ellipse"}
TRIED: list[tuple[str, dict[str, Any]]] = [
    ("pixelate", EARLIER),
    *(("pixelate", {**EARLIER, "contrast": contrast}) for contrast in (0.05, 0.02, 0.0)),
    ("pixelate", {**EARLIER, "noise": 0.5, "contrast": 0.1}),
    ("pixelate", {"blocks": 4, "noise": 0.2, "contrast": 0.2, "coverage": 1.5}),
    *(("pixelate", {"blocks": n, "noise": noise}) for n, noise in ((8, 0.0), (8, 0.3), (6, 0.5), (4, 1.0))),
    *(("gaussian_blur", {"sigma": sigma}) for sigma in (0.1, 0.2, 0.3, 0.5)),
    ("fill", {"color": "mean", "coverage": 1.5}),
    ("mask", {"by": "inpaint", "coverage": 1.5}),
    ("random_colors", {"cells": 3, "spread": 0.15, "coverage": 1.55, "shape": "rounded"}),
    ("synthetic_face", {"members": 64, "choices": 16, "coverage": 1.55, "shape": "rounded"}),
    ("ksame", {"k": 4}),
]


def numbers() -> Tensor:
    """``(N,)``: whose each portrait is."""
    people = sorted({p.identity for p in portraits()})
    return torch.tensor([people.index(p.identity) for p in portraits()])


def faces() -> Any:
    return cat_regions([p.face.renumbered(i) for i, p in enumerate(portraits())])


def without(clear: Tensor, *left_out: Tensor) -> Filter:
    """The filter of portraits but those of the given rows."""
    kept = torch.ones(len(clear), dtype=torch.bool)
    for rows in left_out:
        kept[rows] = False
    return learn(clear[kept])


def folds() -> list[Tensor]:
    number = numbers()
    return [(number % FOLDS == fold).nonzero().flatten() for fold in range(FOLDS)]


def calibrated(clear: Tensor) -> Calibration:
    """Every photo is once the result and once the original, and a fold's people never among those learnt from."""
    number, parts = numbers(), folds()
    share = torch.full((len(clear), len(clear)), torch.nan, dtype=torch.float64)
    for one, two in itertools.product(range(FOLDS), repeat=2):
        a, b = parts[one], parts[two]
        share[a[:, None], b] = strangers(without(clear, a, b).scores(clear[a], clear[b]))
    other = number[:, None] != number
    photos = np.bincount(number.numpy())
    impostors = _pairs(share, number, other)
    genuine = _pairs(share, number, ~other & ~torch.eye(len(clear), dtype=torch.bool))
    found = Calibration(
        embedder=face_pixels.NAME,
        data=DATA,
        identities=len(photos),
        impostor_pairs=len(impostors),
        thresholds=thresholds_of(impostors, genuine, photos, RATES, 1000),
        genuine_pairs=len(genuine),
        embedder_fingerprint=face_pixels.FINGERPRINT,
    )
    return replace(found, thresholds=tuple(rounded(t) for t in found.thresholds))


def _pairs(share: Tensor, number: Tensor, chosen: Tensor) -> Pairs:
    row, column = chosen.nonzero(as_tuple=True)
    order = share[row, column].argsort(stable=True)
    first, second = (number[side[order]].numpy().astype(np.int32) for side in (row, column))
    return Pairs(share[row, column][order].float().numpy(), first, second)


def techniques() -> Iterator[RegionTransform]:
    for name, params in TRIED:
        yield build("technique", name, params).with_key(KEY)


def attacked(clear: Tensor, technique: RegionTransform, far: dict[float, float]) -> dict[str, Any]:
    """What passes at each rate, and rank-1 of who takes the filter to it, the other photos as the gallery."""
    people, number = portraits(), numbers()
    views = [changed(p, technique, "probe")[0] for p in people]
    results = colors(views, faces())
    known = covered(views, faces(), [technique] * len(views))
    own, named = torch.zeros(len(people), dtype=torch.float64), torch.zeros(len(people), dtype=torch.bool)
    for rows in folds():
        whole = without(clear, rows)
        for row in rows.tolist():
            cells = known[row]
            scores = whole.masked(cells).scores(results[row : row + 1, cells], clear[:, cells])[0]
            gallery = [i for i, p in enumerate(people) if p.expression != people[row].expression]
            own[row] = strangers(scores[row])
            named[row] = number[gallery[int(scores[gallery].argmax())]] == number[row]
    out: dict[str, Any] = {"technique": describe(technique), "erases": technique.erases, "all": share(named.tolist())}
    for rate, distance in far.items():
        passed = own > distance
        out[f"passed at {rate:g}"] = share(passed.tolist())
        out[f"named of passed at {rate:g}"] = share(named[passed].tolist())
    return out


def main() -> None:
    clear = colors([p.view for p in portraits()], faces())
    kept = learn(clear)
    path = bundled_file(face_pixels.FILE)
    # One word of metadata: the order of several is another in every file.
    told = {"source": f"{DATA}; made by anondata/tools/bench/face_pixels.py"}
    save_file({"mean": kept.mean.float(), "factor": kept.factor.float().contiguous()}, path, metadata=told)
    print(f"SHA256 of {path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}")
    found = calibrated(clear)
    (ROOT / "verifiers" / "thresholds" / f"{face_pixels.NAME}.json").write_text(found.to_json())
    rows = [attacked(clear, t, {t.far: t.distance for t in found.thresholds[:3]}) for t in techniques()]
    header = [name for name in rows[0] if name != "erases"]
    show(
        "51 people, % passed, and % named by the same filter with another photo (chance 2 %)",
        header,
        [[row["technique"], *(cell(row[name]) for name in header[1:])] for row in rows],
    )
    save("face_pixels", {"rows": rows})


if __name__ == "__main__":
    main()
