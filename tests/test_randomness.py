"""The run key: the same choices for the same sample, none that anybody else can repeat."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anondata import Anonymizer
from anondata.errors import UnreadableSourceError
from anondata.randomness import RunKey, normal

SECRET = b"a secret of enough bytes"
PARTS = st.lists(st.text() | st.binary() | st.integers(), max_size=4)


def key() -> RunKey:
    return RunKey(SECRET)


@given(PARTS)
def test_the_same_secret_and_parts_give_the_same_digest(parts: list[str | bytes | int]) -> None:
    assert key().digest(*parts) == key().digest(*parts)


@given(PARTS)
def test_another_secret_gives_another_digest(parts: list[str | bytes | int]) -> None:
    assert key().digest(*parts) != RunKey(SECRET + b"!").digest(*parts)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_give_different_digests(one: list[str], two: list[str]) -> None:
    assert (key().digest(*one) == key().digest(*two)) == (one == two)


def test_file_names_that_are_no_unicode_have_digests_of_their_own() -> None:
    assert key().digest("a\udcff") != key().digest("a\udcfe")


def test_parts_do_not_run_into_each_other() -> None:
    assert key().digest("ab", "c") != key().digest("a", "bc")
    assert key().digest("a", "") != key().digest("", "a")
    assert key().digest("a") != key().digest("a", "")


def test_a_digest_is_stable_across_versions() -> None:
    """A change here changes every published picture of a resumed run."""
    assert key().digest("sample", 3).hex() == "ac75e9909480eed3dfdbf1e5f01ed9baf9bb1382f3dad438195126e276ebdfee"
    assert key().seed("sample", 3) == 2669474771661239444
    assert key().name("sample") == "f70e2ee446f3bc32f52bad0143c3f9e4"


@given(PARTS)
def test_a_seed_fits_a_generator(parts: list[str | bytes | int]) -> None:
    assert 0 <= key().seed(*parts) < 2**63


@given(st.text())
def test_a_published_name_tells_no_seed(part: str) -> None:
    name = bytes.fromhex(key().name(part))
    seeds = {key().seed(part), key().seed("name", part)}
    told = {int.from_bytes(name[i : i + 8], order) >> 1 for i in (0, 8) for order in ("little", "big")}
    assert not seeds & told


def test_a_name_is_32_hexadecimal_digits_without_the_key_of_the_sample() -> None:
    name = key().name("holiday_anna.jpg")
    assert len(bytes.fromhex(name)) == 16


@pytest.mark.parametrize("shown", [repr, str, "{}".format, "{!r}".format])
def test_no_text_of_a_key_tells_the_secret(shown: object) -> None:
    assert shown(key()) == "RunKey(…)"  # type: ignore[operator]  # parametrized as object


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_short_secret_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a run key needs at least 16 bytes, got {size}"):
        RunKey(b"x" * size)


@pytest.mark.parametrize("secret", ["a secret of enough characters", 7, bytearray(32), [1] * 32])
def test_a_secret_that_is_no_bytes_is_refused_without_showing_it(secret: object) -> None:
    with pytest.raises(TypeError, match=f"^a run key needs bytes, got {type(secret).__name__}$"):
        RunKey(secret)  # type: ignore[arg-type]  # the wrong type is the point


def test_without_a_secret_two_keys_differ() -> None:
    assert RunKey().digest("a") != RunKey().digest("a")


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda k: pickle.loads(pickle.dumps(k))])
def test_a_copy_of_a_key_is_the_same_key(copied: object) -> None:
    assert copied(key()).digest("a") == key().digest("a")  # type: ignore[operator]  # parametrized as object


def test_noise_is_standard_normal() -> None:
    noise = normal([3], (200_000,))[0]
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    for quantile, z in ((0.0228, -2.0), (0.1587, -1.0), (0.8413, 1.0), (0.9772, 2.0)):
        assert float(noise.quantile(quantile)) == pytest.approx(z, abs=0.03)


def test_each_row_depends_on_its_own_seed_alone() -> None:
    noise = normal([5, 9, 5], (3, 4, 4))
    assert noise.shape == (3, 3, 4, 4)
    assert noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[1], normal([9], (3, 4, 4))[0])
    assert not torch.equal(noise[0], noise[1])


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_seeds_that_share_their_low_32_bits_draw_different_noise(low: int, high: int) -> None:
    """torch's CPU generator keeps no more: 2^32 tries on published noise would find its seed."""
    assert not torch.equal(normal([low], (8,)), normal([low + (high << 32)], (8,)))


def test_no_rows_are_no_noise() -> None:
    assert normal([], (3, 4)).shape == (0, 3, 4)


def test_noise_touches_no_global_generator() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    normal([1, 2], (3, 8, 8))
    RunKey().seed("a")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.fixture(params=["file", "variable"])
def referred(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunKey, Any]:
    """A key by reference, and what puts another secret in its place, or none."""
    path = tmp_path / "run.key"

    def put(secret: bytes | None) -> None:
        if request.param == "file":
            path.unlink() if secret is None else path.write_bytes(secret)
        else:
            monkeypatch.delenv("A_RUN_KEY") if secret is None else monkeypatch.setenv("A_RUN_KEY", secret.decode())

    if request.param == "file":
        path.write_bytes(b"")
    put(SECRET)
    monkeypatch.chdir(tmp_path)
    return (RunKey.from_file("run.key") if request.param == "file" else RunKey.from_env("A_RUN_KEY")), put


def test_a_key_by_reference_is_sent_without_its_secret(referred: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = referred
    sent = pickle.dumps(Anonymizer("faces-fill", run_key=made))
    assert SECRET not in sent
    assert SECRET in pickle.dumps(Anonymizer("faces-fill", run_key=SECRET))
    monkeypatch.chdir("/")  # a worker may be elsewhere
    assert pickle.loads(sent).name("x") == key().name("x")
    assert copy.deepcopy(made).digest("x") == key().digest("x")
    assert SECRET.decode() not in repr(made)


@pytest.mark.parametrize("there", [None, b"short", SECRET[::-1]])
def test_a_key_that_is_not_where_it_was_stops_the_worker(referred: Any, there: bytes | None) -> None:
    """With another key its results would not be those of the run."""
    made, put = referred
    sent = pickle.dumps(made)
    put(there)
    with pytest.raises(UnreadableSourceError, match="the run key's") as caught:
        pickle.loads(sent)
    assert "run.key" not in str(caught.value)
    assert made.name("x") == key().name("x")
