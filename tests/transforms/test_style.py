"""Style transfer: what it makes of whole frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anondata.components import build
from anondata.content.images import ImageContent
from anondata.detectors.frame import FrameDetector
from anondata.errors import PolicyError, WeightsError
from anondata.transforms.style import StyleTransfer


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("style-26")


@pytest.fixture
def photo(astronaut: Tensor) -> Tensor:
    """``(1, 3, 96, 96)`` floats."""
    return astronaut[None, :, :384:4, 60:444:4].float() / 255


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.mean(dim=1).flatten(), b.mean(dim=1).flatten()]))[0, 1])


def test_shapes_stay_and_colours_do_not(photo: Tensor) -> None:
    out = StyleTransfer(style=3)(photo)
    assert correlation(out, photo) > 0.4
    assert (out - photo).abs().mean() > 0.1


def test_styles_differ(photo: Tensor) -> None:
    made = [StyleTransfer(style=number)(photo) for number in (0, 9, 25)]
    assert all((a - b).abs().mean() > 0.05 for i, a in enumerate(made) for b in made[:i])


def test_a_style_that_is_not_given_is_drawn_by_the_seed(photo: Tensor) -> None:
    drawn = StyleTransfer()
    assert drawn.draws
    assert not StyleTransfer(style=0).draws
    for seed in (0, 7, 26):
        expected = StyleTransfer(style=seed % 26)(photo)
        assert torch.equal(drawn.change(photo, extent=1.0, seeds=[seed]), expected)


def test_the_amount_mixes_it_with_the_original(photo: Tensor) -> None:
    whole, half = StyleTransfer(style=1)(photo), StyleTransfer(style=1, amount=0.5)(photo)
    torch.testing.assert_close(half, (whole + photo) / 2, atol=1e-5, rtol=0)


def test_grey_pictures_are_painted_as_what_they_look_like(photo: Tensor) -> None:
    grey = photo.mean(dim=1, keepdim=True)
    expected = StyleTransfer(style=2)(grey.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
    torch.testing.assert_close(StyleTransfer(style=2)(grey), expected)


def test_an_outline_in_a_fourth_channel_does_not_stay(photo: Tensor) -> None:
    out = StyleTransfer(style=2)(torch.cat([photo, photo[:, :1]], dim=1))
    assert (out[:, 3] == 1).all()


def test_a_frame_is_changed_to_its_last_pixel(astronaut: Tensor) -> None:
    content = ImageContent()
    media = content.decode(astronaut[:, :200, :331], torch.device("cpu"))
    [frame] = [FrameDetector().detect([content.view(media)])]
    patches = content.change([media], frame, StyleTransfer(style=4, crop_px=128), [0])
    _, shown = content.render(content.compose(media, patches))
    assert float(content.covered([(patch, True) for patch in patches], media, frame)) == 1
    edges = [content.view(m).float()[:, [0, -1]] for m in (media, shown)]
    assert (edges[0] - edges[1]).abs().mean() > 10


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"style": 26}, "style must be a whole number between 0 and 25, got 26"),
        ({"style": True}, "style must be a whole number between 0 and 25, got True"),
        ({"amount": 0}, "amount must be between 0.05 and 1"),
        ({"crop_px": 20}, "crop_px must be a whole number between 64 and 2048"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        build("technique", "style_transfer", params)


def test_without_weights_it_says_how_to_get_them(photo: Tensor, monkeypatch, tmp_path) -> None:
    from anondata.models import shared

    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _: str(tmp_path))
    shared._load.cache_clear()
    with pytest.raises(WeightsError, match="Run `anondata weights pull style-26`"):
        StyleTransfer()(photo)
