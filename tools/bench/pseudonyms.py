"""Does one seed give a person the same new face again, in another photo with another expression?

    python -m anondata.tools.bench.pseudonyms

51 people, neutral and smiling, each with one seed for both photos, and each with two as strangers have them; by how
many of the pool the seed may choose among.
"""

from __future__ import annotations

from typing import Any

import torch

from anondata.components import build
from anondata.crops import cut, outer_rects
from anondata.randomness import RunKey
from anondata.tools.bench._common import Portrait, by_expression, cell, save, share, show
from anondata.transforms._face_swap import look_of, unlikeness
from anondata.transforms._faces_blend import landmarks_or_usual
from anondata.transforms.synthetic_face import SyntheticFace

KEY = RunKey(b"benchmark, not a secret")
MEMBERS = 64


def becomes(person: Portrait, technique: SyntheticFace, seed: int) -> int:
    """Whose face of the pool a photo's face becomes."""
    rects = outer_rects(person.face.boxes, technique.extent, torch.tensor(person.view.shape[-2:]))
    crop, rect = cut(person.view, rects, technique.crop_px).float(), rects[0].float()
    marks = landmarks_or_usual((person.face.landmarks - rect[:2]) / (rect[2:] - rect[:2]), technique.extent)
    members = technique.members()
    look = look_of(crop, marks, [seed], extent=technique.extent)
    unlike = unlikeness(look.pose, look.smile, members)
    order = unlike.argsort(dim=1, stable=True)[0, : int(unlike.isfinite().sum())]
    return int(members.people[technique.chosen(order, members, seed)])


def row_of(choices: int) -> dict[str, Any]:
    technique: SyntheticFace = build("technique", "synthetic_face", {"members": MEMBERS, "choices": choices})
    again, by_chance = [], []
    for one, other in zip(by_expression("neutral"), by_expression("smiling"), strict=True):
        seeds = [KEY.seed(photo, one.identity) for photo in ("one", "other")]
        first = becomes(one, technique, seeds[0])
        again.append(first == becomes(other, technique, seeds[0]))
        by_chance.append(first == becomes(other, technique, seeds[1]))
    return {"choices": choices, "same face, one seed": share(again), "same face, two seeds": share(by_chance)}


def main() -> None:
    torch.set_num_threads(1)
    rows = [row_of(choices) for choices in (4, 8, 16, 32, MEMBERS)]
    show(
        "51 people, two photos each",
        list(rows[0]),
        [[cell(v) if isinstance(v, dict) else v for v in r.values()] for r in rows],
    )
    save("pseudonyms", {"members": MEMBERS, "rows": rows})


if __name__ == "__main__":
    main()
