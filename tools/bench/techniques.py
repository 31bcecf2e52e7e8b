"""How strong is each technique? Rank-1 of three attackers over 51 people.

    python -m anondata.tools.bench.techniques

Each photo's face is changed as a policy would; the attacker is granted perfect alignment. Naive: the gallery is
clear. Parrot: the gallery is changed by the same technique. Smoothing parrot: both are blurred afterwards, to average
noise away. Gate network and other network side by side. Probes are the smiling photos against the neutral ones and
the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from anondata.protocols import Embedder
from anondata.randomness import RunKey
from anondata.tools.bench._common import (
    by_expression,
    cell,
    embed,
    embedders,
    hits,
    save,
    share,
    show,
)
from anondata.transforms import Fill, GaussianBlur, Noise, Pixelate, RegionTransform, describe
from anondata.transforms.blur import gaussian_blur

SMOOTHING = 0.25  # sigma of the smoothing parrot, relative to the width of the face


def techniques() -> Iterator[RegionTransform]:
    """Strengths and shapes from which the default ladders are chosen."""
    key = RunKey(b"benchmark, not a secret")
    for blocks in (8, 6, 4, 2):
        yield Pixelate(blocks)
    yield Pixelate(4, coverage=1.5)
    yield Pixelate(4, shape="ellipse")
    for blocks in (8, 6, 4):
        for noise in (0.1, 0.2, 0.3, 0.5, 1.0):
            yield Pixelate(blocks, noise, key=key)
    for noise, contrast in ((0.0, 0.3), (0.1, 0.3), (0.15, 0.3), (0.1, 0.2)):
        yield Pixelate(6, noise, contrast, key=key)
    for blocks in (8, 12):
        yield Pixelate(blocks, 0.2, 0.3, key=key, coverage=1.5)
    for noise, contrast in ((0.2, 0.3), (0.13, 0.2), (0.06, 0.1)):
        yield Pixelate(8, noise, contrast, key=key, coverage=1.5, shape="ellipse")
    yield Pixelate(4, 0.2, 0.2, key=key, coverage=1.5)
    yield Fill()
    yield Fill(shape="ellipse")
    yield Fill(coverage=1.5, shape="ellipse")
    yield Fill(coverage=1.5)
    yield Fill(coverage=1.7)
    yield Fill("mean")
    yield Fill("mean", coverage=1.5)
    for sigma in (0.05, 0.1, 0.2, 0.3, 0.5):
        yield GaussianBlur(sigma)
    for std, cells in ((0.3, 16), (0.5, 16), (1.0, 16), (1.0, 8), (2.0, 8), (2.0, 16)):
        yield Noise(std, cells, key=key)


def pictures(expression: str, technique: RegionTransform | None) -> list[Tensor]:
    people = by_expression(expression)
    return [p.view if technique is None else technique.change_regions(p.view, p.face.boxes) for p in people]


def smoothed(expression: str, views: list[Tensor]) -> list[Tensor]:
    out = []
    for person, view in zip(by_expression(expression), views, strict=True):
        sigma = SMOOTHING * float(person.face.sizes[0, 0])
        soft = gaussian_blur(view[None].float() / 255, sigma_px=(sigma, sigma))
        out.append((soft[0] * 255).round().to(torch.uint8))
    return out


def templates(embedder: Embedder, expression: str, views: list[Tensor]) -> Tensor:
    return embed(embedder, views, [p.face for p in by_expression(expression)])


def rank1(probes: dict[str, Tensor], gallery: dict[str, Tensor]) -> dict[str, Any]:
    both = hits(probes["smiling"], gallery["neutral"]) + hits(probes["neutral"], gallery["smiling"])
    return share(both)


def main() -> None:
    sides = ("neutral", "smiling")
    clear = {e.name: {x: templates(e, x, pictures(x, None)) for x in sides} for e in embedders()}
    results, rows = [], []
    for technique in techniques():
        row: dict[str, Any] = {"technique": describe(technique)}
        views = {x: pictures(x, technique) for x in sides}
        soft = {x: smoothed(x, views[x]) for x in sides}
        for e in embedders():
            changed = {x: templates(e, x, views[x]) for x in sides}
            smooth = {x: templates(e, x, soft[x]) for x in sides}
            row[f"{e.name} naive"] = rank1(changed, clear[e.name])
            row[f"{e.name} parrot"] = rank1(changed, changed)
            row[f"{e.name} smoothing parrot"] = rank1(smooth, smooth)
            apart = torch.cat([(changed[x] - clear[e.name][x]).norm(dim=1) for x in sides])
            row[f"{e.name} median distance to itself"] = round(float(apart.median()), 2)
        results.append(row)
        rows.append([cell(v) if isinstance(v, dict) else v for v in row.values()])
        print(rows[-1], flush=True)
    show("rank-1 % of 51 people (chance 2 %)", list(results[0]), rows)
    save("techniques", {"chance_percent": round(100 / 51, 1), "rows": results})


if __name__ == "__main__":
    main()
