"""``anondata anonymize``: what comes out, under which names, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def test_all_released(anondata, photos, tmp_path, tree):
    out = tmp_path / "out"
    shown = anondata("anonymize", photos, "--out", out, "--json")
    assert shown.code == 0
    summary = shown.json
    assert summary.pop("seconds") > 0
    assert summary.pop("images_per_s") > 0
    assert len(summary.pop("fingerprint")) == 32
    assert summary == {
        "format": "anondata.summary/1",
        "policy": "faces",
        "samples": 5,
        "released": 5,
        "withheld": {},
        "skipped_done": 0,
        "not_reached": 0,
        "regions": 5,
        "left_alone": {"other_files": 1, "hidden": 1},
        "outputs_without_source": 0,
        "unknown_files": 0,
        "report": str(out / "report.json"),
        "exit_code": 0,
        "error": None,
    }
    assert sorted(tree(out)) == [
        "alice.jpg", "bob.JPEG", "erin.jpg", "report.json", "trip/carol.png", "trip/deep/dave.webp",
    ]  # fmt: skip


def test_what_is_written_is_another_picture_in_the_same_format(anondata, photos, tmp_path):
    anondata("anonymize", photos, "--out", tmp_path / "out")
    for name, kind in [("alice.jpg", "JPEG"), ("trip/carol.png", "PNG"), ("trip/deep/dave.webp", "WEBP")]:
        before, after = opened(photos / name), opened(tmp_path / "out" / name)
        assert after.format == kind
        assert after.size == before.size
        difference = np.asarray(before.convert("RGB")).astype(int) - np.asarray(after.convert("RGB"))
        assert (np.abs(difference) > 20).mean() > 0.1


def test_no_byte_string_of_an_original_is_in_the_output_folder(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    written = b"\0".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for path in photos.rglob("*"):
        if path.is_file() and path.suffix != ".txt":
            payload = path.read_bytes()[700:]  # past headers and tables, which all files of an encoder share
            assert not any(payload[i : i + 48] in written for i in range(0, len(payload) - 48, 48))


def test_some_withheld_exits_3_and_prints_no_name(anondata, photos, tmp_path):
    (photos / "trip/broken.jpg").write_bytes(b"no photo")
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json")
    assert shown.code == shown.json["exit_code"] == 3
    assert shown.json["withheld"] == {"not_an_image": 1}
    assert "withheld: not_an_image" in shown.err
    assert not (tmp_path / "out/trip/broken.jpg").exists()
    for name in ("alice", "broken", "carol", "dave"):
        assert name not in shown.out + shown.err


def test_list_withheld_names_them_outside_of_dst(anondata, photos, tmp_path):
    (photos / "odd\tname.jpg").write_bytes(b"no photo")
    listed = tmp_path / "withheld.txt"
    anondata("anonymize", photos, "--out", tmp_path / "out", "--list-withheld", listed)
    reason, place = listed.read_text().rstrip("\n").split("\t")
    assert reason == "not_an_image"
    assert json.loads(place) == str(photos / "odd\tname.jpg")
    assert listed.stat().st_mode & 0o777 == 0o600
    inside = anondata("anonymize", photos, "--out", tmp_path / "out", "--list-withheld", tmp_path / "out/w.txt")
    assert inside.code == 2
    assert "must not lie in DST" in inside.err


def test_rename_leaves_no_source_name_anywhere(anondata, photos, tmp_path):
    (photos / "frank.jpg").write_bytes(b"no photo")
    out = tmp_path / "out"
    shown = anondata("anonymize", photos, "--out", out, "--rename", "--json")
    files = [path for path in out.rglob("*") if path.is_file()]
    told = shown.out + shown.err + "".join(path.relative_to(out).as_posix() for path in files)
    told += (out / "report.json").read_text() + (out / ".anondata/journal.jsonl").read_text()
    for name in ("alice", "bob", "carol", "dave", "erin", "frank", "trip", "deep"):
        assert name not in told
    names = [path.name for path in files if path.parent == out and path.name != "report.json"]
    assert len(names) == 5
    assert all(len(Path(name).stem) == 32 for name in names)


def test_renamed_outputs_have_the_same_names_in_the_next_run(anondata, photos, tmp_path, tree):
    anondata("anonymize", photos, "--out", tmp_path / "out", "--rename")
    first = tree(tmp_path / "out")
    anondata("anonymize", photos, "--out", tmp_path / "out", "--rename", "--overwrite")
    assert tree(tmp_path / "out") == first


def test_the_suffix_follows_what_was_written(anondata, photo, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    (src / "anim.gif").write_bytes(photo(0, "GIF"))
    (src / "liar.jpg").write_bytes(photo(1, "PNG"))
    (src / "scan.TIFF").write_bytes(photo(2, "TIFF"))
    assert anondata("anonymize", src, "--out", tmp_path / "out").code == 0
    for name, kind in [("anim.gif.png", "PNG"), ("liar.jpg.png", "PNG"), ("scan.TIFF", "TIFF")]:
        assert opened(tmp_path / "out" / name).format == kind


def test_a_name_that_another_source_needs_is_not_taken(anondata, photo, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.jpg").write_bytes(photo(1, "PNG"))
    (src / "a.jpg.png").write_bytes(photo(2, "PNG"))
    shown = anondata("anonymize", src, "--out", tmp_path / "out", "--json")
    assert shown.code == 3
    assert shown.json["withheld"] == {"name_taken": 1}


@pytest.mark.parametrize("names", [("x/a.jpg", "y/a.jpg"), ("x/a.gif", "y/a.gif.png"), ("x/a.jpg", "y/a.jpg/b.jpg")])
def test_two_sources_for_one_output_are_refused_before_anything_is_done(anondata, photo, tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(photo(number))
    shown = anondata("anonymize", tmp_path / "x", tmp_path / "y", "--out", tmp_path / "out")
    assert shown.code == 2
    assert "1 output path(s) would be written by two sources, the first of them in SRC 1 and SRC 2" in shown.err
    assert not (tmp_path / "out").exists()


def test_limit_takes_the_first_in_a_stable_order(anondata, photos, tmp_path, tree):
    anondata("anonymize", photos, "--out", tmp_path / "out", "--limit", 2)
    assert sorted(tree(tmp_path / "out")) == ["alice.jpg", "bob.JPEG", "report.json"]


def test_dry_run_says_what_would_be_done_and_does_nothing(anondata, photos, state, tmp_path):
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--dry-run")
    assert shown.code == 0
    for line in (
        "policy faces (",
        "5 samples, of which 0 are done",
        "left alone: 1 other files, 1 hidden. By suffix: 1 txt.",
        "random_colors",
    ):
        assert line in shown.out
    assert not (tmp_path / "out").exists()
    assert list(state.iterdir()) == []
    anondata("anonymize", photos, "--out", tmp_path / "out", "--limit", 2)
    again = anondata("anonymize", photos, "--out", tmp_path / "out", "--dry-run", "--json").json
    assert (again["samples"], again["skipped_done"]) == (5, 2)


def test_result_depends_on_key_and_names_not_on_workers(anondata, photos, tmp_path, tree):
    key = tmp_path / "key"
    key.write_bytes(b"a key of at least 16 bytes")
    found = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        assert anondata("anonymize", photos, "--out", out, "--key-file", key, "--workers", workers).code == 0
        found.append(tree(out))
    assert found[0] == found[1]


def test_the_key_is_kept_private_outside_of_dst(anondata, photos, state, tmp_path):
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--limit", 1)
    [key] = (state / "keys").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600
    secret = key.read_bytes()
    assert len(secret) == 32
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert secret not in written
    assert secret.hex().encode() not in written
    assert secret.hex() not in shown.out + shown.err


def test_bad_keys_are_refused(anondata, photos, tmp_path, monkeypatch):
    short = tmp_path / "short"
    short.write_bytes(b"123456789012345")
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--key-file", short)
    assert shown.code == 2
    assert "the run key has 15 bytes, expected at least 16" in shown.err
    monkeypatch.setenv("ANONDATA_STATE", str(tmp_path / "out/state"))
    shown = anondata("anonymize", photos, "--out", tmp_path / "out")
    assert shown.code == 2
    assert "the run key would lie inside of DST" in shown.err


def test_folders_that_must_not_be_mixed_are_refused(anondata, photos, tmp_path):
    cases = [
        (photos, photos, "SRC 1 is DST"),
        (photos / "trip", photos, "SRC 1 lies in DST"),
        (photos, "s3://bucket/out", "DST is a URL"),
        (photos, photos / "notes.txt", "DST is a file"),
        (tmp_path / "nowhere", tmp_path / "out", "SRC 1 does not exist"),
    ]
    before = sorted(photos.rglob("*"))
    for src, out, message in cases:
        shown = anondata("anonymize", src, "--out", out)
        assert shown.code == 2, message
        assert message in shown.err
    assert sorted(photos.rglob("*")) == before


def test_a_folder_of_somebody_else_is_not_written_into_unless_asked(anondata, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 2
    assert "DST holds files that no run of anondata wrote" in shown.err
    shown = anondata("anonymize", photos, "--out", out, "--overwrite")
    assert shown.code == 1
    assert "1 files in DST were not written by anondata and are not verified" in " ".join(shown.err.split())
    assert (out / "mine.txt").read_text() == "mine"


def test_dst_inside_src_is_left_out(anondata, photos):
    for _ in range(2):
        assert anondata("anonymize", photos, "--out", photos / "anonymous", "--json").json["samples"] == 5


def test_a_link_in_dst_to_the_originals_is_not_followed(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    (out / "trip").symlink_to(photos / "trip")
    before = (photos / "trip/carol.png").read_bytes()
    shown = anondata("anonymize", photos, "--out", out, "--json")
    assert shown.json["withheld"] == {"unwritable": 2}
    assert (photos / "trip/carol.png").read_bytes() == before


def test_loops_of_links_end(anondata, photos, tmp_path):
    (photos / "trip/deep/up").symlink_to(photos)
    (photos / "again").symlink_to(photos / "trip/deep")
    assert anondata("anonymize", photos, "--out", tmp_path / "out", "--json").json["samples"] == 6


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["alice.jpg", "erin.jpg"]),
        ("**/*.[pw]*", ["trip/carol.png", "trip/deep/dave.webp"]),
        ("t*", ["trip/carol.png", "trip/deep/dave.webp"]),
        ("trip/*/*", ["deep/dave.webp"]),
    ],
)
def test_globs_keep_the_structure_below_their_fixed_part(anondata, photos, tmp_path, tree, pattern, names):
    expected = [n.removeprefix("trip/") if pattern.startswith("trip/") else n for n in names]
    assert anondata("anonymize", photos / pattern, "--out", tmp_path / "out").code == 0
    assert sorted(set(tree(tmp_path / "out")) - {"report.json"}) == expected


def test_relative_globs_and_files(anondata, photos, tmp_path, tree, monkeypatch):
    monkeypatch.chdir(photos)
    assert anondata("anonymize", "*.jpg", "trip/carol.png", "--out", "../out").code == 0
    assert sorted(set(tree(tmp_path / "out")) - {"report.json"}) == ["alice.jpg", "carol.png", "erin.jpg"]


def test_a_file_is_attempted_whatever_its_name(anondata, photo, tmp_path):
    (tmp_path / "picture").write_bytes(photo())
    assert anondata("anonymize", tmp_path / "picture", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/picture.jpg").exists()


def test_names_that_are_no_text_come_through(anondata, photo, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    odd = os.fsdecode(b"caf\xe9.jpg")
    (src / odd).write_bytes(photo())
    for _ in range(2):
        shown = anondata("anonymize", src, "--out", tmp_path / "out", "--json")
        assert shown.code == 0
        assert (tmp_path / "out" / odd).exists()
    assert shown.json["skipped_done"] == 1


def test_file_urls_and_storages_of_fsspec(anondata, photos, photo, tmp_path, tree):
    memory = fsspec.filesystem("memory")
    for number, name in enumerate(["a.jpg", "deep/b.jpg", "deep/c.txt"]):
        memory.pipe(f"/anondata-test/{name}", photo(number))
    shown = anondata(
        "anonymize", "memory://anondata-test", f"file://{photos}/trip", "--out", tmp_path / "o", "--json"
    )
    assert shown.code == 0
    assert shown.json["left_alone"] == {"other_files": 1, "hidden": 0}
    assert sorted(set(tree(tmp_path / "o")) - {"report.json"}) == [
        "a.jpg",
        "carol.png",
        "deep/b.jpg",
        "deep/dave.webp",
    ]
    again = anondata("anonymize", "memory://anondata-test/**/*.jpg", "--out", tmp_path / "o", "--json").json
    assert (again["samples"], again["skipped_done"], again["outputs_without_source"]) == (2, 2, 2)
    memory.pipe("/anondata-test/a.jpg", photo(7))
    again = anondata("anonymize", "memory://anondata-test", "--out", tmp_path / "o", "--json").json
    assert (again["samples"], again["skipped_done"]) == (2, 1)
    memory.rm("/anondata-test", recursive=True)


def test_urls_that_cannot_be_read(anondata, photo, tmp_path):
    shown = anondata("anonymize", "memory://nothing/alice.jpg", "--out", tmp_path / "out", "--json")
    assert shown.code == 3
    assert shown.json["withheld"] == {"unreadable": 1}
    shown = anondata("anonymize", "gopher://alice.example/x.jpg", "--out", tmp_path / "out")
    assert shown.code == 2
    assert "SRC 1 is a URL with a protocol that fsspec does not know" in shown.err
    assert "alice" not in shown.err


def test_a_protocol_without_its_package_says_what_to_install(anondata, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    shown = anondata("anonymize", "s3://bucket/alice.jpg", "--out", tmp_path / "out")
    assert shown.code == 1
    assert "SRC 1: Install s3fs to access S3. `pip install` what it names" in shown.err


def test_a_folder_without_images_is_a_usage_error(anondata, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.txt").write_text("")
    shown = anondata("anonymize", tmp_path / "src", "--out", tmp_path / "out")
    assert shown.code == 2
    assert "no images in the sources (1 other files, 0 hidden). By suffix: 1 txt." in shown.err


def test_unknown_policies_list_the_known_ones(anondata, photos, tmp_path):
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--policy", "fases")
    assert shown.code == 2
    assert "no policy is called 'fases'; did you mean 'faces'?" in shown.err
    assert "Presets: " in shown.err
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nkontent: {}\n")
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--policy", bad)
    assert shown.code == 2
    assert "kontent: unknown key; did you mean 'content'?" in shown.err


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_devices_that_are_not_there_are_refused(anondata, photos, tmp_path, device):
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--device", device)
    assert shown.code == 2
    assert f"device {device!r} cannot be used here" in shown.err


def test_metadata_does_not_come_through(anondata, tmp_path, photo):
    exif = Image.Exif()
    exif[0x010E] = "alice at home"
    (tmp_path / "a.jpg").write_bytes(photo(exif=exif))
    assert b"alice at home" in (tmp_path / "a.jpg").read_bytes()
    anondata("anonymize", tmp_path / "a.jpg", "--out", tmp_path / "out")
    assert b"alice" not in (tmp_path / "out/a.jpg").read_bytes()
    assert not opened(tmp_path / "out/a.jpg").getexif()


def test_larger_pictures_than_max_pixels_are_withheld(anondata, photos, tmp_path):
    out = tmp_path / "out"
    Image.new("RGB", (900, 900)).save(photos / "large.png")
    shown = anondata("anonymize", photos, "--out", out, "--json", "--max-pixels", 700_000)
    assert (shown.code, shown.json["released"], shown.json["withheld"]) == (3, 5, {"too_large": 1})
    assert "memory" not in shown.err


def test_memory_that_may_not_be_there_is_said_before(anondata, photos, tmp_path):
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--dry-run", "--max-pixels", 10**12)
    assert "may take" in shown.err
