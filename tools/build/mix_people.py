"""Mix portraits of consented people into faces that belong to nobody.

These are what :func:`anondata.transforms.face_pool.mixed_pool` gives.

    python -m anondata.tools.build.mix_people mesh PHOTOS MESH     MediaPipe's face mesh, into MESH (an .npz)
    python -m anondata.tools.build.mix_people mix PHOTOS MESH OUT  writes mixed_people.safetensors into OUT
    python -m anondata.tools.build.mix_people sheet OUT            people.png, to look at

PHOTOS is the Face Research Lab London Set as an imagefolder: neutral and smiling photos before a plain ground, with
``metadata.csv``. Of its 51 people 24 have a part in it, 12 women and 12 men.
Each new person is the mean of four of one gender, once neutral and once smiling: the four photos are bent to the mean
of their 468 points of the face mesh by a thin plate, then each pixel is the mean of those that show a person there
(as in k-Same-M, Gross et al. 2006, with k = 4 and a denser mesh). Hair stays where most of the four have it.

``mesh`` needs ``mediapipe==0.10.21`` (Apache-2.0), which wants numpy 1: run it in an environment of its own, where
this file can be run as it is.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

FACE = (0.2, 0.1, 0.8, 0.7)  # of a photo's sides: where the face is, which is small in it
SHOWN_PX = 720  # of that part, to the mesh
POINTS = 468  # without those of the iris
PLACES = ((0.42, 0.46), (0.58, 0.46), (0.5, 0.635))  # of eyes and mouth in the new picture
EYES, MOUTH = ((33, 133), (362, 263)), (61, 291)
EXPRESSIONS = {"neutral": -1.5, "smiling": 0.0}  # how much they smile, as a reader of smiles sees it
MIXED_OF, PEOPLE = 4, 64
PARTS = 24  # people of the set that have a part in it
SHARED = 2  # that two mixtures may have in common
GROUND = (0.06, 0.16)  # difference from the ground: below it is no person, above it is one
MOST = (0.4, 0.7)  # share of the four who are at a pixel: below it nobody is there
BORDER, STIFFNESS, STEP = 7, 0.1, 4
QUALITY = 92

Array = np.ndarray[Any, Any]


def mesh(photos: Path, out: Path) -> None:
    from mediapipe import solutions
    from PIL import Image

    finder = solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
    found = {}
    for path in sorted(photos.glob("*.jpg")):
        image = Image.open(path).convert("RGB")
        left, top, right, bottom = (round(share * image.size[i % 2]) for i, share in enumerate(FACE))
        part = image.crop((left, top, right, bottom)).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
        faces = finder.process(np.asarray(part)).multi_face_landmarks
        if faces:
            points = np.array([(p.x, p.y) for p in faces[0].landmark], np.float32)[:POINTS]
            found[path.stem] = points * (right - left, bottom - top) + (left, top)
    np.savez(out, **found)  # type: ignore[arg-type]  # numpy's stubs take every keyword for allow_pickle
    print(f"{len(found)} faces")


def mix(photos: Path, meshed: Path, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from anondata.transforms.face_pool import MIXED, PICTURE_PX, checked, empty_pool

    points = dict(np.load(meshed))
    pool, encoded = empty_pool(), []

    @cache
    def frame(name: str) -> tuple[Any, Array]:
        return framed(photos / f"{name}.jpg", points[name], PICTURE_PX)

    def person(group: tuple[str, ...]) -> list[Any] | None:
        frames = [[frame(f"{who}_{expression}") for who in group] for expression in EXPRESSIONS]
        pictures = [mixed(four, PICTURE_PX) for four in frames]
        whole = [checked(picture[:3], picture[3:]) for picture in pictures]
        return None if any(one is None for one in whole) else list(zip(whole, map(webp, pictures), strict=True))

    for pair in zip(*(made(people, person) for people in parts(photos)), strict=True):  # women and men take turns
        for one in pair:
            number = len(pool)
            for (whole, data), smile in zip(one, EXPRESSIONS.values(), strict=True):
                pool = pool.cat(replace(whole, smiles=torch.tensor([smile])).of(number))
                encoded.append(data)
    ends = np.cumsum([0, *map(len, encoded)])
    tensors = {name: getattr(pool, name) for name in ("landmarks", "boxes", "people", "smiles")}
    tensors["webp"] = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
    tensors["ends"] = torch.from_numpy(ends)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / MIXED)
    print(f"{len(pool)} people, {ends[-1]:,} bytes of pictures")


def parts(photos: Path) -> list[list[str]]:
    """Twelve women and twelve men, spread evenly over the groups that the set names."""
    with open(photos / "metadata.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["expression"] == "neutral"]
    chosen = []
    for gender in ("female", "male"):
        people = sorted((row["ethnicity"], row["identity"]) for row in rows if row["gender"] == gender)
        spread = np.linspace(0, len(people) - 1, PARTS // 2).round().astype(int)
        chosen.append([people[place][1] for place in spread])
    return chosen


def made(people: list[str], person: Callable[[tuple[str, ...]], list[Any] | None]) -> list[list[Any]]:
    """Half of the new people, without those in whom no whole face is found."""
    every = list(combinations(people, MIXED_OF))
    left, taken = [every[i] for i in np.random.default_rng(0).permutation(len(every))], list[tuple[str, ...]]()
    out: list[list[Any]] = []
    while len(taken) < PEOPLE // 2:
        group = rarest(left, taken)
        left.remove(group)
        one = person(group)
        if one is None:
            print(f"{'+'.join(group)}: no whole face is found in it")
            continue
        taken.append(group)
        out.append(one)
    return out


def rarest(left: list[tuple[str, ...]], taken: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The next mixture: at most two people in common with any other, of those who have had the least part so far."""
    times = Counter(who for group in taken for who in group)
    free = [group for group in left if all(len(set(group) & set(other)) <= SHARED for other in taken)]
    return min(free, key=lambda group: sorted((times[who] for who in group), reverse=True))


def framed(path: Path, points: Array, side: int) -> tuple[Any, Array]:
    """``(1, 4, side, side)``, the fourth channel where the person is, and the points in its pixels."""
    import torch
    from PIL import Image
    from torch.nn import functional as F

    marks = np.stack([points[list(pair)].mean(axis=0) for pair in (*EYES, MOUTH)])
    turn, shift = similar(marks, np.array(PLACES) * side)
    photo = torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), np.float32) / 255).permute(2, 0, 1)[None]
    y, x = np.mgrid[0:side, 0:side] + 0.5
    back = (np.stack([x, y], -1) - shift) @ np.linalg.inv(turn).T
    grid = torch.from_numpy((back / (photo.shape[-1], photo.shape[-2]) * 2 - 1).astype(np.float32))[None]
    sharp: dict[str, Any] = {"mode": "bicubic", "padding_mode": "border", "align_corners": False}
    picture = F.grid_sample(photo, grid, **sharp).clamp(0, 1)
    matte = torch.from_numpy(matte_of(picture[0].permute(1, 2, 0).numpy()))[None, None]
    return torch.cat([picture, matte], 1), points @ turn.T + shift


def similar(source: Array, target: Array) -> tuple[Array, Array]:
    """Turn with scale ``(2, 2)`` and shift ``(2,)`` that bring points ``(P, 2)`` closest to others."""
    one, other = (
        (points - points.mean(axis=0)) @ np.array([1, 1j]) for points in (source.astype(float), target.astype(float))
    )
    both = (one.conj() @ other) / (one.conj() @ one)
    turn = np.array([[both.real, -both.imag], [both.imag, both.real]])
    return turn, target.mean(axis=0) - turn @ source.mean(axis=0)


def matte_of(picture: Array) -> Array:
    """``(S, S)`` in [0, 1]: where a picture ``(S, S, 3)`` differs from its ground, which is a smooth grey."""
    y, x = np.mgrid[0 : len(picture), 0 : len(picture)] / len(picture)
    edge = ((x < 0.08) | (x > 0.92) | (y < 0.05)) & (y < 0.6)
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    ground = terms @ np.linalg.lstsq(terms[edge], picture[edge], rcond=None)[0]
    off = picture - ground
    differs = np.abs(off).max(-1) + 0.8 * np.abs(off - off.mean(-1, keepdims=True)).sum(-1)
    low, high = GROUND
    return np.asarray(((differs - low) / (high - low)).clip(0, 1), np.float32)


def mixed(frames: list[tuple[Any, Array]], side: int) -> Any:
    """``(4, side, side)`` uint8: the mean of pictures, each bent to the mean of all points."""
    import torch
    from torch.nn import functional as F

    from anondata.transforms._faces_blend import smooth

    shape = np.mean([points for _, points in frames], axis=0)
    bent = []
    for picture, points in frames:
        grid = (plate(points, shape, side) / side * 2 - 1)[None]
        bent.append(F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False))
    together = torch.cat(bent).clamp(0, 1)
    there = together[:, 3:]
    colours = (together[:, :3] * there).sum(0) / there.sum(0).clamp(min=0.3)
    low, high = MOST
    matte = smooth((there.mean(0) - low) / (high - low))
    return (torch.cat([colours, matte]) * 255).round().to(torch.uint8)


def plate(source: Array, target: Array, side: int) -> Any:
    """``(side, side, 2)``: where each pixel comes from when points ``target`` are to show what ``source`` show."""
    import torch
    from torch.nn import functional as F

    line = np.linspace(0, side, BORDER)
    rim = np.array([(x, y) for x in line for y in line if {x, y} & {0.0, float(side)}])
    source, target = np.concatenate([source, rim]), np.concatenate([target, rim])
    count = len(target)
    affine = np.concatenate([np.ones((count, 1)), target], axis=1)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(target, target) + STIFFNESS * np.eye(count)
    system[:count, count:], system[count:, :count] = affine, affine.T
    solved = np.linalg.solve(system, np.concatenate([source, np.zeros((3, 2))]))
    y, x = np.mgrid[0:side:STEP, 0:side:STEP] + STEP / 2
    places = np.stack([x.ravel(), y.ravel()], -1)
    bent = (
        kernel(places, target) @ solved[:count]
        + np.concatenate([np.ones((len(places), 1)), places], 1) @ solved[count:]
    )
    coarse = torch.from_numpy(bent.reshape(side // STEP, side // STEP, 2).astype(np.float32)).permute(2, 0, 1)[None]
    return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)


def kernel(one: Array, other: Array) -> Array:
    """Of a thin plate, ``(P, Q)``; Bookstein (1989), doi 10.1109/34.24792."""
    squared = ((one[:, None] - other[None]) ** 2).sum(-1)
    return np.asarray(0.5 * squared * np.log(np.maximum(squared, 1e-9)))


def webp(picture: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy(), "RGBA").save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def sheet(out: Path) -> None:
    import torch
    from PIL import Image

    from anondata.transforms.face_pool import MIXED, read_mixed

    pool = read_mixed(out / MIXED)
    shown = pool.pictures.float() * (pool.mattes / 255) + 140 * (1 - pool.mattes / 255)
    rows = [torch.cat(list(shown[start : start + 16]), dim=2) for start in range(0, len(shown), 16)]
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).byte().numpy()).save(out / "people.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("mesh", "mix", "sheet"))
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args()
    steps: dict[str, Callable[..., None]] = {"mesh": mesh, "mix": mix, "sheet": sheet}
    steps[given.step](*given.paths)


if __name__ == "__main__":
    main()
