"""The audit on what several tools wrote of the same 102 portraits: who is named, by which attacker.

    python -m anondata.tools.bench.audits --deface PATH/TO/deface

Untouched copies, a blur of 0.1 over 1.15 times the box, deface's defaults, and anondata's default policy.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from anondata import Anonymizer, Released, RunKey
from anondata.content import codec
from anondata.detectors.centerface import CenterFaceDetector
from anondata.tools.bench._common import data_folder, save, show
from anondata.transforms import GaussianBlur
from anondata.verifiers.audit import PhotoPair, audit

Tool = Callable[[list[Path]], Iterator[bytes]]


def untouched(photos: list[Path]) -> Iterator[bytes]:
    return (photo.read_bytes() for photo in photos)


def blurred(photos: list[Path]) -> Iterator[bytes]:
    """A blur of 0.1 of the face's width."""
    technique, detector = GaussianBlur(0.1, coverage=1.15), CenterFaceDetector()
    for photo in photos:
        pixels = codec.decode(photo.read_bytes()).pixels
        changed = technique.change_regions(pixels, detector.detect([pixels]).boxes)
        buffer = io.BytesIO()
        Image.fromarray(changed.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95)
        yield buffer.getvalue()


def ours(photos: list[Path]) -> Iterator[bytes]:
    """The default policy."""
    made = Anonymizer("faces", run_key=RunKey(b"benchmark, not a secret"))
    for outcome in made.anonymize([p.read_bytes() for p in photos], keys=[p.name for p in photos]):
        if not isinstance(outcome, Released):
            raise SystemExit("a portrait was withheld; the audit would be of fewer people")
        yield outcome.sample["image"]


def deface(executable: str) -> Tool:
    """deface's defaults, in an environment of its own."""

    def run(photos: list[Path]) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            copies = [Path(shutil.copy(photo, folder)) for photo in photos]
            subprocess.run([executable, *map(str, copies)], check=True, capture_output=True)
            yield from (c.with_name(f"{c.stem}_anonymized{c.suffix}").read_bytes() for c in copies)

    return run


def audited(tool: Tool) -> Mapping[str, Any]:
    folder = data_folder() / "faces_london"
    with (folder / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    photos = [folder / row["file_name"] for row in rows]
    pairs = zip(photos, tool(photos), rows, strict=True)
    return audit([PhotoPair(p.read_bytes(), after, identity=row["identity"]) for p, after, row in pairs]).to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deface", help="the deface executable of an environment of its own; left out without")
    given = parser.parse_args()
    tools: dict[str, Tool] = {"untouched": untouched, "blur 0.1": blurred, "anondata faces": ours}
    if given.deface:
        tools["deface"] = deface(given.deface)
    rows, body = [], []
    for name, tool in tools.items():
        found = audited(tool)
        attacks = [
            {key: one[key] for key in ("attacker", "network", "releases", "how", "rank1", "rank5")}
            for one in found["attacks"]
        ]
        body.append({"tool": name, "verdict": found["verdict"], "faces": found["faces"], "attacks": attacks})
        for one in attacks:
            rank1 = one["rank1"]
            told = f"{rank1['percent']:.0f} [{rank1['low']:.0f}-{rank1['high']:.0f}]"
            who = one["attacker"] + (f", {one['releases']} releases" if one["releases"] > 1 else "")
            rows.append([name, who, one["network"], told, f"{one['rank5']['percent']:.0f}"])
    show("named at rank 1, % of 51 people (chance 2)", ["tool", "attacker", "network", "rank 1", "rank 5"], rows)
    save("audits", {"rows": body})


if __name__ == "__main__":
    main()
