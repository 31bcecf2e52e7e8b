"""The torch modules give what the published networks give, on the bundled weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anondata.models.centerface import CenterFace
from anondata.models.dlib_resnet import CHIP_PX, DlibFaceResNet, ResidualBlock
from anondata.models.runtime import load_module, load_network

ORIGINAL = json.loads((Path(__file__).parent / "original_outputs.json").read_text())


def photo(package: str, file: str) -> Tensor:
    """A photo inside an installed package, ``(1, 3, H, W)`` with sides cut to multiples of 32, 0-255."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    pixels = np.array(Image.open(Path(found.origin).parent / file).convert("RGB"))
    height, width = (side // 32 * 32 for side in pixels.shape[:2])
    return torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    return photo("skimage", "data/astronaut.png")


@pytest.fixture(scope="module")
def group() -> Tensor:
    return photo("insightface", "data/images/t1.jpg")


@pytest.fixture(scope="module")
def centerface() -> nn.Module:
    return load_module("centerface")


@pytest.fixture(scope="module")
def dlib_resnet() -> nn.Module:
    return load_module("dlib-face-resnet")


@pytest.mark.parametrize("cell", ORIGINAL["centerface"]["cells"], ids=lambda cell: f"{cell['row']}-{cell['column']}")
def test_centerface_gives_what_the_published_file_gives(
    centerface: nn.Module, astronaut: Tensor, cell: dict[str, Any]
) -> None:
    with torch.no_grad():
        maps = torch.cat(centerface(astronaut), dim=1)
    found = maps[0, :, cell["row"], cell["column"]]
    # What storing float16 alone does; larger where there is no face and nothing reads the other maps.
    tolerance = 5e-3 if cell["values"][0] > 0.2 else 2e-2
    torch.testing.assert_close(found, torch.tensor(cell["values"]), atol=tolerance, rtol=0)


@pytest.mark.parametrize("crop", ORIGINAL["dlib_face_resnet"]["crops"], ids=lambda crop: f"{crop['row']}")
def test_embedding_is_what_dlib_computes(dlib_resnet: nn.Module, astronaut: Tensor, crop: dict[str, Any]) -> None:
    row, column = crop["row"], crop["column"]
    chip = astronaut[:, :, row : row + CHIP_PX, column : column + CHIP_PX] / 255
    with torch.no_grad():
        found = dlib_resnet(chip)[0]
    assert float((found - torch.tensor(crop["embedding"])).norm()) < 2e-3  # people differ by 0.6


@pytest.mark.parametrize("size", [(32, 32), (256, 480), (864, 1280)])
def test_centerface_is_the_same_on_onnxruntime(group: Tensor, size: tuple[int, int]) -> None:
    images = torch.cat([group, group.flip(3)])[:, :, : size[0], : size[1]]
    by_torch = load_network("centerface", backend="torch")(images)
    by_ort = load_network("centerface", backend="onnxruntime", precision="fp32")(images)
    assert [tuple(m.shape) for m in by_ort] == [(2, c, size[0] // 4, size[1] // 4) for c in (1, 2, 2, 10)]
    for a, b in zip(by_torch, by_ort, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 5])
def test_dlib_resnet_is_the_same_on_onnxruntime(group: Tensor, batch: int) -> None:
    chips = torch.cat([group[:, :, 100 * i : 100 * i + 150, 150 * i : 150 * i + 150] for i in range(batch)]) / 255
    by_torch = load_network("dlib-face-resnet", backend="torch")(chips)
    by_ort = load_network("dlib-face-resnet", backend="onnxruntime")(chips)
    assert isinstance(by_ort, Tensor)
    assert by_ort.shape == (batch, 128)
    torch.testing.assert_close(by_torch, by_ort, atol=1e-5, rtol=0)


def test_eight_bits_find_the_same_faces(group: Tensor) -> None:
    """Where float32 sees a face, int8 sees it too, of the same size; and nowhere else."""
    exact = load_network("centerface", precision="fp32")(group)
    rough = load_network("centerface", precision="int8")(group)
    peaks = exact[0] == nn.functional.max_pool2d(exact[0], 15, stride=1, padding=7)
    faces = (peaks & (exact[0] > 0.35))[0, 0]
    assert int(faces.sum()) == 6
    assert bool((nn.functional.max_pool2d(rough[0], 3, stride=1, padding=1)[0, 0][faces] > 0.35).all())
    assert float((rough[1] - exact[1])[0, :, faces].abs().max()) < 0.15  # of the logarithm of a side
    near = nn.functional.max_pool2d(exact[0], 15, stride=1, padding=7) > 0.2
    assert not bool(((rough[0] > 0.35) & ~near).any())


@pytest.mark.parametrize("network", ["centerface", "dlib-face-resnet"])
def test_an_image_does_not_see_the_others_of_its_batch(network: str) -> None:
    side = 64 if network == "centerface" else CHIP_PX
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    run = load_network(network, precision="fp32")
    together, alone = run(images), run(images[1:2])
    a, b = (x if isinstance(x, Tensor) else x[0] for x in (together, alone))
    torch.testing.assert_close(a[1:2], b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("module", "side"), [(CenterFace, 32), (DlibFaceResNet, CHIP_PX)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_forward_takes_any_float_and_writes_nothing(module: type[nn.Module], side: int, dtype: torch.dtype) -> None:
    network = module().to(dtype).eval()
    before = {name: dict(part.__dict__) for name, part in network.named_modules()}
    outputs = network(torch.rand(2, 3, side, side, dtype=dtype))
    assert all(output.dtype == dtype for output in (outputs if isinstance(outputs, tuple) else (outputs,)))
    assert {name: dict(part.__dict__) for name, part in network.named_modules()} == before


@pytest.mark.parametrize(("side", "expected"), [(35, 17), (8, 4), (4, 2)])
def test_a_halving_block_keeps_the_larger_of_its_two_paths(side: int, expected: int) -> None:
    """dlib adds maps of unequal size as if the smaller were padded by zeros."""
    block = ResidualBlock(4, 6, halve=True).double()
    x = torch.rand(1, 4, side, side, dtype=torch.float64)
    with torch.no_grad():
        found = block(x)
        path = block.second(block.first(x).relu())
    naive = torch.zeros(1, 6, expected, expected, dtype=torch.float64)
    naive[:, :, : path.shape[2], : path.shape[3]] += path
    for row in range(expected):
        for column in range(expected):
            naive[:, :4, row, column] += x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(dim=(2, 3))
    torch.testing.assert_close(found, naive.relu())
