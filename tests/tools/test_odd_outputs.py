"""Outputs that somebody replaced by what never ends: the next run replaces or refuses them, and never waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """A run that waits for a pipe ends here, and not never."""

    def stop(*_: object) -> None:
        raise TimeoutError("the run waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def piped(path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_an_output_that_became_a_pipe_is_written_again(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    before = (out / "erin.jpg").read_bytes()
    piped(out / "erin.jpg")
    (out / "alice.jpg").unlink()
    (out / "alice.jpg").symlink_to("/dev/zero")
    shown = anondata("anonymize", photos, "--out", out, "--json")
    assert (shown.code, shown.json["skipped_done"], shown.json["released"]) == (0, 3, 5)
    assert (out / "erin.jpg").read_bytes() == before
    assert not (out / "alice.jpg").is_symlink()


@pytest.mark.parametrize("name", ["report.json", ".anondata/manifest.json"])
def test_what_tells_of_the_run_is_written_again(anondata, photos, tmp_path, name):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    piped(out / name)
    assert anondata("anonymize", photos, "--out", out).code == 0
    assert (out / name).is_file()


def test_a_journal_that_became_a_pipe_is_refused(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    piped(out / ".anondata/journal.jsonl")
    shown = anondata("anonymize", photos, "--out", out)
    assert shown.code == 1
    assert "journal cannot be read: not a regular file" in shown.err


def test_a_shard_that_became_a_pipe_is_written_again(anondata, photo, tmp_path):
    import io
    import tarfile

    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar", "w") as tar:
        info = tarfile.TarInfo("x.jpg")
        info.size = len(photo())
        tar.addfile(info, io.BytesIO(photo()))
    out = tmp_path / "out"
    command = ("shards", tmp_path / "in", "--out", out, "--workers", 1)
    anondata(*command)
    before = (out / "a.tar").read_bytes()
    piped(out / "a.tar")
    assert anondata(*command).code == 0
    assert (out / "a.tar").read_bytes() == before
    piped(out / ".anondata/run.json")
    shown = anondata(*command)
    assert shown.code == 1
    assert "NotPlainError" in shown.err
