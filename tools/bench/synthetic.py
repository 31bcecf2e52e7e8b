"""Faces that belong to nobody: who is still named, and what is left for a model to learn from.

    python -m anondata.tools.bench.synthetic

Each photo's face is changed as a policy would. Privacy: rank-1 of naive attackers (the gallery is clear), parrots
(the gallery is changed by the same technique, with other seeds) and smoothing parrots over 51 people, by the gates'
network and another. Utility: CenterFace still finds a face there, how far its landmarks moved relative to the
distance of the eyes, and whether a linear probe on the mouth's pixels, trained on originals of other people, still
tells neutral from smiling. Time is of the technique alone, a face at a time, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from anondata.detectors.centerface import CenterFaceDetector
from anondata.kernels import cut, outer_rects, paste
from anondata.protocols import Embedder
from anondata.randomness import RunKey
from anondata.regions import Regions
from anondata.tools.bench._common import (
    Portrait,
    by_expression,
    cell,
    embedders,
    portraits,
    save,
    share,
    show,
)
from anondata.tools.bench.techniques import rank1, smoothed, templates
from anondata.transforms import RegionTransform, describe
from anondata.transforms.fill import Fill
from anondata.transforms.ksame import KSame
from anondata.transforms.pixelate import Pixelate
from anondata.transforms.synthetic_face import SyntheticFace
from anondata.verifiers.alignment import chips

SIDES = ("neutral", "smiling")
FOLDS = 5
RIDGE = 12.0
FAR_OFF = 0.5  # of the eyes' distance: a landmark error from which a face counts as not found in its place
# The mouth in a 64 px chip whose landmarks lie here.
CHIP = ((20.0, 22.0), (44.0, 22.0), (32.0, 34.0), (23.0, 46.0), (41.0, 46.0))
MOUTH = (..., slice(36, 56), slice(16, 48))
GRAIN = 4
KEY = RunKey(b"benchmark, not a secret")


def techniques() -> Iterator[RegionTransform]:
    yield Fill(coverage=1.5)
    yield Pixelate(8, 0.13, 0.2, key=KEY, coverage=1.5, shape="ellipse")
    yield SyntheticFace(key=KEY)
    yield SyntheticFace(key=KEY, coverage=1.3)
    yield KSame(4)
    yield KSame(8)


def changed(person: Portrait, technique: RegionTransform, run: str) -> tuple[Tensor, float]:
    """The photo with its face changed, and the seconds that it took."""
    rects = outer_rects(person.face.boxes, technique.extent, torch.tensor(person.view.shape[-2:]))
    crops = cut(person.view, rects, technique.crop_px)
    rect = rects[0].float()
    marks = (person.face.landmarks - rect[:2]) / (rect[2:] - rect[:2])
    seed = KEY.seed(run, person.identity, person.expression, describe(technique))
    start = time.perf_counter()
    crop = technique.change_aligned(crops, extent=technique.extent, seeds=[seed], landmarks=marks)
    seconds = time.perf_counter() - start
    out, box, place = person.view.clone(), person.face.boxes[0].tolist(), rects[0].tolist()
    paste(out, place, crop[0], technique.weight(box, place))
    return out, seconds


def landmark_error(person: Portrait, view: Tensor) -> float:
    """Mean distance of landmarks in the best face of a result to the original's, in distances of the eyes."""
    found = CenterFaceDetector(threshold=0.5).detect([view])
    if not len(found):
        return float("inf")
    there = person.face.landmarks[0]
    away = (found.landmarks - there).norm(dim=2).mean(dim=1) / (there[0] - there[1]).norm()
    return float(away.min())


def mouths(people: list[Portrait], views: list[Tensor]) -> Tensor:
    """``(N, D)``: grey means of parts of the mouths, freed of their mean and scaled to a spread of 1."""
    rows = []
    for person, view in zip(people, views, strict=True):
        face: Regions = person.face
        chip = chips([view], face.renumbered(0), template=torch.tensor(CHIP), chip_px=64)
        rows.append(torch.nn.functional.avg_pool2d(chip.mean(dim=1, keepdim=True)[MOUTH], GRAIN).flatten())
    pixels = torch.stack(rows)
    pixels = pixels - pixels.mean(dim=1, keepdim=True)
    scaled: Tensor = torch.nn.functional.normalize(pixels, dim=1) * pixels.shape[1] ** 0.5
    return scaled


def expression_kept(people: list[Portrait], clear: Tensor, views: list[Tensor]) -> dict[str, Any]:
    """Share of results that a probe, trained on clear mouths of other people, puts on the right side."""
    identities = sorted({p.identity for p in people})
    fold = torch.tensor([identities.index(p.identity) % FOLDS for p in people])
    wanted = torch.tensor([1.0 if p.expression == "smiling" else -1.0 for p in people])
    seen, right = mouths(people, views), torch.zeros(len(people), dtype=torch.bool)
    for number in range(FOLDS):
        train, test = fold != number, fold == number
        middle = clear[train].mean(dim=0)
        x = clear[train] - middle
        weight = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ wanted[train])
        right[test] = ((seen[test] - middle) @ weight).sign() == wanted[test]
    return share(right.tolist())


def attacks(e: Embedder, runs: list[dict[str, list[Tensor]]], clear: dict[str, Tensor]) -> dict[str, Any]:
    changed_, other = ({x: templates(e, x, run[x]) for x in SIDES} for run in runs)
    soft, soft_other = ({x: templates(e, x, smoothed(x, run[x])) for x in SIDES} for run in runs)
    apart = torch.cat([(changed_[x] - clear[x]).norm(dim=1) for x in SIDES])
    return {
        f"{e.name} naive": rank1(changed_, clear),
        f"{e.name} parrot": rank1(changed_, other),
        f"{e.name} smoothing parrot": rank1(soft, soft_other),
        f"{e.name} median distance to itself": round(float(apart.median()), 2),
    }


def row_of(technique: RegionTransform | None, clear: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    people = list(portraits())
    runs, times = [], []
    for run in ("probe", "gallery"):
        views: dict[str, list[Tensor]] = {}
        for x in SIDES:
            made = [(p.view, 0.0) if technique is None else changed(p, technique, run) for p in by_expression(x)]
            views[x] = [view for view, _ in made]
            times += [seconds for _, seconds in made]
        runs.append(views)
    ordered = {x: iter(runs[0][x]) for x in SIDES}
    results = [next(ordered[p.expression]) for p in people]
    errors = [landmark_error(p, v) for p, v in zip(people, results, strict=True)]
    row: dict[str, Any] = {"technique": "none" if technique is None else describe(technique)}
    for e in embedders():
        row |= attacks(e, runs, clear[e.name])
    row["detected"] = share([error < FAR_OFF for error in errors])
    row["median landmark error"] = round(median(errors), 3)
    row["expression kept"] = expression_kept(people, mouths(people, [p.view for p in people]), results)
    row["ms per face"] = round(1000 * median(times), 1)
    return row


def main() -> None:
    torch.set_num_threads(1)
    clear = {e.name: {x: templates(e, x, [p.view for p in by_expression(x)]) for x in SIDES} for e in embedders()}
    results = []
    for technique in (None, *techniques()):
        results.append(row_of(technique, clear))
        print([cell(v) if isinstance(v, dict) else v for v in results[-1].values()], flush=True)
    rows = [[cell(v) if isinstance(v, dict) else v for v in row.values()] for row in results]
    show("51 people, neutral and smiling; shares in % (chance of rank 1: 2)", list(results[0]), rows)
    save("synthetic", {"chance_percent": round(100 / 51, 1), "rows": results})


if __name__ == "__main__":
    main()
