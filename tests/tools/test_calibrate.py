"""``anondata calibrate``: labelled faces in, a file of thresholds out, and nobody's name anywhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from anondata.tools import calibrate as room
from anondata.verifiers.calibration import load
from anondata.verifiers.gallery.labelled import Templates


@pytest.fixture(scope="module")
def people(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people of ``faces_london`` with their metadata, and one photo without a face."""
    from PIL import Image

    source, folder = shared_data / "faces_london", tmp_path_factory.mktemp("people")
    header, *rows = (source / "metadata.csv").read_text().splitlines()
    for row in rows[:24]:
        shutil.copy(source / row.split(",")[0], folder)
    Image.new("RGB", (200, 200), "grey").save(folder / "zelda.png")
    (folder / "metadata.csv").write_text("\n".join([header, *rows[:24], "zelda.png,Zelda,neutral,,,"]) + "\n")
    return folder


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve people with two photos each, whose templates are made up: nothing is read."""
    folder = tmp_path / "faces"
    for person in range(12):
        for number in range(2):
            path = folder / f"jane{person}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def made_up(photos, embedder, **options):
        random = torch.Generator().manual_seed(0)
        centres = torch.randn(12, 8, generator=random).repeat_interleave(2, dim=0)
        return Templates(centres + 0.1 * torch.randn(24, 8, generator=random), tuple(photos), {"no_face": 3})

    monkeypatch.setattr(room, "embed_photos", made_up)
    return folder


def test_thresholds_of_real_faces_are_written_and_shown(anondata, people, tmp_path):
    out = tmp_path / "mine.json"
    shown = anondata("calibrate", people, "--out", out, "--data", "twelve of London", "--device", "cpu")
    assert shown.code == 0
    found = load(out)
    assert (found.identities, found.impostor_pairs, found.genuine_pairs) == (12, 264, 12)
    assert (found.embedder, found.data) == ("dlib-face-resnet", "twelve of London")
    [threshold] = found.thresholds
    assert threshold.far == 0.05
    assert 0.55 < threshold.distance < 0.75
    assert threshold.tar == 1.0
    assert f"{threshold.distance:.4f}" in shown.out
    assert "24 of 25 photos, 12 people" in shown.out
    assert "264 pairs of different people, 12 of one person" in shown.out
    assert "left out: 1 no face" in shown.out
    assert "zelda" not in (shown.out + shown.err + out.read_text()).lower()


def test_json_is_the_summary_with_the_calibration(anondata, labelled, tmp_path):
    shown = anondata(
        "calibrate", labelled, "--out", tmp_path / "mine.json", "--json", "--far", "0.05", "--far", "0.04"
    )
    assert shown.code == 0
    assert shown.json["format"] == "anondata.calibrate/1"
    assert (shown.json["photos"], shown.json["used"], shown.json["left_out"]) == (24, 24, {"no_face": 3})
    assert [t["far"] for t in shown.json["calibration"]["thresholds"]] == [0.05, 0.04]
    assert "jane" not in shown.out + (tmp_path / "mine.json").read_text()
    assert shown.err == ""


def test_a_rate_that_the_photos_cannot_support_fails_before_any_is_read(anondata, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "embed_photos", None)
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json", "--far", "0.001")
    assert shown.code == 1
    assert shown.err.startswith(
        "error: 264 pairs of different people cannot support a false-accept rate of 0.001, which needs 10000; "
        "the smallest that they support is 0.038."
    )
    assert not (tmp_path / "mine.json").exists()


def test_the_photos_that_remain_must_support_the_rate_too(anondata, labelled, tmp_path, monkeypatch):
    whole = room.embed_photos

    def fewer(photos, embedder, **options):
        found = whole(photos, embedder)
        return Templates(found.templates[:20], found.photos[:20], {"no_face": 4})

    monkeypatch.setattr(room, "embed_photos", fewer)
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json", "--far", "0.05")
    assert shown.code == 1
    assert "180 pairs of different people cannot support" in shown.err


def test_too_few_people_fail(anondata, labelled, tmp_path):
    for person in range(5):
        shutil.rmtree(labelled / f"jane{person}")
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json")
    assert shown.code == 1
    assert "photos of 7 people cannot be calibrated on, 10 are needed" in shown.err


def test_an_earlier_calibration_is_replaced_and_another_file_is_not(anondata, labelled, tmp_path):
    out = tmp_path / "mine.json"
    assert anondata("calibrate", labelled, "--out", out).code == 0
    assert anondata("calibrate", labelled, "--out", out).code == 0
    out.write_text('{"precious": true}')
    shown = anondata("calibrate", labelled, "--out", out)
    assert shown.code == 2
    assert "is there already and is not a calibration; it is not overwritten" in shown.err
    assert json.loads(out.read_text()) == {"precious": True}


def test_a_plot_is_drawn(anondata, labelled, tmp_path):
    from PIL import Image

    plot = tmp_path / "plot.png"
    assert anondata("calibrate", labelled, "--out", tmp_path / "mine.json", "--plot", plot).code == 0
    picture = Image.open(plot)
    assert picture.format == "PNG"
    assert picture.size == (960, 540)
    assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    (tmp_path / "notes.txt").write_text("mine")
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json", "--plot", tmp_path / "notes.txt")
    assert shown.code == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_matplotlib_a_plot_names_the_extra_before_any_work(anondata, labelled, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json", "--plot", tmp_path / "plot.png")
    assert shown.code == 1
    assert "pip install 'anondata[plots]'" in shown.err
    assert not (tmp_path / "mine.json").exists()


def test_a_file_that_cannot_be_written_leaves_nothing_behind(anondata, labelled, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    shown = anondata("calibrate", labelled, "--out", tmp_path / "mine.json")
    assert shown.code == 1
    assert "error: the calibration cannot be written: No space left on device" in shown.err
    assert [p.name for p in tmp_path.iterdir()] == ["faces"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "Missing option '--out'"),
        (["--out", "nowhere/mine.json"], 2, "the folder of --out or --plot does not exist"),
        (["--out", "mine.json", "--far", "0"], 2, "Invalid value for '--far'"),
        (["--out", "mine.json", "--far", "1"], 2, "Invalid value for '--far'"),
        (["--out", "mine.json", "--embedder", "dlib-face"], 2, "did you mean 'dlib-face-resnet'?"),
        (["--out", "mine.json", "--device", "abacus"], 2, "cannot be used here"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(anondata, labelled, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    shown = anondata("calibrate", labelled, *args)
    assert shown.code == code
    assert message in shown.err


def test_what_is_no_folder_of_faces_is_refused(anondata, tmp_path):
    shown = anondata("calibrate", tmp_path / "jane", "--out", tmp_path / "mine.json")
    assert shown.code == 2
    assert "FACES is not a folder" in shown.err
    assert "jane" not in shown.err


def test_an_embedder_without_its_weights_fails_with_the_next_step(anondata, people, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    shown = anondata("calibrate", people, "--out", tmp_path / "mine.json", "--embedder", "insightface:buffalo_l")
    assert shown.code == 1
    assert "insightface model 'buffalo_l' is not on this machine" in shown.err
