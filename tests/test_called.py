"""An Anonymizer called like a transform: one picture, or an error that says which adapter to take."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from anondata import Anonymizer
from anondata.errors import FieldTypeError, WithheldError

KEY = b"0123456789abcdef"


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=KEY)


def test_a_picture_comes_back_as_what_it_was_and_as_anonymize_gives_it(
    anonymizer: Anonymizer, photo: Callable[..., bytes]
) -> None:
    picture = Image.open(io.BytesIO(photo(0, "PNG")))
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    [expected] = anonymizer.anonymize([tensor])
    safe = anonymizer(tensor)
    assert type(safe) is Tensor
    assert torch.equal(safe, expected.image)
    assert not torch.equal(safe, tensor)
    assert isinstance(anonymizer(tv_tensors.Image(tensor)), tv_tensors.Image)
    assert isinstance(anonymizer(picture), Image.Image)
    assert isinstance(anonymizer(np.array(picture)), np.ndarray)


def test_it_is_a_transform_of_torchvision(
    anonymizer: Anonymizer, photo: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "class0").mkdir()
    (tmp_path / "class0" / "a.jpg").write_bytes(photo())
    compose = v2.Compose([anonymizer, v2.Resize((32, 32)), v2.ToImage()])
    [(picture, label)] = ImageFolder(str(tmp_path), transform=compose)
    [plain] = anonymizer.anonymize([Image.open(tmp_path / "class0" / "a.jpg").convert("RGB")])
    assert label == 0
    assert torch.equal(picture, v2.ToImage()(plain.image.resize((32, 32), Image.Resampling.BILINEAR)))


def test_what_cannot_be_made_safe_raises(anonymizer: Anonymizer) -> None:
    with pytest.raises(WithheldError, match="a picture was withheld"):
        anonymizer(b"no picture")
    with pytest.raises(FieldTypeError, match="anonymize before normalising"):
        anonymizer(torch.full((3, 8, 8), 2.0))
    with pytest.raises(FieldTypeError, match=r"shape \(2, 3, 8, 8\)|4 axes"):
        anonymizer(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("sample", [{"image": 1}, (1, 2), [b""], "photo.jpg", None])
def test_other_things_are_refused_with_the_adapters_that_take_them(anonymizer: Anonymizer, sample: object) -> None:
    with pytest.raises(FieldTypeError, match=r"hf.anonymize\(dataset, .* instead of dataset.map, .*torch.anonymize"):
        anonymizer(sample)


def test_in_a_compose_of_several_values_and_in_a_map(anonymizer: Anonymizer, photo: Callable[..., bytes]) -> None:
    with pytest.raises(FieldTypeError, match="got several values"):
        v2.Compose([anonymizer])(Image.new("RGB", (8, 8)), 3)
    with pytest.raises(FieldTypeError, match=r"hf\.anonymize"):
        Dataset.from_dict({"image": [photo()]}).map(anonymizer, load_from_cache_file=False)
