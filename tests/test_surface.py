"""What public modules show to who looks: names that are meant to be used, and their keywords."""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, signature

import pytest

import anondata
from anondata import errors, transforms
from anondata.components import TABLES
from anondata.loaders import hf
from anondata.loaders import torch as for_torch
from anondata.loaders import webdataset as for_wds
from anondata.transforms import Pixelate

SHOWN = {
    "anondata": [*anondata.__all__, "__version__"],
    "anondata.errors": None,
    "anondata.ledger": None,
    "anondata.loaders.hf": None,
    "anondata.loaders.shards": ["Progress", "Shards", "ShardsJob", "anonymize_shards", "plan"],
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


def test_techniques_show_all_of_their_keywords() -> None:
    from anondata.transforms.synthetic_face import SyntheticFace

    assert list(signature(Pixelate).parameters) == [
        "blocks",
        "noise",
        "contrast",
        "coverage",
        "shape",
        "feather",
        "key",
    ]
    assert signature(SyntheticFace).parameters["coverage"].default == SyntheticFace().coverage

    class Plain(Pixelate):
        def __init__(self) -> None:
            super().__init__(blocks=2)

    assert not signature(Plain).parameters
    for technique in TABLES["technique"].values():
        module, _, name = technique.partition(":")
        kinds = {p.kind for p in signature(getattr(import_module(module), name)).parameters.values()}
        assert Parameter.VAR_KEYWORD not in kinds


def test_every_technique_is_shown_where_techniques_live() -> None:
    for path in TABLES["technique"].values():
        module, _, name = path.partition(":")
        assert name in dir(transforms)
        assert getattr(transforms, name) is getattr(import_module(module), name)


def test_the_adapters_take_the_same_words() -> None:
    words = {"fields", "keep", "drop", "on_withheld", "group", "batch", "report_folder", "quota"}
    for adapter in (hf, for_torch, for_wds):
        assert words <= set(signature(adapter.anonymize).parameters), adapter
    for adapter in (hf, for_torch):
        assert list(signature(adapter.anonymize).parameters)[:2] == ["source", "anonymizer"]
