"""``anondata anonymize --insights``: a column of texts beside the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset


def told(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    return {line["file_name"]: line["insights"] for line in lines}


def test_each_released_picture_has_its_text(anondata, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert anondata("anonymize", photos, "--out", out, "--insights").code == 3
    texts = told(out)
    assert set(texts) == {"alice.jpg", "bob.JPEG", "erin.jpg", "trip/carol.png", "trip/deep/dave.webp"}
    assert all(text.startswith("One face: ") for text in texts.values())


def test_they_are_a_column_for_datasets(anondata, photos, tmp_path):
    anondata("anonymize", photos, "--out", tmp_path / "out", "--insights")
    rows = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    assert {*rows.column_names} == {"image", "insights"}
    assert len(rows) == 5


def test_a_second_run_tells_the_same_and_does_nothing(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out, "--insights")
    before = (out / "metadata.jsonl").read_bytes()
    assert anondata("anonymize", photos, "--out", out, "--insights", "--json").json["skipped_done"] == 5
    assert (out / "metadata.jsonl").read_bytes() == before


def test_without_them_nothing_is_told_and_the_folder_keeps_to_it(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    assert not (out / "metadata.jsonl").exists()
    shown = anondata("anonymize", photos, "--out", out, "--insights")
    assert shown.code == 2
    assert "DST was written without --insights" in shown.err


def test_texts_of_an_editor_are_added(anondata, photos, tmp_path):
    (tmp_path / "texts.csv").write_text('file_name,insights\ntrip/carol.png,"The cave is dark, and wet."\n')
    out = tmp_path / "out"
    assert (
        anondata("anonymize", photos, "--out", out, "--rename", "--insights-from", tmp_path / "texts.csv").code == 0
    )
    texts = [text for text in told(out).values() if "cave" in text]
    assert len(texts) == 1
    assert texts[0].startswith("One face: ")
    assert texts[0].endswith(" The cave is dark, and wet.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,insights\nzoe.jpg,dark\n", "names 1 of 1 pictures that no SRC holds"),
        ("file_name,insights\nalice.jpg,a\nalice.jpg,b\n", "has two rows with one file_name"),
        ("name,text\nalice.jpg,dark\n", "needs the columns"),
        ("file_name,insights\nalice.jpg\n", "needs the columns"),
        (b"\xff\xfe\xff", "cannot be read as CSV"),
    ],
)
def test_a_file_of_an_editor_that_does_not_fit_is_refused(anondata, photos, tmp_path, text, said):
    (tmp_path / "texts.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--insights-from", tmp_path / "texts.csv")
    assert shown.code == 2
    assert said in shown.err
    assert "zoe" not in shown.err
    assert not (tmp_path / "out").exists()
