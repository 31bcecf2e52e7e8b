"""How much a face smiles, as it is read from a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anondata.detectors.centerface import CenterFaceDetector
from anondata.transforms._faces_blend import MIRRORED
from anondata.transforms._smiles import smiles


@pytest.fixture
def face(astronaut: Tensor) -> tuple[Tensor, Tensor]:
    """The astronaut, who laughs, and her landmarks in shares of the picture."""
    found = CenterFaceDetector().detect([astronaut])
    return astronaut[None].float() / 255, found.landmarks[:1].double() / astronaut.shape[-1]


def test_somebody_who_laughs_is_read_as_laughing(face: tuple[Tensor, Tensor]) -> None:
    assert float(smiles(*face)) > 0.75


def test_a_mirror_image_smiles_as_much(face: tuple[Tensor, Tensor]) -> None:
    picture, landmarks = face
    mirrored = landmarks[:, list(MIRRORED)].clone()
    mirrored[..., 0] = 1 - mirrored[..., 0]
    assert smiles(picture.flip(-1), mirrored) == pytest.approx(float(smiles(*face)), abs=0.5)


@pytest.mark.parametrize("light", [0.4, 0.7])
def test_light_says_little_of_a_smile(light: float, face: tuple[Tensor, Tensor]) -> None:
    picture, landmarks = face
    assert float(smiles(picture * light, landmarks)) == pytest.approx(float(smiles(*face)), abs=0.35)


def test_no_row_depends_on_another(face: tuple[Tensor, Tensor]) -> None:
    picture, landmarks = face
    pictures = torch.cat([picture, picture.flip(-2)])
    together = smiles(pictures, landmarks.expand(2, -1, -1))
    alone = torch.cat([smiles(one[None], landmarks) for one in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_flat_picture_is_read_as_something_finite() -> None:
    places = torch.tensor([[[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]]).double()
    assert smiles(torch.full((1, 3, 32, 32), 0.5), places).isfinite().all()
