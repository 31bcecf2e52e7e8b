"""Whatever a user writes with what the adapters give them, nothing of an original's faces or metadata is in it.

The search is not the product's own: bytes of the files, raw pixels, a perceptual hash and the self-match attacker.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader

from anondata import Anonymizer, Regions
from anondata.detectors.centerface import CenterFaceDetector
from anondata.loaders import hf
from anondata.loaders import torch as for_torch
from anondata.loaders import webdataset as for_wds
from anondata.loaders.shards import anonymize_shards
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import DlibEmbedder

pytestmark = pytest.mark.filterwarnings("ignore:.*<_io.FileIO.*in.tar")  # webdataset does not close what it opens

SECRET = b"Jane Doe, 51.4779 N"
FILES = ("a.jpg", "b.jpg", "c.png")


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    """Photos with one and six faces, with a name and an embedded thumbnail in the EXIF."""
    import insightface
    from skimage import data

    party = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    face = Image.fromarray(data.astronaut()).crop((100, 0, 400, 300))
    group = Image.open(party).convert("RGB").resize((640, 443))
    return {
        name: written(image, name)
        for name, image in zip(FILES, (face, group, face.convert("L").crop((0, 0, 290, 290))), strict=True)
    }


def written(image: Image.Image, name: str) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x013B] = SECRET.decode()
    image.save(buffer, "PNG" if name.endswith("png") else "JPEG", exif=exif)
    assert SECRET in buffer.getvalue()
    return buffer.getvalue()


def as_array(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@cache
def faces_of(data: bytes) -> Regions:
    return CenterFaceDetector().detect([torch.from_numpy(as_array(data).copy()).permute(2, 0, 1)])


def telling_bytes(data: bytes) -> Iterator[bytes]:
    """Pieces of the file from where the faces are, and rows of raw pixels through each face."""
    yield from (data[len(data) * i // 64 :][:40] for i in range(20, 60))
    yield SECRET
    pixels = as_array(data)
    for x0, y0, x1, y1 in faces_of(data).boxes.int().tolist():
        row = pixels[(y0 + y1) // 2, max(x0, 0) + 4 : x1 - 4]
        yield row.tobytes()
        yield np.ascontiguousarray(row[:, 0]).tobytes()


def hashed(pixels: Any) -> Any:
    """64 bits of the low frequencies of a face (a DCT hash; Zauner 2010)."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32)), np.float64)
    k = np.arange(32)
    basis = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 64)
    low = (basis @ grey @ basis.T)[:9, :9].flatten()[1:65]
    return low > np.median(low)


def images_in(path: Path) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        for row in pq.read_table(path).to_pylist():
            yield from (value["bytes"] for value in row.values() if isinstance(value, dict))
    elif path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(("jpg", "png")):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()
    elif path.suffix in (".jpg", ".png"):
        yield path.read_bytes()


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what a compressed format hides in them."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield pickle.dumps(pq.read_table(path).to_pylist())


def search(folder: Path, originals: dict[str, bytes]) -> int:
    """Fails where anything of an original is in a folder; returns how many pictures it compared."""
    compared = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for original in originals.values():
            for data in contents(path):
                assert not any(piece in data for piece in telling_bytes(original)), path.suffix
            for image in images_in(path):
                compared += attacked(image, original)
    return compared


def attacked(image: bytes, original: bytes) -> bool:
    ours, theirs = as_array(image), as_array(original)
    if ours.shape != theirs.shape or (not np.array_equal(ours[-8:], theirs[-8:]) and _apart(ours, theirs) > 60):
        return False  # of another photo
    embedder, faces = DlibEmbedder(), faces_of(original)
    views = [torch.from_numpy(a.copy()).permute(2, 0, 1) for a in (ours, theirs)]
    after, before = (embedder.embed([view], faces) for view in views)
    bound = shipped(embedder.name).at(0.01).distance
    assert ((after - before).norm(dim=1) > bound).all()
    for x0, y0, x1, y1 in faces.boxes.int().clamp(min=0).tolist():
        different = hashed(ours[y0:y1, x0:x1]) != hashed(theirs[y0:y1, x0:x1])
        assert int(different.sum()) > 10
    return True


def _apart(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu")


def table(originals: dict[str, bytes], folder: Path) -> datasets.Dataset:
    """As an image folder gives it: paths of the files themselves."""
    for name, data in originals.items():
        (folder / name).write_bytes(data)
    columns = {"image": [str(folder / name) for name in originals], "label": [0, 1, 2], "file": list(originals)}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def shard(originals: dict[str, bytes], path: Path) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in originals.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


class Files(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    def __init__(self, originals: dict[str, bytes]) -> None:
        self.originals = list(originals.values())

    def __len__(self) -> int:
        return len(self.originals)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(io.BytesIO(self.originals[index])), index


DECLARED: dict[str, Any] = {"fields": {"image": "image"}, "keep": ("label",), "drop": ("file",)}


def save_all(images: Any, out: Path) -> None:
    for i, image in enumerate(images):
        image.save(out / f"{i}.png")
        image.save(out / f"{i}.jpg", quality=95, exif=image.info.get("exif", b""))
        (out / f"{i}.pickle").write_bytes(pickle.dumps(image) + image.tobytes())


def test_hf(originals: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    view = hf.anonymize(table(originals, tmp_path / "in"), anonymizer(), **DECLARED)
    view.materialize(tmp_path / "out" / "published")
    save_all(view["image"], tmp_path / "out")
    torch.save(list(view.with_format("torch")), tmp_path / "out" / "rows.pt")
    stream = hf.anonymize(table(originals, tmp_path / "in").to_iterable_dataset(), anonymizer(), **DECLARED)
    stream.to_parquet(str(tmp_path / "out" / "stream.parquet"))
    assert search(tmp_path / "out", originals) == 3 * 4


def test_webdataset(originals: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    url = shard(originals, tmp_path / "in.tar")
    stage = for_wds.anonymize(anonymizer(), fields={"jpg;png": "image"})
    with wds.TarWriter(str(tmp_path / "out" / "stage.tar")) as sink:
        for sample in wds.WebDataset(url, shardshuffle=False).compose(stage):
            sink.write(sample)
    decoded = wds.WebDataset(url, shardshuffle=False).decode("pil").compose(stage)
    save_all([sample.get("jpg") or sample["png"] for sample in decoded], tmp_path / "out")
    anonymize_shards([url], str(tmp_path / "out" / "shards"), anonymizer(), fields={"jpg;png": "image"}, workers=1)
    assert search(tmp_path / "out", originals) == 3 * 4


def test_torch(originals: dict[str, bytes], tmp_path: Path) -> None:
    declared: dict[str, Any] = {"fields": {0: "image"}, "keep": (1,)}
    (tmp_path / "out").mkdir()
    safe = for_torch.anonymize(Files(originals), anonymizer(), **declared)
    save_all([image for image, _ in safe], tmp_path / "out")
    loader = DataLoader(Files(originals), batch_size=2, collate_fn=list)
    wrapped = for_torch.AnonymizedLoader.from_dataloader(loader, anonymizer(), **declared)
    torch.save([np.asarray(image) for batch in wrapped for image, _ in batch], tmp_path / "out" / "batches.pt")
    (tmp_path / "out" / "state.pt").write_bytes(pickle.dumps(wrapped.state_dict()))
    assert search(tmp_path / "out", originals) == 3 * 2


@pytest.mark.parametrize("leak", ["file", "pixels", "reencoded", "metadata"])
def test_the_search_finds_what_leaks(leak: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    data = originals["b.jpg"]
    image = Image.open(io.BytesIO(data))
    if leak == "file":
        (tmp_path / "x.bin").write_bytes(b"abc" + data)
    elif leak == "pixels":
        (tmp_path / "x.pickle").write_bytes(pickle.dumps(as_array(data)))
    elif leak == "reencoded":
        image.save(tmp_path / "x.png")
    else:
        blank = Image.new("RGB", (99, 99))
        blank.save(tmp_path / "x.jpg", exif=image.getexif())
    with pytest.raises(AssertionError):
        search(tmp_path, originals)
