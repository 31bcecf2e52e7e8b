"""``anondata anonymize --client``: what is written is charged, and a limit stops the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from anondata.ledger import Ledger, Limit


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return tmp_path / "quotas.db"


def limited(url: Path, amount: int, **more: str) -> Ledger:
    ledger = Ledger(url)
    ledger.set_limit(Limit("acme", amount=amount, **more))
    return ledger


def used(ledger: Ledger) -> tuple[int, int]:
    [usage] = ledger.usage("acme")
    return usage.used, usage.reserved


def test_what_is_written_is_charged_and_what_is_withheld_is_not(anondata, photos, tmp_path, url):
    (photos / "broken.jpg").write_bytes(b"no picture")
    ledger = limited(url, 100)
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", "--client", "acme", "--ledger", url)
    assert shown.code == 3
    assert used(ledger) == (5, 0)


def test_faces_and_bytes_are_counted(anondata, photos, tmp_path, url):
    ledger = limited(url, 100, unit="faces")
    ledger.set_limit(Limit("acme", amount=10**9, unit="bytes"))
    anondata("anonymize", photos, "--out", tmp_path / "out", "--client", "acme", "--ledger", url)
    size = sum(
        p.stat().st_size
        for p in (tmp_path / "out").rglob("*")
        if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
    )
    assert {usage.limit.unit: usage.used for usage in ledger.usage("acme")} == {"faces": 5, "bytes": size}


def test_a_limit_stops_the_run_which_goes_on_when_it_is_raised(anondata, photos, tmp_path, url):
    ledger, out = limited(url, 3), tmp_path / "out"
    args = ("anonymize", photos, "--out", out, "--client", "acme", "--ledger", url, "--dataset-name", "holidays")
    shown = anondata(*args)
    assert shown.code == 1
    assert "acme" in shown.err
    assert "3 samples" in shown.err
    assert len([p for p in out.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]) == 3
    assert not (out / "report.json").exists()
    assert used(ledger) == (3, 0)
    limited(url, 5)
    assert anondata(*args).code == 0
    assert used(ledger) == (5, 0)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--client", "acme"), "--client needs --ledger"),
        (("--dataset-name", "x"), "needs --client"),
    ],
)
def test_options_that_belong_together(anondata, photos, tmp_path, args, said, monkeypatch):
    monkeypatch.delenv("ANONDATA_LEDGER", raising=False)
    shown = anondata("anonymize", photos, "--out", tmp_path / "out", *args)
    assert shown.code == 2
    assert said in shown.err


def test_a_ledger_that_is_not_there_lets_nothing_out(anondata, photos, tmp_path, url):
    out = tmp_path / "out"
    assert anondata("anonymize", photos, "--out", out, "--client", "acme", "--ledger", url).code == 1
    assert list(out.rglob("*.jpg")) == []
