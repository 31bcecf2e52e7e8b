"""What each gate catches: a ladder that starts too weak, and who is still named of what it released.

    python -m anondata.tools.bench.gates

The neutral photos of 51 people are enrolled with portraits; the smiling ones are anonymized by a ladder that starts
with a blur of 0.03 and held against one gate, two and three of one network. Then both networks attack: naive with the
clear neutral photos, parrot with the neutral photos put through the rung that each result ended on, and how many
results are within the thresholds that the gates used.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from anondata import Anonymizer, RunKey
from anondata.policy import Policy, from_yaml
from anondata.protocols import Embedder
from anondata.tools.bench._common import by_expression, cell, embed, embedders, save, share, show
from anondata.transforms import RegionTransform, describe
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Gallery, Portrait, empty_gallery
from anondata.verifiers.parrot_match import ParrotMatch, parrot_templates

FAR, PARROT_FAR = 0.01, 0.05
LADDER = """
          - gaussian_blur: {sigma: 0.03, coverage: 1.3}
          - gaussian_blur: {sigma: 0.06, coverage: 1.3}
          - gaussian_blur: {sigma: 0.1, coverage: 1.3}
          - gaussian_blur: {sigma: 0.3, coverage: 1.3}
          - pixelate: {blocks: 8, noise: 0.13, contrast: 0.2, coverage: 1.5, shape: ellipse}
          - fill: {coverage: 1.5}"""
GATES = {
    "self": ("self_match",),
    "self + gallery": ("self_match", "gallery_match"),
    "self + gallery + parrot": ("self_match", "gallery_match", f"parrot_match: {{far: {PARROT_FAR}}}"),
}


def policy(gates: Sequence[str]) -> Policy:
    verify = "".join(f"\n          - {gate}" for gate in gates)
    return from_yaml(f"""
name: too-weak
content:
  image:
    detect: [centerface]
    regions:
      face:
        ladder:{LADDER}
        verify:{verify}
""")


def enrolled(embedder: Embedder) -> Gallery:
    people = by_expression("neutral")
    templates = embed(embedder, [p.view for p in people], [p.face for p in people])
    portraits = [Portrait(_png(p.view), p.face.boxes[0].numpy(), p.face.landmarks[0].numpy()) for p in people]
    return empty_gallery(embedder).add([p.identity for p in people], templates.numpy(), portraits=portraits)


def _png(view: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(view.permute(1, 2, 0).numpy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def attacked(embedder: Embedder, views: list[Tensor], used: Sequence[RegionTransform]) -> dict[str, Any]:
    """Rank-1 of both attackers, and how many results are within the gates' thresholds."""
    gallery, probes = enrolled(embedder), embed(embedder, views, [p.face for p in by_expression("smiling")])
    clear = torch.cdist(probes, torch.from_numpy(gallery.templates))
    parrot, beyond = torch.empty_like(clear), []
    gate = ParrotMatch(embedder=embedder.name, far=PARROT_FAR).bound({"protected": gallery})
    for name in {describe(t): t for t in used}.values():
        rows = [i for i, t in enumerate(used) if describe(t) == describe(name)]
        parrot[rows] = torch.cdist(probes[rows], torch.from_numpy(parrot_templates(gallery, name, embedder)))
        bound = gate._parrot(name, torch.device("cpu"))[1]
        beyond += [float(parrot[i, i]) <= bound for i in rows]
    people = torch.arange(len(probes))
    return {
        "naive": share([bool(x) for x in clear.argmin(dim=1) == people]),
        "parrot": share([bool(x) for x in parrot.argmin(dim=1) == people]),
        "anybody within the naive threshold": share((clear.amin(dim=1) <= _naive(embedder)).tolist()),
        "themselves within the naive threshold": share((clear.diagonal() <= _naive(embedder)).tolist()),
        "themselves within the parrot threshold": share(beyond),
    }


def _naive(embedder: Embedder) -> float:
    return shipped(embedder.name).at(FAR).distance


def main() -> None:
    gallery, rows, results = enrolled(DlibEmbedder()), [], []
    for label, gates in GATES.items():
        chosen = policy(gates)
        galleries = {"protected": gallery} if len(gates) > 1 else {}
        made = Anonymizer(chosen, run_key=RunKey(b"benchmark, not a secret"), galleries=galleries)
        people = by_expression("smiling")
        outcomes = made.anonymize([p.view for p in people], keys=[p.identity for p in people])
        released = [o for o in outcomes if o.released]
        rungs = Counter(r.rung for o in released for r in o.record.regions)
        steps = chosen.content["image"].regions["face"].ladder
        ladder: list[RegionTransform] = [s.make() for s in steps]
        passed = {describe(t): rungs.get(i, 0) for i, t in enumerate([*ladder])}
        passed["last resort"] = rungs.get(len(ladder), 0)
        row: dict[str, Any] = {"gates": label, "withheld": len(people) - len(released), "passed on rung": passed}
        views = [o.image for o in outcomes]
        last = made.engine.rules["image"].kinds["face"].ladder
        used = [last[o.record.regions[0].rung] for o in outcomes]
        for embedder in embedders():
            row[embedder.name] = attacked(embedder, views, used)
            rows += [
                [label, "/".join(map(str, passed.values())), embedder.name, *map(cell, row[embedder.name].values())]
            ]
        results.append(row)
    header = ["gates", "passed on rung 0/1/…", "network", *results[0][DlibEmbedder().name]]
    show("51 people, % named or within a threshold (chance of rank 1: 2 %); the gates use dlib-face-resnet", header, rows)
    save("gates", {"far": FAR, "parrot_far": PARROT_FAR, "rows": results})


if __name__ == "__main__":
    main()
