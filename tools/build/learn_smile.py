"""Learn what a smile is from generated faces, for :mod:`anondata.transforms._smiles`.

    python -m anondata.tools.build.learn_smile draw DIR     400 generated faces and their styles
    python -m anondata.tools.build.learn_smile label DIR    MediaPipe's face mesh finds their mouths
    python -m anondata.tools.build.learn_smile move DIR     600 more, of 300 people, moved to smile more or less
    python -m anondata.tools.build.learn_smile label DIR
    python -m anondata.tools.build.learn_smile learn DIR    writes smile.safetensors there

How much a mouth smiles is the mean of three of the mesh's lengths, each in standard deviations of the 400: its width,
its opening, and by how much the corners lie higher than the middle, relative to the distance of the eyes' outer
corners. A ridge regression finds it in styles (correlation of .89 with held out faces); its direction moves a style.
A small network learns to read it from pictures, turned, shifted and blurred as detectors and cameras do. No photo of
a real person has a part in it.

``label`` needs ``mediapipe==0.10.21`` (Apache-2.0), which wants numpy 1: run it in an environment of its own, where
this file can be run as it is.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DRAWN, MOVED = range(1000, 1400), range(5000, 5300)
LOWER, UPPER = (-2.0, -0.5), (-0.5, 1.5)  # what the two pictures of one person are moved to
VARIED = 0.9  # truncation of those who are moved: more various faces than the pool's
SHOWN = 1.156  # how much more smile there is to see for a step of length 1: four faces moved to both sides
PARTS = 160  # principal components of styles, by cross-validation
STYLE_RIDGE = 30.0
STEPS, BATCH = 2500, 96
JITTER = 0.04  # of landmarks, relative to the distance of the eyes, as the detector's
# Of the mesh: outer corners of the eyes, corners of the mouth, inner edges of upper and lower lip.
POINTS = (33, 263, 61, 291, 13, 14)


def label(folder: Path) -> None:
    from mediapipe import solutions

    mesh = solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
    for source in sorted(folder.glob("*.npz")):
        pictures = np.load(source)["pictures"].transpose(0, 2, 3, 1)
        points = np.full((len(pictures), len(POINTS), 2), np.nan, np.float32)
        for row, picture in zip(points, pictures, strict=True):
            found = mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks
            if found:
                row[:] = [(found[0].landmark[i].x, found[0].landmark[i].y) for i in POINTS]
        np.save(source.with_suffix(".mesh.npy"), points)


def lengths(points: np.ndarray) -> np.ndarray:
    """``(N, 3)``: width, opening and lift of mouths."""
    left, right, corner, other, upper, lower = points.transpose(1, 0, 2)
    eyes = right - left
    unit = np.linalg.norm(eyes, axis=1, keepdims=True)
    across = eyes / unit
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    width = np.linalg.norm(other - corner, axis=1)
    opening = ((lower - upper) * down).sum(axis=1)
    lift = ((upper + lower - corner - other) / 2 * down).sum(axis=1)
    found: np.ndarray = np.stack([width, opening, lift], axis=1) / unit
    return found


def scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """How much drawn and moved faces smile; NaN where the mesh finds none."""
    drawn, moved = (lengths(np.load(folder / f"{name}.mesh.npy")) for name in ("drawn", "moved"))
    middle, spread = np.nanmean(drawn, axis=0), np.nanstd(drawn, axis=0)
    one, two = (((x - middle) / spread).mean(axis=1) for x in (drawn, moved))
    scale = np.nanstd(one)
    return one / scale, two / scale


def draw(folder: Path) -> None:
    import torch

    from anondata.transforms.face_pool import TRUNCATION

    with torch.no_grad():
        styles = torch.cat([_style(number, TRUNCATION) for number in DRAWN])
        pictures = [_picture(style[None], style[None]) for style in styles]
    np.savez(folder / "drawn.npz", pictures=np.stack(pictures), styles=styles.numpy())


def move(folder: Path) -> None:
    import torch

    weights, bias = (torch.from_numpy(x).float() for x in direction(folder))
    step, chance, pictures = weights / weights.norm() / SHOWN, np.random.default_rng(3), []
    with torch.no_grad():
        for number in MOVED:
            style = _style(number, VARIED)
            for low, high in (LOWER, UPPER):
                target = float(chance.uniform(low, high))
                pictures.append(_picture(style, style + (target - style @ weights - bias)[:, None] * step))
    np.savez(folder / "moved.npz", pictures=np.stack(pictures))


def direction(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(512,)`` and bias that read a smile off a style."""
    import torch

    from anondata.models.stylegan import STYLE_DIM
    from anondata.randomness import RunKey, normal

    network = _generator().network
    with torch.no_grad():
        basis = network.styles(normal([RunKey(b"anondata/generated-faces").seed("basis")], (4096, STYLE_DIM))[0])
    axes = np.linalg.svd(basis.double().numpy() - basis.double().numpy().mean(axis=0), full_matrices=False)[2][:PARTS]
    points = lengths(np.load(folder / "drawn.mesh.npy"))
    score = ((points - np.nanmean(points, axis=0)) / np.nanstd(points, axis=0)).mean(axis=1)
    score /= np.nanstd(score)
    good = np.isfinite(score)
    styles = np.load(folder / "drawn.npz")["styles"].astype(np.float64)[good]
    x = (styles - styles.mean(axis=0)) @ axes.T
    ridge = STYLE_RIDGE * x.var(axis=0).mean() * np.eye(PARTS)
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ (score[good] - score[good].mean())) @ axes
    return weights, np.asarray(score[good].mean() - styles.mean(axis=0) @ weights)


def learn(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from anondata.transforms._smiles import SMILE

    weights, bias = (torch.from_numpy(x).float() for x in direction(folder))
    known = {"style": weights, "style_bias": bias, "style_step": weights / weights.norm() / SHOWN}
    reader = _trained(*_samples(folder)).state_dict()
    save_file(known | {name: values.half() for name, values in reader.items()}, folder / SMILE)


def _samples(folder: Path) -> tuple[Any, Any]:
    """Lower faces and their scores, each face six times: as it is, mirrored, jittered and blurred."""
    import torch

    from anondata.detectors.centerface import CenterFaceDetector
    from anondata.transforms._faces_blend import MIRRORED
    from anondata.transforms._smiles import lower_faces

    noise, faces, wanted = torch.Generator().manual_seed(1), [], []
    for name, score in zip(("drawn", "moved"), scores(folder), strict=True):
        for view, value in zip(torch.from_numpy(np.load(folder / f"{name}.npz")["pictures"]), score, strict=True):
            found = CenterFaceDetector().detect([view])
            if len(found) != 1 or not np.isfinite(value):
                continue
            picture, marks = view[None].float() / 255, found.landmarks.double() / view.shape[-1]
            turned = marks[:, list(MIRRORED)] * torch.tensor([-1, 1]) + torch.tensor([1, 0])
            for blur, shift in ((1, 0.0), (1, JITTER), (2, JITTER)):
                for pixels, places in ((picture, marks), (picture.flip(-1), turned)):
                    eyes = (places[:, 0] - places[:, 1]).norm()
                    off = torch.randn(places.shape, generator=noise).double() * shift * eyes
                    faces.append(lower_faces(_blurred(pixels, blur), places + off))
                    wanted.append(float(value))
    return torch.cat(faces), torch.tensor(wanted)


def _blurred(pictures: Any, factor: int) -> Any:
    from torch.nn import functional as F

    small = F.avg_pool2d(pictures, factor)
    return F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")


def _trained(faces: Any, wanted: Any) -> Any:
    import torch
    from torch.nn import functional as F

    from anondata.transforms._smiles import SmileReader

    torch.manual_seed(0)
    reader, chance = SmileReader(), torch.Generator().manual_seed(2)
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(0, len(faces), (BATCH,), generator=chance)
        x = faces[rows]
        grain = 0.03 * torch.rand(BATCH, 1, 1, 1, generator=chance)
        x = x + torch.randn(x.shape, generator=chance) * grain * x.std(dim=(1, 2, 3), keepdim=True)
        loss = F.smooth_l1_loss(reader(x), wanted[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return reader.eval()


@cache
def _generator() -> Any:
    from anondata.transforms.face_pool import Generator

    return Generator()


def _style(number: int, truncation: float) -> Any:
    return _generator().style(number, truncation)


def _picture(style: Any, mimic: Any) -> np.ndarray:
    """``(3, 256, 256)`` uint8."""
    from anondata.transforms.face_pool import pixels

    shown: np.ndarray = pixels(_generator().network.portraits(style, mimic)[0]).numpy()
    return shown


def main() -> None:
    steps = {"draw": draw, "label": label, "move": move, "learn": learn}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=steps)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    steps[options.step](options.folder)


if __name__ == "__main__":
    main()
