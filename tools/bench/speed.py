"""Where the engine's time goes, and how this code compares with another revision of it.

    python -m anondata.tools.bench.speed [--scenes 10] [--repeats 2] [--against REVISION]

Scenes as JPEG files, in four orientations, in colour and in grey, one by one through the policy ``faces`` and through
it without its further looks. Time is the processor's, on one thread, so that other work on the machine counts little.
Trees and policies take turns on each picture in processes of their own, after one round that counts nothing; ratios
are of the same picture in the same round. Parts exclude one another: ``networks`` is the time inside ONNX Runtime,
wherever it is called from. The floor is networks and codec alone, on the very inputs that the engine gives them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ("faces", "without further looks")
PARTS = {
    "decode": "anondata.content.codec:decode",
    "encode": "anondata.content.codec:encode",
    "detect": "anondata.engine.loop:find",
    "templates": "anondata.engine.loop:embed",
    "change": "anondata.engine.loop:Engine._render",
    "verify": "anondata.engine.loop:judge",
    "scan": "anondata.engine.loop:scanned",
    "networks": "anondata.models.ort:OrtRunner._run",
}


class Clock:
    """Processor time by part; what is called within a part counts to that which was called."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = defaultdict(float)
        self._running = ["rest"]
        self._since = time.process_time()

    def enter(self, part: str) -> None:
        self._running.append(self._turn(part))

    def leave(self) -> None:
        self._turn("")
        self._running.pop()

    def _turn(self, part: str) -> str:
        now = time.process_time()
        self.taken[self._running[-1]] += now - self._since
        self._since = now
        return part

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **options)
            finally:
                self.leave()

        return timed


def child(policy: str) -> None:
    """Anonymizes files named on the standard input, with whatever revision of the package is imported here."""
    import torch

    torch.set_num_threads(1)
    from anondata import Anonymizer, RunKey
    from anondata.tools.bench.looks import upright_alone

    clock = Clock()
    for part, place in PARTS.items():
        _replace(place, partial(clock.around, part))
    chosen = "faces" if policy == "faces" else upright_alone()
    anonymizer = Anonymizer(chosen, run_key=RunKey(b"benchmark, not a secret"))
    for line in sys.stdin:
        data = Path(line.strip()).read_bytes()
        clock.taken.clear()
        start = time.process_time()
        [outcome] = anonymizer.anonymize([data])
        answer: dict[str, Any] = {"s": time.process_time() - start, "parts": dict(clock.taken)}
        answer["regions"] = len(outcome.record.regions)
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


def _replace(place: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module_name, path = place.split(":")
    target = __import__(module_name, fromlist=["_"])
    *owners, name = path.split(".")
    for owner in owners:
        target = getattr(target, owner)
    setattr(target, name, change(getattr(target, name)))


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """Another revision, checked out in a folder of its own for as long as it is needed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@contextmanager
def running(tree: Path, policy: str) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """A process that anonymizes one file at a time with the code of a tree."""
    data = os.environ.get("ANONDATA_BENCH_DATA", str(ROOT.parent / "shared" / "data"))
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "ANONDATA_BENCH_DATA": data,
        "ANONDATA_WEIGHTS": os.environ.get("ANONDATA_WEIGHTS", str(Path(data) / "weights")),
    }
    source = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", source, __file__, "--child", policy]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        to, back = process.stdin, process.stdout
        if to is None or back is None:
            raise RuntimeError("the process has no pipes")

        def ask(file: Path) -> dict[str, Any]:
            print(file, file=to, flush=True)
            answer = back.readline()
            if not answer:
                raise RuntimeError(f"the process of {policy!r} in {tree} ended")
            return dict(json.loads(answer))

        yield ask
        to.close()


def pictures(folder: Path, count: int) -> list[Path]:
    """Files of scenes, spread over all of them, in colour and in grey and in every orientation."""
    from anondata.tools.bench._common import data_folder

    out = []
    scenes = sorted((data_folder() / "scenes_london").glob("*.jpg"))
    for scene in scenes[:: max(1, len(scenes) // count)][:count]:
        for mode in ("RGB", "L"):
            for degrees in (0, 90, 180, 270):
                stream = io.BytesIO()
                Image.open(scene).convert(mode).rotate(degrees, expand=True).save(stream, "JPEG", quality=95)
                out.append(folder / f"{scene.stem}-{mode}-{degrees}.jpg")
                out[-1].write_bytes(stream.getvalue())
    return out


def row_of(code: str, policy: str, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums and medians of one process."""
    milliseconds = [1000 * a["s"] for a in answers]
    low, _, high = statistics.quantiles(milliseconds, n=4)
    parts = {p: 1000 * sum(a["parts"].get(p, 0.0) for a in answers) / len(answers) for p in (*PARTS, "rest")}
    floor = parts["networks"] + parts["decode"] + parts["encode"]
    return {
        "code": code,
        "policy": policy,
        "images_per_cpu_s": round(1000 * len(answers) / sum(milliseconds), 2),
        "ms": round(statistics.median(milliseconds)),
        "ms_low": round(low),
        "ms_high": round(high),
        **{f"{part}_ms": round(value, 1) for part, value in parts.items()},
        "over_floor": round(sum(parts.values()) / floor, 2),
        "over_networks": round(sum(parts.values()) / parts["networks"], 2),
        "regions": sum(a["regions"] for a in answers),
        "peak_mib": round(answers[-1]["peak_mib"]),
    }


def speedup(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast: the median of pairs, and their quartiles."""
    ratios = [b["s"] / n["s"] for b, n in zip(before, now, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"times_as_fast": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def measured(
    trees: dict[str, Path], files: Sequence[Path], repeats: int
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Answers by tree and policy, each of which goes first in turn."""
    with ExitStack() as stack:
        asks = {(c, p): stack.enter_context(running(tree, p)) for p in POLICIES for c, tree in trees.items()}
        answers: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in asks}
        for turn in range(repeats + 1):
            for i, file in enumerate(files):
                order = list(asks)
                order = order[(i + turn) % len(order) :] + order[: (i + turn) % len(order)]
                for key in order:
                    answer = asks[key](file)
                    if turn:  # the first round loads networks and takes memory
                        answers[key].append(answer)
            print(f"round {turn} of {repeats}", flush=True)
        return answers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--against", help="another revision of this repository, which takes turns with this tree")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        child(given.child)
        return
    from anondata.tools.bench._common import save, show

    with ExitStack() as stack:
        trees = {"now": ROOT}
        if given.against:
            trees[given.against] = stack.enter_context(tree_of(given.against))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = pictures(folder, given.scenes)
        answers = measured(trees, files, given.repeats)
    rows = [row_of(code, policy, part) for (code, policy), part in answers.items()]
    ratios = [
        {
            "policy": policy,
            "against": given.against,
            **speedup(answers[given.against, policy], answers["now", policy]),
        }
        for policy in POLICIES
        if given.against
    ]
    show("milliseconds of processor time", ["", *(f"{r['code']}: {r['policy']}" for r in rows)], _turned(rows))
    if ratios:
        show("against another revision", list(ratios[0]), [list(r.values()) for r in ratios])
    save("speed", {"pictures": len(files), "repeats": given.repeats, "rows": rows, "ratios": ratios})


def _turned(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    names = [name for name in rows[0] if name not in ("code", "policy")]
    return [[name, *(row[name] for row in rows)] for name in names]


if __name__ == "__main__":
    main()
