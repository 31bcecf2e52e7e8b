"""``anondata weights``: lists, pulls and verifies, and tells what is broken."""

from __future__ import annotations

import pytest

from anondata.models import registry


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(registry.OVERRIDE_VARIABLE, raising=False)
    return tmp_path / "cache"


def test_list_names_every_set_with_its_state_and_licence(anondata):
    shown = anondata("weights", "list")
    assert shown.code == 0
    for item in registry.weights():
        [line] = [line for line in shown.out.splitlines() if line.split()[0] == item.name]
        assert item.licence.spdx in line
    assert "verified" in shown.out
    assert "not here" in shown.out


def test_verify_passes_what_is_here(anondata):
    assert anondata("weights", "verify").code == 0
    assert anondata("weights", "verify", "centerface").code == 0


def test_verify_fails_for_what_is_named_and_not_here(anondata):
    shown = anondata("weights", "verify", "mobilefacenet-ms1m")
    assert shown.code == 1
    assert "error: mobilefacenet-ms1m is not usable" in shown.err


def test_verify_finds_a_changed_file(anondata, tmp_path, monkeypatch):
    monkeypatch.setenv(registry.OVERRIDE_VARIABLE, str(tmp_path))
    (tmp_path / "centerface.safetensors").write_bytes(b"something else")
    shown = anondata("weights", "verify")
    assert shown.code == 1
    assert "BROKEN" in shown.out
    assert "has sha256" in shown.err
    assert "error: centerface is not usable" in shown.err


@pytest.mark.parametrize("action", ["pull", "verify"])
def test_an_unknown_name_suggests_the_nearest(anondata, action):
    shown = anondata("weights", action, "centrface")
    assert shown.code == 1
    assert "error: no weights are called 'centrface'; did you mean 'centerface'?" in shown.err


def test_pull_of_what_is_here_says_where(anondata):
    shown = anondata("weights", "pull", "centerface")
    assert shown.code == 0
    assert shown.out == f"centerface: {registry.locate('centerface')}\n"


def test_pull_of_what_has_no_address_says_what_to_do(anondata):
    shown = anondata("weights", "pull", "mobilefacenet-ms1m")
    assert shown.code == 1
    assert "cannot be downloaded" in shown.err
    assert "ANONDATA_WEIGHTS" in shown.err


def test_weights_without_an_action_is_usage(anondata):
    assert anondata("weights").code == 2
