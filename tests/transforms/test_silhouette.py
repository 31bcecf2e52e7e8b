"""Silhouettes: the outline stays, and nothing else of what is inside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anondata.crops import resize
from anondata.randomness import RunKey
from anondata.transforms.silhouette import Silhouette, from_border, parted


def figure(side: int = 128) -> tuple[Tensor, Tensor]:
    """A red figure on a blue ground, ``(1, 3, S, S)``, and where it is."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    inside = ((x.square() + (y + 0.5).square()) < 0.06) | ((x.abs() < 0.45) & (y > -0.25) & (y < 0.8))
    red, blue = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.7])
    return torch.where(inside, red.view(3, 1, 1), blue.view(3, 1, 1))[None], inside


def test_the_outline_is_found_where_colours_tell() -> None:
    crop, inside = figure()
    share = parted(resize(crop, 64, 64), extent=1.2)[0, 0] > 0.5
    truth = resize(inside[None, None].float(), 64, 64)[0, 0] > 0.5
    assert float((share & truth).sum() / (share | truth).sum()) > 0.85


def test_a_figure_of_a_fixed_colour_has_it_in_its_middle() -> None:
    out = Silhouette(color=(0.9, 0.5, 0.1)).change(figure()[0], extent=1.2, seeds=[0])
    assert out[0, :, 70, 64].tolist() == pytest.approx([0.9, 0.5, 0.1], abs=0.01)


@pytest.mark.parametrize(("ground", "expected"), [(0.0, 0.8), (1.0, 0.2)])
def test_by_itself_a_figure_is_told_from_its_background(ground: float, expected: float) -> None:
    crop = torch.full((1, 3, 64, 64), ground)
    crop[..., 12:60, 18:46] = 0.5
    assert float(Silhouette()(crop)[0, 0, 40, 32]) == pytest.approx(expected, abs=0.01)


def test_what_the_parting_missed_is_not_left_behind() -> None:
    """A flat figure's result depends on the inside through the outline alone: a hand beside it leaves no colour."""
    crop, _ = figure()
    hand = crop.clone()
    hand[..., 40:56, 8:22] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    out = Silhouette(color=(0.5, 0.5, 0.5)).change(hand, extent=1.2, seeds=[0])
    assert float((out[:, 1] - torch.maximum(out[:, 0], out[:, 2])).max()) < 0.05


def test_the_background_comes_from_the_border_alone() -> None:
    crop = torch.rand(1, 3, 64, 64)
    other = crop.clone()
    other[..., 1:-1, 1:-1] = 0
    assert torch.equal(from_border(crop), from_border(other))


def test_a_flat_figure_has_one_colour_and_a_shaded_one_more() -> None:
    crop, inside = figure()
    crop = (crop + 0.2 * torch.linspace(-1, 1, 128).view(1, 1, -1, 1)).clamp(0, 1)
    inner = inside.clone()
    inner[:45], inner[90:] = False, False
    inner[:, :45], inner[:, 83:] = False, False
    flat, shaded = (
        Silhouette(color=(0.5, 0.5, 0.5), shades=n).change(crop, extent=1.2, seeds=[0])[0, 0][inner] for n in (1, 4)
    )
    assert float(flat.std()) < 0.01 < float(shaded.std())


def test_a_wider_outline_is_smoother(astronaut: Tensor) -> None:
    crop = astronaut[None, :, :, :400].float() / 255

    def roughness(outline: float) -> float:
        made = Silhouette(color=(1.0, 0.0, 0.0), outline=outline)(crop)
        return float(made.diff(dim=3).abs().mean() + made.diff(dim=2).abs().mean())

    assert roughness(0.01) > roughness(0.05) > roughness(0.2)


def test_random_colours_come_from_the_key() -> None:
    crop = figure()[0]
    one, again, other = (Silhouette(color="random", key=RunKey(secret * 20))(crop) for secret in (b"a", b"a", b"b"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"color": "red"}, "color must be"),
        ({"color": (0.1, 0.2)}, "color must be"),
        ({"outline": 0}, "outline must be between 0.01 and 0.5"),
        ({"shades": 0}, "shades must be a whole number between 1 and 8"),
        ({"shades": 2.0}, "shades must be a whole number between 1 and 8"),
        ({"softness": 2}, "softness must be between 0.02 and 1"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Silhouette(**params)  # type: ignore[arg-type]
