"""When is the output scan worth its cost? Faces that the first pass misses, and who finds them.

    python -m anondata.tools.bench.output_scan

Portraits are made hard (turned, dark, veiled, noisy, half hidden) and set into a picture of gravel at several sizes.
Of what the default detector misses, how much does a second look at another scale find, and what does it cost?
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from anondata.detectors.centerface import CenterFaceDetector
from anondata.detectors.yunet import YuNetDetector
from anondata.protocols import Detector
from anondata.tools.bench._common import portraits, save, show, shrunk

WIDTHS_PX = (24, 60, 150)
CANVAS_PX = 640

HARD: Mapping[str, Callable[[Tensor], Tensor]] = {
    "turned 45": lambda x: v2.rotate(x, 45),
    "turned 90": lambda x: v2.rotate(x, 90),
    "upside down": lambda x: v2.rotate(x, 180),
    "dark": lambda x: (x.float() * 0.12).to(torch.uint8),
    "veiled": lambda x: (x.float() * 0.15 + 190).to(torch.uint8),
    "noisy": lambda x: (
        (x.float() + 90 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
        .clamp(0, 255)
        .to(torch.uint8)
    ),
    "lower half hidden": lambda x: torch.cat([x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :] * 0 + 90], dim=1),
}


def scanners() -> Mapping[str, Detector]:
    return {
        **{f"centerface {t:g} at {s:g} px": CenterFaceDetector(t, s) for t in (0.35, 0.2) for s in (7, 14, 20, 40)},
        "yunet 0.6 at 10 px": YuNetDetector(),
    }


def pictures(change: Callable[[Tensor], Tensor], width_px: float) -> list[Tensor]:
    """One face in each: the head cut out a little larger than its box, changed, on gravel."""
    import skimage.data

    gravel = cast(np.ndarray[Any, Any], skimage.data.gravel())  # type: ignore[no-untyped-call]  # has no types
    ground = torch.from_numpy(gravel.copy())[None].expand(3, -1, -1)
    ground = F.interpolate(ground[None], (CANVAS_PX, CANVAS_PX), mode="bilinear")[0]
    out = []
    for p in portraits():
        small, face = shrunk(p.view, p.face, width_px)
        x0, y0, x1, y1 = (round(v) for v in face.scaled(1.6).boxes[0].tolist())
        head = change(small[:, max(y0, 0) : y1, max(x0, 0) : x1])
        canvas = ground.clone()
        y, x = (CANVAS_PX - head.shape[1]) // 2, (CANVAS_PX - head.shape[2]) // 2
        canvas[:, y : y + head.shape[1], x : x + head.shape[2]] = head
        out.append(canvas)
    return out


def finds(detector: Detector, picture: Tensor) -> bool:
    boxes = detector.detect([picture]).boxes
    centre = torch.tensor([CANVAS_PX / 2, CANVAS_PX / 2])
    return bool(((boxes[:, :2] < centre) & (centre < boxes[:, 2:])).all(dim=1).any())


def main() -> None:
    first, results = CenterFaceDetector(), []
    for name, change in HARD.items():
        for width_px in WIDTHS_PX:
            faces = pictures(change, width_px)
            missed = [p for p in faces if not finds(first, p)]
            row: dict[str, Any] = {"faces": name, "width_px": width_px, "of": len(faces), "missed": len(missed)}
            row |= {scan: sum(finds(d, p) for p in missed) for scan, d in scanners().items()}
            results.append(row)
            print(row, flush=True)
    total = {k: sum(r[k] for r in results) for k in results[0] if k not in ("faces", "width_px")}
    cost = {}
    for scan, detector in {"first pass": first, **scanners()}.items():
        start = time.perf_counter()
        for _ in range(20):
            detector.detect([faces[0]])
        cost[scan] = round((time.perf_counter() - start) * 50, 1)
    results.append({"faces": "all", "width_px": "", **total})
    show(
        "missed by the first pass, and found by a second look", list(results[0]), [list(r.values()) for r in results]
    )
    show("cost of a look at 640x640", ["look", "ms"], list(cost.items()))
    save("output_scan", {"rows": results, "ms_per_look": cost})


if __name__ == "__main__":
    main()
