"""``anondata card``: from a finished run to README, Croissant and plots, without a name in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anondata.anonymizer import Anonymizer
from anondata.cards.check import check_card
from anondata.cards.facts import Gate
from anondata.cards.readme import from_card
from anondata.errors import CardError
from anondata.manifest import Manifest, read_manifest
from anondata.policy import Policy, from_yaml, load_policy
from anondata.publishing.contents import contents_of
from anondata.publishing.facts import facts_of, gates_of, models_of
from anondata.report import empty_report
from anondata.verifiers.calibration import shipped

ABOUT = ("--title", "Streets", "--licence", "cc-by-4.0")
NAMES = ("alice", "bob", "carol", "trip", "dave", "erin")

POLICY = """
name: own
content:
  image:
    detect: [{{{detector}: {{}}}}]
    regions:
      face:
        ladder: [fill]
        verify: [{gate}]
        cover: {cover}
"""


def policy(gate: str = "self_match", *, cover: str = "everyone", detector: str = "centerface") -> Policy:
    return from_yaml(POLICY.format(gate=gate, cover=cover, detector=detector), own_code=[__name__])


class OwnDetector:
    """A component of a user's own; nothing is known of its weights."""

    def config(self) -> dict[str, Any]:
        return {}

    def detect(self, views: Any) -> Any:
        raise NotImplementedError


class OwnGate:
    name = "own gate"
    embedders = ()

    def config(self) -> dict[str, Any]:
        return {}

    def judge(self, probe: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def done(anondata: Any, photos: Path, tmp_path: Path) -> Path:
    out = tmp_path / "safe"
    shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 0, shown.err
    return out


@pytest.fixture
def audited(anondata: Any, photos: Path, done: Path, tmp_path: Path) -> Path:
    out = tmp_path / "audit"
    shown = anondata("audit", "--original", photos, "--anonymized", done, "--out", out, "--no-plots")
    assert shown.code == 0, shown.err
    return out


def test_readme_croissant_and_plots_are_written_and_tell_no_name(anondata, done, audited):
    shown = anondata("card", done, *ABOUT, "--audit", audited, "--source", "private")
    assert shown.code == 0, shown.err
    text = (done / "README.md").read_text()
    croissant = json.loads((done / "croissant.json").read_text())
    block = from_card(text)
    assert block["samples"]["released"] == 5
    assert block["sealed"] is True
    assert block["audit"]["counts"]["pairs"] == 5
    assert croissant["name"] == "Streets"
    plots = sorted(path.name for path in (done / ".anondata" / "plots").iterdir())
    assert {"cmc.svg", "rungs.svg", "scores.svg"} <= set(plots)
    assert not any(name.endswith(".png") for name in plots)  # the folder holds PNG pictures
    told = text + json.dumps(croissant) + "".join(p.read_text() for p in (done / ".anondata/plots").iterdir())
    for name in (*NAMES, str(done), os.path.expanduser("~")):
        assert name not in told


def test_the_card_says_what_manifest_and_audit_say(anondata, done, audited):
    assert anondata("card", done, *ABOUT, "--audit", audited / "audit.json").code == 0
    manifest = read_manifest(done)
    contents = contents_of(done, manifest)
    audit = json.loads((audited / "audit.json").read_text())
    facts = facts_of(
        manifest, audit=audit, title="x", licence="other", splits=contents.splits, features=contents.features
    )
    assert check_card((done / "README.md").read_text(), replace(facts, sealed=True)) == []


def test_without_an_audit_the_card_says_so(anondata, done, tmp_path):
    shown = anondata("card", done, *ABOUT, "--out", tmp_path / "card")
    assert shown.code == 0, shown.err
    assert "there is no audit" in shown.err
    assert "Nobody has attacked this dataset" in (tmp_path / "card" / "README.md").read_text()
    assert (tmp_path / "card" / "plots" / "rungs.png").is_file()
    assert not (done / "README.md").exists()


def test_a_second_card_takes_the_place_of_the_first_one(anondata, done, tmp_path):
    out = tmp_path / "card"
    assert anondata("card", done, *ABOUT, "--out", out).code == 0
    first = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    (out / "plots" / "cmc.png").write_bytes(b"of an audit that is no more")
    assert anondata("card", done, *ABOUT, "--out", out).code == 0
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == first


def test_a_readme_of_somebody_else_is_not_written_over(anondata, done):
    (done / "README.md").write_text("# my notes")
    shown = anondata("card", done, *ABOUT)
    assert shown.code == 1
    assert "that anondata did not write" in shown.err
    assert (done / "README.md").read_text() == "# my notes"
    assert not (done / "croissant.json").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--licence", "my terms"), "licence"),
        (("--title", " "), "title"),
        (("--homepage", "ftp://x"), "homepage"),
        (("--source", "a b"), "source_datasets"),
    ],
)
def test_what_a_card_cannot_show_is_refused_by_name(anondata, done, args, words):
    shown = anondata("card", done, *ABOUT, *args)
    assert shown.code == 1
    assert words in shown.err
    assert not (done / "README.md").exists()


def test_a_summary_is_shown_as_plain_text(anondata, done, tmp_path):
    (tmp_path / "about.txt").write_text("One <b>street</b>.\n\n# Two")
    assert anondata("card", done, *ABOUT, "--summary-file", tmp_path / "about.txt", "--no-plots").code == 0
    text = (done / "README.md").read_text()
    assert "One &lt;b&gt;street&lt;/b&gt;.\n\n\\# Two" in text
    assert "![" not in text
    (tmp_path / "about.txt").write_bytes(b"\xff\xfe\xff")
    shown = anondata("card", done, *ABOUT, "--summary-file", tmp_path / "about.txt")
    assert shown.code == 1
    assert "UTF-8" in shown.err


@pytest.mark.parametrize("body", ["", "[]", "{", '{"format": "anondata.audit/1"}', '{"format": "other"}'])
def test_what_is_no_audit_is_refused(anondata, done, tmp_path, body):
    (tmp_path / "audit.json").write_text(body)
    shown = anondata("card", done, *ABOUT, "--audit", tmp_path / "audit.json")
    assert shown.code == 1
    assert "audit" in shown.err
    assert not (done / "README.md").exists()


def test_a_folder_without_a_manifest_has_no_card(anondata, photos):
    shown = anondata("card", photos, *ABOUT)
    assert shown.code == 1
    assert "no manifest" in shown.err
    assert anondata("card", photos).code == 2


def test_an_edited_output_has_no_card(anondata, done, photo):
    next(done.rglob("*.jpg")).write_bytes(photo(8))
    shown = anondata("card", done, *ABOUT, "--no-plots")
    assert (shown.code, "changed since it was written" in shown.err) == (1, True)
    assert not (done / "README.md").exists()


def test_a_licence_that_the_hub_does_not_know_is_refused(anondata, done):
    shown = anondata("card", done, "--title", "Streets", "--licence", "cc-by", "--no-plots")
    assert (shown.code, "did you mean 'odc-by'?" in shown.err) == (1, True)


def test_an_output_with_a_broken_seal_has_no_card(anondata, done):
    path = done / ".anondata" / "manifest.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "seal": "0" * len(body["seal"])}))
    shown = anondata("card", done, *ABOUT, "--no-plots")
    assert (shown.code, "seal of the manifest does not hold" in shown.err) == (1, True)
    assert not (done / "README.md").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(anondata, done, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    shown = anondata("card", done, *ABOUT, "--out", tmp_path / "locked" / "x")
    assert shown.code == 1
    assert "cannot be" in shown.err


def test_a_file_in_the_place_of_the_folder_is_told(anondata, done, tmp_path):
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "plots").write_text("")
    shown = anondata("card", done, *ABOUT, "--out", tmp_path / "card")
    assert shown.code == 1
    assert "OUT cannot be made" in shown.err


def test_the_folder_is_loaded_by_datasets_as_the_card_says(anondata, done, audited, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(done, tmp_path / "copy")
    assert anondata("card", tmp_path / "copy", *ABOUT, "--audit", audited).code == 0
    found = datasets.load_dataset(str(tmp_path / "copy"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["image"]
    assert len(found) == 5


def test_parquet_files_are_described_by_their_footers_and_loaded(anondata, photo, tmp_path, monkeypatch):
    import datasets

    from anondata.loaders import hf

    columns = {"image": [{"bytes": photo(i), "path": None} for i in range(3)], "label": [0, 1, 1]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict(columns, features=kinds)
    view = hf.anonymize(table, Anonymizer("faces", run_key=b"k" * 32), fields={"image": "image"}, keep="label")
    out = tmp_path / "published"
    view.materialize(out, rows_per_file=2)
    shown = anondata("card", out, *ABOUT)
    assert shown.code == 0, shown.err
    block = from_card((out / "README.md").read_text())
    assert [(one["name"], one["rows"]) for one in block["contents"]["splits"]] == [("train", 3)]
    told = {
        f["contentUrl"]: f.get("sha256")
        for f in json.loads((out / "croissant.json").read_text())["distribution"]
        if "contentUrl" in f
    }
    assert told == {
        f"data/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in (out / "data").glob("*.parquet")
    }
    found = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.features == kinds
    assert len(found) == 3


# --- facts --------------------------------------------------------------------------------------------------------


def test_a_gate_has_the_calibrated_threshold_and_its_provenance():
    [gate] = gates_of(policy("self_match: {far: 0.02}"))
    calibration = shipped("dlib-face-resnet")
    assert gate == Gate(
        "self_match(dlib-face-resnet, far=0.02)",
        "face",
        "verify",
        embedder="dlib-face-resnet",
        far=0.02,
        threshold=calibration.at(0.02).distance,
        calibrated_on=calibration.data,
        people=51,
        impostor_pairs=5100,
        calibration_sha256=hashlib.sha256(calibration.to_json().encode()).hexdigest(),
    )


def test_composed_gates_are_told_part_by_part():
    found = list(gates_of(policy("ensemble: {embedders: [dlib-face-resnet, mobilefacenet-ms1m]}")))
    assert [gate.embedder for gate in found] == ["dlib-face-resnet", "mobilefacenet-ms1m"]
    assert all(gate.within.startswith("ensemble(") for gate in found)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("parrot_match: {gallery: vips}", "gallery's portraits"),
        ("confidence_drop: {gallery: vips, drop: 0.4}", "by 0.4"),
        (f"'{__name__}:OwnGate': {{}}", "ask its maker"),
    ],
)
def test_a_gate_without_a_calibrated_threshold_says_where_its_own_comes_from(gate, words):
    [found] = gates_of(policy(gate))
    assert found.threshold is None
    assert words in found.note


def test_who_is_covered_by_a_gallery_is_told_with_its_threshold():
    [_, cover] = gates_of(policy(cover="{everyone_except: {gallery: consented}}"))
    assert (cover.use, cover.name) == ("cover", "everyone_except")
    assert cover.threshold == shipped("dlib-face-resnet").at(0.002).low
    [_, cover] = gates_of(policy(cover="{gallery: {gallery: protected}}"))
    assert cover.threshold == shipped("dlib-face-resnet").at(0.05).high


def test_models_are_told_once_with_all_their_parts_hash_and_licence():
    found = {model.name: model for model in models_of(load_policy("faces"), None)}
    assert found["centerface"].role == "detector, detector of the second look"
    assert (found["dlib-face-resnet"].role, found["dlib-face-resnet"].licence) == ("gate", "CC0-1.0")
    assert all(model.sha256 and len(model.sha256) == 64 for model in found.values())
    body = {"networks": [{"name": "dlib-face-resnet"}, {"name": "insightface-w600k"}], "parameters": {}}
    audited = {model.name: model for model in models_of(load_policy("faces"), body)}
    assert audited["dlib-face-resnet"].role == "gate, attacker of the audit"
    assert audited["insightface-w600k"].commercial_use is False


def test_new_faces_credit_those_whom_they_are_mixed_of():
    found = {m.name: m for m in models_of(load_policy("faces-synthetic"), None)}
    assert (found["mixed-people"].licence, found["mixed-people"].commercial_use) == ("CC-BY-4.0", True)
    assert "DeBruine" in found["mixed-people"].credit
    assert "10.6084/m9.figshare.5047666" in found["mixed-people"].credit


def test_insightface_and_a_users_own_models_are_not_passed_off_as_free():
    found = {m.name: m for m in models_of(policy(detector="insightface"), None)}
    assert found["insightface-buffalo_l"].commercial_use is False
    assert "non-commercial research" in found["insightface-buffalo_l"].forbids
    [own, _] = models_of(policy(detector=f"'{__name__}:OwnDetector'"), None)
    assert (own.commercial_use, own.sha256, own.licence) == (None, None, "unknown: ask its maker")


def test_a_run_that_released_nothing_has_no_card(tmp_path):
    rules = load_policy("faces")
    with pytest.raises(CardError, match="released nothing"):
        contents_of(tmp_path, Manifest(rules, empty_report(rules), {}, {}, "parquet"))


def test_a_parquet_file_that_is_damaged_is_an_error(tmp_path):
    from anondata.manifest import FileDigest

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.parquet").write_bytes(b"PAR1 no more")
    rules = load_policy("faces")
    files = {"data/train-0.parquet": FileDigest("a" * 64, 12)}
    with pytest.raises(CardError, match="parquet file cannot be read"):
        contents_of(tmp_path, Manifest(rules, empty_report(rules), files, {}, "parquet"))


def test_shards_count_what_was_released_and_what_took_the_place_of_others(tmp_path):
    from anondata.manifest import FileDigest

    rules = load_policy("faces")
    report = replace(empty_report(rules), counts={"samples": {"seen": 9, "released": 6}}).with_instead(replaced=2)
    files = {"a.tar": FileDigest("a" * 64, 12)}
    found = contents_of(tmp_path, Manifest(rules, report, files, {}, "shards"))
    assert [(split.rows, split.bytes, split.globs) for split in found.splits] == [(8, 12, ("*.tar",))]
    assert found.files[0].media_type == "application/x-tar"


def test_a_run_goes_on_in_an_output_that_has_a_card(anondata, photos, tmp_path):
    out = tmp_path / "out"
    assert anondata("anonymize", photos, "--out", out).code == 0
    assert anondata("card", out, "--title", "Faces", "--licence", "cc-by-4.0").code == 0
    assert anondata("anonymize", photos, "--out", out).code == 0
