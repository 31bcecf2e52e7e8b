"""Leaks that are planted in rightly written files are found, and rightly written files pass."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from anondata import Anonymizer
from anondata.errors import LeakError
from anondata.loaders.leaks import Traces
from anondata.records import Released, SampleRecord

KEY = b"0123456789abcdef"
NAME = "Jane Doe, 12 Example Road, 51.4779 N 0.0015 W, camera 4711"
ROWS = 12


@dataclass(frozen=True)
class Done:
    """An original, what was released of it, and the record."""

    original: bytes
    released: bytes
    record: SampleRecord

    @property
    def face(self) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = self.record.regions[0].box
        return round(x0), round(y0), round(x1), round(y1)


def portrait(number: int = 0) -> Image.Image:
    """160 px of the astronaut, never the same ones twice."""
    left, top = 140 + number % 9, 20 + number // 9
    return Image.fromarray(data.astronaut()).crop((left, top, left + 160, top + 160))


def landscape(number: int = 0) -> Image.Image:
    """160 px without a face."""
    left, top = 40 + 3 * (number % 40), 60 + number
    return Image.fromarray(data.coffee()).crop((left, top, left + 160, top + 160))


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value))


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x013B] = tags[0x010E] = NAME
    return tags


def anonymized(originals: Sequence[bytes], policy: str = "faces") -> list[Done]:
    outcomes = Anonymizer(policy, device="cpu", run_key=KEY).anonymize(originals)
    assert all(isinstance(outcome, Released) for outcome in outcomes)
    return [Done(b, o.image, o.record) for b, o in zip(originals, outcomes, strict=True)]


@pytest.fixture(scope="module")
def done() -> list[Done]:
    """Portraits with EXIF and landscapes, JPEG and PNG."""
    photos = [portrait(i) if i % 3 else landscape(i) for i in range(ROWS)]
    return anonymized([encoded(p, "PNG" if i % 4 == 3 else "JPEG", exif=exif()) for i, p in enumerate(photos)])


def traces_of(done: Sequence[Done]) -> Traces:
    traces = Traces()
    for sample in done:
        traces.add({"image": sample.original}, sample.record, {"image": sample.released})
    return traces


def columns_of(done: Sequence[Done]) -> dict[str, list[Any]]:
    return {
        "image": [{"bytes": sample.released, "path": None} for sample in done],
        "label": [i % 3 for i in range(len(done))],
        "caption": [
            f"the {i}th picture of many, and nobody is named in what is said of it" for i in range(len(done))
        ],
        "extra": [[{"note": "x", "blob": b"\0" * 100}] for _ in done],
        "numbers": [[1, 2, 3] for _ in done],
    }


def by_pyarrow(columns: dict[str, list[Any]], path: Path) -> None:
    pq.write_table(pa.table(columns), path, row_group_size=5, write_page_index=True)


def by_datasets(columns: dict[str, list[Any]], path: Path) -> None:
    table = pa.table(columns)
    features = datasets.Features({**datasets.Features.from_arrow_schema(table.schema), "image": datasets.Image()})
    datasets.Dataset(table, fingerprint="x").cast(features).to_parquet(path, batch_size=5)


WRITERS = pytest.mark.parametrize("write", [by_pyarrow, by_datasets])

# What can go wrong with one row (the eighth) of many: a portrait with EXIF, as JPEG.
AT = 8
Plant = Callable[[dict[str, list[Any]], Done], None]


def put(column: str, make: Callable[[Done], Any]) -> Plant:
    def plant(columns: dict[str, list[Any]], sample: Done) -> None:
        columns[column][AT] = make(sample)

    return plant


def image(make: Callable[[Done], bytes]) -> Plant:
    return put("image", lambda sample: {"bytes": make(sample), "path": None})


def blob(make: Callable[[Done], bytes]) -> Plant:
    return put("extra", lambda sample: [{"note": "", "blob": b""}, {"note": "", "blob": make(sample)}])


def pasted(sample: Done) -> Image.Image:
    """The released picture with the original's face."""
    picture = decoded(sample.released).convert("RGB")
    picture.paste(decoded(sample.original).crop(sample.face), sample.face[:2])
    return picture


def with_thumbnail(sample: Done) -> bytes:
    thumbnail = encoded(decoded(sample.original).resize((80, 80)))
    return sample.released[:2] + app1(b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\x0e" + thumbnail) + sample.released[2:]


def app1(body: bytes) -> bytes:
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def exif_of(sample: Done) -> bytes:
    start = sample.original.index(b"\xff\xe1")
    return sample.original[start : start + 2 + int.from_bytes(sample.original[start + 2 : start + 4], "big")]


def middle(sample: Done) -> bytes:
    """A half of the original, from an odd place, without its beginning."""
    return b"?" * 33 + sample.original[len(sample.original) // 2 :]


def raw_face(sample: Done) -> bytes:
    return decoded(sample.original).crop(sample.face).tobytes()


def of_width(sample: Done, kind: str) -> Any:
    return np.frombuffer(sample.original + bytes(-len(sample.original) % 8), kind)


def in_pieces(columns: dict[str, list[Any]], sample: Done) -> None:
    pieces = middle(sample)
    for i in range(ROWS):  # of 40 bytes none would do alone
        columns["extra"][i] = [
            {"note": "", "blob": pieces[j : j + 40]} for j in range(40 * i, len(pieces), 40 * ROWS)
        ]


PLANTS: dict[str, Plant] = {
    "original": image(lambda s: s.original),
    "one byte more": image(lambda s: s.original + b"\0"),
    "released and one byte": image(lambda s: s.released + b"\0"),
    "another quality": image(lambda s: encoded(decoded(s.original), quality=60)),
    "face pasted": image(lambda s: encoded(pasted(s), quality=95)),
    "EXIF copied": image(lambda s: s.released[:2] + exif_of(s) + s.released[2:]),
    "thumbnail": image(with_thumbnail),
    "path": put("image", lambda s: {"bytes": s.released, "path": "photos/jane.jpg"}),
    "path alone": put("image", lambda s: {"bytes": None, "path": "photos/jane.jpg"}),
    "another column": blob(lambda s: s.original),
    "re-encoded in another column": blob(lambda s: encoded(decoded(s.original), "PNG")),
    "re-encoded within something": blob(lambda s: b"header" + encoded(decoded(s.original), "WEBP") + b"more"),
    "unaligned half": blob(middle),
    "pieces in many rows": in_pieces,
    "metadata in another column": blob(exif_of),
    "raw pixels": blob(raw_face),
    "gzip": blob(lambda s: gzip.compress(b"first " + s.original)),
    "base64": put("caption", lambda s: "data:image/jpeg;base64," + base64.b64encode(s.original).decode()),
    "base64 in lines": put("caption", lambda s: "see: " + textwrap.fill(base64.b64encode(middle(s)).decode(), 40)),
    "base64 for URLs": put("caption", lambda s: "x" + base64.urlsafe_b64encode(middle(s)).decode()),
    "base64 of a re-encoded one": put(
        "caption", lambda s: base64.b64encode(encoded(decoded(s.original), "WEBP")).decode()
    ),
    "hexadecimal": put("caption", lambda s: middle(s).hex()),
    "as Python writes it": put("caption", lambda s: repr(middle(s))),
    "Latin-1": put("caption", lambda s: middle(s).decode("latin-1")),
    "numbers": put("numbers", lambda s: list(middle(s))),
    "gzip of two members": blob(lambda s: gzip.compress(b"first") + gzip.compress(s.original)),
    "gzip after a prefix": blob(lambda s: b"\0" + gzip.compress(s.original)),
    "numbers of 16 bits": put("numbers", lambda s: of_width(s, "<u2").tolist()),
    "numbers of 32 bits": put("numbers", lambda s: of_width(s, "<i4").tolist()),
    "numbers of 64 bits": put("numbers", lambda s: of_width(s, "<i8").tolist()),
}


@WRITERS
@pytest.mark.parametrize("leak", PLANTS)
def test_a_leak_in_one_row_of_a_parquet_file_is_found(
    leak: str, write: Callable[[Any, Path], None], done: list[Done], tmp_path: Path
) -> None:
    columns = columns_of(done)
    PLANTS[leak](columns, done[AT])
    write(columns, tmp_path / "x.parquet")
    with pytest.raises(LeakError, match="Do not publish") as caught:
        traces_of(done).check_file(tmp_path / "x.parquet")
    assert "jane" not in str(caught.value).lower()


@WRITERS
def test_a_rightly_written_parquet_file_passes(
    write: Callable[[Any, Path], None], done: list[Done], tmp_path: Path
) -> None:
    write(columns_of(done), tmp_path / "x.parquet")
    traces_of(done).check_file(tmp_path / "x.parquet")


@pytest.mark.parametrize("how", ["schema", "base64", "file alone"])
def test_an_original_in_the_metadata_of_a_parquet_file_is_found(how: str, done: list[Done], tmp_path: Path) -> None:
    table, again = pa.table(columns_of(done)), encoded(decoded(done[AT].original), "PNG")
    value = done[AT].original if how == "schema" else base64.b64encode(again)
    if how != "file alone":
        table = table.replace_schema_metadata({"note": value})
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        writer.write_table(table)
        if how == "file alone":
            writer.add_key_value_metadata({"note": value.decode()})
    with pytest.raises(LeakError, match="metadata"):
        traces_of(done).check_file(tmp_path / "x.parquet")


def test_an_original_between_the_columns_of_a_parquet_file_is_found(done: list[Done], tmp_path: Path) -> None:
    whole = io.BytesIO()
    pq.write_table(pa.table(columns_of(done)), whole)
    footer = int.from_bytes(whole.getvalue()[-8:-4], "little") + 8
    parts = (whole.getvalue()[:-footer], middle(done[AT]), whole.getvalue()[-footer:])
    (tmp_path / "x.parquet").write_bytes(b"".join(parts))
    assert pq.read_table(tmp_path / "x.parquet").num_rows == ROWS
    with pytest.raises(LeakError, match="between the columns"):
        traces_of(done).check_file(tmp_path / "x.parquet")


def test_the_row_of_a_leak_is_said(done: list[Done], tmp_path: Path) -> None:
    columns = columns_of(done)
    PLANTS["original"](columns, done[AT])
    by_pyarrow(columns, tmp_path / "x.parquet")
    with pytest.raises(LeakError, match=f"^row {AT} "):
        traces_of(done).check_file(tmp_path / "x.parquet")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_files_are_looked_into(form: str, done: list[Done], tmp_path: Path) -> None:
    path, columns = tmp_path / "x.arrow", columns_of(done)
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    for leak in (False, True):
        if leak:
            PLANTS["re-encoded in another column"](columns, done[AT])
        table = pa.table(columns)
        with make(str(path), table.schema) as writer:
            writer.write_table(table)
        if not leak:
            traces_of(done).check_file(path)
    with pytest.raises(LeakError, match=f"^row {AT} "):
        traces_of(done).check_file(path)


@pytest.mark.parametrize("kind", ["dictionary", "unused", "map", "fixed", "large", "extension", "floats", "times"])
def test_no_type_of_column_hides_an_original(kind: str, done: list[Done], tmp_path: Path) -> None:
    original, numbers = done[AT].original, pa.array(of_width(done[AT], "<i8"))
    column = {
        "unused": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([b"used", original])),
        "floats": pa.ListArray.from_arrays([0, len(numbers)], numbers.view(pa.float64())),
        "times": numbers.view(pa.timestamp("us")),
        "dictionary": pa.array([original, None, original]).dictionary_encode(),
        "map": pa.array([[], [("k", original)], []], pa.map_(pa.string(), pa.binary())),
        "fixed": pa.array([[b"", original], None, [b"", b""]], pa.list_(pa.binary(), 2)),
        "large": pa.array([None, [original.hex()], []], pa.large_list(pa.large_string())),
        "extension": pa.ExtensionArray.from_storage(Opaque(), pa.array([original, b"", None])),
    }[kind]
    compression = "none" if kind == "unused" else "snappy"
    pq.write_table(pa.table({"x": column}), tmp_path / "x.parquet", compression=compression)
    with pytest.raises(LeakError):
        traces_of(done).check_file(tmp_path / "x.parquet")


class Opaque(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.binary(), "anondata.test")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members, mode: str = "w", **headers: str) -> None:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, value in members:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(value), headers
            tar.addfile(info, io.BytesIO(value))


def members_of(done: Sequence[Done]) -> Members:
    suffixes = ["png" if sample.released.startswith(b"\x89PNG") else "jpg" for sample in done]
    pairs = [
        (f"{i:04}.{suffix}", sample.released) for i, (suffix, sample) in enumerate(zip(suffixes, done, strict=True))
    ]
    return [member for i, pair in enumerate(pairs) for member in (pair, (f"{i:04}.cls", b"%d" % (i % 3)))]


def tar_leaks(sample: Done) -> Iterator[tuple[str, Members]]:
    yield "innocent name", [("0000.txt", sample.original)]
    yield "unaligned in a text", [("0000.json", b'{"a": "' + middle(sample))]
    yield "another quality", [("0000.jpg", encoded(decoded(sample.original), quality=50))]
    yield "no image any more", [("0000.jpg", b"\n" + encoded(decoded(sample.original), quality=50))]
    yield "base64", [("0000.json", base64.b64encode(sample.original))]
    yield "archive", [("0000.npz", zipped(raw_face(sample)))]


def zipped(value: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=np.frombuffer(value, np.uint8))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("number", range(6))
def test_a_leak_in_one_member_of_a_tar_is_found(number: int, mode: str, done: list[Done], tmp_path: Path) -> None:
    _, planted = list(tar_leaks(done[AT]))[number]
    write_tar(tmp_path / "x.tar", members_of(done) + planted, mode)
    with pytest.raises(LeakError, match=rf"^member {2 * ROWS} "):
        traces_of(done).check_file(tmp_path / "x.tar")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_rightly_written_tar_passes(mode: str, done: list[Done], tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", members_of(done), mode, comment="of nobody")
    traces_of(done).check_file(tmp_path / "x.tar")


def test_an_original_in_a_header_of_a_tar_is_found(done: list[Done], tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", members_of(done)[:2], comment=base64.b64encode(done[AT].original).decode())
    with pytest.raises(LeakError, match="header"):
        traces_of(done).check_file(tmp_path / "x.tar")


@pytest.mark.parametrize("where", ["after the end", "in a rest"])
def test_no_byte_lies_beside_the_members_of_a_tar(where: str, done: list[Done], tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [("0.cls", b"1")])
    whole = bytearray(path.read_bytes())
    if where == "in a rest":
        whole[600:900] = done[AT].original[200:500]
    else:
        whole += done[AT].original
    path.write_bytes(whole)
    with pytest.raises(LeakError, match="after its end" if where == "after the end" else "rest of a block"):
        traces_of(done).check_file(path)


@pytest.mark.parametrize("name", ["x.txt", "x.json", "x.jpg"])
def test_any_other_file_is_searched(name: str, done: list[Done], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'{"samples": 12}' if name != "x.jpg" else done[AT].released)
    traces_of(done).check_file(tmp_path / name)
    (tmp_path / name).write_bytes(middle(done[AT]) if name != "x.jpg" else encoded(decoded(done[AT].original)))
    with pytest.raises(LeakError):
        traces_of(done).check_file(tmp_path / name)


@pytest.mark.parametrize("name", ["x.parquet", "x.tar", "x.arrow"])
def test_a_file_that_cannot_be_read_back_is_not_passed(name: str, done: list[Done], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PAR1" + bytes(2000))
    with pytest.raises(LeakError):
        traces_of(done).check_file(tmp_path / name)
    with pytest.raises(LeakError, match="cannot be read back"):
        traces_of(done).check_file(tmp_path / "none")


def test_an_original_of_a_withheld_sample_is_found(done: list[Done], tmp_path: Path) -> None:
    traces = Traces()
    traces.add({"image": b"not an image, and still of somebody " + bytes(range(256))}, SampleRecord(), {})
    traces.add({"image": done[AT].original}, SampleRecord(), {})
    for value in (bytes(range(256)), middle(done[AT])):
        (tmp_path / "x.txt").write_bytes(value)
        with pytest.raises(LeakError):
            traces.check_file(tmp_path / "x.txt")
