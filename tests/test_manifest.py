"""Manifests: what a run left, sealed, and what differs from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pytest

from anondata.anonymizer import Anonymizer
from anondata.errors import ManifestError
from anondata.manifest import (
    FILE,
    Differences,
    FileDigest,
    Manifest,
    content_digest,
    differences,
    digest_of,
    from_json,
    read_manifest,
)
from anondata.policy import load_policy
from anondata.randomness import RunKey
from anondata.report import empty_report

KEY, OTHER = RunKey(b"0123456789abcdef"), RunKey(b"fedcba9876543210")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "one").write_bytes(b"one")
    (tmp_path / "out" / "two").write_bytes(b"two")
    return tmp_path / "out"


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    policy = load_policy("faces-fill")
    files = {name: digest_of(folder / name) for name in ("a/one", "two")}
    return Manifest(
        policy, empty_report(policy), files, {"image": "image"}, "images", {"anondata": "1"}, "2026-01-02"
    )


def test_what_was_written_is_read_again(manifest: Manifest) -> None:
    sealed = manifest.sealed(KEY)
    assert from_json(sealed.to_json()) == sealed


def test_a_seal_is_of_one_key_and_one_manifest(manifest: Manifest) -> None:
    sealed = manifest.sealed(KEY)
    assert sealed.seal_holds(KEY)
    assert not sealed.seal_holds(OTHER)
    assert not manifest.seal_holds(KEY)


def test_an_anonymizer_seals_as_its_run_key_does(manifest: Manifest) -> None:
    assert manifest.sealed(Anonymizer("faces-fill", run_key=KEY)).seal_holds(KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: replace(m, files={**m.files, "two": FileDigest("0" * 64, 3)}),
        lambda m: replace(m, files={**m.files, "three": m.files["two"]}),
        lambda m: replace(m, kind="parquet"),
        lambda m: replace(m, created="2026-01-03"),
        lambda m: replace(m, fields={"image": "keep"}),
        lambda m: replace(m, report=replace(m.report, counts={"samples": {"seen": 1}})),
        lambda m: replace(m, policy=load_policy("faces")),
        lambda m: replace(m, source="x"),
        lambda m: replace(m, versions={}),
    ],
)
def test_no_part_of_a_manifest_changes_under_its_seal(
    manifest: Manifest, change: Callable[[Manifest], Manifest]
) -> None:
    assert not change(manifest.sealed(KEY)).seal_holds(KEY)


def test_a_report_of_another_policy_is_refused(manifest: Manifest) -> None:
    mixed = replace(manifest, policy=load_policy("unsafe-blur"))
    with pytest.raises(ManifestError, match="mixes policies"):
        from_json(mixed.to_json())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "anondata.manifest/2"),
        ("kind", "videos"),
        ("created", "yesterday"),
        ("files", {"../x": {"sha256": "0" * 64, "size": 1}}),
        ("files", {"/x": {"sha256": "0" * 64, "size": 1}}),
        ("files", {"x": {"sha256": "short", "size": 1}}),
        ("files", {"x": {"sha256": "0" * 64, "size": -1}}),
        ("files", {"x": {"sha256": "0" * 64, "size": True}}),
        ("policy", {}),
        ("report", {}),
        ("surprise", 1),
    ],
)
def test_what_is_no_manifest_is_refused(manifest: Manifest, key: str, value: Any) -> None:
    body = {**json.loads(manifest.to_json()), key: value}
    with pytest.raises(ManifestError, match="not a manifest"):
        from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", b"\xff\xfe", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ManifestError, match="not a manifest"):
        from_json(text)


def test_a_policy_that_names_code_is_not_built_unless_that_is_allowed(manifest: Manifest, tmp_path: Path) -> None:
    body = json.loads(manifest.to_json())
    trap = tmp_path / "trap"
    body["policy"]["content"]["image"]["detect"] = [{"subprocess:Popen": {"args": ["touch", str(trap)]}}]
    with pytest.raises(ManifestError, match="would run them"):
        from_json(json.dumps(body))
    assert not trap.exists()


@pytest.mark.parametrize(
    "put",
    [
        lambda content: content.update(detect=[{"a-trap:Trap": {}}]),
        lambda content: content.update(detect=[{"insightface:Trap": {}}]),
        lambda content: content.update(detect=[{".trap:Trap": {}}]),
        lambda content: content.update(detect=[{"insightface": {"pack": "/tmp/trap.onnx"}}]),
        lambda content: content["regions"]["face"].update(verify=[{"self_match": {"embedder": "a-trap:Trap"}}]),
        lambda content: content["regions"]["face"].update(verify=[{"self_match": {"calibration": "trap.json"}}]),
    ],
)
def test_nothing_that_a_stranger_s_policy_names_is_imported_or_read(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Any], None]
) -> None:
    """A module may have a name that no import statement could write."""
    code = "from pathlib import Path\nPath(__file__).with_name('sprung').touch()\nTrap = dict\n"
    for name in ("a-trap.py", "trap.py"):
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    body = json.loads(manifest.to_json())
    put(body["policy"]["content"]["image"])
    with pytest.raises(ManifestError):
        from_json(json.dumps(body))
    assert not (tmp_path / "sprung").exists()


def test_a_folder_without_manifest_is_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="did not come to its end"):
        read_manifest(tmp_path)


def test_the_manifest_of_a_folder_and_of_a_url_are_read(folder: Path, manifest: Manifest) -> None:
    (folder / FILE).parent.mkdir()
    (folder / FILE).write_text(manifest.to_json())
    assert read_manifest(folder) == manifest
    fsspec.filesystem("memory").pipe(f"/manifest-test/{FILE}", manifest.to_json().encode())
    assert read_manifest("memory://manifest-test") == manifest


def test_an_untouched_folder_does_not_differ(folder: Path, manifest: Manifest) -> None:
    assert differences(manifest, folder) == Differences()


def test_missing_changed_and_strange_files_are_found(folder: Path, manifest: Manifest) -> None:
    (folder / "a" / "one").unlink()
    (folder / "two").write_bytes(b"owt")
    (folder / "a" / "three").write_bytes(b"")
    found = differences(manifest, folder)
    assert found == Differences(("a/one",), ("two",), ("a/three",))
    assert found.words == "1 missing, 1 changed, 1 in no manifest"


def test_links_are_strange_whatever_they_lead_to(folder: Path, manifest: Manifest) -> None:
    (folder / "two").rename(folder.parent / "two")
    (folder / "two").symlink_to(folder.parent / "two")
    (folder / "more").symlink_to(folder.parent)
    assert set(differences(manifest, folder).strange) == {"two", "more"}


def test_ignored_are_files_by_name_and_folders_with_all_in_them(folder: Path, manifest: Manifest) -> None:
    (folder / "work").mkdir()
    (folder / "work" / "x").touch()
    (folder / "note").touch()
    (folder / "notes").touch()
    assert differences(manifest, folder, ignored=["work/", "note"]).strange == ("notes",)


def test_a_url_is_compared_as_a_folder_is(manifest: Manifest) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({"/tree/a/one": b"one", "/tree/two": b"tow", "/tree/b": b""})
    assert differences(manifest, "memory://tree") == Differences((), ("two",), ("b",))


def test_the_content_digest_does_not_depend_on_names(manifest: Manifest) -> None:
    renamed = replace(manifest, files={"x": manifest.files["two"], "y": manifest.files["a/one"]})
    assert renamed.digest == manifest.digest
    by_hand = "".join(f"{d}\n" for d in sorted(sha256(text).hexdigest() for text in (b"one", b"two")))
    assert content_digest(f.sha256 for f in manifest.files.values()) == sha256(by_hand.encode()).hexdigest()
