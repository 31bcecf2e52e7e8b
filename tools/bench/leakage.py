"""The bound of what a mosaic leaks against the best attack: is anybody named more often than it says?

    python -m anondata.tools.bench.leakage

The attacker knows the technique, its parameters, the alignment and the very original of each of 51 candidates: all
but the noise. Of one, 10 and 50 releases they take the mean and name the candidate whose mosaic, as it is expected to
come out, is nearest: for normal noise that is the likeliest one. Faces of both photos of everybody, through the
technique alone. A second attacker has only the *other* photo of each candidate.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from anondata.crops import cut, outer_rects
from anondata.errors import MissingExtraError
from anondata.tools.bench._common import RESULTS, by_expression, cell, save, share, show
from anondata.tools.bench.privacy_utility import KEY, SIDES
from anondata.transforms import Pixelate

NOISES = (0.05, 0.13, 0.5, 2.0)
CONTRASTS = (0.0, 0.005, 0.02, 0.05, 0.2, 1.0)
RELEASES = (1, 10, 50)
BLOCKS, COVERAGE = 8, 1.5
CROP_PX = 39  # three a block


def crops(technique: Pixelate) -> dict[str, Tensor]:
    """``(51, 3, 39, 39)`` for each expression, in the order of people."""
    out = {}
    for side in SIDES:
        rows = []
        for person in by_expression(side):
            frame = torch.tensor(person.view.shape[-2:])
            rows.append(cut(person.view, outer_rects(person.face.boxes, technique.extent, frame), CROP_PX))
        out[side] = torch.cat(rows)
    return out


def expected(colors: Tensor, noise: float) -> Tensor:
    """The mean of colours with normal noise, kept in [0, 1]."""
    low, high = -colors / noise, (1 - colors) / noise
    below, beyond = torch.special.ndtr(low), torch.special.ndtr(high)
    density = ((-low.square() / 2).exp() - (-high.square() / 2).exp()) / math.sqrt(2 * math.pi)
    mean: Tensor = colors * (beyond - below) + noise * density + 1 - beyond
    return mean


def row(noise: float, contrast: float) -> list[dict[str, Any]]:
    technique = Pixelate(BLOCKS, noise, contrast, coverage=COVERAGE)
    faces = crops(technique)
    noiseless = Pixelate(BLOCKS, 0.0, contrast, coverage=COVERAGE)
    models = {
        side: expected(noiseless.change(faces[side], extent=technique.extent, seeds=[]), noise) for side in SIDES
    }
    named: dict[int, tuple[list[bool], list[bool]]] = {n: ([], []) for n in RELEASES}
    for side, other in (SIDES, SIDES[::-1]):
        for person, face in enumerate(faces[side]):
            seeds = [KEY.seed("release", side, str(person), str(run)) for run in range(max(RELEASES))]
            many = face[None].expand(len(seeds), -1, -1, -1)
            results = technique.change(many, extent=technique.extent, seeds=seeds)
            for n in RELEASES:
                means = results.view(-1, n, *results.shape[1:]).mean(dim=1).flatten(1)
                for found, gallery in zip(named[n], (models[side], models[other]), strict=True):
                    nearest = torch.cdist(means.double(), gallery.flatten(1).double()).argmin(dim=1)
                    found += (nearest == person).tolist()
    leakage, people = technique.leakage(), len(faces[SIDES[0]])
    return [
        {
            "noise": noise,
            "contrast": contrast,
            "releases": n,
            "bits": round(leakage.bits(releases=n), 4),
            "bound": round(100 * leakage.rank1(candidates=people, releases=n), 2),
            "knows the original": share(named[n][0]),
            "knows another photo": share(named[n][1]),
        }
        for n in RELEASES
    ]


def plot(rows: list[dict[str, Any]]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'anondata[plots]'") from error
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(RELEASES), sharey=True)
    for n, axis in zip(RELEASES, axes, strict=True):
        chosen = [r for r in rows if r["releases"] == n and r["contrast"]]
        chosen.sort(key=lambda r: r["contrast"] / r["noise"])
        ratio = [r["contrast"] / r["noise"] for r in chosen]
        axis.plot(ratio, [r["bound"] for r in chosen], color="black", label="bound")
        for name, marker in (("knows the original", "o"), ("knows another photo", "x")):
            axis.plot(ratio, [r[name]["percent"] for r in chosen], marker, label=name)
        axis.set(xscale="log", xlabel="contrast / noise", title=f"{n} release{'s' if n > 1 else ''}")
    axes[0].set_ylabel("named of 51, %")
    axes[0].legend(loc="upper left")
    figure.savefig(RESULTS / "leakage.svg", metadata={"Date": None})


def main() -> None:
    torch.set_num_threads(1)
    rows = [found for noise, contrast in itertools.product(NOISES, CONTRASTS) for found in row(noise, contrast)]
    attackers = ("knows the original", "knows another photo")
    header = ["noise", "contrast", "releases", "bits", "bound", *attackers]
    show(
        "% named of 51 people (chance 2.0)",
        header,
        [[cell(r[name]) if name in attackers else r[name] for name in header] for r in rows],
    )
    above = [r for r in rows if any(r[name]["low"] > r["bound"] for name in attackers)]
    print(f"{len(above)} of {len(rows)} rows above the bound")
    save("leakage", {"blocks": BLOCKS, "coverage": COVERAGE, "people": 51, "above": len(above), "rows": rows})
    plot(rows)


if __name__ == "__main__":
    main()
