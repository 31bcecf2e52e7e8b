"""``anondata audit`` of parquet files and shards: results are told to their originals by what they were made of."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from anondata.anonymizer import Anonymizer
from anondata.auditing.folders import AuditTerms
from anondata.auditing.rows import row_inputs
from anondata.loaders import hf
from anondata.manifest import read_manifest
from anondata.policy import load_policy

KEY = b"0123456789abcdef"
ASKED = AuditTerms(None, (), True)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(KEY)
    return tmp_path / "key"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Fills, with a bound that says nothing: photos of one person are no audit."""
    path = tmp_path / "mine.yaml"
    path.write_text(load_policy("faces-fill").to_yaml().replace("above_chance: 5.0", "above_chance: 90.0"))
    return path


@pytest.fixture
def src(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    for number, name in enumerate(["alice", "bob", "carol"]):
        (folder / f"{name}.jpg").write_bytes(photo(number))
    (folder / "dave.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def rows(src: Path, tmp_path: Path, policy: Path) -> Path:
    """The photos as ``materialize`` writes them."""
    from datasets import load_dataset

    photos = load_dataset("imagefolder", data_dir=str(src), split="train", cache_dir=str(tmp_path / "cache"))
    view = hf.anonymize(photos, Anonymizer(policy, run_key=KEY), fields={"image": "image"})
    view.materialize(tmp_path / "rows", on_withheld="drop")
    return tmp_path / "rows"


@pytest.fixture
def shards(src: Path, tmp_path: Path, policy: Path, key: Path, anondata) -> Path:
    """The photos as ``anondata shards`` writes them."""
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for path in sorted(src.iterdir()):
            tar.add(path, path.name)
    to = tmp_path / "shards"
    shown = anondata("shards", tmp_path / "in.tar", "--out", to, "--policy", policy, "--key-file", key)
    assert shown.code in (0, 3), shown.err
    return to


def audited(anondata, src: Path, results: Path, key: Path, out: Path) -> dict[str, object]:
    told = ("--original", src, "--anonymized", results, "--run-key", key, "--out", out, "--no-plots")
    shown = anondata("audit", *told)
    assert shown.code == 0, shown.err
    return json.loads((out / "audit.json").read_text())


@pytest.mark.parametrize("kind", ["rows", "shards"])
def test_results_are_told_to_their_originals(anondata, src, key, tmp_path, request, kind):
    found = audited(anondata, src, request.getfixturevalue(kind), key, tmp_path / "audit")
    counts = found["counts"]
    told = {name: counts[name] for name in ("originals", "anonymized", "unpaired_originals", "unlike")}
    assert told == {"originals": 4, "anonymized": 3, "unpaired_originals": 1, "unlike": 0}


@pytest.mark.parametrize("kind", ["rows", "shards"])
def test_what_was_audited_so_can_be_published(anondata, src, key, tmp_path, request, kind):
    results = request.getfixturevalue(kind)
    audited(anondata, src, results, key, tmp_path / "audit")
    shown = anondata(
        *("publish", results, "--to", tmp_path / "public", "--audit", tmp_path / "audit" / "audit.json"),
        *("--title", "Faces", "--licence", "cc-by-4.0", "--key-file", key),
    )
    assert shown.code == 0, shown.err
    assert anondata("verify", tmp_path / "public").code == 0


def test_each_pair_is_of_one_photo(src, rows, key):
    from PIL import Image, ImageChops, ImageStat

    inputs = row_inputs(src, rows, ASKED, key_of(key))
    assert inputs is not None
    pairs = [(p.original(), p.anonymized()) for p in inputs.pairs()]
    assert len(pairs) == 3
    for original, result in pairs:
        a, b = (Image.open(open_(data)).convert("L").crop((0, 0, 12, 12)) for data in (original, result))
        assert ImageStat.Stat(ImageChops.difference(a, b)).mean[0] < 3  # a corner, which the cover leaves


def open_(data: bytes):
    from io import BytesIO

    return BytesIO(data)


def key_of(path: Path):
    from anondata.randomness import RunKey

    return RunKey(path.read_bytes())


def test_another_run_key_is_told_so(anondata, src, rows, tmp_path):
    (tmp_path / "other").write_bytes(b"another key, as long")
    shown = anondata(
        "audit", "--original", src, "--anonymized", rows, "--run-key", tmp_path / "other", "--out", tmp_path / "a"
    )
    assert (shown.code, "another run key" in shown.err) == (1, True)


def test_originals_of_something_else_are_told_so(anondata, photo, src, rows, key, tmp_path):
    for path in src.iterdir():
        path.unlink()
    (src / "zoe.jpg").write_bytes(photo(8))
    shown = anondata("audit", "--original", src, "--anonymized", rows, "--run-key", key, "--out", tmp_path / "a")
    assert (shown.code, "not its originals" in shown.err, "zoe" in shown.err) == (1, True, False)


def test_a_lost_record_is_told_so(anondata, src, rows, key, tmp_path):
    [name] = read_manifest(rows).files
    (rows / ".anondata" / "parts" / f"{name}.json").unlink()
    shown = anondata("audit", "--original", src, "--anonymized", rows, "--run-key", key, "--out", tmp_path / "a")
    assert (shown.code, "write B again" in shown.err) == (1, True)


def test_digests_tell_nothing_without_the_key(src, rows):
    import hashlib

    told = b"".join(path.read_bytes() for path in (rows / ".anondata").rglob("*.json"))
    for path in src.iterdir():
        for name in ("sha256", "blake2b", "md5", "sha1"):
            assert hashlib.new(name, path.read_bytes()).hexdigest()[:32].encode() not in told
