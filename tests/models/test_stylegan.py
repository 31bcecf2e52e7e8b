"""The generator of faces, and the pool of them that is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anondata.errors import WeightsError
from anondata.models.registry import locate
from anondata.models.stylegan import MAPPING, NATIVE_PX, STYLE_DIM, SYNTHESIS, inverse_haar, read_generator
from anondata.transforms import face_pool
from anondata.transforms.face_pool import (
    FacePool,
    checked,
    clear_cut,
    generated_pool,
    photographed_pool,
    pool_file,
)

HAAR = np.array([[1, 1], [1, -1]]) / np.sqrt(2)


@pytest.fixture
def generator(fetched: Callable[..., None]) -> None:
    fetched(MAPPING, SYNTHESIS)


def same(one: FacePool, two: FacePool) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in face_pool._PARTS)


def test_bands_become_the_pixels_that_a_wavelet_by_hand_gives() -> None:
    bands = torch.rand(2, 8, 3, 5, generator=torch.Generator().manual_seed(1))
    out = inverse_haar(bands)
    for n, c, y, x in np.ndindex(2, 2, 3, 5):
        low, (down, across, both) = bands[n, c, y, x], bands[n, 2 + 3 * c : 5 + 3 * c, y, x]
        square = HAAR @ np.array([[low, across], [down, both]]) @ HAAR
        np.testing.assert_allclose(out[n, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2], square, atol=1e-6)


def test_a_file_that_is_too_short_is_told(tmp_path: Path) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(bytes(1000))
    with pytest.raises(WeightsError, match="has 1000 bytes, expected 1048604 or more"):
        read_generator(short, short)


def test_noise_becomes_a_portrait_and_a_matte_of_the_person(generator: None) -> None:
    network = read_generator(locate(MAPPING), locate(SYNTHESIS))
    styles = network.styles(torch.randn(256, STYLE_DIM, generator=torch.Generator().manual_seed(3)))
    picture, matte = network.portraits(styles.mean(dim=0, keepdim=True))
    assert picture.shape == (1, 3, NATIVE_PX, NATIVE_PX)
    found = checked(
        (torch.nn.functional.avg_pool2d(picture, 2)[0] * 255).byte(),
        (torch.nn.functional.interpolate(matte, (256, 256))[0] * 255).byte(),
    )
    assert found is not None
    assert matte[0, 0, 70, 64] > 0.9  # the nose
    assert matte[0, 0, :8, :8].mean() < 0.1  # a corner


def test_a_pool_is_made_once_survives_a_kill_and_grows(
    generator: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process is killed when the second of three is made; the first is not made again."""
    code = (
        "import os, signal, sys; from pathlib import Path; from anondata.transforms.face_pool import generated_pool\n"
        "killed = lambda there, wanted: os.kill(os.getpid(), signal.SIGKILL) if there == 2 else None\n"
        "generated_pool(3, folder=Path(sys.argv[1]), progress=killed)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    one = generated_pool(1, folder=tmp_path, progress=lambda *_: pytest.fail("made again"))
    assert not caplog.records
    two = generated_pool(2, folder=tmp_path)
    said = "1 synthetic people are made, once, in about 1 minutes; `Anonymizer.prepare` shows how far it is"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [said]
    told: list[tuple[int, int]] = []
    three = generated_pool(3, folder=tmp_path, progress=lambda there, wanted: told.append((there, wanted)))
    assert told == [(2, 3), (3, 3)]
    assert same(three.first(2), two)
    assert same(two.first(1), one)
    assert len(three) == 3
    assert not list(tmp_path.glob("*.part"))


def test_everybody_is_there_shut_mouthed_and_laughing(generator: None) -> None:
    """An independent reading, the width of the mouth by the detector's landmarks, says so on average."""
    pool = generated_pool(4)
    width = (pool.landmarks[:, 4] - pool.landmarks[:, 3]).norm(dim=1)
    width /= (pool.landmarks[:, 1] - pool.landmarks[:, 0]).norm(dim=1)
    assert pool.people.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert pool.smiles.tolist() == [0.0, -1.5, 1.5] * 4
    _, shut, laughing = width.view(4, 3).T
    assert shut.mean() < laughing.mean()


def test_a_damaged_file_is_told_and_not_used(tmp_path: Path) -> None:
    pool_file(tmp_path).write_bytes(b"no faces at all")
    with pytest.raises(WeightsError, match="is damaged: remove it, it is made again"):
        generated_pool(1, folder=tmp_path)


def test_a_pool_without_the_generator_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _: str(tmp_path))
    with pytest.raises(WeightsError, match="anondata weights pull mobile-stylegan-mapping"):
        generated_pool(1)


@pytest.mark.parametrize("members", [0, -1, 1025])
def test_a_pool_of_an_impossible_size_is_refused(members: int, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"a pool of {members} faces was asked for; expected 1 to 1024"):
        generated_pool(members, folder=tmp_path)


def test_a_picture_without_a_face_joins_no_pool() -> None:
    assert checked(*(torch.zeros(n, 256, 256, dtype=torch.uint8) for n in (3, 1))) is None


def test_a_matte_with_a_bite_or_in_doubt_is_not_clear_cut() -> None:
    matte = torch.zeros(1, 256, 256, dtype=torch.uint8)
    matte[:, 40:, 60:200] = 255
    bitten, doubtful = matte.clone(), matte.clone()
    bitten[:, 80:180, 120:150] = 0
    doubtful[:, 60:120] = 128
    assert [clear_cut(m) for m in (matte, bitten, doubtful)] == [True, False, False]


def test_photos_of_a_folder_make_a_pool(tmp_path: Path, photo: Callable[..., bytes]) -> None:
    (tmp_path / "one.jpg").write_bytes(photo(0))
    (tmp_path / "names.txt").write_text("no picture")
    pool = photographed_pool(str(tmp_path))
    assert len(pool) == 1
    assert bool(((pool.landmarks > 0.2) & (pool.landmarks < 0.8)).all())


def test_a_folder_without_faces_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(WeightsError, match="no photo in which a face is found"):
            photographed_pool(str(folder))
