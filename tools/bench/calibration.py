"""The shipped thresholds: distances at stated false-accept rates, from pairs of different people.

    python -m anondata.tools.bench.calibration

Writes ``verifiers/thresholds/<embedder>.json`` by :func:`anondata.verifiers.calibration.calibrate`, rounded to four
decimals: intervals are a hundred times as wide.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from anondata.tools.bench._common import ROOT, embed, embedders, portraits, show
from anondata.verifiers.calibration import Threshold, calibrate

DATA = "Face Research Lab London Set (CC-BY 4.0): 51 people, neutral and smiling, 400 px, frontal, studio light"


def rounded(threshold: Threshold) -> Threshold:
    values = {name: round(v, 4) for name, v in asdict(threshold).items() if name != "far" and v is not None}
    return replace(threshold, **values)


def main() -> None:
    people, rows = [p.identity for p in portraits()], []
    for embedder in embedders():
        templates = embed(embedder, [p.view for p in portraits()], [p.face for p in portraits()])
        found = calibrate(templates, people, embedder=embedder, data=DATA)
        found = replace(found, thresholds=tuple(rounded(t) for t in found.thresholds))
        (ROOT / "verifiers" / "thresholds" / f"{embedder.name}.json").write_text(found.to_json())
        rows += [[embedder.name, *asdict(t).values()] for t in found.thresholds]
    show("thresholds", ["embedder", "far", "distance", "low", "high", "tar", "tar low", "tar high"], rows)


if __name__ == "__main__":
    main()
