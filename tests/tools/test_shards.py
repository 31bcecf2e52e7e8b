"""``anondata shards``: exit codes, what is printed, and what Ctrl-C and a killed parent leave behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anondata.report import from_json

COMMAND = [sys.executable, "-c", "from anondata.tools.cli import main; main()", "shards"]
DEADLINE_S = 60


def written(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def src(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """Three shards of a photo with label and caption each."""
    for s in range(3):
        members = [(f"alice{s}.jpg", photo(s)), (f"alice{s}.cls", b"1"), (f"alice{s}.json", b"alice")]
        written(tmp_path / f"in/alice-{s}.tar", members)
    return tmp_path / "in"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    return path


FIELDS = ("--keep", "cls", "--drop", "json", "--workers", "1")


def test_all_released(anondata, src, tmp_path, tree):
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json")
    assert shown.code == 0
    summary = shown.json
    assert summary.pop("seconds") > 0
    assert summary.pop("samples_per_s") > 0
    assert len(summary.pop("fingerprint")) == 32
    assert summary == {
        "format": "anondata.shards/1",
        "policy": "faces",
        "shards": 3,
        "done": 3,
        "skipped_done": 0,
        "failed": [],
        "not_reached": 0,
        "samples": 3,
        "released": 3,
        "withheld": {},
        "instead": {"dropped": 0, "replaced": 0},
        "written": 3,
        "left_alone": 0,
        "outputs_without_source": 0,
        "unknown_files": 0,
        "report": "report.json",
        "index": "index.json",
        "exit_code": 0,
        "error": None,
    }
    names = [f"alice-{s}.{suffix}" for s in range(3) for suffix in ("idx", "tar")]
    assert sorted(tree(tmp_path / "out")) == [*names, "index.json", "report.json"]


def test_some_withheld_exits_3_and_prints_no_name(anondata, src, tmp_path):
    written(src / "alice-9.tar", [("alice9.jpg", b"no photo")])
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json")
    assert (shown.code, shown.json["exit_code"], shown.json["withheld"]) == (3, 3, {"not_an_image": 1})
    assert "withheld: not_an_image" in shown.err
    assert "alice" not in shown.out + shown.err


def test_the_same_command_again_does_nothing(anondata, src, tmp_path, tree):
    anondata("shards", src, "--out", tmp_path / "out", *FIELDS)
    before = tree(tmp_path / "out")
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json")
    assert (shown.code, shown.json["skipped_done"], shown.json["samples_per_s"]) == (0, 3, None)
    assert tree(tmp_path / "out") == before


def test_a_damaged_shard_exits_1_and_tells_its_number(anondata, src, tmp_path):
    (src / "alice-1.tar").write_bytes(b"damaged")
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json")
    assert (shown.code, shown.json["exit_code"], shown.json["done"], shown.json["not_reached"]) == (1, 1, 1, 1)
    assert (shown.json["report"], shown.json["index"]) == (None, None)
    assert "failed: shard 2 of 3 is not a tar" in shown.err
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json", "--keep-going")
    assert (shown.code, shown.json["done"], shown.json["not_reached"], shown.json["index"]) == (1, 2, 0, "index.json")
    assert [failure["shard"] for failure in shown.json["failed"]] == [2]
    assert (
        shown.json["error"]
        == "1 of 3 shards could not be done; repair or leave them out, and the same command does the rest"
    )
    assert "alice" not in shown.out + shown.err


def test_an_unknown_file_in_the_place_exits_1(anondata, src, tmp_path):
    anondata("shards", src, "--out", tmp_path / "out", *FIELDS)
    (tmp_path / "out/alice.jpg").touch()
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--json")
    assert (shown.code, shown.json["unknown_files"]) == (1, 1)
    assert "1 files in DST were not written by anondata" in shown.err


def test_an_undeclared_field_is_a_usage_error_that_says_how_to_go_on(anondata, src, tmp_path):
    shown = anondata("shards", src, "--out", tmp_path / "out", "--json", "--workers", 1)
    assert (shown.code, shown.json["exit_code"]) == (2, 2)
    assert "field 'cls' is not declared; declare it as a content type, keep or drop" in shown.err
    assert not list((tmp_path / "out").glob("*.tar"))
    assert anondata("shards", src, "--out", tmp_path / "out", *FIELDS).code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["shards"], "Missing argument 'SRC...'"),
        (["shards", "SRC"], "Missing option '--out'"),
        (["shards", "SRC", "--out", "SRC"], "the output place lies in SRC 1"),
        (["shards", "pipe:ls", "--out", "OUT"], "SRC 1 begins with pipe:"),
        (["shards", "SRC/none.tar", "--out", "OUT"], "SRC 1 does not exist"),
        (["shards", "SRC", "--out", "SRC/alice-0.tar"], "DST is a file"),
        (["shards", "SRC", "--out", "HOME"], "holds files that no run of anondata wrote"),
        (["shards", "SRC", "--out", "OUT", "--policy", "facse"], "Presets: "),
        (["shards", "SRC", "--out", "OUT", "--group", "cls"], "group names a field that is not kept"),
        (["shards", "SRC", "--out", "OUT", "--keep", "jpg"], "declared twice"),
        (["shards", "SRC", "--out", "OUT", "--regions", "jpg"], "declared twice"),
        (["shards", "SRC", "--out", "OUT", "--image", "png", "--masks", "png"], "a field is named twice"),
        (["shards", "SRC", "--out", "OUT", "--regions", "json", "--masks", "json:jpg"], "a field is named twice"),
        (["shards", "SRC", "--out", "OUT", "--regions", "json:secret"], "name the field of content"),
        (["shards", "SRC", "--out", "OUT", "--on-withheld", "keep"], "Invalid value for '--on-withheld'"),
        (["shards", "SRC", "--out", "OUT", "--device", "gpu"], "device 'gpu' cannot be used here"),
    ],
)
def test_usage_errors_exit_2_and_write_nothing(anondata, src, tmp_path, args, message):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/alice.jpg").touch()
    places = {"SRC": str(src), "OUT": str(tmp_path / "out"), "HOME": str(tmp_path / "home")}
    given = [places.get(arg, arg.replace("SRC/", f"{src}/")) for arg in args]
    shown = anondata(*given)
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in src.iterdir()) == [f"alice-{s}.tar" for s in range(3)]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(anondata, src, tmp_path, state):
    shown = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--dry-run")
    assert shown.code == 0
    assert "fields: jpg;jpeg;png;webp: image, cls: keep" in shown.out
    assert "3 shards, of which 0 are done and would be skipped" in shown.out
    assert not (tmp_path / "out").exists()
    assert list(state.iterdir()) == []
    anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--limit", 1)
    planned = anondata("shards", src, "--out", tmp_path / "out", *FIELDS, "--dry-run", "--json").json
    assert (planned["shards"], planned["skipped_done"]) == (3, 1)
    other = anondata(
        "shards", src, "--out", tmp_path / "out", *FIELDS, "--dry-run", "--json", "--policy", "faces-fill"
    )
    assert other.json["skipped_done"] == 0


def test_several_fields_groups_and_new_keys_by_options(anondata, photo, tmp_path):
    members = [("a.left.jpg", photo(0)), ("a.right.png", photo(1, "PNG")), ("a.cls", b"1"), ("a.txt", b"alice")]
    members += [("b.left.jpg", b""), ("b.right.png", b""), ("b.cls", b"1"), ("b.json", b"alice")]
    src = written(tmp_path / "s.tar", members)
    options = ["--image", "left.jpg", "--image", "right.jpg,right.png", "--keep", "cls", "--drop", "txt,json"]
    options += ["--on-withheld", "replace", "--group", "cls", "--rename-keys", "--json", "--workers", 1]
    shown = anondata("shards", src, "--out", tmp_path / "out", *options)
    assert (shown.code, shown.json["instead"], shown.json["written"]) == (3, {"dropped": 0, "replaced": 1}, 2)
    with tarfile.open(tmp_path / "out/s.tar") as tar:
        suffixes = [name.partition(".")[2] for name in tar.getnames()]
    assert suffixes == ["left.jpg", "right.png", "cls", "anondata.txt"] * 2


def test_the_run_key_is_kept_for_a_place_and_never_in_it(anondata, src, tmp_path, state, tree):
    anondata("shards", src, "--out", tmp_path / "out", *FIELDS)
    [kept] = list((state / "keys").iterdir())
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or kept.read_bytes() not in path.read_bytes()
    first = tree(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.tar"):
        path.unlink()
    anondata("shards", src, "--out", tmp_path / "out", *FIELDS)
    assert tree(tmp_path / "out") == first


def begun(src: Path, out: Path, key: Path) -> subprocess.Popen[str]:
    """A run of two processes in a group of its own, as a terminal starts it; it knows of a shard that is done.

    A process begins its second shard when the run knows of its first: with three there, it knows of one.
    """
    command = [*COMMAND, src, "--out", out, "--key-file", key, *FIELDS[:4], "--workers", "2", "--json"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None and len(list(out.glob("*.tar"))) < 3:
        time.sleep(0.01)
    return process


@pytest.fixture
def many(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    for s in range(12):
        members = [(f"{s}{i}.jpg", photo(4 * s + i)) for i in range(4)]
        written(tmp_path / f"many/s-{s:02}.tar", members)
    return tmp_path / "many"


def test_ctrl_c_ends_all_processes_exits_130_and_is_resumed(anondata, many, key, tmp_path):
    process = begun(many, tmp_path / "out", key)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    summary = json.loads(out)
    assert process.returncode == summary["exit_code"] == 130
    assert summary["error"] == "interrupted; the same command goes on from here"
    assert "Traceback" not in err
    assert 0 < summary["not_reached"] < 12
    there = len(list((tmp_path / "out").glob("*.tar")))
    assert summary["done"] <= there
    assert not (tmp_path / "out/.anondata/tmp").exists()
    options = ("--key-file", key, *FIELDS, "--json")
    resumed = anondata("shards", many, "--out", tmp_path / "out", *options).json
    assert resumed["done"] == 12
    assert summary["done"] <= resumed["skipped_done"] <= there  # one may be there of which nobody was told any more


def test_workers_end_when_their_parent_is_killed(many, key, tmp_path):
    process = begun(many, tmp_path / "out", key)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert len(list((tmp_path / "out").glob("*.tar"))) < 12


def test_insights_are_a_field_of_each_sample(anondata, src, tmp_path):
    out = tmp_path / "out"
    assert anondata("shards", src, "--out", out, *FIELDS, "--insights").code == 0
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            texts = [tar.extractfile(m).read() for m in tar.getmembers() if m.name.endswith(".insights.txt")]
            pictures = [m for m in tar.getmembers() if m.name.endswith((".jpg", ".png"))]
        assert len(texts) == len(pictures) > 0
        assert all(text.startswith(b"One face: ") for text in texts)


@pytest.fixture
def marked(tmp_path: Path, photo: Callable[..., bytes], grey_policy: Callable[[str], str]) -> Path:
    """A shard of two photos with boxes and masks of what is no face, and a policy that says what 3 means."""
    (tmp_path / "mine.yaml").write_text(grey_policy("{3: face}"))
    drawn, buffer = np.zeros((160, 160), np.uint8), io.BytesIO()
    drawn[100:130, 4:44] = 3
    Image.fromarray(drawn).save(buffer, "PNG")
    members = []
    for i, boxes in enumerate(([[4, 100, 40, 30]], [])):
        text = json.dumps({"bbox": boxes, "category": [3] * len(boxes)}).encode()
        members += [(f"{i}.png", photo(i, "PNG")), (f"{i}.json", text), (f"{i}.seg.png", buffer.getvalue())]
    return written(tmp_path / "marked/a.tar", members)


def outputs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def is_covered(data: bytes) -> bool:
    pixels = np.array(Image.open(io.BytesIO(data)))
    return bool((pixels[100:130, 4:44] == pixels[115, 20]).all())


def test_members_of_boxes_are_followed_and_written_as_they_are(anondata, marked, tmp_path):
    options = ("--policy", tmp_path / "mine.yaml", "--regions", "json", "--drop", "seg.png", "--workers", 1)
    shown = anondata("shards", marked, "--out", tmp_path / "out", *options, "--json")
    assert shown.code == 0, shown.err
    found = outputs(tmp_path / "out/a.tar")
    assert {*found} == {"0.png", "0.json", "1.png", "1.json"}
    assert found["0.json"] == outputs(marked)["0.json"]
    assert [is_covered(found[f"{i}.png"]) for i in range(2)] == [True, False]


def test_members_of_masks_are_followed_and_left_out(anondata, marked, tmp_path):
    options = ("--policy", tmp_path / "mine.yaml", "--masks", "seg.png:png", "--drop", "json", "--workers", 1)
    shown = anondata("shards", marked, "--out", tmp_path / "out", "--image", "png", *options, "--json")
    assert shown.code == 0, shown.err
    found = outputs(tmp_path / "out/a.tar")
    assert {*found} == {"0.png", "1.png"}
    assert all(map(is_covered, found.values()))


def test_shards_with_other_declarations_of_boxes_are_not_taken_for_done(anondata, marked, tmp_path):
    options = ("--policy", tmp_path / "mine.yaml", "--workers", 1)
    assert anondata("shards", marked, "--out", tmp_path / "out", *options, "--drop", "json,seg.png").code == 0
    again = anondata("shards", marked, "--out", tmp_path / "out", *options, "--drop", "json", "--masks", "seg.png")
    assert again.code == 1
    assert "another setting" in again.err or "written with other" in again.err


def test_samples_that_are_withheld_are_listed_by_their_keys_and_the_first_is_explained(anondata, photo, tmp_path):
    written(tmp_path / "in/a.tar", [("jane.jpg", photo()), ("joe.jpg", photo()[:900]), ("x.png", b"no picture")])
    listed, out = tmp_path / "withheld.txt", tmp_path / "out"
    shown = anondata("shards", tmp_path / "in", "--out", out, "--list-withheld", listed, "--workers", 1)
    assert shown.code == 3
    assert listed.read_text() == 'not_an_image\t1\t"x"\ntruncated\t1\t"joe"\n'
    assert listed.stat().st_mode & 0o777 == 0o600
    assert "first withheld: truncated: the image file ends before its pixels do" in shown.err
    assert "joe" not in shown.err + shown.out
    inside = anondata("shards", tmp_path / "in", "--out", out, "--list-withheld", out / "withheld.txt")
    assert (inside.code, "must not lie in DST" in inside.err) == (2, True)


def test_pictures_of_several_suffixes_are_written_as_one(anondata, photo, tmp_path):
    members = [("a.jpg", photo(0)), ("a.cls", b"1"), ("b.PNG", photo(1, "PNG")), ("b.cls", b"2")]
    written(tmp_path / "in/a.tar", members)
    out, options = tmp_path / "out", ("--image", "JPG,PNG", "--keep", "CLS", "--workers", 1)
    shown = anondata("shards", tmp_path / "in", "--out", out, *options, "--write-as", "png")
    assert shown.code == 0, shown.err
    found = outputs(out / "a.tar")
    assert sorted(found) == ["a.cls", "a.png", "b.cls", "b.png"]
    assert all(found[name].startswith(b"\x89PNG") for name in ("a.png", "b.png"))


def test_a_shard_that_has_no_room_leaves_nothing_tells_what_was_done_and_is_not_worked_on_again(
    anondata, photo, tmp_path, monkeypatch
):
    from anondata.loaders.shards import work

    for s in range(3):
        written(tmp_path / f"in/{s}.tar", [(f"{s}{i}.jpg", photo(s)) for i in range(2)])
    ledger, out = tmp_path / "quotas.db", tmp_path / "out"
    anondata("quota", "set", "--client", "acme", "3", "--ledger", ledger)
    command = ("shards", tmp_path / "in", "--out", out, "--client", "acme", "--ledger", ledger, "--workers", 1)
    shown = anondata(*command, "--json")
    assert (shown.code, shown.json["done"], shown.json["report"]) == (1, 1, "report.json")
    assert sorted(path.name for path in out.iterdir()) == [".anondata", "0.idx", "0.tar", "index.json", "report.json"]
    assert from_json((out / "report.json").read_text()).released == 2
    with monkeypatch.context() as patch:
        patch.setattr(work, "samples", lambda *_: pytest.fail("the shard was read again"))
        assert anondata(*command).code == 1
    anondata("quota", "set", "--client", "acme", "6", "--ledger", ledger)
    assert anondata(*command).code == 0
    assert sorted(path.name for path in out.glob("*.tar")) == ["0.tar", "1.tar", "2.tar"]


def test_files_of_a_sample_that_lie_apart_tell_how_to_pack_them(anondata, photo, tmp_path):
    written(tmp_path / "in/a.tar", [("a.jpg", photo()), ("b.jpg", photo()), ("a.cls", b"1")])
    shown = anondata("shards", tmp_path / "in", "--out", tmp_path / "out", "--keep", "cls", "--workers", 1)
    assert shown.code == 1
    assert "tar --sort=name" in shown.err
