"""Images a second, beside deface, in one run on the same cores.

    python -m anondata.tools.bench.throughput --deface PATH/TO/deface

Whole processes over folders of scenes, small and large; the marginal rate leaves the start-up out. anondata verifies
every face and scans its output; deface detects and blurs. Runs take turns, so that a drift of the machine hits all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from anondata.tools.bench._common import data_folder, save, show

SMALL, LARGE = 64, 192


def copies(folder: Path, count: int) -> list[Path]:
    """``count`` scenes, each file used as often as needed."""
    scenes = sorted((data_folder() / "scenes_london").glob("*.jpg"))
    folder.mkdir()
    return [Path(shutil.copy(scenes[i % len(scenes)], folder / f"{i:04}.jpg")) for i in range(count)]


def deface(executable: str, *options: str) -> Callable[[Path, list[Path]], list[str]]:
    return lambda folder, files: [executable, *options, *map(str, files)]


def ours(*options: str) -> Callable[[Path, list[Path]], list[str]]:
    return lambda folder, files: [
        *(str(Path(sys.executable).with_name("anondata")), "anonymize", str(folder)),
        *("--out", str(folder.parent / "out"), *options),
    ]


def seconds(command: Callable[[Path, list[Path]], list[str]], count: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        files = copies(Path(scratch) / "in", count)
        line = command(Path(scratch) / "in", files)
        start = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken = time.perf_counter() - start
        written = sum(1 for _ in Path(scratch).rglob("*.jpg")) - count
        if written != count:
            raise RuntimeError(f"{line[0]} wrote {written} of {count} images")
        return taken


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deface", required=True, help="the deface executable of an environment of its own")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    tools = {
        "deface": deface(given.deface),
        "deface --scale 640x480": deface(given.deface, "--scale", "640x480"),
        "anondata faces": ours(),
        **{f"anondata faces, from {px} px": ours("--policy", str(_coarser(px))) for px in (15, 20)},
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tools}
    for _ in range(given.repeats):
        for name, command in tools.items():
            taken[name].append((seconds(command, SMALL), seconds(command, LARGE)))
            print(name, [round(t, 1) for t in taken[name][-1]], flush=True)
    rows = []
    for name, times in taken.items():
        marginal = [(LARGE - SMALL) / (large - small) for small, large in times]
        rows.append(
            {
                "tool": name,
                "images_per_s": round(statistics.median(marginal), 1),
                "low": round(min(marginal), 1),
                "high": round(max(marginal), 1),
                "images_per_s_with_start": round(statistics.median(LARGE / large for _, large in times), 1),
            }
        )
    rates = {row["tool"]: float(str(row["images_per_s"])) for row in rows}
    for row in rows:
        row["ratio_to_deface"] = round(rates[str(row["tool"])] / rates["deface"], 2)
        row["ratio_to_scaled"] = round(rates[str(row["tool"])] / rates["deface --scale 640x480"], 2)
    cores = sorted(os.sched_getaffinity(0))
    show(f"images a second on cores {cores}", list(rows[0]), [list(r.values()) for r in rows])
    save("throughput", {"images": [SMALL, LARGE], "repeats": given.repeats, "rows": rows})


def _coarser(smallest_px: int) -> Path:
    """The default policy, told that smaller faces need not be found: the scaled run cannot find them either."""
    from anondata.policy import load_policy

    text = load_policy("faces").to_yaml().replace("smallest_px: 10.0", f"smallest_px: {smallest_px}.0")
    path = Path(tempfile.mkdtemp()) / "coarser.yaml"
    path.write_text(text)
    return path


if __name__ == "__main__":
    main()
