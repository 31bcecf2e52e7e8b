"""Which weights there are, where they are found, and what is said when they are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from anondata.errors import WeightsError
from anondata.models import registry
from anondata.models.registry import (
    Bundled,
    Licence,
    PyPI,
    Supplied,
    Url,
    Weights,
    bundled_file,
    entry,
    locate,
    pull,
    verify,
    weights,
)

SUPPLIED = Path(__file__).parents[2] / "../shared/data/weights"
CONTENT = b"weights of a very small network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def small(source: registry.Source) -> Weights:
    return Weights(
        name="small",
        file="small.onnx",
        source=source,
        sha256=SHA256,
        licence=Licence("MIT"),
        size_bytes=len(CONTENT),
        description="a very small network",
    )


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and no folder of the developer's own."""
    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _: str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def override(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(folder))
    return folder


@pytest.mark.parametrize("item", weights(), ids=lambda item: item.name)
def test_an_entry_says_what_a_user_must_know(item: Weights) -> None:
    assert entry(item.name) == item
    assert item.description
    assert item.licence.spdx in {"MIT", "CC0-1.0", "CC-BY-4.0", "Apache-2.0", "BSD-3-Clause"}
    assert len(bytes.fromhex(item.sha256)) == 32


def test_names_and_files_are_unique() -> None:
    assert len({item.name for item in weights()}) == len({item.file for item in weights()}) == len(weights())


@pytest.mark.parametrize("item", [i for i in weights() if i.source == Bundled()], ids=lambda item: item.name)
def test_a_bundled_file_is_the_registered_one_and_has_its_licence_beside_it(item: Weights) -> None:
    path = verify(item.name)
    assert path == bundled_file(item.file)
    assert path.stat().st_size == item.size_bytes
    assert path.with_name(item.file.split(".")[0] + ".LICENSE.txt").is_file()


@pytest.mark.parametrize("name", ["yunet", "mobilefacenet-ms1m"])
def test_optional_weights_are_the_registered_files(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not SUPPLIED.is_dir():
        pytest.skip("no folder of optional weights: ../shared/data/weights")
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(SUPPLIED))
    assert locate(name).stat().st_size == entry(name).size_bytes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("centerfase", "no weights are called 'centerfase'; did you mean 'centerface'? `anondata weights list`"),
        ("xyz", "no weights are called 'xyz'. `anondata weights list` shows all of them"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, message: str) -> None:
    for ask in (entry, locate, pull, verify):
        with pytest.raises(WeightsError) as caught:
            ask(wrong)
        assert message in str(caught.value)


def test_a_file_that_is_not_here_is_not_downloaded_and_the_error_says_how(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        locate("ppocr-det")
    message = str(caught.value)
    assert f"weights 'ppocr-det' are not on this machine (looked for {cache / 'ppocrv4_det.onnx'};" in message
    assert "ANONDATA_WEIGHTS is not set" in message
    assert (
        "Run `anondata weights pull ppocr-det`, or without a network: put ppocrv4_det.onnx into a folder" in message
    )
    assert not cache.exists()


def test_weights_without_an_address_cannot_be_pulled() -> None:
    for ask in (locate, pull):
        with pytest.raises(
            WeightsError, match=r"put mobilefacenet_ms1m\.onnx into a folder and set ANONDATA_WEIGHTS"
        ):
            ask("mobilefacenet-ms1m")


def test_a_bundled_file_that_is_gone_asks_for_a_reinstall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "bundled_file", lambda file: tmp_path / file)
    with pytest.raises(WeightsError, match="pip install --force-reinstall --no-deps anondata"):
        locate("centerface")


@pytest.mark.parametrize("source", [Bundled(), Supplied("x"), Url("http://localhost/x"), PyPI("x==1", "x/x")])
def test_the_folder_of_the_user_comes_first(override: Path, cache: Path, source: registry.Source) -> None:
    cache.mkdir(parents=True)
    for folder in (override, cache):
        (folder / "small.onnx").write_bytes(CONTENT)
    assert locate(small(source)) == pull(small(source)) == override / "small.onnx"


def test_the_folder_of_the_user_need_not_hold_everything(override: Path) -> None:
    assert override.is_dir()
    assert locate("centerface") == bundled_file("centerface.safetensors")


def test_a_wrong_file_is_an_error_even_where_a_good_one_is_next(override: Path) -> None:
    (override / "centerface.safetensors").write_bytes(b"not it")
    for ask in (locate, verify, pull):
        with pytest.raises(WeightsError) as caught:
            ask("centerface")
        message = str(caught.value)
        assert f"{override / 'centerface.safetensors'} has sha256 {hashlib.sha256(b'not it').hexdigest()}" in message
        assert f"expected {entry('centerface').sha256}. Remove the file." in message


def test_every_use_reads_the_file_again(override: Path) -> None:
    """A file that changes after its first use is noticed, though its size stays."""
    path = override / "small.onnx"
    path.write_bytes(CONTENT)
    assert locate(small(Supplied("x"))) == path
    path.write_bytes(CONTENT[:-1] + b"K")
    os.utime(path, (0, 0))
    with pytest.raises(WeightsError, match="has sha256"):
        locate(small(Supplied("x")))
