"""Runs that end early, and runs that come after: nothing half written, nothing done twice, the same result."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anondata.loaders.files import output as _output
from anondata.loaders.files import run as _run


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    return path


def journal(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / ".anondata/journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("extra", [(), ("--rename",)])
def test_in_two_parts_is_as_in_one(anondata, photos, key, tmp_path, tree, extra):
    (photos / "broken.jpg").write_bytes(b"no photo")
    rest = ("--key-file", key, *extra)
    anondata("anonymize", photos, "--out", tmp_path / "one", *rest)
    anondata("anonymize", photos, "--out", tmp_path / "two", "--limit", 3, *rest)
    second = anondata("anonymize", photos, "--out", tmp_path / "two", "--json", *rest)
    assert second.code == 3
    assert second.json["skipped_done"] == 3
    assert second.json["withheld"] == {"not_an_image": 1}
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_second_run_does_nothing_twice(anondata, photos, tmp_path):
    out = tmp_path / "out"
    (photos / "broken.jpg").write_bytes(b"no photo")
    anondata("anonymize", photos, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    lines = journal(out)
    again = anondata("anonymize", photos, "--out", out, "--json").json
    assert (again["skipped_done"], again["released"], again["images_per_s"]) == (6, 5, None)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == before
    assert journal(out) == lines


def test_killed_in_the_middle_and_resumed_is_as_run_straight(anondata, photo, key, tmp_path, tree):
    src, out = tmp_path / "src", tmp_path / "killed"
    src.mkdir()
    for number in range(24):
        (src / f"{number:02}.jpg").write_bytes(photo(number % 9, group=number % 4 == 0))
    command = [sys.executable, "-c", "from anondata.tools.cli import main; main()", "anonymize", src]
    options = ["--key-file", key, "--workers", "2"]
    for lines in (2, 8):
        process = subprocess.Popen([*command, "--out", out, *options], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if (out / ".anondata/journal.jsonl").exists() and len(
                (out / ".anondata/journal.jsonl").read_bytes().splitlines()
            ) > lines:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (out / "report.json").exists()
        for path in out.glob("*.jpg"):
            assert path.read_bytes().endswith(b"\xff\xd9"), "half a file"
    (out / ".anondata/tmp/left-over").write_bytes(b"half a file")
    resumed = anondata("anonymize", src, "--out", out, *options, "--json").json
    assert 0 < resumed["skipped_done"] < 24
    assert not (out / ".anondata/tmp").exists()
    straight = anondata("anonymize", src, "--out", tmp_path / "straight", *options, "--json").json
    assert straight["skipped_done"] == 0
    assert tree(out) == tree(tmp_path / "straight")


def test_ctrl_c_ends_cleanly_and_is_resumed(anondata, photos, tmp_path, monkeypatch):
    settle = _run.Run._settle

    def interrupted(self, *args):
        settle(self, *args)
        if self.tally.done == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    # A shell starts what runs in its background with the signal ignored, and a CI may be such a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_run.Run, "_settle", interrupted)
            shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--json", "--workers", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert shown.code == shown.json["exit_code"] == 130
    assert shown.json["error"] == "interrupted; the same command goes on from here"
    assert (shown.json["released"], shown.json["not_reached"], shown.json["report"]) == (2, 3, None)
    resumed = anondata("anonymize", photos, "--out", tmp_path / "out", "--json")
    assert (resumed.code, resumed.json["skipped_done"]) == (0, 2)


def test_two_runs_at_once_are_refused(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    with (out / ".anondata/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 2
    assert "another run is writing into DST" in shown.err
    assert anondata("anonymize", photos, "--out", out).code == 0


def test_a_full_disk_stops_the_run_which_then_goes_on(anondata, photos, key, tmp_path, tree, monkeypatch):
    replace, written = os.replace, []

    def full(source, target):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        replace(source, target)

    rest = ("--key-file", key, "--json", "--workers", 1)
    with monkeypatch.context() as patch:
        patch.setattr(_output.os, "replace", full)
        shown = anondata("anonymize", photos, "--out", tmp_path / "out", *rest)
    assert shown.code == shown.json["exit_code"] == 1
    assert "DST cannot be written: its disk is full. The same command goes on from here" in shown.err
    assert (shown.json["released"], shown.json["not_reached"]) == (2, 3)
    assert not (tmp_path / "out/report.json").exists()
    assert not list((tmp_path / "out").rglob("tmp/*"))
    resumed = anondata("anonymize", photos, "--out", tmp_path / "out", *rest)
    assert (resumed.code, resumed.json["skipped_done"]) == (0, 2)
    anondata("anonymize", photos, "--out", tmp_path / "straight", *rest)
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_a_journal_that_cannot_grow_stops_the_run_and_stays_whole(anondata, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    before = (out / ".anondata/journal.jsonl").read_bytes()
    opened = Path.open

    class Full:
        """A file of which only a part gets onto the disk."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda p, mode="r", **k: Full(opened(p, mode, **k)) if mode == "ab" else opened(p, mode, **k),
        )
        shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 1
    assert "its disk is full" in shown.err
    assert (out / ".anondata/journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_journal_that_was_cut_short_costs_one_sample(anondata, photos, key, tmp_path, tree, cut):
    out, rest = tmp_path / "out", ("--key-file", key, "--json")
    anondata("anonymize", photos, "--out", out, *rest)
    first, path = tree(out), out / ".anondata/journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = anondata("anonymize", photos, "--out", out, *rest)
    assert (again.code, again.json["skipped_done"]) == (0, 4)
    assert tree(out) == first
    assert len(journal(out)) == 6


def test_a_run_killed_before_its_first_line_is_resumed(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    path = out / ".anondata/journal.jsonl"
    for rest in (b"", path.read_bytes()[:30]):
        path.write_bytes(rest)
        assert anondata("anonymize", photos, "--out", out).code == 0


def test_a_journal_that_is_none_is_refused(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    (out / ".anondata/journal.jsonl").write_text("something else\n")
    shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 2
    assert "DST's journal cannot be read" in shown.err


def test_an_output_that_was_changed_or_lost_is_made_again(anondata, photos, key, tmp_path, tree):
    out, rest = tmp_path / "out", ("--key-file", key, "--json")
    anondata("anonymize", photos, "--out", out, *rest)
    first = tree(out)
    (out / "alice.jpg").write_bytes((photos / "alice.jpg").read_bytes())  # somebody put the original there
    (out / "erin.jpg").unlink()
    again = anondata("anonymize", photos, "--out", out, *rest).json
    assert again["skipped_done"] == 3
    assert tree(out) == first


def test_a_journal_that_calls_a_raw_photo_done_is_not_believed(anondata, photos, key, tmp_path, tree):
    """Who may write into DST has no run key, and so cannot seal a line."""
    out, rest = tmp_path / "out", ("--key-file", key, "--json")
    anondata("anonymize", photos, "--out", out, *rest)
    first, path = tree(out), out / ".anondata/journal.jsonl"
    raw = (photos / "alice.jpg").read_bytes()
    (out / "alice.jpg").write_bytes(raw)
    lines = journal(out)
    for line in lines[1:]:
        if line["output"] == "alice.jpg":
            line["sha256"] = hashlib.sha256(raw).hexdigest()
        if line["output"] == "bob.JPEG":
            del line["seal"]
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    again = anondata("anonymize", photos, "--out", out, *rest)
    assert (again.code, again.json["skipped_done"]) == (0, 3)
    assert tree(out) == first
    sealed = json.loads((out / ".anondata/manifest.json").read_text())["files"]["alice.jpg"]["sha256"]
    assert sealed == hashlib.sha256((out / "alice.jpg").read_bytes()).hexdigest() != hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("why", ["its source is gone", "it is beyond the limit"])
def test_a_result_that_was_changed_and_is_not_made_again_is_told(anondata, photos, tmp_path, why):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    (out / "erin.jpg").write_bytes((photos / "erin.jpg").read_bytes())
    if why == "its source is gone":
        (photos / "erin.jpg").rename(tmp_path / "erin.jpg")
        again = anondata("anonymize", photos, "--out", out, "--json")
        assert (again.code, again.json["unknown_files"]) == (1, 1)
    else:
        anondata("anonymize", photos, "--out", out, "--limit", 1)
        assert not (out / "erin.jpg").exists()
    assert "erin.jpg" not in json.loads((out / ".anondata/manifest.json").read_text())["files"]


def test_a_source_that_changed_is_done_again(anondata, photos, photo, tmp_path, tree):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    first = tree(out)
    (photos / "alice.jpg").write_bytes(photo(8))
    (photos / "erin.jpg").write_bytes(b"no photo any more")
    again = anondata("anonymize", photos, "--out", out, "--json").json
    assert (again["skipped_done"], again["withheld"]) == (3, {"not_an_image": 1})
    assert tree(out)["alice.jpg"] != first["alice.jpg"]
    assert not (out / "erin.jpg").exists(), "what was released of the older file must not pass for the newer"


def test_outputs_of_sources_that_are_gone_stay_and_are_told(anondata, photos, tmp_path):
    out = tmp_path / "out"
    (photos / "broken.jpg").write_bytes(b"no photo")
    anondata("anonymize", photos, "--out", out)
    (photos / "alice.jpg").unlink()
    (photos / "broken.jpg").unlink()
    again = anondata("anonymize", photos, "--out", out, "--json")
    assert (again.code, again.json["samples"], again.json["outputs_without_source"]) == (0, 4, 1)
    assert "left in DST: 1 outputs whose sources were not named this time" in again.err
    assert (out / "alice.jpg").exists()
    samples = json.loads((out / "report.json").read_text())["counts"]["samples"]
    assert samples == {"seen": 5, "released": 5}, "the report is about the folder"


def test_a_source_that_cannot_be_read_for_once_is_tried_again(anondata, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    read = _run.Source.read

    def no_permission(self):
        if self.name == "alice.jpg":
            raise PermissionError(13, "Permission denied", self.place)
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(_run.Source, "read", no_permission)
        shown = anondata("anonymize", photos, "--out", out, "--json")
    assert (shown.code, shown.json["withheld"]) == (3, {"unreadable": 1})
    again = anondata("anonymize", photos, "--out", out, "--json")
    assert (again.code, again.json["skipped_done"], again.json["released"]) == (0, 4, 5)


def test_what_was_released_stays_while_its_source_cannot_be_read(
    anondata, photos, photo, tmp_path, monkeypatch, tree
):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    first = tree(out)
    (photos / "alice.jpg").write_bytes(photo(8))

    def broken(self):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(_run.Source, "read", broken)
    shown = anondata("anonymize", photos, "--out", out, "--json")
    assert (shown.code, shown.json["withheld"], shown.json["released"]) == (3, {"unreadable": 1}, 4)
    assert tree(out) == first


def test_other_policies_keys_and_naming_are_refused(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--limit", 1)
    other = tmp_path / "key"
    other.write_bytes(b"another key of 16 bytes or more")
    policy = tmp_path / "mine.yaml"
    from anondata import load_policy

    policy.write_text(load_policy("faces").to_yaml().replace("quality: 95", "quality: 90"))
    for option, message in [
        (
            ("--policy", policy),
            "DST was written by another policy, or with other galleries; choose another folder, or --overwrite",
        ),
        (("--key-file", other), "DST was written with another run key, or has been moved since"),
        (("--rename",), "DST was written without --rename"),
    ]:
        for extra in ((), ("--dry-run",)):
            shown = anondata("anonymize", photos, "--out", out, *option, *extra)
            assert shown.code == 2
            assert message in shown.err
    assert (out / "report.json").exists()


def test_overwrite_removes_what_earlier_runs_wrote(anondata, photos, tmp_path, tree):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    shown = anondata("anonymize", photos, "--out", out, "--rename", "--overwrite", "--json")
    assert (shown.code, shown.json["skipped_done"]) == (0, 0)
    assert "alice.jpg" not in tree(out)
    assert len(tree(out)) == 6


def test_a_journal_cannot_make_us_remove_files_elsewhere(anondata, photos, tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim.jpg"
    victim.write_bytes(b"precious")
    anondata("anonymize", photos, "--out", out)
    path = out / ".anondata/journal.jsonl"
    path.write_text(path.read_text().replace('"alice.jpg"', '"../victim.jpg"').replace('"bob.JPEG"', f'"{victim}"'))
    assert anondata("anonymize", photos, "--out", out, "--overwrite").code == 0
    assert victim.exists()
