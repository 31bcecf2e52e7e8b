"""``anondata doctor``: what it finds, and that it notices what is broken."""

from __future__ import annotations

import pytest
import torch

from anondata.errors import WeightsError
from anondata.models import registry
from anondata.tools import doctor


def test_doctor_passes_here(anondata):
    shown = anondata("doctor", "--json")
    body = shown.json
    assert shown.code == 0
    assert body["ok"]
    assert body["packages"]["torch"] == torch.__version__.split("+")[0]
    assert {w["name"] for w in body["weights"]} == {w.name for w in registry.weights()}
    assert [c["name"] for c in body["self_test"]] == ["released", "detected", "verified", "written", "regions"]


def test_doctor_for_people(anondata, monkeypatch):
    monkeypatch.setattr(doctor, "self_test", lambda: [doctor.Finding("released", True, "so it says")])
    monkeypatch.setattr(doctor, "_has", lambda module: module != "onnxruntime")
    shown = anondata("doctor")
    assert shown.code == 0
    for line in ("pip install 'anondata[cpu]'", "  passed  released: so it says", "all is well", "centerface"):
        assert line in shown.out


def test_a_drawn_picture_is_enough_without_a_photo(monkeypatch):
    monkeypatch.setattr(doctor, "_has", lambda module: False)
    checks = doctor.self_test()
    assert all(check.passed for check in checks)
    assert "written" in {check.name for check in checks}


def test_a_self_test_that_raises_is_broken(anondata, monkeypatch):
    def fail() -> None:
        raise WeightsError("the file is gone")

    monkeypatch.setattr(doctor, "_picture", fail)
    shown = anondata("doctor")
    assert shown.code == 1
    assert "FAILED  self-test: WeightsError: the file is gone" in shown.out
    assert "something is broken" in shown.out


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_bad_weights_are_broken(anondata, monkeypatch, tmp_path, form):
    monkeypatch.setattr(doctor, "self_test", list)
    monkeypatch.setenv(registry.OVERRIDE_VARIABLE, str(tmp_path))
    (tmp_path / "centerface.safetensors").write_bytes(b"something else")
    shown = anondata("doctor", *form)
    assert shown.code == 1
    assert "has sha256" in shown.out
