"""Are persons found, how alike are strangers, and what do silhouettes leave?

    python -m anondata.tools.bench.persons [--photos DIR] [--sheet FILE]

The people are those of photos that come with scikit-image, matplotlib and insightface, their boxes drawn by hand: 9
in four photos. ``--photos`` names a folder with ``bus.jpg`` and ``zidane.jpg`` of the ``ultralytics`` package, 5
more; and of Debian's ``opencv-doc`` ``messi5.jpg``, ``basketball1.png`` and the frames 0, 260 and 520 of
``vtest.avi`` as ``vtest-0.png`` and so on, 20 more. These are *fresh*: thresholds and bounds were set before anybody
looked at them. So few people bound no rate: the table says what happened to these.

* recall: a person counts as found where a detection overlaps their box by half or more, and as covered where
  detections, grown to the coverage of the policy, hold 90 % of it; false ones are in photos without people.
* smaller: the same photos shrunk and put on a picture of a coffee cup, by the height of the person.
* strangers: likeness of different people's boxes, for the bounds of ``person_match``.
* techniques: the gate's score by technique, and whether persons are still found in the results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from anondata.components import build
from anondata.crops import resize
from anondata.detectors.persons import PersonDetector, windows
from anondata.detectors.pyramid import box_iou
from anondata.protocols import Probe
from anondata.randomness import RunKey
from anondata.regions import LANDMARKS, Regions
from anondata.tools.bench._common import load, portraits, save, show
from anondata.transforms.base import RegionTransform, describe
from anondata.verifiers.gates.face_utility import mouth_width
from anondata.verifiers.gates.person_match import PersonMatch, boxed, colour, structure

PEOPLE: dict[str, list[tuple[int, int, int, int]]] = {
    "astronaut": [(0, 5, 385, 512)],
    "hopper": [(8, 10, 512, 600)],
    "camera": [(0, 65, 310, 512)],
    "t1": [
        (0, 233, 300, 840),
        (222, 98, 468, 672),
        (355, 218, 680, 645),
        (590, 290, 915, 645),
        (872, 2, 1260, 655),
        (985, 236, 1280, 700),
    ],
    "bus": [(41, 398, 244, 918), (216, 402, 346, 871), (670, 380, 810, 890)],
    "zidane": [(130, 200, 700, 720), (745, 42, 1140, 715)],
}
FRESH: dict[str, list[tuple[int, int, int, int]]] = {
    "messi5": [(70, 62, 458, 337)],
    "basketball1": [(35, 76, 165, 478), (437, 22, 623, 480)],
    "vtest-0": [(254, 220, 283, 308), (501, 157, 530, 233), (640, 240, 685, 323)],
    "vtest-260": [
        (38, 177, 60, 244),
        (163, 146, 188, 218),
        (320, 213, 363, 303),
        (484, 177, 509, 249),
        (528, 243, 572, 340),
        (620, 125, 643, 192),
        (642, 131, 662, 196),
    ],
    "vtest-520": [
        (224, 179, 252, 250),
        (491, 207, 522, 305),
        (663, 211, 692, 300),
        (627, 271, 655, 367),
        (735, 329, 768, 450),
        (499, 427, 555, 576),
        (504, 411, 531, 461),
    ],
}
TRUTH = PEOPLE | FRESH
NOBODY = ("coffee", "chelsea", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
TECHNIQUES: Sequence[tuple[str, dict[str, Any]]] = (
    ("silhouette", {"outline": 0.02}),
    ("silhouette", {"outline": 0.03}),
    ("silhouette", {"outline": 0.05}),
    ("silhouette", {"outline": 0.03, "shades": 3, "softness": 0.1}),
    ("silhouette", {"outline": 0.02, "shades": 8, "softness": 0.02}),
    ("gaussian_blur", {"sigma": 0.05}),
    ("gaussian_blur", {"sigma": 0.1}),
    ("pixelate", {"blocks": 16}),
    ("pixelate", {"blocks": 4}),
    ("pixelate", {"blocks": 4, "noise": 0.2, "contrast": 0.2}),
    ("fill", {}),
)
COVERAGE = 1.3


def photos(folder: Path | None) -> dict[str, Tensor]:
    """The photos at hand, ``(3, H, W)`` uint8."""
    import skimage.data

    out = {name: _tensor(getattr(skimage.data, name)()) for name in ("astronaut", "camera")}
    places = {"hopper": _package("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"}
    places["t1"] = _package("insightface") / "data" / "images" / "t1.jpg"
    if folder is not None:
        places |= {path.stem: path for path in sorted(folder.iterdir()) if path.stem in TRUTH}
    return out | {name: load(place) for name, place in places.items() if place.is_file()}


def _package(name: str) -> Path:
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path("none")


def _tensor(array: Any) -> Tensor:
    picture = torch.from_numpy(np.array(Image.fromarray(array).convert("RGB")))
    return picture.permute(2, 0, 1).contiguous()


def persons(boxes: Tensor) -> Regions:
    """Regions of one picture."""
    n = len(boxes)
    nowhere = torch.full((n, LANDMARKS, 2), torch.nan)
    return Regions(torch.zeros(n, dtype=torch.int64), boxes.float(), nowhere, torch.ones(n), ("person",) * n)


def covered(truth: Tensor, found: Regions, *, coverage: float) -> Tensor:
    """``(N,)`` share of each true box that detections hold together."""
    along = (torch.arange(32) + 0.5) / 32
    spots = torch.cartesian_prod(along, along)
    places = truth[:, None, :2] + spots * (truth[:, 2:] - truth[:, :2])[:, None]
    held = torch.zeros(places.shape[:2], dtype=torch.bool)
    for box in found.scaled(coverage).boxes:
        held |= ((places >= box[:2]) & (places <= box[2:])).all(dim=2)
    return held.float().mean(dim=1)


def recall(pictures: dict[str, Tensor], detector: PersonDetector) -> dict[str, Any]:
    import skimage.data

    found_n = held_n = total = 0
    times, looks = [], 0
    for name, view in pictures.items():
        truth = torch.tensor(TRUTH[name]).float()
        start = time.perf_counter()
        found = detector.detect([view])
        times.append(time.perf_counter() - start)
        looks += len(windows(view.shape[1], view.shape[2], smallest_px=detector.smallest_px))
        total += len(truth)
        found_n += int((box_iou(truth, found.boxes).amax(dim=1) >= 0.5).sum()) if len(found) else 0
        held_n += int((covered(truth, found, coverage=COVERAGE) >= 0.9).sum())
    empty = [_tensor(getattr(skimage.data, name)()[..., :3]) for name in NOBODY]
    return {
        "threshold": detector.threshold,
        "smallest_px": detector.smallest_px,
        "people": total,
        "found": found_n,
        "covered": held_n,
        "false_regions": sum(len(detector.detect([view])) for view in empty),
        "ms_per_look": round(1e3 * sum(times) / looks, 1),
        "looks": looks,
    }


def smaller(pictures: dict[str, Tensor], height_px: int) -> dict[str, Any]:
    """Everybody shrunk to a height, looked at by the network once at 300 px: what sets ``DETECTABLE_PX``."""
    import skimage.data

    ground = resize(_tensor(getattr(skimage.data, NOBODY[0])())[None], 300, 300)[0]
    found_n = total = 0
    for name, view in pictures.items():
        for box in TRUTH[name]:
            factor = height_px / (box[3] - box[1])
            h, w = round(view.shape[1] * factor), round(view.shape[2] * factor)
            if max(h, w) > 300:
                continue
            y, x = (300 - h) // 2, (300 - w) // 2
            scene = ground.clone()
            scene[:, y : y + h, x : x + w] = resize(view[None], h, w)[0]
            truth = torch.tensor([box]).float() * factor + torch.tensor([x, y, x, y])
            found = PersonDetector(0.2, 1000).detect([scene])
            total += 1
            found_n += bool(len(found) and float(box_iou(truth, found.boxes).amax()) >= 0.5)
    return {"height_px_of_300": height_px, "people": total, "found": found_n}


def likenesses(crops: Tensor, others: Tensor) -> dict[str, Tensor]:
    return {
        "structure fine": structure(crops, others, patches=8),
        "structure coarse": structure(crops, others, patches=4),
        "colour": colour(crops, others),
    }


def strangers(pictures: dict[str, Tensor]) -> list[dict[str, Any]]:
    people = [p for p in portraits() if p.expression == "neutral"]
    studio = torch.cat(
        [boxed([p.view], persons(torch.tensor([[0, 0, p.view.shape[2], p.view.shape[1]]]))) for p in people]
    )
    rows, columns = (~torch.eye(len(studio), dtype=torch.bool)).nonzero(as_tuple=True)
    return among_photos(pictures) + _quantiles("one studio", likenesses(studio[rows], studio[columns]))


def among_photos(pictures: dict[str, Tensor]) -> list[dict[str, Any]]:
    wild = torch.cat([boxed([view], persons(torch.tensor(TRUTH[name]))) for name, view in pictures.items()])
    rows, columns = (~torch.eye(len(wild), dtype=torch.bool)).nonzero(as_tuple=True)
    return _quantiles("photos", likenesses(wild[rows], wild[columns]))


def _quantiles(where: str, scores: dict[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "strangers": where,
            "likeness": name,
            "pairs": len(x),
            **{f"q{q}": round(float(x.quantile(q / 100)), 3) for q in (50, 90, 99)},
        }
        for name, x in scores.items()
    ]


def judged(pictures: dict[str, Tensor], technique: RegionTransform) -> dict[str, Any]:
    scores, found_n, total = [], 0, 0
    times = []
    for name, view in pictures.items():
        regions = persons(torch.tensor(TRUTH[name]))
        start = time.perf_counter()
        result = technique.change_regions(view, regions.boxes)
        times.append((time.perf_counter() - start) / len(regions))
        probe = _probe(regions, view, result, technique)
        scores.append(PersonMatch().judge(probe).after)
        again = PersonDetector(0.2, 1000).detect([result])
        total += len(regions)
        found_n += int((box_iou(regions.boxes, again.boxes).amax(dim=1) >= 0.5).sum()) if len(again) else 0
    worst = torch.cat(scores)
    return {
        "technique": describe(technique),
        "score_mean": round(float(worst.mean()), 2),
        "score_max": round(float(worst.max()), 2),
        "passed": int((worst < 1).sum()),
        "people": total,
        "still_found": found_n,
        "ms": round(1e3 * float(np.median(times)), 1),
    }


def _probe(regions: Regions, view: Tensor, result: Tensor, technique: RegionTransform) -> Probe:
    n = len(regions)
    return Probe(
        regions=regions,
        before={},
        after={},
        techniques=(technique,) * n,
        erased=torch.full((n,), technique.erases),
        last=torch.zeros(n, dtype=torch.bool),
        blank=lambda _name, rows: torch.zeros(len(rows), 0),
        original=[view],
        result=[result],
    )


def mouths() -> dict[str, Any]:
    """How well five landmarks tell a smile: what ``keeps_mouth`` rests on."""
    by = {e: [float(mouth_width(p.face.landmarks)) for p in portraits() if p.expression == e] for e in _expressions()}
    neutral, smiling = (torch.tensor(by[e]) for e in ("neutral", "smiling"))
    return {
        "neutral": f"{float(neutral.mean()):.3f} ± {float(neutral.std()):.3f}",
        "smiling": f"{float(smiling.mean()):.3f} ± {float(smiling.std()):.3f}",
        "auc": round(float((smiling[:, None] > neutral[None]).float().mean()), 3),
    }


def _expressions() -> list[str]:
    return sorted({p.expression for p in portraits()})


def sheet(pictures: dict[str, Tensor], file: Path, *, height_px: int = 300) -> None:
    """Original, three silhouettes and the boxes that the detector found, a row a photo."""
    made = [build("technique", name, {**params, "coverage": COVERAGE}) for name, params in TECHNIQUES[1:4]]
    rows = []
    for view in pictures.values():
        found = PersonDetector(0.2, 500).detect([view])
        tiles = [view, *(t.change_regions(view, found.boxes) for t in made)]
        images = [Image.fromarray(t.permute(1, 2, 0).numpy()) for t in tiles]
        drawn = ImageDraw.Draw(images[0])
        for box in found.boxes.tolist():
            drawn.rectangle(box, outline=(255, 0, 0), width=max(2, view.shape[2] // 250))
        wide = round(view.shape[2] * height_px / view.shape[1])
        row = Image.new("RGB", (wide * len(images), height_px))
        for i, image in enumerate(images):
            row.paste(image.resize((wide, height_px)), (i * wide, 0))
        rows.append(row)
    whole = Image.new("RGB", (max(r.width for r in rows), height_px * len(rows)), "white")
    for i, row in enumerate(rows):
        whole.paste(row, (0, i * height_px))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    pictures = photos(options.photos)
    if options.sheet:
        sheet(pictures, options.sheet)
    key = RunKey(b"a benchmark's key, no secret")
    first, fresh = ({name: view for name, view in pictures.items() if name in of} for of in (PEOPLE, FRESH))
    made = [build("technique", name, {**params, "coverage": COVERAGE, "key": key}) for name, params in TECHNIQUES]
    results: dict[str, Any] = {
        "photos": sorted(first),
        "fresh photos": sorted(fresh),
        "recall": [recall(first, PersonDetector(t, s)) for s in (1000, 500, 240) for t in (0.2, 0.35)],
        "smaller": [smaller(first, h) for h in (30, 45, 60, 90, 120)],
        "strangers": strangers(first),
        "techniques": [judged(first, technique) for technique in made],
        "mouths": [mouths()],
    }
    if fresh:
        results |= {
            "fresh recall": [recall(fresh, PersonDetector(0.2, s)) for s in (1000, 500, 240, 120)],
            "fresh strangers": among_photos(fresh),
            "fresh techniques": [judged(fresh, technique) for technique in made],
        }
    for part, rows in results.items():
        if "photos" in part:
            continue
        show(part, list(rows[0]), [list(row.values()) for row in rows])
    save("persons", results)


if __name__ == "__main__":
    main()
