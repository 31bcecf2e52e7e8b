"""Embedders by name, and the fingerprints that tell their templates apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.models import registry
from anondata.regions import Regions
from anondata.verifiers.embedders import EMBEDDERS, DlibEmbedder, embedder_of
from anondata.verifiers.insightface import InsightFaceEmbedder


class Mine:
    """An embedder of the user's own, with its parts set in the constructor."""

    def __init__(self) -> None:
        self.name, self.fingerprint = "mine", "0" * 32

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        return torch.zeros(len(regions), 2)


class NoFingerprint:
    name = "lacking"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        return torch.zeros(len(regions), 2)


class Needs:
    def __init__(self, path: str) -> None:
        self.path = path


@pytest.fixture(autouse=True)
def user_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under a name that can be imported, whatever pytest calls it."""
    import sys

    monkeypatch.setitem(sys.modules, "a_user.embedders", sys.modules[__name__])


def test_known_names_give_what_they_are_registered_for() -> None:
    assert {name: type(embedder_of(name)) for name in EMBEDDERS} == EMBEDDERS
    assert embedder_of("dlib-face-resnet") == DlibEmbedder()


def test_a_source_of_insightface_is_taken_as_it_is_and_not_looked_for() -> None:
    assert embedder_of("insightface:buffalo_l") == InsightFaceEmbedder("buffalo_l")
    assert embedder_of("insightface:/no where/a:b.onnx") == InsightFaceEmbedder("/no where/a:b.onnx")
    assert embedder_of("insightface:/no where/a.onnx").name == "insightface-a"


def test_a_class_of_the_user_s_own_is_made() -> None:
    assert isinstance(embedder_of("a_user.embedders:Mine"), Mine)
    assert embedder_of("anondata.verifiers.embedders:DlibEmbedder") == DlibEmbedder()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dlib-face-resnets", "unknown embedder 'dlib-face-resnets'; did you mean 'dlib-face-resnet'?"),
        ("mobilefacenet", "did you mean 'mobilefacenet-ms1m'?"),
        ("facenet512", "unknown embedder 'facenet512'; "),
        ("", "unknown embedder ''; known: dlib-face-resnet, insightface:SOURCE, mobilefacenet-ms1m"),
        ("insightface", "unknown embedder 'insightface'; did you mean 'insightface:SOURCE'?"),
        ("insightface:", "insightface needs the path"),
        ("no_such_package.module:Class", "cannot be made: No module named 'no_such_package'"),
        ("a_user.embedders:Yours", "cannot be made: module "),
        ("a_user.embedders:Needs", "cannot be made: Needs.__init__() missing 1 required"),
        ("a_user.embedders:NoFingerprint", "'a_user.embedders:NoFingerprint' has no fingerprint; see"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)):
        embedder_of(name)


def test_fingerprints_stand_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [embedder_of(name).fingerprint for name in EMBEDDERS]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[0-9a-f]{32}", fingerprint) for fingerprint in found)
    from dataclasses import replace

    other = tuple(replace(item, sha256="0" * 64) for item in registry.weights())
    monkeypatch.setattr(registry, "_REGISTRY", other)
    assert DlibEmbedder().fingerprint not in found
