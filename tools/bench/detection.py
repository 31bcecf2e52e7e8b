"""What does the detector find, by threshold and scale, and what does it take for a face that is none?

    python -m anondata.tools.bench.detection

On ``scenes_london`` (147 faces of known boxes). A face counts as found when a detection's covered area, 1.3 times its
box, holds at least 95 % of the true box. False regions are counted on the scenes and on pictures without people.
"""

from __future__ import annotations

import json
import time

import torch
from torch import Tensor

from anondata.detectors.centerface import CenterFaceDetector
from anondata.detectors.pyramid import box_iou
from anondata.detectors.yunet import YuNetDetector
from anondata.protocols import Detector
from anondata.regions import Regions
from anondata.tools.bench._common import data_folder, load, save, show

FACELESS = ("coffee", "cat", "chelsea", "rocket", "hubble_deep_field", "retina", "immunohistochemistry", "colorwheel")


def scenes() -> list[tuple[Tensor, Tensor]]:
    """Each scene and the boxes ``(N, 4)`` of its faces."""
    folder = data_folder() / "scenes_london"
    out = []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        boxes = torch.tensor([f["box"] for f in row["faces"]]).reshape(-1, 4)
        out.append((load(folder / row["file_name"]), boxes))
    return out


def faceless() -> list[Tensor]:
    """Pictures without people that come with scikit-image."""
    import skimage.data

    pictures = [getattr(skimage.data, name)() for name in FACELESS if name != "colorwheel"]
    return [torch.from_numpy(p[..., :3].copy()).permute(2, 0, 1) for p in pictures if p.ndim == 3]


def held(truth: Tensor, found: Regions, *, extent: float = 1.3) -> Tensor:
    """``(N,)`` bool: at least 95 % of each true box lies in one detection's covered area."""
    if not len(found):
        return torch.zeros(len(truth), dtype=torch.bool)
    half = found.sizes * (extent / 2)
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    areas = torch.cat([centre - half, centre + half], dim=1)
    low = torch.maximum(truth[:, None, :2], areas[None, :, :2])
    high = torch.minimum(truth[:, None, 2:], areas[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    whole = (truth[:, 2:] - truth[:, :2]).prod(dim=1)
    return (shared / whole[:, None]).amax(dim=1) >= 0.95


def main() -> None:
    pictures, empty = scenes(), faceless()
    results = []
    choices: list[tuple[str, Detector]] = [
        (f"centerface threshold {t:g} smallest {s:g}", CenterFaceDetector(t, s))
        for s in (10, 12, 16, 20, 24)
        for t in (0.35, 0.25, 0.2, 0.15)
    ]
    choices += [(f"yunet threshold {t:g} smallest {s:g}", YuNetDetector(t, s)) for s in (10, 12) for t in (0.6, 0.4)]
    for name, detector in choices:
        start = time.perf_counter()
        found = [detector.detect([view]) for view, _ in pictures]
        seconds = time.perf_counter() - start
        recall = sum(int(held(truth, f).sum()) for (_, truth), f in zip(pictures, found, strict=True))
        false = sum(
            int((box_iou(f.boxes, truth).amax(dim=1) < 0.1).sum()) if len(truth) else len(f)
            for (_, truth), f in zip(pictures, found, strict=True)
            if len(f)
        )
        results.append(
            {
                "detector": name,
                "found": recall,
                "of": sum(len(truth) for _, truth in pictures),
                "regions": sum(len(f) for f in found),
                "false_on_scenes": false,
                "false_on_faceless": sum(len(detector.detect([view])) for view in empty),
                "ms_per_image": round(1000 * seconds / len(pictures), 1),
            }
        )
        print(results[-1], flush=True)
    show("detection", list(results[0]), [list(r.values()) for r in results])
    save("detection", {"faceless_pictures": len(empty), "rows": results})


if __name__ == "__main__":
    main()
