"""Files of several pictures through every loader: all pictures are changed, and none gets past the last look."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image, ImageSequence
from skimage import data
from torch.utils.data import DataLoader

from anondata import Anonymizer, anonymize_files
from anondata.content.frames import FramesContent
from anondata.content.metadata import metadata_in
from anondata.errors import LeakError
from anondata.loaders import hf, torch
from anondata.loaders import webdataset as stage
from anondata.loaders.leaks import Traces
from anondata.loaders.leaks.pictures import is_bare
from anondata.loaders.shards import anonymize_shards
from anondata.records import Released

KEY = b"0123456789abcdef"
FORMATS = {"gif": "GIF", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}
COUNT = 3


def pictures(start: int = 0) -> list[Image.Image]:
    """A face that moves, never the same ones twice."""
    photo = Image.fromarray(data.astronaut())
    return [photo.crop((130 + start + 8 * k, 10, 300 + start + 8 * k, 180)) for k in range(COUNT)]


def saved(form: str = "GIF", start: int = 0, **options: Any) -> bytes:
    first, *others = pictures(start)
    buffer = io.BytesIO()
    first.save(buffer, form, save_all=True, append_images=others, **options)
    return buffer.getvalue()


def still(form: str = "GIF") -> bytes:
    buffer = io.BytesIO()
    pictures(3)[0].save(buffer, form)
    return buffer.getvalue()


def count(value: Any) -> int:
    image = value if isinstance(value, Image.Image) else Image.open(io.BytesIO(value))
    return len(list(ImageSequence.Iterator(image)))


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    return Anonymizer("faces-fill", device="cpu", run_key=KEY)


@pytest.fixture(scope="module")
def released(anonymizer: Anonymizer) -> dict[str, tuple[bytes, Released]]:
    originals = {name: saved(form) for name, form in FORMATS.items()}
    outcomes = anonymizer.anonymize(list(originals.values()))
    assert all(isinstance(outcome, Released) for outcome in outcomes)
    return {name: (originals[name], o) for name, o in zip(originals, outcomes, strict=True)}


def test_a_folder_of_files_keeps_its_names(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    for name, form in FORMATS.items():
        (src / f"moving.{name}").write_bytes(saved(form))
    (src / "still.gif").write_bytes(still())
    (src / "broken.gif").write_bytes(saved()[:-2000])
    done = anonymize_files(src, tmp_path / "out", "faces-fill", run_key=KEY, device="cpu")
    assert dict(done.withheld) == {"truncated": 1}
    found = {p.name: count(p.read_bytes()) for p in (tmp_path / "out").iterdir() if p.suffix[1:] in FORMATS}
    assert found == {**{f"moving.{name}": COUNT for name in FORMATS}, "still.gif.png": 1}
    assert done.report is not None
    assert done.report.counts["notes"]["every_frame"] == 4
    again = anonymize_files(src, tmp_path / "out", "faces-fill", run_key=KEY, device="cpu")
    assert again.skipped == 6


def test_shards_keep_their_members(tmp_path: Path, anonymizer: Anonymizer) -> None:
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w") as tar:
        for number, (name, form) in enumerate(FORMATS.items()):
            info = tarfile.TarInfo(f"{number}.{name}")
            info.size = len(saved(form, number))
            tar.addfile(info, io.BytesIO(saved(form, number)))
    fields = {";".join(FORMATS): "image"}
    done = anonymize_shards(str(path), tmp_path / "out", anonymizer, workers=1, fields=fields)
    assert done.report.withheld == {}
    with tarfile.open(tmp_path / "out/in.tar") as tar:
        found = {m.name: count(tar.extractfile(m).read()) for m in tar}
    assert found == {f"{number}.{name}": COUNT for number, name in enumerate(FORMATS)}


def test_datasets_are_written_with_all_pictures(tmp_path: Path, anonymizer: Anonymizer) -> None:
    rows = [{"bytes": saved(form), "path": None} for form in FORMATS.values()]
    source = datasets.Dataset.from_dict({"image": rows}).cast_column("image", datasets.Image())
    view = hf.anonymize(source, anonymizer)
    assert count(view[0]["image"]) == COUNT
    written = view.materialize(tmp_path / "out")
    found = written.cast_column("image", datasets.Image(decode=False))["image"]
    assert [count(row["bytes"]) for row in found] == [COUNT] * 4


def test_webdataset_and_torch_give_bytes_back(tmp_path: Path, anonymizer: Anonymizer) -> None:
    samples = [{"__key__": "a", "gif": saved()}]
    [one] = list(stage.anonymize(anonymizer, fields={"gif": "image"})(iter(samples)))
    assert count(one["gif"]) == COUNT
    [batch] = list(
        torch.anonymize(DataLoader([{"image": saved()}], batch_size=None), anonymizer, fields={"image": "image"})
    )
    assert count(batch["image"]) == COUNT


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_released_is_bare_and_passes_the_last_look(
    name: str, released: dict[str, tuple[bytes, Released]], tmp_path: Path
) -> None:
    original, outcome = released[name]
    assert isinstance(outcome.image, bytes)
    assert is_bare(outcome.image)
    assert metadata_in(outcome.image) == ()
    traces = Traces()
    traces.add({"image": original}, outcome.record, {"image": outcome.image})
    (tmp_path / "x.bin").write_bytes(outcome.image)
    traces.check_file(tmp_path / "x.bin")


@pytest.mark.parametrize("name", FORMATS)
def test_one_picture_that_was_not_changed_is_found(name: str, released: dict[str, tuple[bytes, Released]]) -> None:
    from anondata.content import animated

    original, outcome = released[name]
    film, raw = animated.decode(outcome.image), animated.decode(original)  # type: ignore[arg-type]
    leaking = animated.encode(replace(film, pictures=(*film.pictures[:2], raw.pictures[2])))
    with pytest.raises(LeakError, match="a released picture"):
        Traces().add({"image": original}, outcome.record, {"image": leaking})


def test_a_kept_animation_that_shows_the_face_in_its_last_picture_is_found() -> None:
    plain = Image.new("RGB", (170, 170), (90, 120, 30))
    photo = pictures()[1]
    buffer = io.BytesIO()
    plain.save(buffer, "GIF", save_all=True, append_images=[Image.new("RGB", (170, 170)), photo])
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    original = encoded.getvalue()
    [outcome] = Anonymizer("faces-fill", device="cpu", run_key=KEY).anonymize([original])
    assert isinstance(outcome, Released)
    with pytest.raises(LeakError, match="a kept picture"):
        Traces().add({"image": original}, outcome.record, {"image": outcome.image}, {"thumb": buffer.getvalue()})
    with pytest.raises(LeakError, match="cannot be decoded"):
        Traces().add(
            {"image": original}, outcome.record, {"image": outcome.image}, {"thumb": buffer.getvalue()[:-600]}
        )


@pytest.mark.parametrize(
    ("name", "said"), [("gif", {"comment": b"Jane Doe"}), ("webp", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"})]
)
def test_what_is_not_bare_is_not_passed_and_named(name: str, said: dict[str, Any]) -> None:
    noted = saved(FORMATS[name], **said)
    assert not is_bare(noted)
    assert metadata_in(noted) != ()


def test_each_picture_of_a_file_is_a_part_of_it() -> None:
    parts = FramesContent.parts(saved("WEBP"))
    assert [place for place, _ in parts] == ["[0]", "[1]", "[2]"]
    assert FramesContent.parts(still()) == []
