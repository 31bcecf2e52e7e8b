"""What every adapter owes: the same samples in, the same anonymized pixels out, however the run is cut up.

All adapters read the same encoded photos under the same field name, so all must give the same pixels as the engine
does alone: with any number of workers, forked or spawned, in any batch size, shuffled or not, resumed or straight.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader

from anondata import Anonymizer
from anondata.loaders import hf
from anondata.loaders import torch as for_torch
from anondata.loaders import webdataset as for_wds
from anondata.loaders._flow import Flow
from anondata.loaders._spares import Spares
from anondata.loaders.shards import anonymize_shards
from anondata.samples import declare

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:.*<_io.FileIO.*in-.*tar"),  # webdataset does not close what it opens
]

COUNT = 8
Pixels = dict[int, bytes]
"""What a run gave: the pixels by the sample's label."""


def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """PNG, because it loses nothing: a difference can only come from the anonymization."""
    from skimage import data

    face = Image.fromarray(data.astronaut()).crop((140, 20, 310, 190))
    out = []
    for i in range(COUNT):
        buffer = io.BytesIO()
        face.crop((i, i // 2, 150 + i, 150 + i // 2)).save(buffer, "PNG")
        out.append(buffer.getvalue())
    return out


def pixels(value: Any) -> bytes:
    image = Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value
    return np.asarray(image).tobytes()


@pytest.fixture(scope="module")
def expected(photos: list[bytes]) -> Pixels:
    """The engine alone, one sample at a time."""
    flow = Flow(anonymizer(), declare({"png": "image"}), batch=1)
    settled = flow.settle([{"png": photo} for photo in photos], Spares())
    given = {i: pixels(s.fields["png"]) for i, s in enumerate(settled) if s.fields}
    assert len(set(given.values())) == COUNT
    assert not set(given.values()) & {pixels(photo) for photo in photos}
    return given


def rows(batch: list[Any]) -> list[Any]:
    return batch


def gather(samples: Iterable[Mapping[str, Any]]) -> Pixels:
    """By label, each of which comes once."""
    out: Pixels = {}
    for sample in samples:
        label = int(sample["cls"])
        assert label not in out
        out[label] = pixels(sample["png"])
    return out


def loaded(dataset: Any, **options: Any) -> Iterator[Mapping[str, Any]]:
    for batch in DataLoader(dataset, batch_size=3, collate_fn=rows, **options):
        yield from batch


def table(photos: list[bytes]) -> datasets.Dataset:
    features = datasets.Features({"png": datasets.Image(), "cls": datasets.Value("int64")})
    structs = [{"bytes": photo, "path": None} for photo in photos]
    return datasets.Dataset.from_dict({"png": structs, "cls": list(range(len(photos)))}, features=features)


DECLARED: dict[str, Any] = {"fields": {"png": "image"}, "keep": ("cls",)}


class Listed(torch.utils.data.Dataset[dict[str, Any]]):
    """A map-style dataset."""

    def __init__(self, photos: list[bytes]) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"png": self.photos[index], "cls": index}


class Streamed(torch.utils.data.IterableDataset[dict[str, Any]]):
    """An iterable dataset that splits itself among workers."""

    def __init__(self, photos: list[bytes]) -> None:
        self.photos = photos

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torch.utils.data.get_worker_info()
        start, step = (info.id, info.num_workers) if info else (0, 1)
        for i in range(start, len(self.photos), step):
            yield {"png": self.photos[i], "cls": i}


def tars(folder: Path, photos: list[bytes], shards: int = 2) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"in-{n}.tar" for n in range(shards)]
    for n, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for i in range(n, len(photos), shards):
                for suffix, data in (("png", photos[i]), ("cls", str(i).encode())):
                    info = tarfile.TarInfo(f"{i:04}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return [str(path) for path in paths]


# Each takes the photos, a scratch folder and the DataLoader's options.
Adapter = Callable[..., Any]


def hf_view(photos: list[bytes], folder: Path, *, batch: int | None = None) -> Any:
    return hf.anonymize(table(photos), anonymizer(), batch=batch, **DECLARED)


def hf_stream(photos: list[bytes], folder: Path, *, batch: int | None = None) -> Any:
    return hf.anonymize(table(photos).to_iterable_dataset(num_shards=2), anonymizer(), batch=batch, **DECLARED)


def wds_stage(photos: list[bytes], folder: Path, *, batch: int | None = None) -> Any:
    stage = for_wds.anonymize(anonymizer(), batch=batch, **DECLARED)
    return wds.WebDataset(tars(folder, photos), shardshuffle=False).compose(stage)


def torch_map(photos: list[bytes], folder: Path, *, batch: int | None = None) -> Any:
    return for_torch.anonymize(Listed(photos), anonymizer(), batch=batch, **DECLARED)


def torch_stream(photos: list[bytes], folder: Path, *, batch: int | None = None) -> Any:
    return for_torch.anonymize(Streamed(photos), anonymizer(), batch=batch, **DECLARED)


ADAPTERS = [hf_view, hf_stream, wds_stage, torch_map, torch_stream]
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


@each_adapter
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_any_batch_size(adapter: Adapter, batch: int, photos: Any, expected: Pixels, tmp_path: Path) -> None:
    assert gather(loaded(adapter(photos, tmp_path, batch=batch))) == expected


@each_adapter
@pytest.mark.parametrize(("workers", "start"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_any_number_of_workers_forked_or_spawned(
    adapter: Adapter, workers: int, start: str, photos: Any, expected: Pixels, tmp_path: Path
) -> None:
    options = {"num_workers": workers, "multiprocessing_context": start}
    assert gather(loaded(adapter(photos, tmp_path), **options)) == expected


def from_dataloader(photos: list[bytes], dataset: Any, batch: int | None = None, **options: Any) -> Any:
    loader = DataLoader(dataset(photos), batch_size=3, collate_fn=rows, **options)
    return for_torch.AnonymizedLoader.from_dataloader(loader, anonymizer(), batch=batch, **DECLARED)


@pytest.mark.parametrize("dataset", [Listed, Streamed])
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_wrapped_loader(dataset: Any, workers: int, start: str | None, photos: Any, expected: Pixels) -> None:
    loader = from_dataloader(photos, dataset, batch=workers + 1, num_workers=workers, multiprocessing_context=start)
    assert gather(sample for batch in loader for sample in batch) == expected


def test_shuffled(photos: Any, expected: Pixels, tmp_path: Path) -> None:
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    view, stream = hf_view(photos, tmp_path), hf_stream(photos, tmp_path)
    runs = [
        view.shuffle(seed=3),
        loaded(view, shuffle=True, generator=seeded()),
        stream.shuffle(seed=3, buffer_size=5),
        wds_stage(photos, tmp_path).shuffle(5),
        loaded(torch_map(photos, tmp_path), shuffle=True, generator=seeded()),
        (s for b in from_dataloader(photos, Listed, shuffle=True, generator=seeded()) for s in b),
    ]
    for number, run in enumerate(runs):
        given = gather(run)
        assert given == expected, number
        if number != 3:  # webdataset's shuffle has no seed to set here
            assert list(given) != list(expected), number


def test_a_stream_resumed_in_the_middle(photos: Any, expected: Pixels, tmp_path: Path) -> None:
    first = hf_stream(photos, tmp_path)
    taken = []
    for sample in first:
        taken.append(sample)
        if len(taken) == 3:
            break
    again = hf_stream(photos, tmp_path)
    again.load_state_dict(first.state_dict())
    assert gather([*taken, *again]) == expected


@pytest.mark.parametrize("dataset", [Listed, Streamed])
def test_a_loader_resumed_in_the_middle(dataset: Any, photos: Any, expected: Pixels) -> None:
    options = {"num_workers": 2, "multiprocessing_context": "fork"}
    options |= {"shuffle": True} if dataset is Listed else {}
    first = from_dataloader(photos, dataset, **options)
    batches = iter(first)
    taken = next(batches)
    state = first.state_dict()
    batches.close()
    again = from_dataloader(photos, dataset, **options)
    again.load_state_dict(state)
    assert gather([*taken, *(s for batch in again for s in batch)]) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_to_shards(workers: int, photos: Any, expected: Pixels, tmp_path: Path) -> None:
    urls, out = tars(tmp_path / "in", photos), tmp_path / "out"
    anonymize_shards(urls, str(out), anonymizer(), workers=workers, **DECLARED)
    written = [str(path) for path in sorted(out.glob("*.tar"))]
    assert gather(wds.WebDataset(written, shardshuffle=False)) == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_materialized(processes: int, photos: Any, expected: Pixels, tmp_path: Path) -> None:
    hf_view(photos, tmp_path).materialize(tmp_path / "out", num_proc=processes)
    written = datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert gather(written["train"]) == expected
