"""YAML and files of somebody else's, which must neither hang nor fill the memory."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from anondata._files import NotPlainError, open_plain, read_plain
from anondata._yaml import MAX_CHARS, YamlError, load_yaml
from anondata.cards.readme import from_card
from anondata.errors import CardError, CatalogError, PolicyError
from anondata.policy import load_policy, presets
from anondata.requests.catalog import load_catalog

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
BOMBS = {
    "aliases": LAUGHS,
    "itself": "a: &a [*a]",
    "merge": "a: &a {k: &b {<<: *b}}",
    "deep": f"name: {'[' * 10_000}",
    "deep-closed": f"name: {'[' * 5_000}{']' * 5_000}",
    "deep-block": "".join(f"{' ' * i}a:\n" for i in range(200)),
    "number": f"a: {'1' * 5_000}",
    "negative": f"a: -{'1' * 5_000}",
    "hexadecimal": f"a: 0x{'f' * 5_000}",
    "base-60": f"a: {'1:' * 2_000}59",
    "key": f"{'1' * 5_000}: a",
    "long": "a: " + "x" * MAX_CHARS,
    "wide": "a: [" + "x," * 50_000 + "]",
    "date": "a: 2024-99-99",
    "list-key": "[a]: b",
    "python": "a: !!python/object/apply:os.system [true]",
    "two": "--- a\n--- b",
    "tab": "a:\n\t- b",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_yaml_bombs_are_refused_within_a_second(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(text)
    begin = time.process_time()
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    with pytest.raises(CatalogError):
        load_catalog(file)
    with pytest.raises(CardError):
        from_card(f"---\n{text}\n---\nbody")
    assert time.process_time() - begin < 3
    assert len(str(caught.value)) < 300


def test_presets_and_plain_aliases_are_read() -> None:
    assert all(load_policy(name).name == name for name in presets())
    assert load_yaml("a: &a {x: 1, y: 1.5}\nb: {<<: *a, z: yes}") == {
        "a": {"x": 1, "y": 1.5},
        "b": {"x": 1, "y": 1.5, "z": True},
    }
    with pytest.raises(YamlError, match="alias"):
        load_yaml("a: &a 1\nb: *a", aliases=False)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_plain_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(NotPlainError):
        read_plain(path)
    with pytest.raises(NotPlainError):
        open_plain(path, write=True)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(path)


def test_plain_files_are_read_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    assert read_plain(tmp_path / "b") == b"12345"
    assert read_plain(tmp_path / "b", limit=2) == b"12"
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "c")
