"""``anondata audit``: two folders in, figures and plots out, and nothing that names anybody."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anondata.auditing.folders import AuditTerms, Inputs, read_inputs
from anondata.content import codec
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import AuditError
from anondata.transforms import Fill, GaussianBlur, RegionTransform
from anondata.verifiers.audit.pairing import pair_names, pair_table, read_labels
from anondata.verifiers.gallery.file import open_gallery

PLOTS = {"cmc.png", "roc.png", "distances.png"}
Named = Callable[..., Any]


@pytest.fixture
def results(photos: Path, tmp_path: Path) -> Path:
    """A tool that does nothing: copies of the five photos, without the other files."""
    folder = tmp_path / "results"
    shutil.copytree(photos, folder, ignore=shutil.ignore_patterns("notes.txt", ".hidden.jpg"))
    return folder


def touch(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


# --- the command -------------------------------------------------------------------------------------------------


def test_figures_go_to_stdout_and_plots_into_the_folder(anondata, photos, results, tmp_path):
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out")
    assert shown.code == 0, shown.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == PLOTS | {"audit.json"}
    for words in ("dlib-face-resnet (gate network)", "naive", "5 originals, 5 anonymized, 5 pairs", "5 missed"):
        assert words in shown.out
    assert "names 100 [57-100] % of 5 faces at rank 1; chance 20 %" in shown.out
    assert "parrots were not possible" in shown.out
    for name in ("alice", "carol", "trip"):
        assert name not in shown.out + shown.err + (tmp_path / "out/audit.json").read_text()


def test_json_goes_to_stdout_alone_and_is_what_was_written(anondata, photos, results, tmp_path):
    options = ["--embedder", "dlib-face-resnet", "--no-plots", "--json", "--far", "0.1", "--far", "0.5"]
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out", *options)
    assert shown.code == 0
    assert shown.json == json.loads((tmp_path / "out/audit.json").read_text())
    assert shown.json["format"] == "anondata.audit/2"
    assert shown.json["parameters"]["fars"] == [0.5, 0.1]
    assert [at["tar"] is None for at in shown.json["attacks"][0]["tar_at_far"]] == [False, True]  # of 20 pairs
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.json"]
    assert "naive" in shown.err


@pytest.mark.parametrize(("bound", "code"), [("99.9", 3), ("100", 0)])
def test_a_bound_decides_the_exit_code(anondata, photos, results, tmp_path, bound, code):
    options = ["--bound", bound, "--no-plots"]
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out", *options)
    assert shown.code == code


def test_files_without_a_partner_and_files_that_cannot_be_read_are_counted(anondata, photos, results, tmp_path):
    (results / "alice.jpg").rename(results / "zoe.jpg")
    (results / "erin.jpg").write_bytes(b"no picture")
    options = ["--no-plots", "--json"]
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out", *options)
    counts = shown.json["counts"]
    assert shown.code == 0
    assert (counts["unpaired_originals"], counts["unpaired_anonymized"], counts["unreadable_anonymized"]) == (1, 1, 1)
    assert "1 originals without a result" in shown.err
    assert "1 pairs whose result cannot be read" in shown.err


def test_plots_of_an_earlier_audit_do_not_stay(anondata, photos, results, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/groups.png").write_bytes(b"old")
    (tmp_path / "out/mine.txt").write_text("kept")
    anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out", "--no-plots")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audit.json", "mine.txt"}


def test_outputs_beside_their_originals_are_told_by_their_names(anondata, photos, tmp_path):
    for path in [p for p in photos.rglob("*.*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]:
        if not path.name.startswith("."):
            shutil.copy(path, path.with_name(f"{path.stem}_anonymized{path.suffix}"))
    options = ["--no-plots", "--json"]
    shown = anondata("audit", "--original", photos, "--anonymized", photos, "--out", tmp_path / "out", *options)
    assert shown.code == 0, shown.err
    assert (shown.json["counts"]["originals"], shown.json["counts"]["pairs"]) == (5, 5)


def empty(a: Path, b: Path) -> None:
    shutil.rmtree(b)
    b.mkdir()


def other_names(a: Path, b: Path) -> None:
    for path in b.rglob("*.*"):
        path.rename(path.with_stem(f"{path.stem}-x"))


def two_for_one(a: Path, b: Path) -> None:
    shutil.copy(b / "bob.JPEG", b / "bob.png")
    (b / "bob.JPEG").rename(b / "bob.webp")


def faceless(a: Path, b: Path) -> None:
    for path in (*a.rglob("*.*"), *b.rglob("*.*")):
        if path.suffix in (".jpg", ".JPEG", ".png", ".webp"):
            Image.new("RGB", (64, 64)).save(path)


def broken_metadata(a: Path, b: Path) -> None:
    (a / "metadata.jsonl").write_text("[]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty, "the folder of anonymized pictures holds no file with the suffix of an image"),
        (other_names, "none of 5 anonymized files belongs to one of 5 originals"),
        (two_for_one, "for 1 names several originals or several anonymized files fit"),
        (faceless, "none of 5 pairs shows a face to be attacked (5 no face)"),
        (broken_metadata, "row 1 of the metadata is not a JSON object"),
    ],
)
def test_nothing_to_attack_is_a_failure_with_a_reason(anondata, photos, results, tmp_path, change, message):
    change(photos, results)
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out")
    assert shown.code == 1
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    for name in ("alice", "bob", str(tmp_path)):
        assert name not in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "results/audit"], "DIR lies in B, where the next audit would take its plots for pictures"),
        (["--out", "src/audit"], "DIR lies in A"),
        (["--identity", "who"], "--identity who: no row of metadata.csv or metadata.jsonl in A has that column"),
        (["--group", "age"], "--group age: no row of"),
        (["--attacker", "owl"], "'owl' is not one of 'naive', 'parrot', 'smoothing-parrot', 'matched-filter'"),
        (["--embedder", "dlib"], "unknown embedder 'dlib'"),
        (["--far", "1.5"], "Invalid value for '--far'"),
        (["--anonymized", "nowhere"], "does not exist"),
    ],
)
def test_usage_errors_are_told_before_the_work(anondata, photos, results, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    shown = anondata("audit", "--original", "src", "--anonymized", "results", "--out", "out", *options)
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_before_the_work(anondata, photos, results, tmp_path, monkeypatch):
    monkeypatch.setattr("anondata.tools.audit.find_spec", lambda name: None)
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out")
    assert shown.code == 1
    assert "pip install 'anondata[plots]', or use --no-plots" in shown.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ["--no-plots", "--embedder", "dlib-face-resnet"]
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", tmp_path / "out", *options)
    assert shown.code == 0, shown.err


def test_a_folder_that_cannot_be_written_is_one_line(anondata, photos, results, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/out"
    shown = anondata("audit", "--original", photos, "--anonymized", results, "--out", out, "--no-plots")
    assert shown.code == 1
    assert "DIR cannot be written: Not a directory" in shown.err


# --- real people -------------------------------------------------------------------------------------------------


@pytest.fixture
def people(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An imagefolder of two photos each of eight people."""
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(shared_data / "weights"))
    with (shared_data / "faces_london/metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))[:16]
    folder = tmp_path / "people"
    folder.mkdir()
    with (folder / "metadata.csv").open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        shutil.copy(shared_data / "faces_london" / row["file_name"], folder)
    return folder


def changed(folder: Path, out: Path, technique: RegionTransform, name: str = "{}.jpg") -> Path:
    """What a tool with this technique writes."""
    out.mkdir()
    for path in sorted(folder.glob("*.jpg")):
        view = codec.decode(path.read_bytes()).pixels
        hidden = technique.change_regions(view, CenterFaceDetector().detect([view]).boxes)
        Image.fromarray(hidden.permute(1, 2, 0).numpy()).save(out / name.format(path.stem), quality=90)
    return out


def test_what_deface_would_write_is_undone_by_parrots(anondata, people, tmp_path):
    out = changed(people, tmp_path / "blurred", GaussianBlur(0.1, coverage=1.15), "{}_anonymized.jpg")
    options = ["--group", "gender", "--json"]
    shown = anondata("audit", "--original", people, "--anonymized", out, "--out", tmp_path / "out", *options)
    assert shown.code == 0, shown.err
    named = {(one["attacker"], one["network"]): one["rank1"]["percent"] for one in shown.json["attacks"]}
    for network in ("dlib-face-resnet", "mobilefacenet-ms1m"):
        assert max(named["parrot", network], named["smoothing-parrot", network]) >= named["naive", network] + 40
    assert shown.json["faces"]["people"] == 8
    assert (tmp_path / "out/groups.png").is_file()
    assert {g["too_few_people"] for g in shown.json["attacks"][0]["groups"]["gender"]} == {True}
    assert "gender: no two groups with enough people to be compared" in shown.err
    text = shown.out + (tmp_path / "out/audit.json").read_text()
    assert not any(name in text for name in ("001_neutral", '"003"', "_anonymized.jpg"))


def test_our_own_results_name_nobody(anondata, people, tmp_path):
    assert anondata("anonymize", people, "--out", tmp_path / "safe").code == 0
    few = [word for name in ("naive", "parrot", "matched-filter") for word in ("--attacker", name)]
    options = [*few, "--bound", "40", "--no-plots", "--json"]  # of eight people, the best of all finds half by luck
    shown = anondata(
        "audit", "--original", people, "--anonymized", tmp_path / "safe", "--out", tmp_path / "out", *options
    )
    assert shown.code == 0, shown.err
    assert shown.json["faces"]["missed"] == 0
    assert all(network["self_match"]["refused"]["percent"] == 0 for network in shown.json["networks"])


def test_marked_faces_of_scenes_are_found_again_by_identity(anondata, people, shared_data, tmp_path):
    scenes, out = tmp_path / "scenes", tmp_path / "copies"
    scenes.mkdir()
    lines = (shared_data / "scenes_london/metadata.jsonl").read_text().splitlines()[:8]
    (scenes / "metadata.jsonl").write_text("\n".join(lines))
    for line in lines:
        shutil.copy(shared_data / "scenes_london" / json.loads(line)["file_name"], scenes)
    shutil.copytree(scenes, out)
    marked = sum(len(json.loads(line)["faces"]) for line in lines)
    options = ["--attacker", "naive", "--identity", "-", "--embedder", "dlib-face-resnet", "--no-plots", "--json"]
    shown = anondata("audit", "--original", scenes, "--anonymized", out, "--out", tmp_path / "out", *options)
    assert shown.code == 0, shown.err
    assert (shown.json["faces"]["in_originals"], shown.json["faces"]["missed"]) == (marked, marked)
    assert all(finder.startswith("marked") for finder in shown.json["faces"]["unchanged_found_by"])


def test_a_gallery_adds_an_attacker(anondata, people, tmp_path):
    gallery = tmp_path / "people.gallery"
    assert anondata("gallery", "build", people, "--out", gallery).code == 0
    assert open_gallery(gallery).templates.shape == (16, 128)
    out = changed(people, tmp_path / "filled", Fill(coverage=1.5))
    options = ["--gallery", gallery, "--attacker", "naive", "--embedder", "dlib-face-resnet", "--no-plots", "--json"]
    shown = anondata("audit", "--original", people, "--anonymized", out, "--out", tmp_path / "out", *options)
    assert shown.code == 0, shown.err
    assert [one["gallery"] for one in shown.json["attacks"]] == ["originals", "enrolled"]
    assert shown.json["attacks"][1]["gallery_templates"] == 16
    assert "naive, enrolled gallery" in shown.err.replace("\n", " ")


# --- which file belongs to which, and who is in it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("original", "anonymized"),
    [
        ("x.jpg", "x.jpg"),
        ("x.gif", "x.gif.png"),
        ("x.JPEG", "x.png"),
        ("x.jpg", "x_anonymized.jpg"),
        ("x.webp", "x_anonymized.jpg"),
        ("x.gif", "x.gif_anonymized.png"),
        ("a/b/x.y.jpg", "a/b/x.y_anonymized.png"),
    ],
)
def test_what_tools_do_to_names_is_understood(original, anonymized):
    assert pair_names([original], [anonymized]).pairs == ((original, anonymized),)


@pytest.mark.parametrize(
    ("original", "anonymized"), [("a/x.jpg", "x.jpg"), ("x.jpg", "x2.jpg"), ("x.jpg", "x_blurred.jpg"), ("x", "y")]
)
def test_other_names_are_other_files(original, anonymized):
    found = pair_names([original], [anonymized])
    assert (found.pairs, found.unpaired_originals, found.unpaired_anonymized) == ((), 1, 1)


def test_the_nearest_name_comes_first():
    found = pair_names(["x.jpg", "x.png", "x_anonymized.jpg"], ["x.png", "x_anonymized.jpg", "x.jpg"])
    assert all(original == anonymized for original, anonymized in found.pairs)
    assert len(found.pairs) == 3


@pytest.mark.parametrize(
    ("originals", "anonymized"), [(["x.jpg", "x.png"], ["x.webp"]), (["x.jpg"], ["x.png", "x.webp"])]
)
def test_unclear_names_are_an_error(originals, anonymized):
    with pytest.raises(AuditError, match="for 1 names several originals or several anonymized files fit"):
        pair_names(originals, anonymized)


def is_path(name: str) -> bool:
    """Whether a listing could hold such a name: no hidden files, nothing outside of the folder."""
    return PurePosixPath(name).as_posix() == name and not any(part[:1] in ("", ".") for part in name.split("/"))


names = st.lists(st.text("abc_./", min_size=1, max_size=6).filter(lambda name: is_path(f"{name}.jpg")), unique=True)


@settings(deadline=None)
@given(names, st.sampled_from(["{}.jpg", "{}.png", "{}.jpg.png", "{}_anonymized.jpg", "{}.jpg_anonymized.png"]))
def test_every_original_finds_its_own_result(names, form):
    originals, results = [f"{name}.jpg" for name in names], [form.format(name) for name in names]
    assert dict(pair_names(originals, results).pairs) == dict(zip(originals, results, strict=True))


def test_a_table_says_which_belong_together():
    table = "original,anonymized\na/x.jpg,1.png\ny.jpg,2.png\n"
    found = pair_table(table, ["a/x.jpg", "y.jpg", "z.jpg"], ["1.png", "2.png"])
    assert found.pairs == (("a/x.jpg", "1.png"), ("y.jpg", "2.png"))
    assert (found.unpaired_originals, found.unpaired_anonymized) == (1, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\nx.jpg,1.png\n", "needs the columns 'original' and 'anonymized'"),
        ("original,anonymized\nnone.jpg,1.png\n", "1 rows of the table of pairs name files that are not there"),
        ("original,anonymized\nx.jpg,1.png\nx.jpg,2.png\n", "names a file twice"),
        ("original,anonymized\nx.jpg\n", "1 rows of the table"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(table, message):
    with pytest.raises(AuditError, match=message):
        pair_table(table, ["x.jpg", "y.jpg"], ["1.png", "2.png"])


def test_the_table_is_read_from_a_file(tmp_path):
    a, b = touch(tmp_path / "a", ["x.jpg", "y.jpg"]), touch(tmp_path / "b", ["1.png"])
    (tmp_path / "pairs.csv").write_text("\ufefforiginal,anonymized\nx.jpg,./1.png\n", encoding="utf-8")
    found = read(a, b, table=tmp_path / "pairs.csv")
    assert found.pairing.pairs == (("x.jpg", "1.png"),)
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AuditError, match="the table of pairs cannot be read"):
        read(a, b, table=tmp_path / "pairs.csv")


def read(a: Path, b: Path, *, identity: str | None = None, groups: Sequence[str] = (), **options: Any) -> Inputs:
    return read_inputs(a, b, AuditTerms(identity, tuple(groups), options.pop("marked", True)), **options)


def test_identities_come_from_metadata_or_from_folders_or_from_nowhere(tmp_path):
    names = ["ann/1.jpg", "ann/2.jpg", "bob/1.jpg"]
    a, b = touch(tmp_path / "a", names), touch(tmp_path / "b", names)
    assert [pair.identity for pair in read(a, b).pairs()] == ["ann", "ann", "bob"]
    assert [pair.identity for pair in read(a, b, identity="-").pairs()] == ["", "", ""]
    (a / "metadata.csv").write_text("file_name,identity,who,age\nann/1.jpg,7,x,30\nbob/1.jpg,8,,40\n")
    assert [pair.identity for pair in read(a, b).pairs()] == ["7", "", "8"]
    found = list(read(a, b, identity="who", groups=["age"]).pairs())
    assert [pair.identity for pair in found] == ["x", "", ""]
    assert [pair.groups for pair in found] == [{"age": "30"}, {"age": ""}, {"age": "40"}]


def test_folders_are_people_only_where_every_photo_lies_in_one_of_several(tmp_path):
    for number, names in enumerate((["x.jpg", "ann/1.jpg"], ["ann/1.jpg", "ann/2.jpg"])):
        a, b = touch(tmp_path / f"a{number}", names), touch(tmp_path / f"b{number}", names)
        assert {pair.identity for pair in read(a, b).pairs()} == {""}


def test_metadata_may_lie_in_the_folders_and_mark_faces(tmp_path):
    a, b = touch(tmp_path / "a", ["s/1.jpg", "s/2.jpg"]), touch(tmp_path / "b", ["s/1.png", "s/2.png"])
    points = list(range(10))
    marked = {"box": [0, 0, 9, 9], "eyes_nose_mouth": points, "identity": "ann", "mood": "glad"}
    rows = [
        {"file_name": "1.jpg", "place": "here", "identity": "the family", "faces": [marked, {"box": [20, 0, 29, 9]}]},
        {"file_name": "2.jpg", "identity": "bob", "faces": [{"box": [1, 1, 5, 5]}]},
    ]
    (a / "s/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read(a, b, groups=["mood", "place"]).pairs()
    assert first.faces is not None
    assert [face.identity for face in first.faces] == ["ann", ""]
    assert [face.landmarks for face in first.faces] == [tuple(points), ()]
    assert [face.groups for face in first.faces] == [{"mood": "glad", "place": "here"}, {"mood": "", "place": "here"}]
    assert second.faces is not None
    assert second.faces[0].identity == "bob"
    assert [pair.faces for pair in read(a, b, marked=False).pairs()] == [None, None]


@pytest.mark.parametrize(
    ("face", "message"),
    [
        ({"box": [1, 2, 3]}, "row 1 of the metadata marks a face without a box of four numbers"),
        ({"box": "1234x"}, "without a box"),
        ("face", "without a box"),
        ({"box": [5, 5, 5, 9]}, "marks a face wrongly"),
        ({"box": [0, 0, "nan", 9]}, "marks a face wrongly"),
        ({"box": [0, 0, 9, 9], "eyes_nose_mouth": [1, 2]}, "marks a face wrongly"),
    ],
)
def test_faces_that_cannot_be_are_refused(face, message):
    with pytest.raises(AuditError, match=message):
        read_labels("metadata.jsonl", json.dumps({"file_name": "x.jpg", "faces": [face]}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "name\nx.jpg\n", "row 1 of the metadata has no file_name"),
        (
            "metadata.csv",
            "file_name\nx.jpg\n./x.jpg\n",
            "row 2 of the metadata names a photo that an earlier row names",
        ),
        ("metadata.jsonl", "{}\n", "row 1 of the metadata has no file_name"),
        ("metadata.jsonl", '\n{"file_name": 3}', "has no file_name"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused(name, text, message):
    with pytest.raises(AuditError, match=message):
        read_labels(name, text)


def test_results_inside_the_folder_of_originals_are_no_originals(tmp_path):
    a = touch(tmp_path / "a", ["x.jpg", "y.jpg", "out/x.jpg", "y_anonymized.jpg"])
    found = read(a, a / "out")
    assert found.counts == {"originals": 2, "anonymized": 1, "unpaired_originals": 1, "unpaired_anonymized": 0}
    assert read(a / "out", a).counts["originals"] == 1


def test_one_folder_without_results_says_so(tmp_path):
    a = touch(tmp_path / "a", ["x.jpg"])
    with pytest.raises(AuditError, match="A and B are the same folder, and no picture in it is named x_anonymized"):
        read(a, a)


def test_columns_of_names_are_refused_before_the_work(tmp_path):
    names = [f"{n}.jpg" for n in range(30)]
    a, b = touch(tmp_path / "a", names), touch(tmp_path / "b", names)
    (a / "metadata.csv").write_text("file_name,name\n" + "".join(f"{n},person {n}\n" for n in names))
    with pytest.raises(AuditError, match="does it name people"):
        read(a, b, groups=["name"])


def test_two_kinds_of_metadata_are_refused(tmp_path):
    a, b = touch(tmp_path / "a", ["x.jpg"]), touch(tmp_path / "b", ["x.jpg"])
    for name in ("metadata.csv", "metadata.jsonl"):
        (a / name).write_text("")
    with pytest.raises(AuditError, match="a folder holds both"):
        read(a, b)
