"""Every preset and rung for faces against every attacker, on three sets of people, for one release and for many.

    python -m anondata.tools.bench.attacks [--only NAME ...] [--sets NAME ...]
    python -m anondata.tools.bench.attacks --around NAME ...

Presets go through the engine; presets whose faces go the same way are measured once. Further rungs are put on the
faces that the detector finds. The sets: ``london``, 51 people, neutral and smiling; and two of generated people on
whom nothing was tuned: ``generated``, 32 people at rest and laughing, the second photo in other light and another
crop; ``small``, 32 others, grey, their faces 50 px wide, each photo in another light and before another background.
Rows are saved as they come. The second form measures what lies around covers alone, out to 3.5 boxes, in portraits of
``london``: of presets, and of ``head``, which is ``faces`` with ``cover: head``; and what boxes alone tell.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.content import codec
from anondata.crops import resize
from anondata.detectors.centerface import CenterFaceDetector
from anondata.policy import Policy, from_yaml, load_policy, presets
from anondata.tools.bench._common import RESULTS, data_folder, hits, portraits, save, share, show
from anondata.tools.bench.privacy_utility import face_ladder
from anondata.transforms import RegionTransform, describe
from anondata.transforms.face_pool import generated_pool
from anondata.verifiers.audit import PhotoPair, audit, crops
from anondata.verifiers.embedders import DlibEmbedder

ALL_KEPT = "faces-synthetic, all kept"
KEY = RunKey(b"benchmark, not a secret")
PEOPLE = 32  # of each generated set
MEMBERS = 2 * PEOPLE
WIDE_REACH = 3.5  # boxes: beyond a covered head


@dataclass(frozen=True)
class Photo:
    """One photo. technique puts it through, so that it is encoded as results are."""

    identity: str
    data: bytes


def london() -> list[Photo]:
    return [Photo(p.identity, _jpeg(p.view)) for p in portraits()]


def generated() -> list[Photo]:
    return [photo for person in range(PEOPLE) for photo in _two(person, grey=False)]


def small() -> list[Photo]:
    return [photo for person in range(PEOPLE, MEMBERS) for photo in _two(person, grey=True)]


SETS: dict[str, Callable[[], list[Photo]]] = {"london": london, "generated": generated, "small": small}


def _two(person: int, *, grey: bool) -> Iterator[Photo]:
    """Somebody at rest, and laughing in another light and crop."""
    pool = generated_pool(MEMBERS)
    rows = (pool.people == person).nonzero().flatten()
    order = rows[pool.smiles[rows].argsort()]
    random = np.random.default_rng(person)
    for row, other in ((int(order[len(order) // 2]), False), (int(order[-1]), True)):
        picture, matte = pool.pictures[row].float() / 255, pool.mattes[row].float() / 255
        if grey:
            behind = torch.from_numpy(random.random((1, 3, 3))).float()
            smooth = torch.nn.functional.interpolate(behind[None], picture.shape[1:], mode="bicubic")[0].clamp(0, 1)
            picture = (matte * picture + (1 - matte) * smooth).mean(dim=0, keepdim=True).expand(3, -1, -1)
        yield Photo(f"{person}", _jpeg(_retaken(picture, random, grey=grey) if other or grey else _bytes(picture)))


def _retaken(picture: Tensor, random: np.random.Generator, *, grey: bool) -> Tensor:
    """Other light from one side, another exposure and colour, another crop."""
    x = torch.linspace(-1, 1, picture.shape[2])
    lit = picture * (1 + float(random.uniform(-0.3, 0.3)) * x) * float(random.uniform(0.75, 1.25))
    tint = torch.from_numpy(random.uniform(0.92, 1.08, (3, 1, 1))).float()
    left, top = (int(v) for v in random.integers(0, 20, 2))
    cropped = (lit if grey else lit * tint).clamp(0, 1)[:, top : top + 236, left : left + 236]
    side = 110 if grey else 256
    return _bytes(resize(cropped[None].contiguous(), side, side)[0])


def _bytes(picture: Tensor) -> Tensor:
    return (picture * 255).round().to(torch.uint8)


def _jpeg(view: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(view.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


# --- what is put through -----------------------------------------------------------------------------------------


@cache
def ladders() -> dict[str, str]:
    """A name for each ladder of a preset that needs no gallery, by the presets that have it."""
    by: dict[str, list[str]] = {}
    for name in presets():
        image = load_policy(name).content.get("image")
        if image is None or "face" not in image.regions or image.regions["face"].cover.name != "everyone":
            continue
        by.setdefault(json.dumps([describe(t) for t in face_ladder(name)]), []).append(name)
    # the shortest name is the one that does nothing else to a picture
    return {min(names, key=len): ", ".join(sorted(names)) for names in by.values()}


def all_kept() -> Policy:
    """The preset of new faces, with everything kept that can be."""
    text = load_policy("faces-synthetic").to_yaml()
    changed = from_yaml(text.replace("keep: []", "keep: [tilt, smile, skin]"))
    assert changed != from_yaml(text)
    return changed


def rows_of(only: Sequence[str]) -> Iterator[tuple[str, RegionTransform, Policy | None]]:
    """Name, technique, and the policy if it goes through the engine."""
    done = set()
    if not only or ALL_KEPT in only:
        yield ALL_KEPT, all_kept().content["image"].regions["face"].ladder[0].make(), all_kept()
    for preset in ladders():
        for number, rung in enumerate(face_ladder(preset)):
            name = preset if number == 0 else f"{preset}, rung {number + 1}"
            if describe(rung) not in done and (not only or name in only):
                yield name, rung, load_policy(preset) if number == 0 else None
            done.add(describe(rung))


def through_the_engine(policy: Policy, photos: Sequence[Photo]) -> list[bytes]:
    made = Anonymizer(policy, run_key=KEY)
    outcomes = made.anonymize([p.data for p in photos], keys=[str(i) for i in range(len(photos))])
    return [o.sample["image"] if isinstance(o, Released) else b"" for o in outcomes]


def put_on_faces(technique: RegionTransform, photos: Sequence[Photo]) -> list[bytes]:
    made, detector, out = technique.with_key(KEY), CenterFaceDetector(), []
    for photo in photos:
        view = codec.decode(photo.data).pixels
        out.append(_jpeg(made.change_regions(view, detector.detect([view]).boxes)))
    return out


def measured(technique: RegionTransform, policy: Policy | None, photos: Sequence[Photo]) -> dict[str, Any]:
    results = through_the_engine(policy, photos) if policy else put_on_faces(technique, photos)
    pairs = [PhotoPair(p.data, r, identity=p.identity) for p, r in zip(photos, results, strict=True) if r]
    found = audit(pairs, technique=technique).to_json()
    told = ("attacker", "network", "releases", "how", "people", "probes", "rank1")
    return {
        "technique": describe(technique),
        "through": "engine" if policy else "technique alone",
        "withheld": sum(not r for r in results),
        "attacks": [{key: one[key] for key in told} for one in found["attacks"]],
    }


def measured_around(name: str, photos: Sequence[Photo]) -> dict[str, Any]:
    """Who is named by what lies around covers."""
    text = load_policy("faces" if name == "head" else name).to_yaml()
    policy = from_yaml(text.replace("cover:\n          everyone: {}", "cover: head") if name == "head" else text)
    results = through_the_engine(policy, photos)
    pairs = [PhotoPair(p.data, r, identity=p.identity) for p, r in zip(photos, results, strict=True) if r]
    looks: dict[str, Any] = {"embedders": [DlibEmbedder()], "detectors": {"centerface": CenterFaceDetector(0.35)}}
    with patch.object(crops, "REACH", WIDE_REACH):
        found = audit(pairs, attackers=["context"], **looks).to_json()["attacks"]
    whole = {"withheld": sum(not r for r in results), "reach": WIDE_REACH, "probes": len(pairs)}
    return {"policy": name, **whole, "rank1": found[0]["rank1"] if found else None}


def named_by_boxes() -> dict[str, Any]:
    """Of portraits: who is named by what the box of their face is like in the other photo, without any pixel."""
    people = portraits()
    sides = torch.cat([p.face.sizes for p in people])
    covers = torch.cat([p.face.outlined().sizes for p in people])
    middles = torch.cat([p.face.boxes.reshape(1, 2, 2).mean(dim=1) for p in people])
    kinds = {
        "width by height": sides[:, :1] / sides[:, 1:],
        "width by height, as covered": covers[:, :1] / covers[:, 1:],
        "height": sides[:, 1:],
        "height and place": torch.cat([sides[:, 1:], middles], dim=1),
    }
    return {name: share(_nearest(told)) for name, told in kinds.items()}


def _nearest(told: Tensor) -> list[bool]:
    """Whether each photo is nearest to its person's other one, which is beside it; all alike count as lost."""
    told = told / (told[::2] - told[1::2]).std(dim=0).clamp(min=1e-6)
    one, other = (side - side.mean(dim=0) for side in (told[::2], told[1::2]))  # smiles make boxes wider
    alike = float(told.std(dim=0).max()) < 1e-3
    return [ok and not alike for ok in hits(one, other) + hits(other, one)]


def cell(row: dict[str, Any], attacker: str, releases: int = 1) -> str:
    """The worst of an attacker's networks."""
    found = [a["rank1"] for a in row["attacks"] if (a["attacker"], a["releases"]) == (attacker, releases)]
    if not found:
        return "-"
    worst = max(found, key=lambda one: float(one["percent"]))
    return f"{worst['percent']:.0f} [{worst['low']:.0f}-{worst['high']:.0f}]"


def _most(row: dict[str, Any]) -> int:
    return max((int(a["releases"]) for a in row["attacks"]), default=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="rows by name; others stay as they are saved")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--around", nargs="*", default=[], help="policies whose surroundings alone are measured")
    given = parser.parse_args()
    data_folder()
    saved = RESULTS / "attacks.json"
    kept: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
    rows: list[dict[str, Any]] = kept.get("rows", [])
    around: list[dict[str, Any]] = kept.get("around", [])
    boxes: dict[str, Any] = named_by_boxes() if given.around else kept.get("boxes", {})
    for name in given.around:
        around = [r for r in around if r["policy"] != name] + [measured_around(name, london())]
        print(around[-1], flush=True)
        save("attacks", {"generated_people_per_set": PEOPLE, "rows": rows, "around": around, "boxes": boxes})
    if given.around:
        return
    for people in given.sets:
        photos = SETS[people]()
        for name, technique, policy in rows_of(given.only):
            row = {
                "people": people,
                "name": name,
                "presets": ladders().get(name, ""),
                **measured(technique, policy, photos),
            }
            rows = [r for r in rows if (r["people"], r["name"]) != (people, name)] + [row]
            print(
                people,
                name,
                cell(row, "matched-filter"),
                cell(row, "composite"),
                cell(row, "averaging", 50),
                flush=True,
            )
            save("attacks", {"generated_people_per_set": PEOPLE, "rows": rows, "around": around, "boxes": boxes})
    columns = ("naive", "parrot", "smoothing-parrot", "matched-filter", "trained", "composite", "context", "place")
    table = [[r["people"], r["name"], *(cell(r, c) for c in columns), cell(r, "averaging", _most(r))] for r in rows]
    show("named at rank 1, % with 95 % intervals", ["people", "rung", *columns, "averaging, most releases"], table)


if __name__ == "__main__":
    main()
