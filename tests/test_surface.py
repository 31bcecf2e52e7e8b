"""What public modules show to who looks: names that are meant to be used, and their keywords."""

from __future__ import annotations

from importlib import import_module

import pytest

import anondata
from anondata import errors
from anondata.loaders import hf
from anondata.loaders import torch as for_torch

SHOWN = {
    "anondata": [*anondata.__all__, "__version__"],
    "anondata.errors": None,
    "anondata.ledger": None,
    "anondata.loaders.hf": None,
    "anondata.loaders.shards": ["Job", "Progress", "Shards", "anonymize_shards", "plan"],
    "anondata.loaders.torch": ["AnonymizedDataset", "AnonymizedIterableDataset", "AnonymizedLoader", "anonymize"],
    "anondata.loaders.webdataset": ["Stage", "anonymize"],
    "anondata.policy": None,
    "anondata.protocols": None,
    "anondata.transforms": None,
}


@pytest.mark.parametrize("name", SHOWN)
def test_dir_shows_public_names_alone_and_each_is_there(name: str) -> None:
    module, expected = import_module(name), SHOWN[name]
    shown = dir(module)
    assert shown == sorted(expected if expected is not None else getattr(module, "__all__", shown))
    assert all(hasattr(module, one) for one in shown)
    assert not {"Any", "Mapping", "annotations", "os"} & set(shown)


def test_every_error_is_shown() -> None:
    assert "PolicyError" in dir(errors)
    assert all(issubclass(getattr(errors, name), errors.AnondataError) for name in dir(errors))


def test_the_adapters_take_the_same_words() -> None:
    from inspect import signature

    from anondata.loaders import webdataset as for_wds

    words = {"fields", "keep", "drop", "on_withheld", "group", "batch", "report_folder", "quota"}
    for adapter in (hf, for_torch, for_wds):
        assert words <= set(signature(adapter.anonymize).parameters), adapter
    for adapter in (hf, for_torch):
        assert list(signature(adapter.anonymize).parameters)[:2] == ["source", "anonymizer"]
