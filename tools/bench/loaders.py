"""Images a second through each adapter, beside the raw loader and the engine alone; and memory over a long stream.

    python -m anondata.tools.bench.loaders [--images 64] [--repeats 3] [--stream 10000]

The engine alone runs on decoded tensors in memory. An adapter must also read and decode, so its overhead is told over
the engine and the same library's raw loader together. Runs take turns. ``AnonymizedLoader`` and the engine that it is
held against run in a new process each time, after a warm-up there, so that neither finds threads of the other. Two
worker processes are held against one in their second epoch, when both have loaded their networks.
"""

from __future__ import annotations

import argparse
import gc
import io
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anondata.anonymizer import Anonymizer
from anondata.loaders._flow import Flow
from anondata.loaders._spares import Spares
from anondata.samples import declare
from anondata.tools.bench._common import RESULTS, data_folder, load, save, show

KEY = b"a key for benchmarks, not secret"
EVERY = 100  # samples between two looks at the memory
ENGINE, ENGINE_APART = "engine alone", "engine alone, own process"


class Photos(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """What a training script has: files that become tensors."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return load(self.files[index]), index


def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=KEY)


def shard(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def used_up(samples: Iterable[Any]) -> int:
    return sum(1 for _ in samples)


def plain(batch: list[Any]) -> list[Any]:
    return batch


@dataclass(frozen=True)
class Run:
    """What is measured.

    go: returns how many images it gave. raw, engine: the runs that this one is held against. apart: whether it is
    measured in a new process each time.
    """

    go: Callable[[], int]
    raw: str = ""
    engine: str = ENGINE
    apart: bool = False

    def seconds(self, images: int) -> float:
        start = time.perf_counter()
        given = self.go()
        if given != images:
            raise RuntimeError(f"a run gave {given} of {images} images")
        return time.perf_counter() - start


def runs(files: Sequence[Path], folder: Path) -> dict[str, Run]:
    """What is measured, by name."""
    import datasets
    import webdataset as wds

    from anondata.loaders import hf
    from anondata.loaders import torch as for_torch
    from anondata.loaders import webdataset as for_wds

    made, loader = anonymizer(), torch.utils.data.DataLoader
    tar = shard(folder / "scenes.tar", ((f"{i:05}.jpg", path.read_bytes()) for i, path in enumerate(files)))
    table = datasets.Dataset.from_dict({"image": [str(path) for path in files]}).cast_column(
        "image", datasets.Image()
    )
    photos, views = Photos(files), [load(path) for path in files]
    flow = Flow(made, declare({"image": "image"}))
    view = hf.anonymize(table, made)
    stream = hf.anonymize(table.to_iterable_dataset(), made)
    stage = for_wds.anonymize(made, fields={"jpg": "image"})
    safe = for_torch.anonymize(photos, made, fields={0: "image"}, keep=(1,))

    def tars(*stages: Any) -> Any:
        pipeline = wds.WebDataset(str(tar), shardshuffle=False)
        for each in stages:
            pipeline = pipeline.decode(each) if isinstance(each, str) else pipeline.compose(each)
        return pipeline

    def wrapped() -> Any:
        inner = loader(photos, batch_size=8, collate_fn=plain, num_workers=1)
        return for_torch.AnonymizedLoader.from_dataloader(inner, made, fields={0: "image"}, keep=(1,))

    def alone() -> int:
        return len(flow.settle([{"image": view} for view in views], Spares()))

    return {
        "raw: hf": Run(lambda: used_up(table)),
        "raw: webdataset": Run(lambda: used_up(tars("pil"))),
        "raw: torch": Run(lambda: used_up(loader(photos, batch_size=None))),
        ENGINE: Run(alone),
        ENGINE_APART: Run(alone, engine=ENGINE_APART, apart=True),
        "hf view": Run(lambda: used_up(view), "raw: hf"),
        "hf stream": Run(lambda: used_up(stream), "raw: hf"),
        "webdataset, decoded": Run(lambda: used_up(tars("pil", stage)), "raw: webdataset"),
        "webdataset, bytes": Run(lambda: used_up(tars(stage)), "raw: webdataset"),
        "torch dataset": Run(lambda: sum(len(b) for b in loader(safe, batch_size=8, collate_fn=plain)), "raw: torch"),
        "torch loader, 1 reader": Run(lambda: sum(len(b) for b in wrapped()), "raw: torch", ENGINE_APART, apart=True),
    }


def rates(files: Sequence[Path], repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        todo = runs(files, Path(scratch))
        taken: dict[str, list[float]] = {name: [] for name in todo}
        for turn in range(repeats + 1):  # the first one warms up
            for name, run in todo.items():
                if run.apart and not turn:
                    continue  # it warms up where it is measured
                seconds = seconds_apart(name, files) if run.apart else run.seconds(len(files))
                if turn:
                    taken[name].append(seconds)
            print("turn", turn, {name: round(times[-1], 2) for name, times in taken.items() if times}, flush=True)
    return [row(name, run, taken, len(files)) for name, run in todo.items()]


def seconds_apart(name: str, files: Sequence[Path]) -> float:
    """Seconds of a run in a new process, after a warm-up there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_seconds_of_second, name, files).result()


def _seconds_of_second(name: str, files: Sequence[Path]) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        run = runs(files, Path(scratch))[name]
        return [run.seconds(len(files)) for _ in range(2)][-1]


def row(name: str, run: Run, taken: Mapping[str, Sequence[float]], images: int) -> dict[str, Any]:
    own, engine = taken[name], taken[run.engine]
    over = [t / (e + r) - 1 for t, e, r in zip(own, engine, taken[run.raw], strict=True)] if run.raw else []
    return {
        "run": name,
        "images_per_s": round(images / statistics.median(own), 1),
        "ratio_to_engine": round(statistics.median(own) / statistics.median(engine), 3),
        "overhead_percent": round(100 * statistics.median(over), 1) if over else None,
        "overhead_low": round(100 * min(over), 1) if over else None,
        "overhead_high": round(100 * max(over), 1) if over else None,
    }


def workers(files: Sequence[Path], repeats: int) -> dict[str, Any]:
    """Seconds of a second epoch with one and with two worker processes."""
    from anondata.loaders.torch import anonymize as anonymize_torch

    safe = anonymize_torch(Photos(files), anonymizer(), fields={0: "image"}, keep=(1,))
    taken: dict[int, list[float]] = {1: [], 2: []}
    loaders = {
        n: torch.utils.data.DataLoader(
            safe, batch_size=4, collate_fn=plain, num_workers=n, persistent_workers=True, prefetch_factor=1
        )
        for n in taken
    }
    for _ in range(repeats):
        for n, loader in loaders.items():
            used_up(loader) if not taken[n] else None
            start = time.perf_counter()
            used_up(loader)
            taken[n].append(time.perf_counter() - start)
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    middle = {f"images_per_s_{n}": round(len(files) / statistics.median(times), 1) for n, times in taken.items()}
    return {
        **middle,
        "ratio": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
    }


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(count: int) -> list[tuple[int, float]]:
    """Resident memory by samples of a stream of small photos, with replacement, which holds a pool of samples."""
    import webdataset as wds

    from anondata.loaders.webdataset import anonymize

    scenes = sorted((data_folder() / "scenes_london").glob("*.jpg"))

    def photos() -> Iterator[tuple[str, bytes]]:
        crops = [crop for path in scenes for crop in _crops(path)]
        for i in range(count):
            yield f"{i:06}.jpg", b"broken" if i % 500 == 499 else crops[i % len(crops)]

    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        tar = shard(Path(scratch) / "small.tar", photos())
        gc.collect()
        stage = anonymize(anonymizer(), fields={"jpg": "image"}, on_withheld="replace")
        stream = wds.WebDataset(str(tar), shardshuffle=False).compose(stage)
        for i, _ in enumerate(stream):
            if i % EVERY == 0:
                marks.append((i, round(resident_mib(), 1)))
        marks.append((i + 1, round(resident_mib(), 1)))
    return marks


def _crops(path: Path) -> list[bytes]:
    picture, out = Image.fromarray(np.asarray(Image.open(path).convert("RGB"))), []
    for left in range(0, max(1, picture.width - 160), 160):
        buffer = io.BytesIO()
        picture.crop((left, 100, left + 160, 260)).save(buffer, "JPEG")
        out.append(buffer.getvalue())
    return out


def plot(marks: Sequence[tuple[int, float]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    panel = figure.subplots()
    panel.plot([n for n, _ in marks], [mib for _, mib in marks])
    panel.set(xlabel="samples streamed", ylabel="resident MiB", ylim=(0, None))
    panel.set_title("Memory stays where it was", loc="left")
    path = RESULTS / "loaders_memory.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stream", type=int, default=10_000, help="samples of the memory run; 0 leaves it out")
    given = parser.parse_args(arguments)
    scenes = sorted((data_folder() / "scenes_london").glob("*.jpg"))
    files = [scenes[i % len(scenes)] for i in range(given.images)]
    rows = rates(files, given.repeats)
    show("images a second", list(rows[0]), [list(each.values()) for each in rows])
    body: dict[str, Any] = {"images": given.images, "repeats": given.repeats, "rows": rows}
    body["worker_processes"] = workers(files, given.repeats)
    print("two worker processes beside one:", body["worker_processes"])
    if given.stream:
        marks = memory(given.stream)
        settled = [mib for n, mib in marks if n >= given.stream // 10]
        body["memory"] = {"samples": given.stream, "growth_mib": round(max(settled) - settled[0], 1), "marks": marks}
        print("growth after the first tenth, MiB:", body["memory"]["growth_mib"], plot(marks).name)
    save("loaders", body)


if __name__ == "__main__":
    main()
