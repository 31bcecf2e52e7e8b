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
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.policy import Policy, from_yaml
from anondata.protocols import Embedder
from anondata.tools.bench._common import by_expression, cell, embed, embedders, save, share, show
from anondata.transforms import RegionTransform, describe
from anondata.verifiers._pairs import apart
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Gallery, Portrait, empty_gallery
from anondata.verifiers.gates.parrot_match import parrot_templates

FAR = 0.01
LADDER = """
          - gaussian_blur: {sigma: 0.03, coverage: 1.3}
          - gaussian_blur: {sigma: 0.06, coverage: 1.3}
          - gaussian_blur: {sigma: 0.1, coverage: 1.3}
          - gaussian_blur: {sigma: 0.3, coverage: 1.3}
          - pixelate: {blocks: 8, noise: 0.13, contrast: 0.2, coverage: 1.5, shape: ellipse}
          - fill: {coverage: 1.5}"""
# Gates by their label, and the rate of the parrot threshold that results are held against.
GATES: dict[str, tuple[Sequence[str], float]] = {
    "self": (("self_match",), 0.2),
    "self, gallery": (("self_match", "gallery_match"), 0.2),
    "self, gallery, parrot .05": (("self_match", "gallery_match", "parrot_match: {far: 0.05}"), 0.05),
    "self, gallery, parrot .2": (("self_match", "gallery_match", "parrot_match: {far: 0.2}"), 0.2),
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


@dataclass(frozen=True)
class Result:
    """What came of one person's photo: which one's, what it looks like now, and by which technique."""

    person: int
    view: Tensor
    technique: RegionTransform


def attacked(embedder: Embedder, gallery: Gallery, results: Sequence[Result], far: float) -> dict[str, Any]:
    """Rank-1 of both attackers, and how many results are within thresholds; ``far``: of the parrot's.

    Within the parrot threshold may be who was erased by the last rung: what is around a face is not the gate's.
    """
    people = by_expression("smiling")
    who = torch.tensor([r.person for r in results])
    probes = embed(embedder, [r.view for r in results], [people[r.person].face for r in results])
    clear = torch.cdist(probes, torch.from_numpy(gallery.templates))
    parrot, within = torch.empty_like(clear), torch.zeros(len(results), dtype=torch.bool)
    for told in {describe(r.technique) for r in results}:
        rows = [i for i, r in enumerate(results) if describe(r.technique) == told]
        templates = torch.from_numpy(parrot_templates(gallery, results[rows[0]].technique, embedder))
        parrot[rows] = torch.cdist(probes[rows], templates)
        pairs = apart(templates, gallery.owners)
        within[rows] = parrot[rows, who[rows]] <= float(pairs.distance[int(far * len(pairs))])
    own, naive = clear[torch.arange(len(who)), who], shipped(embedder.name).at(FAR).distance
    erased = torch.tensor([r.technique.erases for r in results])
    return {
        "naive": share((clear.argmin(dim=1) == who).tolist()),
        "parrot": share((parrot.argmin(dim=1) == who).tolist()),
        "anybody within the naive threshold": share((clear.amin(dim=1) <= naive).tolist()),
        "themselves within the naive threshold": share((own <= naive).tolist()),
        "themselves within the parrot threshold": share(within.tolist()),
        "of these, not erased": share((within & ~erased).tolist()),
    }


def ran(gates: Sequence[str], gallery: Gallery) -> tuple[dict[str, int], list[Result]]:
    """How many results passed on which rung, and the results."""
    galleries = {"protected": gallery} if len(gates) > 1 else {}
    made = Anonymizer(policy(gates), run_key=RunKey(b"benchmark, not a secret"), galleries=galleries)
    people = by_expression("smiling")
    outcomes = made.anonymize([p.view for p in people], keys=[p.identity for p in people])
    ladder = made.engine.rules["image"].kinds["face"].ladder
    results = []
    for person, outcome in enumerate(outcomes):
        if isinstance(outcome, Released):
            technique = ladder[outcome.record.regions[0].rung]
            results.append(Result(person, outcome.sample["image"], technique))
    rungs = Counter(describe(r.technique) for r in results)
    return {**{describe(t): rungs[describe(t)] for t in ladder}, "withheld": len(people) - len(results)}, results


def main() -> None:
    galleries, rows, body = {e.name: enrolled(e) for e in embedders()}, [], []
    for label, (gates, far) in GATES.items():
        rungs, results = ran(gates, galleries[DlibEmbedder().name])
        row: dict[str, Any] = {"gates": label, "passed on rung": rungs}
        for embedder in embedders():
            row[embedder.name] = attacked(embedder, galleries[embedder.name], results, far)
            told = "/".join(map(str, rungs.values()))
            rows.append([label, told, embedder.name, *map(cell, row[embedder.name].values())])
        body.append(row)
    header = ["gates", "passed on rung 0/1/…/withheld", "network", *body[0][DlibEmbedder().name]]
    show(
        "51 people, % named or within a threshold (chance of rank 1: 2 %); the gates use dlib-face-resnet",
        header,
        rows,
    )
    save("gates", {"far": FAR, "rows": body})


if __name__ == "__main__":
    main()
