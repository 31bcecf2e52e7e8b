"""The front door: every kind of image in, the same kind out."""

from __future__ import annotations

import io
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata import Anonymizer, Released, RunKey, Withheld
from anondata.anonymizer import content_key
from anondata.errors import PolicyError


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", run_key=b"0123456789abcdef")


def photo(astronaut: Tensor) -> Image.Image:
    return Image.fromarray(astronaut.permute(1, 2, 0).numpy())


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tensors_come_back_as_they_were(
    anonymizer: Anonymizer, astronaut: Tensor, dtype: torch.dtype, channels: int
) -> None:
    planes = torch.cat([astronaut, torch.full_like(astronaut[:1], 255)])[: channels if channels > 1 else 1]
    image = planes if dtype == torch.uint8 else (planes.float() / 255).to(dtype)
    (out,) = anonymizer.anonymize([image])
    assert isinstance(out, Released)
    assert (out.image.shape, out.image.dtype) == (image.shape, dtype)
    assert len(out.record.regions) == 1
    assert torch.equal(out.image[:, 400:], image[:, 400:])


def test_arrays_and_pil_images_come_back_as_they_were(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    array = np.array(photo(astronaut))
    grey = np.array(photo(astronaut).convert("L"))
    out = anonymizer.anonymize([array, grey, photo(astronaut), photo(astronaut).convert("RGBA")])
    assert [type(o.image) for o in out[:2]] == [np.ndarray, np.ndarray]
    assert [o.image.shape for o in out[:2]] == [(512, 512, 3), (512, 512)]
    assert [o.image.mode for o in out[2:]] == ["RGB", "RGBA"]
    assert [len(o.record.regions) for o in out] == [1, 1, 1, 1]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_bytes_come_back_in_their_format(anonymizer: Anonymizer, astronaut: Tensor, form: str) -> None:
    (out,) = anonymizer.anonymize([encoded(photo(astronaut), form)])
    assert Image.open(io.BytesIO(out.image)).format == form
    assert len(out.record.regions) == 1


def test_a_face_drawn_in_transparency_alone_is_covered(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    grey = np.array(photo(astronaut).convert("L"))
    flat = np.dstack([np.full((*grey.shape, 3), 40, np.uint8), grey.clip(1, 254)])
    (out,) = anonymizer.anonymize([encoded(Image.fromarray(flat), "PNG")])
    assert len(out.record.regions) == 1
    alpha = np.array(Image.open(io.BytesIO(out.image)))[..., 3]
    assert (alpha[80:160, 190:250] == 255).all()
    assert (alpha[400:] == grey.clip(1, 254)[400:]).all()


@pytest.mark.parametrize("shrink", [lambda x: x // 32, lambda x: x.float() / 255 / 255, lambda x: x // 64 + 126])
def test_a_face_in_a_few_grey_levels_is_found(anonymizer: Anonymizer, astronaut: Tensor, shrink: object) -> None:
    low = shrink(astronaut)  # type: ignore[operator]  # parametrized
    (out,) = anonymizer.anonymize([low])
    assert len(out.record.regions) >= 1
    assert not torch.equal(out.image[:, 80:160, 190:250], low[:, 80:160, 190:250])


def test_a_face_dithered_into_transparency_is_found(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    dithered = np.array(photo(astronaut).convert("1")).astype(np.uint8) * 255
    (out,) = anonymizer.anonymize([np.dstack([np.zeros((512, 512, 3), np.uint8), dithered])])
    assert len(out.record.regions) >= 1
    assert (out.image[90:150, 200:240, 3] == 255).all()


def test_results_can_be_trained_on_and_share_no_memory(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    image = astronaut.float() / 255
    (out,) = anonymizer.anonymize([image])
    weight = torch.ones(1, requires_grad=True)
    (out.image * weight).sum().backward()
    out.image.zero_()
    assert float(image.max()) > 0


def test_metadata_does_not_survive(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Jane at home"
    (out,) = anonymizer.anonymize([encoded(photo(astronaut), "JPEG", exif=exif, comment=b"Jane at home")])
    assert b"Jane" not in out.image
    assert not Image.open(io.BytesIO(out.image)).getexif()


def test_floats_outside_of_the_unit_range_are_withheld(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    (out,) = anonymizer.anonymize([astronaut.float()])
    assert (out.reason, out.detail) == (
        "wrong_type",
        "a float image has values outside [0, 1]; anonymize before normalising",
    )


def test_a_single_image_is_refused_with_the_way_to_pass_it(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    with pytest.raises(TypeError, match=r"wrap a single one: anonymize\(\[image\]\)"):
        anonymizer.anonymize(b"bytes")
    with pytest.raises(TypeError, match="takes a list of images"):
        anonymizer.anonymize(astronaut)  # type: ignore[arg-type]  # a tensor is no list of images


def test_pickling_keeps_the_result(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    again = pickle.loads(pickle.dumps(anonymizer))
    (a,), (b,) = anonymizer.anonymize([astronaut]), again.anonymize([astronaut])
    assert torch.equal(a.image, b.image)


def test_threads_share_one_anonymizer(anonymizer: Anonymizer, astronaut: Tensor) -> None:
    results: list[Tensor] = []
    work = [
        threading.Thread(target=lambda: results.append(anonymizer.anonymize([astronaut])[0].image)) for _ in range(3)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(results) == 3
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_run_key_is_in_no_repr() -> None:
    key = RunKey(b"a very secret key")
    assert "secret" not in repr(key) + repr(Anonymizer("faces", run_key=key))


def test_building_reads_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("anondata.models.shared._load", lambda *a: pytest.fail("weights were loaded"))
    Anonymizer("faces")


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(PolicyError, match="no policy is called 'face'; did you mean 'faces'"):
        Anonymizer("face")


def test_a_close_up_larger_than_the_network_likes_is_covered_whole(astronaut: Tensor) -> None:
    face = astronaut[None, :, 20:220, 130:310].float()
    large = torch.nn.functional.interpolate(face, scale_factor=11, mode="bicubic").clamp(0, 255)[0].to(torch.uint8)
    (out,) = Anonymizer("faces-fill").anonymize([large])
    changed = (out.image != large).any(dim=0)
    box = [int(v * 11) for v in (48, 48, 130, 155)]  # eyes to chin, in the enlarged picture
    assert float(changed[box[1] : box[3], box[0] : box[2]].float().mean()) > 0.99


def test_a_face_of_12_px_is_found(astronaut: Tensor) -> None:
    small = torch.nn.functional.interpolate(astronaut[None], scale_factor=0.14, mode="bilinear", antialias=True)[0]
    canvas = torch.full((3, 300, 400), 90, dtype=torch.uint8)
    canvas[:, 100 : 100 + small.shape[1], 100 : 100 + small.shape[2]] = small
    (out,) = Anonymizer("faces").anonymize([canvas])
    assert any(region.size_px < 20 for region in out.record.regions)  # some looks take the whole figure for one, too


def test_a_picture_that_breaks_when_it_is_read_is_withheld(party_jpeg: bytes) -> None:
    lazy = Image.open(io.BytesIO(party_jpeg[:20_000]))
    [outcome] = Anonymizer("faces").anonymize([lazy])
    assert isinstance(outcome, Withheld)


def test_a_tensor_that_is_not_dense_is_withheld(astronaut: Tensor) -> None:
    [outcome] = Anonymizer("faces").anonymize([astronaut.to_sparse()])
    assert isinstance(outcome, Withheld)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a text", "another"),
        ("1", 1),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}),
        ({"a": 1}, {"b": 1}),
        (["ab"], ["a", "b"]),
    ],
)
def test_values_that_differ_have_keys_that_do(one: object, other: object) -> None:
    assert content_key(one) != content_key(other)


def test_the_order_of_a_mapping_is_no_part_of_its_key() -> None:
    assert content_key({"a": 1, "b": "x"}) == content_key({"b": "x", "a": 1})
