"""Bad input: each file ends as withheld, the others go on, nothing raw is written, and the counts add up."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image


def _bomb() -> bytes:
    """A PNG of 30 000 x 30 000 pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(3751) * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _plain(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_kind_of_bad_file_is_withheld_and_the_others_go_on(anondata, photos, photo, tmp_path):
    good = photo(3)
    bad = {
        "truncated.jpg": (good[: len(good) // 2], "truncated"),
        "header.png": (photo(3, "PNG")[:20], "truncated"),
        "zero.jpg": (b"", "empty"),
        "text.jpg": (b"Dear Alice, this is no photo. " * 9, "not_an_image"),
        "bomb.png": (_bomb(), "too_large"),
    }
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    (photos / "one.png").write_bytes(_plain(1, 1))
    (photos / "strip.png").write_bytes(_plain(10_000, 20))
    (photos / "folder.jpg").mkdir()
    (photos / "folder.jpg/inside.jpg").write_bytes(good)
    (photos / "dead.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(photos / "pipe.jpg")  # no file: left alone, and above all not waited for
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json").json
    reasons = sorted([reason for _, reason in bad.values()] + ["unreadable"])
    assert sorted(r for r, n in shown["withheld"].items() for _ in range(n)) == reasons
    assert (shown["samples"], shown["released"]) == (5 + 3 + 6, 5 + 3)
    assert shown["left_alone"] == {"other_files": 2, "hidden": 1}
    for name in bad:
        assert not list((tmp_path / "out").rglob(f"{name}*"))


def test_a_pipe_that_is_named_is_not_waited_for(anondata, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    shown = anondata("anonymize", tmp_path / "pipe.jpg", "--out", tmp_path / "out", "--json")
    assert (shown.code, shown.json["withheld"]) == (3, {"unreadable": 1})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_withheld(anondata, photos, tmp_path):
    (photos / "alice.jpg").chmod(0)
    (photos / "trip/deep").chmod(0)
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json")
    (photos / "trip/deep").chmod(0o755)
    assert shown.json["withheld"] == {"unreadable": 2}


def test_a_folder_that_cannot_be_listed_counts_as_one_unreadable_sample(anondata, photos, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if isinstance(path, str) and Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json")
    assert (shown.code, shown.json["withheld"], shown.json["released"]) == (3, {"unreadable": 1}, 4)


def test_a_file_that_vanishes_while_the_run_goes_on_is_withheld(anondata, photos, tmp_path, monkeypatch):
    from anondata.loaders.files import run as _run

    gather = _run.Run._gather

    def vanish(self):
        (photos / "erin.jpg").unlink(missing_ok=True)
        return gather(self)

    monkeypatch.setattr(_run.Run, "_gather", vanish)
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json")
    assert (shown.code, shown.json["withheld"], shown.json["released"]) == (3, {"unreadable": 1}, 4)


def test_a_name_that_is_too_long_for_the_second_suffix_is_withheld(anondata, photo, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    (src / f"{'a' * 250}.gif").write_bytes(photo(0, "GIF"))
    shown = anondata("anonymize", src, "--out", tmp_path / "out", "--json")
    assert shown.json["withheld"] == {"unwritable": 1}
    assert anondata("anonymize", src, "--out", tmp_path / "renamed", "--rename").code == 0


def test_a_dst_that_cannot_be_made_is_a_clear_error(anondata, photos):
    shown = anondata("anonymize", photos, "--out", "/proc/nowhere/out")
    assert shown.code == 1
    assert "error: DST cannot be written: No such file or directory" in shown.err


def _mutate(data: bytes, number: int) -> bytes:
    """Truncated, or with flipped bytes: in the headers, anywhere, or one alone."""
    draw = random.Random(number)
    if number % 4 == 0:
        return data[: draw.randrange(len(data))]
    changed, reach = bytearray(data), min(len(data), 700) if number % 4 == 1 else len(data)
    for _ in range(1 if number % 4 == 2 else draw.randrange(2, 60)):
        changed[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.mark.slow
def test_200_mutated_files_crash_nothing_and_add_up(anondata, photo, tmp_path):
    """Truncated, flipped and misnamed files of real photos: all are accounted for, and nothing raw is written."""
    src, out, formats = tmp_path / "src", tmp_path / "out", ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
    src.mkdir()
    originals = {}
    for number in range(200):
        data = _mutate(photo(number % 9, formats[number % 6], group=number % 5 == 0), number)
        suffix = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".jpeg")[number % 7]  # mostly the wrong one
        originals[f"{number:03}{suffix}"] = data
        (src / f"{number:03}{suffix}").write_bytes(data)
    shown = anondata("anonymize", src, "--out", out, "--json")
    summary = shown.json
    assert shown.code == 3
    assert summary["samples"] == 200 == summary["released"] + sum(summary["withheld"].values())
    assert "error" not in summary["withheld"], "a withheld file had a reason that nobody foresaw"
    files = [path for path in out.rglob("*") if path.is_file() and ".anondata" not in path.parts]
    assert len(files) == summary["released"] + 1
    for path in files:
        if path.name != "report.json":
            assert path.read_bytes() not in originals.values()
            Image.open(io.BytesIO(path.read_bytes())).load()
    assert 20 < summary["released"] < 180


def test_a_raw_file_under_the_name_of_a_withheld_output_does_not_stay(anondata, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    source = photos / "alice.jpg"
    raw = out / source.relative_to(photos)
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_bytes(source.read_bytes())
    source.write_bytes(source.read_bytes()[:300])
    shown = anondata("anonymize", photos, "--out", out, "--overwrite")
    assert shown.code == 3
    assert not raw.exists()


def test_results_of_an_earlier_run_inside_a_source_are_not_taken_for_originals(anondata, photos, tmp_path):
    assert anondata("anonymize", photos, "--out", photos / "safe").code == 0
    first = len(list((photos / "safe").rglob("*.*")))
    assert anondata("anonymize", photos, "--out", tmp_path / "elsewhere").code == 0
    assert len(list((tmp_path / "elsewhere").rglob("*.*"))) == first
