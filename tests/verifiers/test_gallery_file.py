"""A gallery in a file: everything comes back, keys are asked for, and no file makes it fall over."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from anondata.errors import GalleryError
from anondata.verifiers.gallery import Gallery, Portrait, file, sealed
from anondata.verifiers.gallery.file import (
    change_gallery,
    find_secret,
    from_payload,
    open_gallery,
    save_gallery,
    to_payload,
)
from anondata.verifiers.gallery.index import Ivf, Recall
from anondata.verifiers.gallery.sealed import KEY_VARIABLE, inspect, read_sealed, write_sealed

KEY = b"0123456789abcdef"
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def portrait(image: bytes, rng: np.random.Generator) -> Portrait:
    landmarks = rng.random((5, 2), np.float32)
    landmarks[0] = np.nan
    return Portrait(image, rng.random(4, np.float32), landmarks)


def full_gallery() -> Gallery:
    """Seven templates of four people, with something in every field."""
    rng = np.random.default_rng(7)
    templates = rng.standard_normal((7, 6), dtype=np.float32)
    parrot = templates.copy()
    parrot[2] = np.nan
    images = [b"\xff\xd8Jane", None, b"", b"\xff\xd8Max", b"\xff\xd8Zoe" * 100, None, b"\xff\xd8Ida"]
    return Gallery(
        "consented",
        "dlib-face-resnet",
        "ab" * 32,
        ("jane-1", "max-2", "zoé 3", "ida/4"),
        ("Jane Doe", "", "Zoé \N{SNOWMAN}", "Ida"),
        templates,
        np.array([0, 1, 0, 1, 2, 3, 3]),
        tuple(None if image is None else portrait(image, rng) for image in images),
        {"pixelate(blocks=8)": parrot, "fill": np.full_like(templates, np.nan)},
        Ivf(templates[:2].copy(), np.array([0, 1, 0, 1, 1, 0, 0], np.int32), 1, Recall(9, 10, 0.6)),
        b"salt" * 8,
    )


def facts(gallery: Gallery) -> dict[str, Any]:
    """Everything that a gallery holds, as something that compares, NaN for NaN."""
    index = gallery.index
    return {
        "told": (gallery.role, gallery.embedder, gallery.embedder_fingerprint, gallery.salt),
        "people": (gallery.identities, gallery.labels),
        "templates": exact(gallery.templates),
        "owners": exact(gallery.owners),
        "portraits": [p and (p.image, exact(p.box), exact(p.landmarks)) for p in gallery.portraits],
        "parrots": [(name, exact(rows)) for name, rows in gallery.parrots.items()],
        "index": index and (exact(index.centroids), exact(index.cells), index.probes, index.recall),
        "fingerprint": gallery.fingerprint,
    }


def exact(array: Any) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


@st.composite
def galleries(draw: st.DrawFn) -> Gallery:
    name = st.text(st.characters(), max_size=8)  # lone surrogates too: names of folders hold them
    people = draw(st.lists(name.filter(str.strip), max_size=4, unique=True))
    owners = [
        *range(len(people)),
        *(draw(st.lists(st.sampled_from(range(len(people))), max_size=4)) if people else []),
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    templates = rng.standard_normal((len(owners), draw(st.integers(1, 4))), np.float32)
    templates *= draw(st.sampled_from([1, -0.0, 1e-40, 1e30]))
    portraits = [None if draw(st.booleans()) else portrait(draw(st.binary(max_size=9)), rng) for _ in owners]
    return Gallery(
        draw(st.sampled_from(["protected", "consented"])),
        draw(name),
        draw(name),
        tuple(people),
        tuple(draw(name) for _ in people),
        templates,
        np.array(owners, np.int64),
        tuple(portraits) if draw(st.booleans()) else (),
        {parrot: templates * np.float32(np.nan) for parrot in draw(st.lists(name, max_size=2, unique=True))},
        salt=draw(st.binary(min_size=16, max_size=33)),
    )


@KEYS
def test_every_field_comes_back(tmp_path: Path, key: bytes | None) -> None:
    gallery = full_gallery()
    save_gallery(gallery, tmp_path / "g", key=key)
    assert facts(open_gallery(tmp_path / "g", key=key)) == facts(gallery)
    assert inspect(tmp_path / "g").encrypted == (key is not None)


def test_a_text_that_is_no_utf8_has_a_fingerprint() -> None:
    odd = replace(full_gallery(), embedder_fingerprint="\ud800", identities=("\udcff", "b", "c", "d"))
    assert odd.fingerprint != full_gallery().fingerprint


@given(gallery=galleries())
def test_any_gallery_comes_back(gallery: Gallery) -> None:
    assert facts(from_payload(b"".join(to_payload(gallery)))) == facts(gallery)


def test_a_gallery_of_nobody_comes_back() -> None:
    none = Gallery("protected", "e", "f", (), (), np.zeros((0, 0), np.float32), np.zeros(0, np.int64))
    assert facts(from_payload(b"".join(to_payload(none)))) == facts(none)


def test_what_comes_back_can_be_searched_and_changed(tmp_path: Path) -> None:
    gallery = replace(full_gallery(), index=None)
    save_gallery(gallery, tmp_path / "g")
    opened = open_gallery(tmp_path / "g")
    assert opened.search(torch.from_numpy(gallery.templates)).row[:, 0].tolist() == list(range(7))
    assert facts(opened.remove(["max-2"])) == facts(gallery.remove(["max-2"]))


def test_the_library_reads_the_payload_that_we_write() -> None:
    gallery = full_gallery()
    payload = b"".join(to_payload(gallery))
    tensors = safetensors.numpy.load(payload)
    np.testing.assert_array_equal(tensors["templates"], gallery.templates)
    np.testing.assert_array_equal(tensors["owners"], gallery.owners)
    assert tensors["portrait_images"].tobytes() == b"".join(p.image for p in gallery.portraits if p)
    assert json.loads(tensors["about"].tobytes())["identities"] == list(gallery.identities)
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    sizes = {"I64": 8, "F32": 4, "I32": 4, "U8": 1}
    assert all(told["data_offsets"][0] % sizes[told["dtype"]] == 0 for told in header.values()), "aligned"


def test_arrays_that_are_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    gallery = Gallery("protected", "e", "f", ("a", "b"), ("", ""), wide[::2, ::3], np.arange(4)[::2] // 2)
    save_gallery(gallery, tmp_path / "g")
    assert open_gallery(tmp_path / "g").templates.tolist() == [[0, 3], [12, 15]]


def test_an_index_comes_back_whatever_numbers_it_was_measured_with() -> None:
    index = Ivf(
        np.zeros((1, 6), np.float32), np.zeros(7, np.int32), np.int64(1), Recall(np.int64(2), 2, np.float32(1))
    )
    opened = from_payload(b"".join(to_payload(replace(full_gallery(), index=index)))).index
    assert opened is not None
    assert (opened.probes, opened.recall) == (1, Recall(2, 2, 1.0))


def test_a_plain_file_shows_no_more_outside_of_its_payload_than_that_it_is_one(tmp_path: Path) -> None:
    save_gallery(full_gallery(), tmp_path / "g", key=KEY)
    head = (tmp_path / "g").read_bytes()[:23]
    header = json.loads((tmp_path / "g").read_bytes()[23 : 23 + int.from_bytes(head[19:], "little")])
    assert set(header) == {"cipher", "salt", "prefix", "chunk_bytes"}


# Keys


def test_one_secret_opens_the_file_by_whatever_way_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, path = full_gallery(), tmp_path / "g"
    (tmp_path / "key").write_bytes(b"\n " + KEY + b"\r\n")
    sources: list[Any] = [KEY, KEY + b"\n", tmp_path / "key", str(tmp_path / "key"), lambda: KEY]
    for key in sources:
        save_gallery(gallery, path, key=key, overwrite=True)
        for other in sources:
            assert facts(open_gallery(path, key=other)) == facts(gallery)
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert facts(open_gallery(path)) == facts(gallery)


def test_a_function_is_asked_each_time(tmp_path: Path) -> None:
    asked = []
    save_gallery(full_gallery(), tmp_path / "g", key=KEY)
    for _ in range(2):
        open_gallery(tmp_path / "g", key=lambda: asked.append(1) or KEY)
    change_gallery(tmp_path / "g", lambda g: g, key=lambda: asked.append(1) or KEY)
    assert len(asked) == 3


def test_a_given_key_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "of the environment")
    assert find_secret(KEY) == KEY
    assert find_secret(None) == b"of the environment"
    monkeypatch.delenv(KEY_VARIABLE)
    assert find_secret(None) is None


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"", "has 0 bytes, expected at least 16"),
        (b" " * 9 + b"short" + b" " * 9, "has 5 bytes, expected at least 16 .*openssl rand -hex 32"),
        (lambda: "a text of many letters", "must be bytes, got str"),
        (lambda: None, "returned no key; pass None to save without a key"),
        (bytearray(20), "must be bytes, got bytearray"),
        ("not-the-key-but-a-path", "key file cannot be read: it is not there. A text is taken for the path"),
        ("a\0b", "key file cannot be read"),
        ("/dev/zero", "more than 65536 bytes"),
        ("/", "key file cannot be read: Is a directory"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, key: Any, message: str) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        save_gallery(full_gallery(), tmp_path / "g", key=key)
    assert "short" not in str(caught.value)
    assert "not-the-key" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_function_can_say_that_there_is_no_key_but_not_in_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gallery(full_gallery(), tmp_path / "g")
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    with pytest.raises(GalleryError, match="not encrypted"):
        open_gallery(tmp_path / "g")
    assert len(open_gallery(tmp_path / "g", key=lambda: None)) == 7


def test_an_empty_variable_is_a_key_that_went_missing_not_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    with pytest.raises(GalleryError, match="has 0 bytes"):
        save_gallery(full_gallery(), tmp_path / "g")


def test_a_path_in_the_variable_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "the key file").write_bytes(KEY)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "the key file"))
    with pytest.raises(GalleryError, match="is the path of a file; it must hold the key itself"):
        save_gallery(full_gallery(), tmp_path / "g")


# Saving and changing


def test_a_file_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("something else")
    with pytest.raises(GalleryError, match="there is a file at the gallery's path"):
        save_gallery(full_gallery(), tmp_path / "g")
    assert (tmp_path / "g").read_text() == "something else"
    save_gallery(full_gallery(), tmp_path / "g", overwrite=True)
    assert len(open_gallery(tmp_path / "g")) == 7


def test_encryption_is_never_dropped_in_passing(tmp_path: Path) -> None:
    save_gallery(full_gallery(), tmp_path / "g", key=KEY)
    before = (tmp_path / "g").read_bytes()
    with pytest.raises(GalleryError, match="is encrypted, and without a key it would be replaced"):
        save_gallery(full_gallery(), tmp_path / "g", overwrite=True)
    with pytest.raises(GalleryError, match="is encrypted: give its key"):
        change_gallery(tmp_path / "g", lambda g: g)
    assert (tmp_path / "g").read_bytes() == before
    change_gallery(tmp_path / "g", lambda g: g.remove(["jane-1"]), key=KEY)
    assert inspect(tmp_path / "g").encrypted


def test_a_plain_gallery_is_encrypted_by_saving_it_with_a_key(tmp_path: Path) -> None:
    save_gallery(full_gallery(), tmp_path / "g")
    with pytest.raises(GalleryError, match="not encrypted"):
        change_gallery(tmp_path / "g", lambda g: g, key=KEY)
    save_gallery(open_gallery(tmp_path / "g"), tmp_path / "g", key=KEY, overwrite=True)
    assert inspect(tmp_path / "g").encrypted


@KEYS
def test_a_change_is_saved_and_returned(tmp_path: Path, key: bytes | None) -> None:
    save_gallery(full_gallery(), tmp_path / "g", key=key)
    changed = change_gallery(tmp_path / "g", lambda g: g.remove(["max-2"]), key=key)
    assert changed.identities == ("jane-1", "zoé 3", "ida/4")
    assert facts(open_gallery(tmp_path / "g", key=key)) == facts(changed)


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    save_gallery(full_gallery(), tmp_path / "g", key=KEY)
    before = (tmp_path / "g").read_bytes()
    failing: list[tuple[type[Exception], Callable[[Gallery], Any]]] = [
        (ZeroDivisionError, lambda g: 1 / 0),
        (GalleryError, lambda g: g.remove(["nobody"])),
        (GalleryError, lambda g: None),
    ]
    for error, change in failing:
        with pytest.raises(error):
            change_gallery(tmp_path / "g", change, key=KEY)
        assert (tmp_path / "g").read_bytes() == before
    change_gallery(tmp_path / "g", lambda g: g, key=KEY)  # and the lock is free again


def test_a_change_within_a_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "LOCK_TIMEOUT_S", 0.05)
    save_gallery(full_gallery(), tmp_path / "g")
    with pytest.raises(GalleryError, match="another process is changing"):
        change_gallery(tmp_path / "g", lambda g: change_gallery(tmp_path / "g", lambda h: h))


def test_a_change_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="it is not there"):
        change_gallery(tmp_path / "g", lambda g: g)
    assert not list(tmp_path.iterdir())


def test_a_gallery_is_opened_from_a_url_but_not_saved_to_one(tmp_path: Path) -> None:
    import fsspec

    gallery = full_gallery()
    save_gallery(gallery, tmp_path / "g", key=KEY)
    with fsspec.open("memory://galleries/g", "wb") as file:
        file.write((tmp_path / "g").read_bytes())
    assert facts(open_gallery("memory://galleries/g", key=KEY)) == facts(gallery)
    for call in (
        lambda: save_gallery(gallery, "memory://galleries/g", key=KEY, overwrite=True),
        lambda: change_gallery("memory://galleries/g", lambda g: g, key=KEY),
    ):
        with pytest.raises(GalleryError, match="save it here, and upload the file"):
            call()


WRITER = """if True:
    import sys, numpy as np
    from anondata.errors import GalleryError
    from anondata.verifiers.gallery.file import change_gallery

    def add_ten(path, who):
        done = 0
        while done < 10:
            try:
                change_gallery(path, lambda g: g.add([f"{who}{done}"], np.ones((1, 6))), key=b"0123456789abcdef")
                done += 1
            except GalleryError as error:
                assert "another process" in str(error), error
    """


def test_two_processes_that_change_a_gallery_lose_no_change(tmp_path: Path) -> None:
    save_gallery(full_gallery(), tmp_path / "g", key=KEY)
    code = WRITER + "print('ready', flush=True); add_ten(sys.argv[1], 'a')"
    args = [sys.executable, "-c", code, str(tmp_path / "g")]
    other = subprocess.Popen(args, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    scope: dict[str, Any] = {}
    exec(WRITER, scope)
    scope["add_ten"](tmp_path / "g", "b")
    other.communicate()
    assert other.returncode == 0
    added = set(open_gallery(tmp_path / "g", key=KEY).identities) - set(full_gallery().identities)
    assert added == {f"{who}{n}" for who in "ab" for n in range(10)}


# What was removed


@KEYS
def test_nothing_of_a_removed_person_is_left_in_the_folder(tmp_path: Path, key: bytes | None) -> None:
    gallery = full_gallery()
    rows = [0, 2]
    hers = [b"jane-1", b"Jane Doe", b"\xff\xd8Jane", gallery.portraits[0].box.tobytes()]
    hers += [rows_of[i].tobytes() for i in rows for rows_of in (gallery.templates, *gallery.parrots.values()) if
             np.isfinite(rows_of[i]).all()]  # fmt: skip
    save_gallery(gallery, tmp_path / "g", key=key)
    assert all(piece in read_sealed(tmp_path / "g", secret=key) for piece in hers), "or the test looks for nothing"
    change_gallery(tmp_path / "g", lambda g: g.remove(["jane-1"]), key=key)
    kept = [path.read_bytes() for path in tmp_path.iterdir()] + [read_sealed(tmp_path / "g", secret=key)]
    assert len(kept) == 3, "the gallery, its lock, and the payload"
    assert not [piece for piece in hers for data in kept if piece in data]


# Files that are damaged, by chance or on purpose

NASTY: list[Any] = [-1, 0, 1, 2**31, 2**63, 2**64, 1e400, 0.5, None, True, "x", "", [], [[]], {}, [-1, 2**63], "F64"]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    c = min(len(data), b + rng.choice([1, 16, 1024, 1040]))
    block = rng.choice([1, 16, 1024, 1040])
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:a] + bytes([data[a] ^ (1 << rng.randrange(8))]) + data[a + 1 :],
        lambda: data[:a] + bytes([rng.randrange(256)]) + data[a + 1 :],
        lambda: data[:a],
        lambda: data[:a] + rng.randbytes(rng.choice([1, 8, 100])) + data[a:],
        lambda: data + rng.randbytes(rng.choice([1, 16, 2000])),
        lambda: data[:a] + data[b:],
        lambda: data[:b] + data[b:c] + data[b:],
        lambda: data[:a] + data[b:c] + data[a:b] + data[c:],
        lambda: data[:a] + bytes(min(block, len(data) - a)) + data[a + block :],
    ]
    return rng.choice(kinds)()


def mutated_json(value: Any, rng: random.Random) -> Any:
    """The same JSON with one thing in it replaced, dropped, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        changed = {k: mutated_json(v, rng) if k == name and rng.random() < 0.8 else v for k, v in value.items()}
        return rng.choice(
            [changed] * 6 + [{k: v for k, v in value.items() if k != name}, {**value, "more": value[name]}]
        )
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return rng.choice(
            [
                [*value[:at], mutated_json(value[at], rng), *value[at + 1 :]],
                value[:at],
                [*value, value[at]],
                value[::-1],
            ]
        )
    return rng.choice([*NASTY, value + rng.choice([-8, -1, 1, 8]) if type(value) is int else None])


def mutated_header(data: bytes, start: int, width: int, rng: random.Random) -> bytes:
    """A file or a payload whose JSON header, ``width`` bytes of length before it, is another."""
    length = int.from_bytes(data[start : start + width], "little")
    at = start + width
    text = json.dumps(mutated_json(json.loads(data[at : at + length]), rng)).encode()
    return data[:start] + len(text).to_bytes(width, "little") + text + data[at + length :]


def mutated_payload(payload: bytes, rng: random.Random) -> bytes:
    """Bytes changed anywhere, the header of safetensors changed, or the JSON or the arrays within."""
    kind = rng.randrange(4)
    if kind == 0:
        return mutated_bytes(payload, rng)
    if kind == 1:
        return mutated_header(payload, 0, 8, rng)
    tensors = safetensors.numpy.load(payload)
    if kind == 2:
        told = mutated_json(json.loads(tensors["about"].tobytes()), rng)
        tensors["about"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    else:
        name = rng.choice(sorted(tensors))
        tensors[name] = mutated_array(tensors[name], rng)
    return safetensors.numpy.save(tensors)


def mutated_array(array: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any]:
    changed = array.copy()
    if changed.size:
        floats, limits = array.dtype.kind == "f", np.iinfo(np.int64 if array.dtype.kind == "f" else array.dtype)
        nasty = [math.nan, math.inf, 1e38] if floats else [limits.min, limits.max]
        changed.flat[rng.randrange(changed.size)] = rng.choice([*nasty, 0, 1, 5])
    shapes = [changed, changed[:-1], changed.reshape(-1), changed[None], changed[:0], changed[::-1].copy()]
    return np.ascontiguousarray(rng.choice([*shapes, changed.astype(np.float64), np.zeros(array.shape, np.int32)]))


def check_use(gallery: Gallery) -> None:
    """A gallery that could be opened can be used: told, searched, and kept."""
    gallery.info()
    if len(gallery):
        with suppress(GalleryError):  # numbers whose square is no float
            gallery.search(torch.from_numpy(gallery.templates[:1]), k=2)
    assert facts(from_payload(b"".join(to_payload(gallery)))) == facts(gallery)


def fuzz(folder: Path, key: bytes | None, rounds: int, seed: int) -> dict[str, int]:
    """Opens damaged galleries; returns how many there were of each outcome."""
    rng, path = random.Random(seed), folder / "g"
    gallery = full_gallery()
    save_gallery(gallery, path, key=key, overwrite=True)
    whole, payload, right = path.read_bytes(), read_sealed(path, secret=key), facts(gallery)
    outcomes = {"refused": 0, "as it was": 0, "another": 0, "names told": 0}
    for _ in range(rounds):
        kind = rng.randrange(4)
        if kind >= 2:
            write_sealed(path, [mutated_payload(payload, rng)], secret=key)
        else:
            path.write_bytes(mutated_bytes(whole, rng) if kind else mutated_header(whole, 19, 4, rng))
        try:
            opened = open_gallery(path, key=key)
        except GalleryError as error:
            outcomes["refused"] += 1
            outcomes["names told"] += any(word in str(error) for word in ("Jane", "jane", "zo", "Ida", "ida/"))
            continue
        same = facts(opened) == right
        assert same or kind >= 2, "a damaged file gave another gallery"
        check_use(opened)
        outcomes["as it was" if same else "another"] += 1
    return outcomes


@KEYS
def test_a_damaged_file_is_an_error_or_the_gallery_that_it_was(tmp_path: Path, key: bytes | None) -> None:
    """Half of them are sealed again, so that the parser behind the checksum is tried, too."""
    outcomes = fuzz(tmp_path, key, 500, seed=1)
    assert outcomes["refused"] > 300
    assert outcomes["names told"] == 0
    assert outcomes["another"] > 10, "the parser has to be reached"


@pytest.mark.parametrize("payload", [b"", b"\0" * 8, b"\xff" * 64, b"\2\0\0\0\0\0\0\0{}"])
def test_what_is_no_payload_is_an_error(payload: bytes) -> None:
    with pytest.raises(GalleryError, match="damaged or no gallery"):
        from_payload(payload)


def broken(**changes: Any) -> bytes:
    """A payload with arrays, or with facts in its JSON, exchanged."""
    tensors = safetensors.numpy.load(b"".join(to_payload(full_gallery())))
    told = json.loads(tensors["about"].tobytes())
    told.update({name: value for name, value in changes.items() if not isinstance(value, np.ndarray)})
    tensors.update({name: value for name, value in changes.items() if isinstance(value, np.ndarray)})
    return safetensors.numpy.save({**tensors, "about": np.frombuffer(json.dumps(told).encode(), np.uint8)})


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "enemy"},
        {"embedder": 5},
        {"identities": ["a", "a", "b", "c"]},
        {"identities": "abcd"},
        {"labels": ["", "", "", 4]},
        {"labels": []},
        {"salt": "no hex"},
        {"portraits": False},
        {"parrots": ["same", "same"]},
        {"parrots": ["one"]},
        {"parrots": [1, 2]},
        {"index": {"probes": 3, "recall": {"found": 9, "of": 10, "radius": 0.6}}},
        {"index": {"probes": 0, "recall": {"found": 9, "of": 10, "radius": 0.6}}},
        {"index": {"probes": 1, "recall": {"found": True, "of": 10, "radius": 0.6}}},
        {"index": {"probes": 1, "recall": {"found": 11, "of": 10, "radius": 0.6}}},
        {"index": {"probes": 1, "recall": {"found": 9, "of": 10, "radius": math.nan}}},
        {"index": None},
        {"stranger": np.zeros(3, np.float32)},
        {"templates": np.full((7, 6), np.nan, np.float32)},
        {"templates": np.zeros((7, 6), np.float64)},
        {"templates": np.zeros((7, 5), np.float32)},
        {"owners": np.array([0, 1, 0, 1, 2, 3, 4])},
        {"owners": np.array([0, 1, 0, 1, 2, 3, -1])},
        {"portrait_ends": np.array([6, 6, -(2**63), 400, 405])},
        {"portrait_ends": np.array([6, 6, 5, 300, 311])},
        {"portrait_rows": np.array([0, 2, 3, 4, 7])},
        {"portrait_rows": np.array([0, 2, 3, 6, 4])},
        {"portrait_rows": np.array([0, 2, 2, 4, 6])},
        {"portrait_boxes": np.zeros((5, 5), np.float32)},
        {"index_cells": np.array([0, 1, 0, 1, 2, 0, 0], np.int32)},
        {"index_cells": np.array([0, 1, 0, 1, -1, 0, 0], np.int32)},
        {"index_centroids": np.zeros((0, 6), np.float32)},
        {"index_centroids": np.full((2, 6), np.inf, np.float32)},
    ],
)
def test_a_payload_that_does_not_fit_together_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(GalleryError, match=r"the gallery file is damaged or no gallery \(.*\); look for a backup"):
        from_payload(broken(**changes))
    assert facts(from_payload(broken())) == facts(full_gallery())


def test_a_gallery_larger_than_the_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(payload: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(file, "load", too_large)
    with pytest.raises(GalleryError, match="larger than the memory"):
        from_payload(b"")
