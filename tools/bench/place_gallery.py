"""Does a gallery of protected places find them in other photos, and nothing else; and does it after each rung?

    ANONDATA_BENCH_PLACES=FOLDER python -m anondata.tools.bench.place_gallery

The gallery holds one photo of each place of the benchmark `places`; see there for where photos come from. Photos of
other places are of the packages named there and of Debian's ``plasma-workspace-wallpapers`` and
``lomiri-wallpapers-20.04``, unpacked into the same folder, and of scikit-image. The limits' slope was taken from
those, with each other; here they are held against the gallery's photos, which had no part in that.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anondata.components import build
from anondata.policy import load_policy
from anondata.tools.bench._common import cell, save, share, show
from anondata.tools.bench.places import KEY, LOMIRI, MATE, OPENCV, another_view, changed, loaded, photos, small
from anondata.tools.bench.places import second_views as real_views
from anondata.transforms import RegionTransform
from anondata.verifiers._pairs import wilson
from anondata.verifiers.gallery.place_search import SHORT, WAYS, PlaceSearch, agreement, counts
from anondata.verifiers.gallery.places import coded, decoded, empty_places
from anondata.verifiers.gates.place_match import LIMITS, limits_of
from anondata.verifiers.local_features import SIDE_PX, Features, features, matches

FAR = 0.01
FEWEST = 30
SIZES = (1, 5, 10, 20, 33)
DRAWS = 500
CROPS = (0.7, 0.5, 0.35)
PLASMA = "usr/share/wallpapers/{}/contents/images/2560x1600.jpg"
STRANGERS = [
    *(
        PLASMA.format(name)
        for name in (
            *("Autumn", "BytheWater", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
            *("OneStandsOut", "Path", "summer_1am"),
        )
    ),
    "usr/share/wallpapers/Shell/contents/images/5120x2880.jpg",
    *(f"{LOMIRI}/{name}.jpg" for name in ("Infinite-Sea_by_Aury88", "Kleiber_by_Lukas_Baubkus")),
    *(
        f"{LOMIRI}/{name}.jpg"
        for name in ("Dragonfly_by_Bolly", "Picture_0B_by_freespace", "Picture_1A_by_freespace")
    ),
    *(f"{LOMIRI}/{name}_by_Peter_Nerlich.jpg" for name in ("free", "greentock")),
    f"{LOMIRI}/seeding_by_Clements_Engelhardt.jpg",
    *(f"{MATE}/{name}.jpg" for name in ("Aqua", "Blinds", "FreshFlower", "Garden", "LadyBird", "RainDrops")),
    *(f"{MATE}/{name}.jpg" for name in ("TwoWings", "YellowFlower")),
    *(f"{OPENCV}/data/{name}.jpg" for name in ("baboon", "blox", "board", "butterfly", "ela_original", "fruits")),
    *(f"{OPENCV}/data/{name}.jpg" for name in ("left", "left01", "licenseplate_motion", "orange", "squirrel_cls")),
    *(f"{OPENCV}/data/{name}" for name in ("box_in_scene.png", "chicky_512.png", "starry_night.jpg", "stuff.jpg")),
    *(f"{OPENCV}/data/{name}" for name in ("sudoku.png",)),
    f"{OPENCV}/hfs/data/000.jpg",
    "sklearn/datasets/images/flower.jpg",
]
SKIMAGE = ("astronaut", "chelsea", "brick", "grass", "gravel", "moon")


def strangers() -> dict[str, Tensor]:
    """Photos of other places, animals and things, ``(3, H, W)`` uint8."""
    import skimage.data

    folder = Path(os.environ.get("ANONDATA_BENCH_PLACES", "."))
    found = {path: loaded(folder / path) for path in STRANGERS if (folder / path).is_file()}
    for name in SKIMAGE:
        found[name] = small(Image.fromarray(getattr(skimage.data, name)()))
    if len(found) < FEWEST:
        sys.exit(f"{len(found)} photos of other places are here, {FEWEST} are needed; unpack the packages")
    return found


def looked(picture: Tensor) -> Features:
    return features(picture, side_px=SIDE_PX)


def both_ways(picture: Tensor) -> list[Features]:
    return [looked(picture), looked(picture.flip(-1))]


def search_of(seen: Mapping[str, Features]) -> PlaceSearch:
    gallery = empty_places().add(list(seen), list(seen.values()))
    return PlaceSearch(gallery, limits_of(FAR, photos=len(gallery)))


def crop(picture: Tensor, part: float, number: int) -> Tensor:
    """So much of the width and height, from a place of its own."""
    random = np.random.default_rng(number)
    sides = [int(side * part) for side in picture.shape[-2:]]
    y, x = (int(random.uniform(0, side - own)) for side, own in zip(picture.shape[-2:], sides, strict=True))
    return picture[:, y : y + sides[0], x : x + sides[1]]


def rungs() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """The rungs of the preset `places`, and before them nothing."""
    yield "none", lambda picture: picture
    for number, step in enumerate(load_policy("places").content["image"].regions["frame"].ladder, 1):
        technique: RegionTransform = build("technique", step.name, {**step.params, "key": KEY})
        yield f"rung {number}", lambda picture, technique=technique: changed(picture, technique)  # type: ignore[misc]  # mypy has no type for a default


def compared(gallery: Sequence[Features], probes: Sequence[Sequence[Features]]) -> np.ndarray[Any, Any]:
    """``(P, N, 2, 2)``: of each probe with each photo, both ways, the two counts."""
    return np.array([[[counts(*matches(g, way)) for way in ways] for g in gallery] for ways in probes])


def false_by_size(rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """How often galleries drawn from one stop a picture of another place, with limits for one photo and their own."""
    random, out = np.random.default_rng(0), []
    for size in SIZES:
        fixed, own = [], []
        for _ in range(DRAWS):
            drawn = rows[random.integers(len(rows)), random.choice(rows.shape[1], size, replace=False)]
            fixed.append(bool((drawn > LIMITS[FAR]).any()))
            own.append(bool((drawn > limits_of(FAR, photos=size)).any()))
        told = {"photos": size, "limits": limits_of(FAR, photos=size)}
        shares = {"with the limits of one pair": fixed, "with its own limits": own}
        out.append({**told, **{words: of_pictures(hits, len(rows)) for words, hits in shares.items()}})
    return out


def of_pictures(hits: Sequence[bool], pictures: int) -> dict[str, Any]:
    """A share of draws, with the interval of so many pictures: draws of the same ones say nothing new."""
    low, high = wilson(sum(hits) / len(hits), pictures)
    return {**share(hits), "low": round(100 * low, 1), "high": round(100 * high, 1), "n": pictures}


def over(rows: np.ndarray[Any, Any]) -> list[bool]:
    """Which probes the whole gallery finds."""
    limits = np.array(limits_of(FAR, photos=rows.shape[1]))
    return [bool((probe > limits).any()) for probe in rows]


def probes_of(pictures: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Other pictures of the gallery's places, by kind."""
    views = {name: another_view(photo, i) for i, (name, photo) in enumerate(pictures.items())}
    cut = {
        f"crop {part:g}": {name: crop(photo, part, i) for i, (name, photo) in enumerate(pictures.items())}
        for part in CROPS
    }
    real = {name: view for name, view in real_views().items() if name in pictures}
    return {
        "crop in perspective": views,
        "mirrored": {name: view.flip(-1) for name, view in views.items()},
        "real second view": real,
        **cut,
    }


def right(search: PlaceSearch, names: Sequence[str], probes: Mapping[str, Tensor]) -> list[bool]:
    """Whether each probe's own place is found."""
    return [any(s > 1 and names[i] == name for i, s in search.scores(probe)) for name, probe in probes.items()]


def of_shortlists(seen: Sequence[Features], probes: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """How often the photo that a probe agrees with is on the shortlist. seen: row ``i`` is of probes ``i``."""
    gallery = search_of({str(i): one for i, one in enumerate(seen)})
    out = {}
    for kind, pictures in probes.items():
        kept = []
        for i, picture in enumerate(pictures):
            ways = [way for way in both_ways(picture) if agreement(seen[i], way, gallery.limits) > 1]
            kept += [i in gallery.shortlist(way) for way in ways]
        out[kind] = share(kept)
    return {"photos": len(seen), "short": SHORT, "of what is found on it": out}


def of_codes(seen: Sequence[Features], views: Sequence[Features]) -> dict[str, Any]:
    """What keeping descriptors in 8 bits changes."""
    exact = [counts(*matches(a, b)) for a in seen for b in views]
    kept = [Features(one.places, decoded(coded(one.descriptors))) for one in seen]
    stored = [counts(*matches(a, b)) for a in kept for b in views]
    limits = np.array(limits_of(FAR, photos=len(seen)))
    same = [
        bool((np.array(a) > limits).any() == (np.array(b) > limits).any()) for a, b in zip(exact, stored, strict=True)
    ]
    bytes_each = [one.descriptors.shape[0] * (one.descriptors.shape[1] + 8) for one in kept]
    return {"same verdict": share(same), "bytes_per_photo": int(np.median(bytes_each))}


def milliseconds(work: Callable[[], Any], repeats: int = 20) -> float:
    work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    return round(1000 * (time.process_time() - start) / repeats, 1)


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    pictures, others = photos(), strangers()
    names, seen = list(pictures), {name: looked(photo) for name, photo in pictures.items()}
    search, probes = search_of(seen), probes_of(pictures)
    stored = list(empty_places().add(names, list(seen.values())).photos())
    found = {kind: share(right(search, names, group)) for kind, group in probes.items()}
    print({kind: cell(value) for kind, value in found.items()}, flush=True)
    views, ladder, hard = probes["crop in perspective"], [], {}
    for name, technique in rungs():
        results = {place: technique(view) for place, view in views.items()}
        strange = compared(stored, [both_ways(technique(photo)) for photo in others.values()])
        row = {
            "rung": name,
            "its place found": share(right(search, names, results)),
            "another place stopped": share(over(strange)),
        }
        ladder.append(row)
        hard[name] = list(results.values())
        if name == "none":
            by_size = false_by_size(strange)
            print(by_size, flush=True)
        print([cell(v) if isinstance(v, dict) else v for v in row.values()], flush=True)
    everyone = [*seen.values(), *(looked(photo) for photo in others.values())]
    shortlists = of_shortlists(
        everyone, {**{k: list(g.values()) for k, g in probes.items() if len(g) == len(names)}, **hard}
    )
    print(shortlists, flush=True)
    large = search_of({str(i): features for i, features in enumerate(everyone)})
    one, other = seen[names[0]], seen[names[1]]
    body = {
        "gallery": names,
        "other_places": len(others),
        "ways": WAYS,
        "found": found,
        "after_each_rung": ladder,
        "false_by_size": by_size,
        "shortlist": shortlists,
        "int8": of_codes(list(seen.values()), [looked(view) for view in views.values()]),
        "cpu_ms": {
            "features of a picture": milliseconds(lambda: looked(pictures[names[0]])),
            "comparison with a photo": milliseconds(lambda: agreement(one, other, LIMITS[FAR])),
            f"shortlist of {len(everyone)} photos": milliseconds(lambda: large.shortlist(one), 3),
        },
    }
    show("found", ["probe", "%"], [[kind, cell(value)] for kind, value in found.items()])
    show("after", list(ladder[0]), [[cell(v) if isinstance(v, dict) else v for v in row.values()] for row in ladder])
    save("place_gallery", body)


if __name__ == "__main__":
    main()
