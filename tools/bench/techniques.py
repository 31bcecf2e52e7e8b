"""How strong is each technique? Rank-1 of three attackers over 51 people.

    python -m anondata.tools.bench.techniques

Each photo's face is changed as a policy would; the attacker is granted perfect alignment. Naive: the gallery is clear.
Parrot: the gallery is changed by the same technique. Gate network and other network side by side. Probes are the
smiling photos against the neutral ones and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator

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

ATTACKERS = ("naive", "parrot")


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
    yield Pixelate(8, 0.2, 0.3, key=key, coverage=1.5, shape="ellipse")
    yield Pixelate(4, 0.3, 0.2, key=key, coverage=1.5)
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


def templates(embedder: Embedder, expression: str, technique: RegionTransform | None) -> Tensor:
    people = by_expression(expression)
    views = [p.view if technique is None else technique.change_regions(p.view, p.face.boxes) for p in people]
    return embed(embedder, views, [p.face for p in people])


def main() -> None:
    clear = {(e.name, x): templates(e, x, None) for e in embedders() for x in ("neutral", "smiling")}
    results, rows = [], []
    for technique in techniques():
        row: dict[str, object] = {"technique": describe(technique)}
        for e in embedders():
            changed = {x: templates(e, x, technique) for x in ("neutral", "smiling")}
            for attacker in ATTACKERS:
                gallery = changed if attacker == "parrot" else {x: clear[e.name, x] for x in changed}
                found = hits(changed["smiling"], gallery["neutral"]) + hits(changed["neutral"], gallery["smiling"])
                row[f"{e.name} {attacker}"] = share(found)
            apart = [(changed[x] - clear[e.name, x]).norm(dim=1) for x in changed]
            row[f"{e.name} median distance to itself"] = round(float((apart[0].median() + apart[1].median()) / 2), 2)
        results.append(row)
        rows.append([cell(v) if isinstance(v, dict) else v for v in row.values()])
        print(rows[-1], flush=True)
    show("rank-1 % of 51 people (chance 2 %)", list(results[0]), rows)
    save("techniques", {"chance_percent": round(100 / 51, 1), "rows": results})


if __name__ == "__main__":
    main()
