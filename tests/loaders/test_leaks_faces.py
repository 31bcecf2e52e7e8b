"""What was released is compared with its original; what policies rightly do, and pictures without faces, pass."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from skimage import data

import anondata.loaders.leaks
from anondata import Anonymizer
from anondata.components import build, redraws
from anondata.content.images import ImageContent
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import LeakError, MissingExtraError
from anondata.loaders.leaks import Traces
from anondata.loaders.leaks.faces import concordances, is_mirrored, near_copy
from anondata.loaders.leaks.windows import DENSE, WINDOW, Index, fingerprints, telling
from anondata.records import Released, SampleRecord
from anondata.transforms import describe

KEY = b"0123456789abcdef"
PRESETS = ("faces", "faces-fill", "unsafe-mosaic", "unsafe-blur")
NOTHING = np.empty(0, np.uint64)


def picture(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value)).convert("RGB")


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@cache
def anonymizer(policy: str) -> Anonymizer:
    return Anonymizer(policy, device="cpu", run_key=KEY)


def released(value: Any, policy: str = "faces") -> tuple[Any, SampleRecord]:
    return _released(value, policy) if isinstance(value, bytes) else _released.__wrapped__(value, policy)


@cache
def _released(value: Any, policy: str) -> tuple[Any, SampleRecord]:
    [outcome] = anonymizer(policy).anonymize([value])
    assert isinstance(outcome, Released)
    return outcome.image, outcome.record


def write(path: Path, values: list[bytes], **more: list[Any]) -> Path:
    pq.write_table(pa.table({"image": [{"bytes": v, "path": None} for v in values], **more}), path)
    return path


def small(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def there_and_back(image: Image.Image, factor: float) -> Image.Image:
    return small(image, factor).resize(image.size, Image.Resampling.BICUBIC)


NEAR: dict[str, Callable[[Image.Image], bytes]] = {
    "the same": encoded,
    "JPEG 30": lambda image: encoded(image, "JPEG", quality=30),
    "JPEG 95": lambda image: encoded(image, "JPEG", quality=95),
    "half and back": lambda image: encoded(there_and_back(image, 0.5)),
    "twice and back": lambda image: encoded(there_and_back(image, 2)),
    "half": lambda image: encoded(small(image, 0.5)),
    "twice": lambda image: encoded(small(image, 2)),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.2)),
    "darker": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.8)),
    "less contrast": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.7)),
    "grey": lambda image: encoded(image.convert("L")),
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
}


@pytest.mark.parametrize("change", NEAR)
def test_a_near_copy_that_was_released_is_found(change: str, photo: Callable[..., bytes]) -> None:
    for original in (photo(), photo(group=True)):
        _, record = released(original)
        assert record.regions
        with pytest.raises(LeakError, match=r"almost as it was|is its original"):
            Traces().add({"image": original}, record, {"image": NEAR[change](picture(original))})


def test_one_face_of_many_that_was_pasted_back_is_found(photo: Callable[..., bytes]) -> None:
    original = photo(group=True)
    value, record = released(original)
    for region in record.regions:
        box = [round(side) for side in region.box]
        image = picture(value)
        image.paste(picture(original).crop(tuple(box)), tuple(box[:2]))
        with pytest.raises(LeakError, match="almost as it was"):
            Traces().add({"image": original}, record, {"image": encoded(image, "JPEG", quality=90)})


def test_a_symmetric_thing_is_not_taken_for_a_mirror_image() -> None:
    half = np.random.default_rng(0).integers(0, 256, (3, 96, 80), dtype=np.uint8)
    half = np.asarray(half.repeat(4, axis=1)[:, :96].repeat(4, axis=2)[:, :, :80])
    both = torch.from_numpy(np.concatenate([half, half[..., ::-1]], axis=2).copy())
    covered = both.clone()
    covered[:, 20:70, 10:60] = 128
    assert not near_copy(both, covered, (10.0, 20.0, 60.0, 70.0))
    lopsided = both.clone()
    lopsided[:, :, :8] = 0
    assert near_copy(lopsided, lopsided.flip(2), (10.0, 20.0, 60.0, 70.0))


@pytest.mark.parametrize(("gain", "offset"), [(0.4, 0), (0.5, 0), (1.0, 0), (1.3, 40)])
def test_a_mirror_image_is_one_however_bright_it_is(gain: float, offset: float) -> None:
    fine = np.random.default_rng(0).integers(90, 130, (3, 96, 160), dtype=np.uint8)
    original = torch.from_numpy(fine.repeat(2, axis=1).repeat(2, axis=2)).contiguous()
    mirrored = (original.flip(2).float() * gain + offset).round().clamp(0, 255).to(torch.uint8)
    assert is_mirrored(original, mirrored)
    assert not is_mirrored(original, mirrored.flip(2))


def test_a_small_thing_that_was_not_redrawn_is_found_in_a_jpeg_too(photo: Callable[..., bytes]) -> None:
    image = picture(photo())
    [region] = released(photo())[1].regions
    factor = 8 / region.size_px
    shrunk = small(image, factor)
    again = Image.open(io.BytesIO(encoded(shrunk, "JPEG", quality=75)))
    before, after = (torch.from_numpy(np.asarray(i).copy()).permute(2, 0, 1) for i in (shrunk, again))
    x0, y0, x1, y1 = (side * factor for side in region.box)
    assert near_copy(before, after, (x0, y0, x1, y1), redrawn=True)


@pytest.mark.parametrize("change", ["the same", "JPEG 95", "grey", "twice"])
def test_what_should_have_been_redrawn_and_was_not_is_found(change: str, photo: Callable[..., bytes]) -> None:
    original = photo()
    _, record = released(original)
    swapped = SampleRecord(tuple(replace(r, technique="synthetic_face {}") for r in record.regions))
    with pytest.raises(LeakError, match=r"almost as it was|is its original"):
        Traces().add({"image": original}, swapped, {"image": NEAR[change](picture(original))})


def test_another_face_in_the_same_pose_is_no_copy(fetched: Callable[..., None], photo: Callable[..., bytes]) -> None:
    fetched("mobile-stylegan-mapping", "mobile-stylegan-synthesis")
    technique = build("technique", "ksame", {"k": 2, "members": 4, "choices": 1})
    pixels = torch.from_numpy(np.asarray(picture(photo())).copy()).permute(2, 0, 1)
    found = CenterFaceDetector().detect([pixels])
    content = ImageContent()
    media = content.decode(pixels, torch.device("cpu"))
    after = content.compose(media, content.change([media], found, technique, [0] * len(found))).pixels
    box = tuple(found.boxes[0].tolist())
    assert len(found) == 1
    assert not near_copy(pixels, after, box, redrawn=redraws(describe(technique)))


def test_a_released_picture_holds_its_pixels_alone(photo: Callable[..., bytes]) -> None:
    original = photo()
    value, record = released(original)
    comment = b"\xff\xfe" + (2 + 40).to_bytes(2, "big") + b"somebody's name, and where they live...."
    for more in (
        value + b"\0",
        value[:2] + comment + value[2:],
        encoded(picture(value), "JPEG", icc_profile=b"x" * 99),
    ):
        with pytest.raises(LeakError, match="more than its pixels"):
            Traces().add({"image": original}, record, {"image": more})


def region_at(record: SampleRecord, box: tuple[float, float, float, float]) -> SampleRecord:
    """A record of one region, wherever it is."""
    return SampleRecord((replace(record.regions[0], box=box),))


def test_a_region_without_detail_may_not_stay_either(photo: Callable[..., bytes]) -> None:
    _, record = released(photo())
    flat = Image.new("RGB", (160, 160), (90, 120, 60))
    with pytest.raises(LeakError, match="is its original"):
        Traces().add({"image": encoded(flat)}, region_at(record, (50, 50, 90, 90)), {"image": encoded(flat, "BMP")})


def test_pixels_that_stay_beside_what_was_covered_may_be_written(photo: Callable[..., bytes], tmp_path: Path) -> None:
    original = photo()
    pixels, (_, record) = np.asarray(picture(original)).copy(), released(original)
    x0, y0, x1, y1 = (round(side) for side in record.regions[0].box)
    covered = pixels.copy()
    covered[y0:y1, x0 + (x1 - x0) // 4 : x1] = 128  # the box of the region is not covered wholly
    traces = Traces()
    traces.add({"image": pixels}, record, {"image": covered})
    traces.check_file(raw(covered, tmp_path))
    with pytest.raises(LeakError):
        traces.check_file(raw(pixels, tmp_path))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_what_the_codec_writes_holds_its_pixels_alone(form: str, photo: Callable[..., bytes]) -> None:
    original = photo(format=form)
    value, record = released(original)
    Traces().add({"image": original}, record, {"image": value})
    if form == "TIFF":
        with pytest.raises(LeakError, match="more than its pixels"):
            Traces().add(
                {"image": original}, record, {"image": encoded(picture(value), form, software="by somebody")}
            )


@pytest.mark.parametrize("policy", PRESETS)
def test_what_presets_make_passes(policy: str, photo: Callable[..., bytes], tmp_path: Path) -> None:
    traces, values = Traces(), []
    for original in (photo(), photo(5, quality=95), photo(group=True), photo(format="PNG")):
        value, record = released(original, policy)
        traces.add({"image": original}, record, {"image": value})
        values.append(value)
    traces.check_file(write(tmp_path / "x.parquet", values))


@pytest.mark.parametrize("policy", PRESETS)
@pytest.mark.parametrize("side_px", [24, 36, 64])
def test_tiny_faces_pass_when_changed_and_not_when_as_they_were(
    policy: str, side_px: int, photo: Callable[..., bytes]
) -> None:
    original = encoded(picture(photo()).resize((side_px, side_px)))
    canvas = Image.new("RGB", (128, 128), (90, 120, 60))
    canvas.paste(picture(original), (30, 40))
    original = encoded(canvas)
    value, record = released(original, policy)
    assert record.regions
    Traces().add({"image": original}, record, {"image": value})
    with pytest.raises(LeakError):
        Traces().add({"image": original}, record, {"image": encoded(canvas, "JPEG", quality=90)})


def other(kind: str, number: int = 0) -> bytes:
    """A portrait of another kind of file."""
    image = Image.fromarray(data.astronaut()).crop((140 + number % 9, 20 + number // 9, 300, 180))
    if kind == "grey":
        return encoded(image.convert("L"), "JPEG")
    if kind == "alpha":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return encoded(image)
    if kind == "palette":
        return encoded(image.quantize(64), "GIF")
    return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257))


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits", "palette"])
def test_originals_of_every_kind_pass(kind: str, tmp_path: Path) -> None:
    original = other(kind)
    value, record = released(original)
    assert record.regions
    traces = Traces()
    traces.add({"image": original}, record, {"image": value})
    traces.check_file(write(tmp_path / "x.parquet", [value]))
    with pytest.raises(LeakError):
        traces.check_file(write(tmp_path / "x.parquet", [original]))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_without_faces_may_be_written_as_it_came(form: str, tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(data.coffee()).crop((40, 60, 200, 220)), form)
    value, record = released(plain)
    assert not record.regions
    again, record = released(value)  # as the codec writes it
    traces = Traces()
    traces.add({"image": value}, record, {"image": again})
    traces.add({"image": plain}, SampleRecord(), {"image": plain})
    traces.check_file(write(tmp_path / "x.parquet", [again, plain]))


def test_two_hundred_pictures_of_all_kinds_pass(photo: Callable[..., bytes], tmp_path: Path) -> None:
    scene, kinds = Image.fromarray(data.coffee()), ("grey", "alpha", "16 bits", "palette")
    originals = [
        [
            photo(i),
            other(kinds[i // 5 % 4], i),
            encoded(scene.crop((2 * i, i, 2 * i + 90, i + 90)), "JPEG", quality=60 + i % 40),
            encoded(Image.new("RGB", (100, 80 + i), (i, 255 - i, 99))),
            photo(i % 80, "WEBP" if i % 2 else "PNG"),
        ][i % 5]
        for i in range(200)
    ]
    outcomes = anonymizer("faces").anonymize(originals)
    traces, values = Traces(), list[bytes]()
    for original, outcome in zip(originals, outcomes, strict=True):
        assert isinstance(outcome, Released)
        traces.add({"image": original}, outcome.record, {"image": outcome.image})
        values.append(outcome.sample["image"])
    notes = [f"picture {i}" for i in range(200)]
    traces.check_file(write(tmp_path / "x.parquet", values, note=notes))
    values[150] = originals[150]
    with pytest.raises(LeakError, match=r"^row 150 "):
        traces.check_file(write(tmp_path / "x.parquet", values, note=notes))


def test_a_file_without_rows_passes(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array([], kind)}), tmp_path / "x.parquet")
    Traces().check_file(tmp_path / "x.parquet")


def test_lists_of_frames_are_compared_place_by_place(photo: Callable[..., bytes], tmp_path: Path) -> None:
    frames = [photo(i) for i in range(3)]
    made = [released(frame) for frame in frames]
    regions = tuple(
        type(region)(**{**vars(region), "place": f"frames[{i}]"})
        for i, (_, record) in enumerate(made)
        for region in record.regions
    )
    values, record = [value for value, _ in made], SampleRecord(regions)
    Traces().add({"frames": frames}, record, {"frames": values})
    values[1] = encoded(picture(frames[1]))
    with pytest.raises(LeakError, match=r"almost as it was|is its original"):
        Traces().add({"frames": frames}, record, {"frames": values})


def forms_of(image: Image.Image) -> list[Any]:
    array = np.asarray(image).copy()
    return [image, array, torch.from_numpy(array).permute(2, 0, 1), torch.from_numpy(array).permute(2, 0, 1) / 255]


@pytest.mark.parametrize("number", range(4))
def test_values_in_memory_are_compared_and_found(number: int, photo: Callable[..., bytes], tmp_path: Path) -> None:
    original = forms_of(picture(photo()))[number]
    value, record = released(original)
    traces = Traces()
    traces.add({"image": original}, record, {"image": value})
    pixels = np.asarray(picture(photo()))
    shown = forms_of(value)[1] if number == 0 else value if number == 1 else None
    if shown is not None:
        traces.check_file(write(tmp_path / "x.parquet", [encoded(Image.fromarray(shown))], raw=[shown.tobytes()]))
        more = encoded(Image.fromarray(shown), icc_profile=b"more than pixels")
        with pytest.raises(LeakError):
            traces.check_file(write(tmp_path / "x.parquet", [more]))
    with pytest.raises(LeakError):
        traces.check_file(write(tmp_path / "x.parquet", [encoded(Image.fromarray(pixels))]))
    with pytest.raises(LeakError):
        traces.check_file(raw(pixels, tmp_path))
    with pytest.raises(LeakError):
        Traces().add({"image": original}, record, {"image": original})


def raw(pixels: Any, folder: Path) -> Path:
    np.save(folder / "x.npy", pixels)
    return folder / "x.npy"


def test_scores_lie_far_from_the_bounds_on_real_faces(shared_data: Path) -> None:
    """The margins that the module's table states, on a few of the photos that it was measured on."""
    files = sorted((shared_data / "faces_london").glob("*.jpg"))[::51]
    for file in files:
        original = file.read_bytes()
        pixels = torch.from_numpy(np.asarray(picture(original)).copy()).permute(2, 0, 1)
        for policy in PRESETS:
            value, record = released(original, policy)
            after = torch.from_numpy(np.asarray(picture(value)).copy()).permute(2, 0, 1)
            for region in record.regions:
                assert concordances(pixels, after, region.box)[0] < 0.4
                assert near_copy(pixels, pixels.flip(2), region.box)
                assert concordances(pixels, pixels, region.box)[0] > 0.95


def test_pictures_pass_only_as_they_were_released(photo: Callable[..., bytes], tmp_path: Path) -> None:
    value, record = released(photo())
    traces = Traces()
    traces.add({"image": photo()}, record, {"image": value})
    traces.check_file(write(tmp_path / "x.parquet", [value]))
    for other_value in (photo(), value + b"\0"):
        with pytest.raises(LeakError, match="neither released nor kept"):
            traces.check_file(write(tmp_path / "x.parquet", [other_value]))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [b""])
    monkeypatch.delattr(anondata.loaders.leaks, "tables", raising=False)
    monkeypatch.setitem(sys.modules, "anondata.loaders.leaks.tables", None)
    with pytest.raises(MissingExtraError, match=r"anondata\[hf\]"):
        Traces().check_file(path)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2000), st.binary(max_size=600), st.binary(max_size=600))
def test_windows_are_chosen_alike_wherever_they_lie(inner: bytes, before: bytes, after: bytes) -> None:
    for sampling in (4, DENSE):
        found = set(fingerprints(inner, sampling).tolist())
        assert found <= set(fingerprints(before + inner + after, sampling).tolist())


def test_windows_across_chunks_are_those_of_a_naive_loop() -> None:
    text = np.random.default_rng(0).integers(0, 256, (1 << 18) + 500, np.uint8).tobytes()
    naive = [p for at in range((1 << 18) - 200, len(text) - WINDOW + 1) for p in fingerprints(text[at : at + WINDOW])]
    assert naive
    assert set(map(int, naive)) <= set(fingerprints(text).tolist())


def test_flat_and_periodic_bytes_tell_nothing() -> None:
    for pattern in (b"\0", b"\x28\xa2\x8a", bytes(range(7))):
        assert not len(telling(pattern * 5000, without=NOTHING, most=99))


def test_what_is_shared_with_the_released_value_is_not_searched_for() -> None:
    draw = np.random.default_rng(0)
    shared, own = draw.bytes(20_000), draw.bytes(2_000)
    index = Index()
    index.add(telling(shared + own, without=fingerprints(shared), most=128), 4)
    assert not index.search().finds(shared)
    assert index.search().finds(b"x" + own[300:1700])


def test_parts_of_one_original_add_up_over_a_file() -> None:
    draw = np.random.default_rng(0)
    index, own = Index(), draw.bytes(4_000)
    index.add(telling(own, without=NOTHING, most=128), 128)
    search = index.search()
    assert [search.finds(own[at : at + 1031]) for at in range(0, 4_000, 1000)] == [False, False, False, True]
