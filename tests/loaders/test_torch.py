"""Anonymized torch datasets: what comes out in which form, what stands in, and what never comes out."""

from __future__ import annotations

import errno
import io
import pickle
import struct
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)
from torchvision.transforms.v2.functional import pil_to_tensor

from anondata import Anonymizer
from anondata.content.codec import decode
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import (
    FieldTypeError,
    PolicyError,
    RefusedError,
    UndeclaredFieldError,
    UnreadableSourceError,
    WithheldError,
)
from anondata.loaders import torch as module
from anondata.loaders.torch import AnonymizedIterableDataset, AnonymizedLoader
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Portrait, empty_gallery

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")

KEY = b"0123456789abcdef"
SECRET = "alice/secret.jpg"
Photo = Callable[..., bytes]
Pair = namedtuple("Pair", ["image", "label"])


def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=KEY)


def safe(dataset: Any, **options: Any) -> Any:
    return anonymize_torch(dataset, anonymizer(), **{"fields": {0: "image"}, "keep": (1,), **options})


def safe_dicts(dataset: Any, **options: Any) -> Any:
    return safe(dataset, **{"fields": {"image": "image"}, "keep": "label", **options})


def blank(shade: int) -> np.ndarray[Any, Any]:
    """A picture without a face, which comes back as it is."""
    return np.full((24, 24, 3), shade, np.uint8)


def as_list(batch: list[Any]) -> list[Any]:
    return batch


def samples_of(loader: Any) -> list[Any]:
    return [sample for batch in loader for sample in batch]


class Logged(Dataset[Any]):
    """Notes which samples were read; an exception among them is raised instead of given."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = list(samples)
        self.read: list[int] = []
        self.targets = [sample["label"] if isinstance(sample, dict) else None for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


class AtOnce(Logged):
    """Reads batches."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self[index] for index in indices]


class Stream(IterableDataset[Any]):
    """Splits itself among workers, and ends with its first error."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = list(samples)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        for sample in self.samples[info.id :: info.num_workers] if info else self.samples:
            if isinstance(sample, Exception):
                raise sample
            yield sample


class Tough(IterableDataset[Any]):
    """Goes on after an error."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = Logged(samples)

    def __iter__(self) -> Iterator[Any]:
        return map(self.samples.__getitem__, range(len(self.samples)))


@pytest.fixture
def pairs(photo: Photo) -> list[tuple[bytes, int]]:
    return [(photo(i), i) for i in range(5)]


@pytest.fixture
def expected(pairs: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Each alone."""
    return [alone(sample) for sample in pairs]


@cache
def alone(sample: Any) -> Any:
    return safe([sample])[0]


def test_a_photo_is_anonymized_and_its_label_is_not(pairs: Any, expected: Any) -> None:
    assert [label for _, label in expected] == [0, 1, 2, 3, 4]
    assert len({image for image, _ in expected} | {image for image, _ in pairs}) == 10
    assert safe(pairs).report.seen == 0


@pytest.mark.parametrize(
    ("form", "declared"),
    [
        (lambda image: (image, 1), {}),
        (lambda image: [image, 1], {}),
        (lambda image: Pair(image, 1), {}),
        (lambda image: Pair(image, 1), {"fields": {"image": "image"}, "keep": "label"}),
        (lambda image: Pair(image, 1), {"fields": {"image": "image"}, "keep": 1}),
        (lambda image: {"image": image, "label": 1}, {"fields": {"image": "image"}, "keep": "label"}),
        (lambda image: image, {"keep": ()}),
        (lambda image: (1, (image, image)), {"fields": {1: "image"}, "keep": (0,)}),
    ],
)
def test_a_sample_comes_back_in_its_form(form: Any, declared: Any, photo: Photo) -> None:
    original = form(photo())
    given = safe([original], on_withheld="raise", **declared)[0]
    assert type(given) is type(original)
    if not isinstance(original, bytes):
        assert len(given) == len(original)
        assert 1 in (given.values() if isinstance(given, dict) else given)
    assert pickle.dumps(photo())[20:-20] in pickle.dumps(original)
    assert pickle.dumps(photo())[20:-20] not in pickle.dumps(given)


@pytest.mark.parametrize("kind", ["array", "tensor", "pil", "bytes"])
def test_a_picture_comes_back_as_what_it_was(kind: str, photo: Photo) -> None:
    image = Image.open(io.BytesIO(photo()))
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    given = safe([({"array": array, "tensor": tensor, "pil": image, "bytes": photo()}[kind], 1)])[0][0]
    assert isinstance(given, {"array": np.ndarray, "tensor": torch.Tensor, "pil": Image.Image, "bytes": bytes}[kind])
    if kind != "bytes":
        assert not np.array_equal(np.asarray(given), array if kind != "tensor" else tensor.numpy())


def test_a_dropped_position_is_left_out_and_the_next_moves_up(photo: Photo) -> None:
    sample = ("a caption", photo(), 7)
    image, label = safe([sample], fields={1: "image"}, keep=2, drop=0)[0]
    assert (type(image), label) == (bytes, 7)


def test_a_namedtuple_that_loses_a_field_becomes_a_tuple() -> None:
    given = safe([Pair(blank(1), 1)], keep=(), drop="label")[0]
    assert type(given) is tuple
    assert len(given) == 1


def test_a_dict_says_what_became_of_it() -> None:
    samples = [{"image": blank(1), "label": 0, "path": SECRET}, {"image": b"broken", "label": 0, "path": SECRET}]
    one, two = safe_dicts(samples, drop="path")
    assert (one["anondata"], two["anondata"]) == ("released", "replaced: not_an_image")
    assert set(two) == {"image", "label", "anondata"}
    assert np.array_equal(two["image"], one["image"])


def test_only_a_dict_that_may_be_replaced_gets_a_note() -> None:
    assert set(safe_dicts([{"image": blank(1), "label": 0}], on_withheld="raise")[0]) == {"image", "label"}


def test_the_transform_gets_the_anonymized_sample(pairs: Any, expected: Any) -> None:
    made = safe(pairs, transform=lambda sample: (hash(sample[0]), sample[1]))
    assert made[2] == (hash(expected[2][0]), 2)


@pytest.mark.parametrize(
    ("sample", "declared", "names"),
    [
        ((blank(1), 1, SECRET), {}, "position 2"),
        ({"image": blank(1), "label": 1, "path": SECRET}, {"fields": {"image": "image"}, "keep": "label"}, "'path'"),
        (Pair(blank(1), SECRET), {"keep": ()}, "'label'"),
        ([SECRET, blank(1)], {"fields": {1: "image"}, "keep": ()}, "position 0"),
    ],
)
def test_an_undeclared_field_is_an_error_before_anything_comes_out(sample: Any, declared: Any, names: str) -> None:
    made = safe([sample] * 3, **declared)
    for take in (lambda: made[0], lambda: made.__getitems__([0, 1]), lambda: next(iter(made))):
        with pytest.raises(UndeclaredFieldError, match=f"{names}.*not declared; declare it") as caught:
            take()
        assert SECRET not in str(caught.value)
    assert made.report.seen == 0


@pytest.mark.parametrize(
    ("sample", "declared", "says"),
    [
        (SECRET, {}, "a sample is a str; expected a tuple"),
        (None, {}, "a sample is a NoneType"),
        (7, {}, "a sample is a int"),
        ((blank(1),), {}, "tuple of 1 values without position 1"),
        ((), {}, "tuple of 0 values without position 0"),
        (Pair(blank(1), SECRET), {"fields": {"photo": "image"}, "keep": (0, 1)}, "without field 'photo'"),
        ({"image": blank(1), "label": SECRET}, {}, "positions are declared"),
        ({0: blank(1)}, {"fields": {"image": "image"}, "keep": ()}, "keys that are not strings"),
        (blank(1), {}, "other fields than position 0"),
    ],
)
def test_a_sample_of_another_kind_is_an_error_that_says_what_it_is(sample: Any, declared: Any, says: str) -> None:
    with pytest.raises(FieldTypeError, match=says) as caught:
        safe([sample], **declared)[0]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fields": {0: "image"}, "keep": 0}, "declared twice"),
        ({"fields": {}}, "no field is declared to hold content"),
        ({"fields": {0: "video"}}, "rules for frames, image only"),
        ({"fields": {-1: "image"}}, "a position, which is a number from 0"),
        ({"fields": {True: "image"}}, "declared by a bool"),
        ({"fields": {"0": "image"}}, "declared by a str"),
        ({"fields": {1.5: "image"}}, "declared by a float"),
        ({"keep": ("anondata",)}, "drop yours, or rename it"),
        ({"group": 0}, "group names a field that is not kept"),
        ({"group": "label"}, "group names a field that is not kept"),
        ({"group": [1, 2]}, "2 values; expected one for each of 1 samples"),
        ({"on_withheld": "ignore"}, "expected replace, drop, raise"),
        ({"on_withheld": "drop"}, "cannot leave samples out"),
        ({"batch": 0}, "expected at least 1"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused_at_once(options: Any, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        safe([(blank(1), 1)], **options)


@pytest.mark.parametrize("what", ["folder/", 7, None])
def test_what_is_no_dataset_is_refused(what: Any) -> None:
    with pytest.raises(FieldTypeError, match="expected a map-style or iterable dataset"):
        safe(what)


def test_a_datapipe_is_refused() -> None:
    pipes = pytest.importorskip("torch.utils.data.datapipes.iter", reason="this torch has no datapipes")
    with pytest.raises(FieldTypeError, match="datapipe"):
        safe(pipes.IterableWrapper([(blank(1), 1)]))


def test_building_reads_nothing(pairs: Any) -> None:
    dataset = Logged(pairs)
    made = safe(dataset)
    assert (len(made), dataset.read) == (5, [])
    made[2]
    assert dataset.read == [2]


def test_a_dataset_can_be_indexed_and_iterated_like_a_list(pairs: Any, expected: Any) -> None:
    made = safe(pairs)
    assert list(made) == expected
    assert made[-1] == made[np.int64(4)] == made[torch.tensor(4)] == expected[4]
    for outside in (5, -6):
        with pytest.raises(IndexError, match="of a dataset of 5 samples"):
            made[outside]


def test_slices_and_lists_give_lists_of_samples(pairs: Any, expected: Any) -> None:
    made = safe(pairs)
    assert made[0:2] == made[[0, -4]] == expected[:2]
    assert made[::-2] == expected[::-2]
    assert made[5:] == made[[]] == []


SEVERAL = [
    (0, 1),
    None,
    ...,
    True,
    np.True_,
    np.array([0, 1]),
    torch.tensor([0, 1]),
    torch.tensor([True, False]),
    {0},
]


@pytest.mark.parametrize("key", [*SEVERAL, [[0, 1, 2]], [slice(3)], range(3)], ids=str)
def test_a_key_that_may_be_for_several_samples_is_refused(key: Any) -> None:
    stacked = TensorDataset(torch.zeros(3, 24, 24, dtype=torch.uint8), torch.arange(3))
    with pytest.raises(FieldTypeError, match=r"may be for several samples; .* batch_size=N and a plain sampler"):
        safe(stacked)[key]


def test_grey_pictures_that_are_asked_for_at_once_are_not_one_in_colour(photo: Photo) -> None:
    grey = torch.stack([pil_to_tensor(Image.open(io.BytesIO(photo(i))).convert("L"))[0] for i in range(3)])
    made = safe(TensorDataset(grey, torch.arange(3)))
    [samples] = DataLoader(made, sampler=BatchSampler(range(3), 3, False), batch_size=None)
    assert [image.shape for image, _ in samples] == [grey[0].shape] * 3
    assert not any(torch.equal(image, original) for (image, _), original in zip(samples, grey, strict=True))


@pytest.mark.parametrize(("kind", "batch"), [(Logged, 1), (AtOnce, 3), (Logged, None)])
def test_a_batch_holds_what_its_samples_are_alone(kind: Any, batch: int | None, pairs: Any, expected: Any) -> None:
    made = safe(kind(pairs), batch=batch)
    assert made.__getitems__([4, 0, 0, 3]) == [expected[i] for i in (4, 0, 0, 3)]
    assert samples_of(DataLoader(made, batch_size=2, collate_fn=as_list)) == expected
    assert made.__getitems__([]) == []


def test_subsets_and_concatenations_work(pairs: Any, expected: Any) -> None:
    made = safe(Subset(pairs, [3, 1]))
    assert list(made) == [expected[3], expected[1]]
    assert Subset(safe(pairs), [2]).__getitems__([0]) == [expected[2]]
    assert (safe(pairs) + made)[6] == expected[1]


@pytest.mark.parametrize(
    ("kind", "workers", "start"), [(Logged, 1, "fork"), (Logged, 2, "spawn"), (Stream, 2, "fork")]
)
def test_workers_give_what_one_process_gives(kind: Any, workers: int, start: str, pairs: Any, expected: Any) -> None:
    made = safe(kind(pairs))
    loader = DataLoader(made, batch_size=2, collate_fn=as_list, num_workers=workers, multiprocessing_context=start)
    assert sorted(samples_of(loader), key=lambda sample: sample[1]) == expected
    assert (made.report.seen, made.report.released) == (5, 5)


def test_a_dataset_can_be_pickled_before_and_after_use(pairs: Any, expected: Any) -> None:
    made = safe(pairs, group=[0, 0, 1, 1, 1])
    assert pickle.loads(pickle.dumps(made))[1] == made[1] == pickle.loads(pickle.dumps(made))[1] == expected[1]


def test_keys_of_any_kind_are_left_to_the_dataset() -> None:
    dataset: Any = {"left": (blank(1), 1), "right": (blank(2), 2)}
    loader = DataLoader(safe(dataset), batch_size=2, sampler=["right", "left"], collate_fn=as_list)
    assert [label for _, label in samples_of(loader)] == [2, 1]


def test_no_global_generator_is_touched(pairs: Any) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    safe([*pairs, (b"broken", 5)]).__getitems__([0, 5])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("kind", [Logged, Stream])
def test_no_attribute_of_the_dataset_is_passed_on(kind: Any, pairs: Any) -> None:
    made = safe(kind(pairs))
    with pytest.raises(RefusedError, match=r"has no 'samples', and passes no attribute .* may hold originals"):
        _ = made.samples
    assert not hasattr(made, "targets")
    assert "JFIF" not in repr(made)


UNREADABLE = [
    FileNotFoundError(2, "No such file", SECRET),
    EOFError(SECRET),
    SyntaxError(SECRET),
    ValueError(SECRET),
    struct.error(SECRET),
    Image.UnidentifiedImageError(SECRET),
    Image.DecompressionBombError(SECRET),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [Logged, AtOnce])
def test_a_sample_that_cannot_be_decoded_is_withheld(kind: Any, error: Exception) -> None:
    made = safe(kind([(blank(1), 1), error, (blank(2), 2)]))
    one, two, three = made.__getitems__([0, 1, 2])
    assert (one[1], three[1]) == (1, 2)
    assert two[1] in (1, 2)
    assert made.report.withheld == {"unreadable": 1}
    assert made.report.counts["instead"]["replaced"] == 1
    with pytest.raises(WithheldError, match=f"unreadable.*raised {type(error).__name__}") as caught:
        safe(kind([(blank(1), 1), error]), on_withheld="raise")[1]
    assert SECRET not in str(caught.value)


def test_a_picture_that_breaks_when_it_is_loaded_is_withheld(photo: Photo) -> None:
    made = safe([(Image.open(io.BytesIO(photo()[:-2000])), 1), (blank(2), 2)])
    assert made[0][1] == 2
    assert made.report.withheld == {"unreadable": 1}


@pytest.mark.filterwarnings("ignore:.*torchvision:DeprecationWarning", "ignore::DeprecationWarning:torchvision")
def test_bytes_that_torchvision_cannot_decode_are_withheld() -> None:
    class Decoded(Logged):
        def __getitem__(self, index: int) -> Any:
            data = torch.frombuffer(bytearray(self.samples[index][0]), dtype=torch.uint8)
            return torchvision.io.decode_image(data), index

    buffer = io.BytesIO()
    Image.fromarray(blank(3)).save(buffer, "PNG")
    made = safe(Decoded([(b"broken", 0), (buffer.getvalue(), 1)]))
    assert made[0][1] == 1


@pytest.mark.parametrize(
    ("error", "workers"),
    [
        (KeyError(SECRET), 0),
        (RuntimeError(SECRET), 1),
        (OSError(errno.EMFILE, "too many", SECRET), 0),
        (AssertionError(SECRET), 0),
    ],
)
def test_another_error_keeps_its_class_and_loses_its_text(error: Exception, workers: int) -> None:
    loader = DataLoader(safe(Logged([(blank(1), 1), error])), batch_size=2, num_workers=workers)
    with pytest.raises(type(error), match=r"sample 1 raised .* at .*test_torch:\d+; .*read dataset\[1\]") as caught:
        list(loader)
    assert SECRET not in "".join(map(str, [caught.value, caught.value.__cause__, caught.value.__context__]))


def dicts(photo: Photo) -> list[Any]:
    """Samples 1 and 6 are broken; labels alternate."""
    images: list[Any] = [blank(i) for i in range(8)]
    images[1] = images[6] = photo()[:100]
    return [{"image": image, "label": i % 2} for i, image in enumerate(images)]


@pytest.mark.parametrize("group", ["label", lambda kept: kept["label"] > 0, "targets"])
def test_a_stand_in_is_of_the_same_group(group: Any, photo: Photo) -> None:
    dataset = Logged(dicts(photo))
    made = safe_dicts(dataset, group=torch.tensor(dataset.targets) if group == "targets" else group)
    given = made.__getitems__(range(8))
    assert [sample["label"] for sample in given] == [0, 1] * 4
    assert [i for i, sample in enumerate(given) if sample["anondata"] != "released"] == [1, 6]
    assert all(isinstance(sample["image"], np.ndarray) for sample in given)


def test_a_function_of_the_group_sees_kept_fields_by_the_names_written() -> None:
    seen = []
    made = safe([(b"broken", 1, 2), (blank(1), 1, 3)], keep=1, drop=2, group=lambda kept: seen.append(kept) or 1)
    made[0]
    assert {str(kept) for kept in seen} == {"{1: 1}"}


def test_with_a_sequence_of_groups_no_other_group_is_read(photo: Photo) -> None:
    dataset = Logged(dicts(photo))
    dataset.samples[1] = ValueError(SECRET)
    given = safe_dicts(dataset, group=dataset.targets)[1]
    assert (given["label"], given["anondata"]) == (1, "replaced: unreadable")
    assert {index % 2 for index in dataset.read} == {1}


def test_a_stand_in_is_the_same_whatever_was_asked_for_before(photo: Photo) -> None:
    samples = dicts(photo)
    alone = safe_dicts(samples, group="label")[6]
    later = safe_dicts(samples, group="label").__getitems__([1, 3, 6])[2]
    assert np.array_equal(alone["image"], later["image"])


def test_nothing_stands_in_from_another_group(photo: Photo) -> None:
    samples = [{"image": b"broken", "label": 0}, {"image": blank(1), "label": 1}]
    with pytest.raises(WithheldError, match="no sample was released that may stand in for it"):
        safe_dicts(samples, group=[0, 1])[0]


def test_a_search_for_a_rare_group_ends() -> None:
    samples = [{"image": b"broken", "label": 0}] + [{"image": blank(1), "label": 1}] * 10**5
    with pytest.raises(WithheldError, match="none of its group was found among 1024 others: give group="):
        safe_dicts(samples, group="label")[0]


def test_a_group_by_position_of_samples_named_otherwise_is_refused() -> None:
    dataset: Any = {"left": (blank(1), 1), "right": (b"broken", 2)}
    with pytest.raises(PolicyError, match="not named by an index"):
        safe(dataset, group=[1, 2])["right"]


def test_a_stream_drops_what_is_withheld() -> None:
    made = safe(Stream([(blank(1), 1), (b"broken", 2), (blank(3), 3)]))
    assert isinstance(made, AnonymizedIterableDataset)
    assert [label for _, label in made] == [1, 3]
    assert made.report.counts["instead"] == {"replaced": 0, "dropped": 1}


def test_a_stream_may_replace_by_what_it_released() -> None:
    made = safe(Stream([(blank(1), 1), (b"broken", 2), (blank(3), 3)]), on_withheld="replace")
    assert [label for _, label in made] == [1, 1, 3]
    with pytest.raises(WithheldError, match="not_an_image"):
        list(safe(Stream([(b"broken", 2)]), on_withheld="raise"))


def test_a_stream_is_read_no_further_than_a_batch_ahead() -> None:
    dataset = Tough([(blank(i), i) for i in range(9)])
    assert next(iter(safe(dataset, batch=3)))[1] == 0
    assert dataset.samples.read == [0, 1, 2]


def test_an_iterator_that_goes_on_after_an_error_loses_that_sample_alone() -> None:
    made = safe(Tough([(blank(1), 1), OSError(SECRET), (blank(3), 3)]))
    assert [label for _, label in made] == [1, 3]
    assert made.report.withheld == {"unreadable": 1}


def test_a_generator_that_raises_does_not_end_in_silence() -> None:
    with pytest.raises(OSError, match=r"raised OSError at .*read the dataset alone") as caught:
        list(safe(Stream([(blank(1), 1), OSError(SECRET), (blank(3), 3)])))
    assert SECRET not in str(caught.value)


def test_an_iterator_that_ends_with_an_error_does_not_end_in_silence() -> None:
    with pytest.raises(UnreadableSourceError, match="ended right after an error"):
        list(safe(Tough([(blank(1), 1), OSError(SECRET)])))


def test_an_iterator_that_gives_nothing_but_errors_is_given_up() -> None:
    with pytest.raises((UnreadableSourceError, WithheldError), match=r"could not be read|all withheld"):
        list(safe(Tough([(blank(1), 1)] + [OSError(SECRET)] * 100)))


def test_the_length_of_a_stream_is_its_dataset_s() -> None:
    class Counted(Stream):
        def __len__(self) -> int:
            return 7

    assert len(safe(Counted([]))) == 7
    with pytest.raises(TypeError):
        len(safe(Stream([])))


def test_a_stream_has_no_order_to_look_up_groups_by() -> None:
    with pytest.raises(PolicyError, match="group is a sequence"):
        safe(Stream([(blank(1), 1)]), group=[1])


def test_workers_can_be_forked_from_a_process_that_used_a_gallery(photo: Photo) -> None:
    view = decode(photo()).pixels
    face, embedder = CenterFaceDetector().detect([view]), DlibEmbedder()
    portrait = Portrait(photo(0, "PNG"), face.boxes[0].numpy(), face.landmarks[0].numpy())
    gallery = empty_gallery(embedder).add(["a"], embedder.embed([view], face).numpy(), portraits=[portrait])
    made = Anonymizer("faces-protected", device="cpu", run_key=KEY, galleries={"protected": gallery})
    dataset = anonymize_torch([photo(0), photo(1)], made, fields={0: "image"})
    alone = list(dataset)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork", collate_fn=as_list)
    assert samples_of(loader) == alone


def test_accelerate_prepares_a_loader_of_an_anonymized_dataset(photo: Photo) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    tensors = [(pil_to_tensor(Image.open(io.BytesIO(photo(i)))), i) for i in (0, 1)]
    accelerator = accelerate.Accelerator(cpu=True)
    dataset = safe(tensors, transform=lambda sample: (sample[0].float() / 255 - 0.5, sample[1]))
    model, loader = accelerator.prepare(torch.nn.Conv2d(3, 1, 3), DataLoader(dataset, batch_size=2))
    [(images, labels)] = list(loader)
    assert labels.tolist() == [0, 1]
    assert model(images).shape == (2, 1, 158, 158)
    assert not torch.equal(images[0], tensors[0][0].float() / 255 - 0.5)


def test_a_loader_becomes_a_loader_and_the_earlier_name_still_works() -> None:
    photos = [torch.zeros(3, 8, 8, dtype=torch.uint8)]
    loader = anonymize_torch(DataLoader(photos, batch_size=None), anonymizer(), fields={0: "image"}, prefetch=0)
    assert isinstance(loader, AnonymizedLoader)
    with pytest.raises(PolicyError, match="prefetch is for a DataLoader"):
        anonymize_torch(photos, anonymizer(), fields={0: "image"}, prefetch=1)
    with pytest.warns(DeprecationWarning, match="anonymize_dataset is now called anonymize"):
        earlier = module.anonymize_dataset(photos, anonymizer(), fields={0: "image"})
    assert type(earlier) is module.AnonymizedDataset
