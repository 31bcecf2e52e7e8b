"""The manifest that a run leaves: there when it came to its end, about what lies there, and sealed."""

from __future__ import annotations

import errno
import hashlib
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from anondata.keys import run_key
from anondata.loaders.files import output as _output
from anondata.manifest import FILE, content_digest, differences, read_manifest


def test_every_output_is_told_as_it_was_written(anondata: Any, photos: Path, tmp_path: Path) -> None:
    assert anondata("anonymize", photos, "--out", tmp_path / "out").code == 0
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest.files) == {"alice.jpg", "bob.JPEG", "trip/carol.png", "trip/deep/dave.webp", "erin.jpg"}
    assert not differences(manifest, tmp_path / "out", ignored=[".anondata/", "report.json"])
    assert manifest.report.to_json() == (tmp_path / "out/report.json").read_text()


def test_it_has_the_seal_of_the_run_key(anondata: Any, photos: Path, tmp_path: Path) -> None:
    anondata("anonymize", photos, "--out", tmp_path / "out")
    key = run_key(tmp_path / "out", None, create=False)
    assert key is not None
    assert read_manifest(tmp_path / "out").seal_holds(key)


def test_a_run_that_stops_leaves_none_even_where_one_was(
    anondata: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert anondata("anonymize", photos, "--out", out).code == 0
    (out / "erin.jpg").unlink()

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_output.os, "replace", full)
        assert anondata("anonymize", photos, "--out", out).code == 1
    assert not (out / FILE).exists()
    assert anondata("anonymize", photos, "--out", out).code == 0
    assert "erin.jpg" in read_manifest(out).files


def test_an_output_that_was_taken_away_is_not_in_it(anondata: Any, photos: Path, tmp_path: Path) -> None:
    """Its source is gone, too, so that it is not made again."""
    anondata("anonymize", photos, "--out", tmp_path / "out")
    for folder in (photos, tmp_path / "out"):
        (folder / "erin.jpg").unlink()
    anondata("anonymize", photos, "--out", tmp_path / "out")
    assert "erin.jpg" not in read_manifest(tmp_path / "out").files


def test_a_file_that_was_changed_and_has_no_source_is_not_in_it(anondata: Any, photos: Path, tmp_path: Path) -> None:
    """It cannot be made again, and what lies there now was not verified: the run says so and ends as failed."""
    anondata("anonymize", photos, "--out", tmp_path / "out")
    (photos / "erin.jpg").unlink()
    (tmp_path / "out" / "erin.jpg").write_bytes(b"something raw")
    again = anondata("anonymize", photos, "--out", tmp_path / "out")
    assert "erin.jpg" not in read_manifest(tmp_path / "out").files
    assert again.code == 1
    assert "1 files" in again.err


def shard(path: Path, photos: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(photos):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(data)
            tar.addfile(info, BytesIO(data))


def test_shards_have_one(anondata: Any, photo: Any, tmp_path: Path) -> None:
    shard(tmp_path / "in/a.tar", [photo(1)])
    shard(tmp_path / "in/b.tar", [photo(2)])
    assert anondata("shards", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1).code == 0
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.kind, set(manifest.files)) == ("shards", {"a.tar", "b.tar"})
    assert differences(manifest, tmp_path / "out").changed == ()
    key = run_key(tmp_path / "out", None, create=False)
    assert key is not None
    assert manifest.seal_holds(key)


def test_shards_of_which_one_failed_have_none(anondata: Any, photo: Any, tmp_path: Path) -> None:
    shard(tmp_path / "in/a.tar", [photo(1)])
    assert anondata("shards", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1).code == 0
    (tmp_path / "in/b.tar").write_bytes(b"no tar at all")
    assert anondata("shards", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1, "--keep-going").code != 0
    assert not (tmp_path / "out" / FILE).exists()


def test_an_audit_tells_what_it_was_about(anondata: Any, photos: Path, tmp_path: Path) -> None:
    """Of all anonymized pictures, whether they belong to an original or not."""
    anondata("anonymize", photos, "--out", tmp_path / "out")
    (photos / "erin.jpg").unlink()
    given = ("--original", photos, "--anonymized", tmp_path / "out", "--out", tmp_path / "audit", "--no-plots")
    assert anondata("audit", *given).code == 0
    names = ["alice.jpg", "bob.JPEG", "trip/carol.png", "trip/deep/dave.webp", "erin.jpg"]
    digests = [hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in names]
    body = json.loads((tmp_path / "audit/audit.json").read_text())
    assert body["anonymized"] == {"files": 5, "digest": content_digest(digests)}
    assert body["counts"]["unpaired_anonymized"] == 1
