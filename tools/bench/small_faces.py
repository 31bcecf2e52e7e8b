"""How small can a face be and still be identified, and still be found?

    python -m anondata.tools.bench.small_faces

People are shrunk to 8…48 px and searched for in a gallery of 51. Naive: the gallery is full size. Parrot: the
attacker shrinks it alike. Probes are the smiling photos against the neutral ones and the other way round.
"""

from __future__ import annotations

import torch

from anondata.detectors.centerface import CenterFaceDetector
from anondata.protocols import Embedder
from anondata.tools.bench._common import (
    Portrait,
    by_expression,
    cell,
    embed,
    embedders,
    hits,
    portraits,
    save,
    share,
    show,
    shrunk,
)

WIDTHS_PX = (4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48)


def rank1(embedder: Embedder, width_px: float, *, parrot: bool) -> list[bool]:
    """One outcome a probe, both ways round."""
    out: list[bool] = []
    for probes, gallery in (("smiling", "neutral"), ("neutral", "smiling")):
        seen = [shrunk(p.view, p.face, width_px) for p in by_expression(probes)]
        known = [shrunk(p.view, p.face, width_px) if parrot else (p.view, p.face) for p in by_expression(gallery)]
        out += hits(
            embed(embedder, [v for v, _ in seen], [f for _, f in seen]),
            embed(embedder, [v for v, _ in known], [f for _, f in known]),
        )
    return out


def found(portrait: Portrait, width_px: float, detector: CenterFaceDetector) -> bool:
    """Whether a face shrunk to a width, alone on a plain 640x480 picture, is found where it is."""
    small, face = shrunk(portrait.view, portrait.face, width_px)
    canvas = torch.full((3, 480, 640), 128, dtype=torch.uint8)
    height, width = small.shape[1:]
    y, x = (480 - height) // 2, (640 - width) // 2
    canvas[:, max(y, 0) : y + height, max(x, 0) : x + width] = small[:, : 480 - max(y, 0), : 640 - max(x, 0)]
    centre = (face.boxes[0, :2] + face.boxes[0, 2:]) / 2 + torch.tensor([x, y])
    boxes = detector.detect([canvas]).boxes
    return bool(((boxes[:, :2] < centre) & (centre < boxes[:, 2:])).all(dim=1).any())


def main() -> None:
    rows, results = [], []
    for width_px in WIDTHS_PX:
        attacks = {
            f"{embedder.name} {attacker}": share(rank1(embedder, width_px, parrot=attacker == "parrot"))
            for embedder in embedders()
            for attacker in ("naive", "parrot")
        }
        detected = {
            f"found at threshold {t:g}": share([found(p, width_px, CenterFaceDetector(t)) for p in portraits()])
            for t in (0.35, 0.2)
        }
        rows.append([width_px, *(cell(v) for v in (attacks | detected).values())])
        results.append({"width_px": width_px, **attacks, **detected})
    header = ["width_px", *[k for k in results[0] if k != "width_px"]]
    show("rank-1 % of 51 people (chance 2 %) and detection, by width of the face", header, rows)
    save("small_faces", {"chance_percent": round(100 / 51, 1), "rows": results})


if __name__ == "__main__":
    main()
