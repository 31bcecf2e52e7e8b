"""What a policy leaves in ``scenes_london``: recall, false regions, and whom three attackers still name.

    python -m anondata.tools.bench.scenes

Recall: a face counts when at least 95 % of its true box differs from the original. False regions: changed areas that
touch no true face. Attackers: the 51 portraits through the whole policy, smiling against neutral and back; and the
scenes' own faces against the clear portraits. All are granted perfect alignment.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.regions import Regions, cat_regions
from anondata.tools.bench._common import (
    by_expression,
    cell,
    data_folder,
    embed,
    embedders,
    hits,
    load,
    save,
    share,
    show,
)

POLICIES = ("faces", "faces-fill", "unsafe-mosaic", "unsafe-blur")


def truth() -> list[tuple[Tensor, Regions, list[tuple[str, str]]]]:
    """Each scene, its faces as annotated, and who they are with which expression."""
    folder = data_folder() / "scenes_london"
    out = []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        faces = [
            Regions(
                torch.zeros(1, dtype=torch.int64),
                torch.tensor([f["box"]]),
                torch.tensor(f["eyes_nose_mouth"]).reshape(1, 5, 2),
                torch.ones(1),
                ("face",),
            )
            for f in row["faces"]
        ]
        people = [(f["identity"], f["expression"]) for f in row["faces"]]
        out.append((load(folder / row["file_name"]), cat_regions(faces), people))
    return out


def released(anonymizer: Anonymizer, views: list[Tensor]) -> list[Tensor | None]:
    """Results one by one; None where a picture was withheld."""
    outcomes = [anonymizer.anonymize([view])[0] for view in views]
    return [o.image if isinstance(o, Released) and isinstance(o.image, Tensor) else None for o in outcomes]


def changes(before: Tensor, after: Tensor, boxes: Tensor) -> tuple[int, int]:
    """How many true faces were covered, and how many changed areas touch none."""
    changed = (before != after).any(dim=0).numpy()
    covered, true = 0, np.zeros_like(changed)
    for box in boxes.tolist():
        x0, y0, x1, y1 = (round(v) for v in box)
        covered += changed[y0:y1, x0:x1].mean() >= 0.95
        true[y0:y1, x0:x1] = True
    joined = ndimage.binary_dilation(changed, iterations=3)  # a mosaic's block may equal what it replaced
    labels, count = ndimage.label(joined)
    return covered, count - len(set(labels[true & joined].tolist()))


def attack(anonymizer: Anonymizer) -> dict[str, Any]:
    """Rank-1 of 51 people by attacker; a withheld portrait names nobody."""
    people = {x: by_expression(x) for x in ("neutral", "smiling")}
    hidden = {x: released(anonymizer, [p.view for p in group]) for x, group in people.items()}
    row: dict[str, Any] = {}
    for e in embedders():
        clear = {x: embed(e, [p.view for p in g], [p.face for p in g]) for x, g in people.items()}
        views = {
            x: [torch.zeros_like(p.view) if v is None else v for p, v in zip(people[x], hidden[x], strict=True)]
            for x in people
        }
        probes = {x: embed(e, views[x], [p.face for p in people[x]]) for x in people}
        for attacker, gallery in (("naive", clear), ("parrot", probes)):
            both = hits(probes["smiling"], gallery["neutral"]) + hits(probes["neutral"], gallery["smiling"])
            row[f"{e.name} {attacker}"] = share(both)
    return row


def scene_attack(
    outputs: list[Tensor | None], gallery_from: list[tuple[Tensor, Regions, list[tuple[str, str]]]]
) -> dict[str, Any]:
    """Rank-1 of the scenes' faces, 17 px and more, against the clear portraits of the other expression."""
    row: dict[str, Any] = {}
    for e in embedders():
        found: list[bool] = []
        for expression, other in (("neutral", "smiling"), ("smiling", "neutral")):
            people = by_expression(other)
            gallery = embed(e, [p.view for p in people], [p.face for p in people])
            names = [p.identity for p in people]
            for view, (_, faces, who) in zip(outputs, gallery_from, strict=True):
                rows = [i for i, (_, x) in enumerate(who) if x == expression]
                if view is None or not rows:
                    continue
                nearest = torch.cdist(e.embed([view], faces.select(rows)), gallery).argmin(dim=1).tolist()
                found += [names[n] == who[i][0] for n, i in zip(nearest, rows, strict=True)]
        row[f"scenes {e.name} naive"] = share(found)
    return row


def main() -> None:
    scenes, results, rows = truth(), [], []
    untouched = scene_attack([view for view, _, _ in scenes], scenes)
    for policy in POLICIES:
        anonymizer = Anonymizer(policy, run_key=RunKey(b"benchmark, not a secret"))
        outputs = released(anonymizer, [view for view, _, _ in scenes])
        counts = [
            changes(view, out, faces.boxes)
            for (view, faces, _), out in zip(scenes, outputs, strict=True)
            if out is not None
        ]
        row: dict[str, Any] = {
            "policy": policy,
            "faces": sum(len(f) for (_, f, _), o in zip(scenes, outputs, strict=True) if o is not None),
            "covered": int(sum(c for c, _ in counts)),
            "false_regions": int(sum(f for _, f in counts)),
            "withheld_scenes": sum(o is None for o in outputs),
            **attack(anonymizer),
            **scene_attack(outputs, scenes),
        }
        results.append(row)
        rows.append([cell(v) if isinstance(v, dict) else v for v in row.values()])
        print(rows[-1], flush=True)
    show("policies on scenes_london; rank-1 % of 51 people (chance 2 %)", list(results[0]), rows)
    show("the scenes untouched", list(untouched), [[cell(v) for v in untouched.values()]])
    save("scenes", {"chance_percent": round(100 / 51, 1), "rows": results, "untouched": untouched})


if __name__ == "__main__":
    main()
