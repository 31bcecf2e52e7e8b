"""The wrapped DataLoader: the plain one's order and batches, errors in their place, nothing left behind, a way on."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)
from torchvision.transforms.v2.functional import pil_to_tensor

from anondata import Anonymizer
from anondata.errors import (
    FieldTypeError,
    GalleryError,
    PolicyError,
    RefusedError,
    UndeclaredFieldError,
    WithheldError,
)
from anondata.loaders.torch import AnonymizedLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")

KEY = b"0123456789abcdef"
SECRET = "alice/secret.jpg"
COUNT = 14
Photo = Callable[..., bytes]


def wrapped(loader: DataLoader[Any], **options: Any) -> AnonymizedLoader:
    made = Anonymizer("faces", device="cpu", run_key=KEY)
    return AnonymizedLoader.from_dataloader(loader, made, **{"fields": {0: "image"}, "keep": (1,), **options})


def blank(shade: int) -> np.ndarray[Any, Any]:
    """A picture without a face, which comes back as it is."""
    return np.full((24, 24, 3), shade, np.uint8)


class Blanks(Dataset[Any]):
    """Cheap pictures and their indices; notes what was read; some are something else."""

    def __init__(self, count: int = COUNT, other: dict[int, Any] | None = None) -> None:
        self.count = count
        self.other = other or {}
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        value = self.other.get(index, blank(index % 256))
        if isinstance(value, Exception):
            raise value
        return value, index


class Numbered(IterableDataset[Any]):
    """The same as a stream that splits itself among workers. ``first`` can be set from outside."""

    first = 0

    def __init__(self, count: int = COUNT, other: dict[int, Any] | None = None) -> None:
        self.samples = Blanks(count, other)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        start, step = (info.id, info.num_workers) if info else (0, 1)
        return map(self.samples.__getitem__, range(self.first + start, self.samples.count, step))


def as_list(batch: list[Any]) -> list[Any]:
    return batch


def labels(batches: Any) -> list[list[int]]:
    return [[int(label) for _, label in batch] for batch in batches]


def loader_of(dataset: Any = None, **options: Any) -> DataLoader[Any]:
    options = {"batch_size": 4, "collate_fn": as_list, **options}
    if "batch_sampler" in options:
        del options["batch_size"]
    return DataLoader(Blanks() if dataset is None else dataset, **options)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Backwards(BatchSampler):
    """Draws from torch's global generator as soon as it is asked for an iterator."""

    def __init__(self) -> None:
        pass

    def __iter__(self) -> Iterator[list[int]]:
        return iter([order[i : i + 3] for order in [torch.randperm(COUNT).tolist()] for i in range(0, COUNT, 3)])

    def __len__(self) -> int:
        return 5


ORDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "in order": dict,
    "last dropped": lambda: {"drop_last": True},
    "shuffled": lambda: {"shuffle": True},
    "shuffled, own generator": lambda: {"shuffle": True, "generator": seeded()},
    "replacement": lambda: {"sampler": RandomSampler(range(COUNT), replacement=True, generator=seeded())},
    "weighted": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 9)},
    "batches, drawn at once": lambda: {"batch_sampler": Backwards()},
    "distributed": lambda: {"sampler": DistributedSampler(range(COUNT), num_replicas=2, rank=1, seed=3)},
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_and_batches_and_draws_are_those_of_the_plain_loader(order: str) -> None:
    torch.manual_seed(11)
    plain = loader_of(**ORDERS[order]())
    expected = [labels(plain) for _ in range(2)]
    left = torch.get_rng_state()
    torch.manual_seed(11)
    safe = wrapped(loader_of(**ORDERS[order]()))
    assert [labels(safe) for _ in range(2)] == expected
    assert torch.equal(torch.get_rng_state(), left)
    assert len(safe) == len(plain)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_plain_loader_s_epochs(persistent: bool) -> None:
    options = {"shuffle": True, "num_workers": 2, "persistent_workers": persistent, "multiprocessing_context": "fork"}
    torch.manual_seed(11)
    plain = loader_of(**options)
    expected = [labels(plain) for _ in range(2)]
    left = torch.get_rng_state()
    torch.manual_seed(11)
    safe = wrapped(loader_of(**options))
    assert [labels(safe) for _ in range(2)] == expected
    assert torch.equal(torch.get_rng_state(), left)
    assert expected[0] != expected[1]


def test_spawned_workers_and_a_stream_give_what_one_process_gives() -> None:
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    assert labels(wrapped(loader_of(Numbered(), **options))) == labels(loader_of(Numbered()))


def test_without_batches_samples_come_one_by_one() -> None:
    for dataset in (Blanks(3), Numbered(3)):
        samples = list(wrapped(DataLoader(dataset, batch_size=None)))
        assert [label for _, label in samples] == [0, 1, 2]
        assert isinstance(samples[0][0], torch.Tensor)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("several", [[0, 1, 2], (0, 1, 2), slice(3), torch.arange(3)], ids=str)
def test_a_sampler_of_whole_batches_without_batches_is_refused(several: Any, workers: int) -> None:
    stacked = TensorDataset(torch.zeros(3, 24, 24, dtype=torch.uint8), torch.arange(3))
    with pytest.raises(FieldTypeError, match=r"batch_sampler=BatchSampler\(…\) in place of sampler=BatchSampler"):
        list(wrapped(DataLoader(stacked, sampler=[several], batch_size=None, num_workers=workers)))


class Reusing(Blanks):
    """Reads each sample into the same buffers."""

    def __init__(self, kind: str) -> None:
        super().__init__(6)
        self.shade, self.index = torch.zeros(3, 24, 24, dtype=torch.uint8), np.zeros(1, int)
        self.kind = kind

    def __getitem__(self, index: int) -> Any:
        self.shade[:], self.index[:] = index, index
        return self.shade if self.kind == "tensor" else self.shade.numpy().transpose(1, 2, 0), {"index": [self.index]}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_a_dataset_may_reuse_its_buffers(kind: str, workers: int) -> None:
    batches = list(wrapped(DataLoader(Reusing(kind), num_workers=workers), prefetch=3))
    assert [(int(image.max()), int(kept["index"][0])) for image, kept in batches] == [(i, i) for i in range(6)]


def test_set_epoch_reaches_the_sampler() -> None:
    sampler = DistributedSampler(range(COUNT), num_replicas=2, rank=0)
    safe = wrapped(loader_of(sampler=sampler))
    first = labels(safe)
    assert safe.sampler is sampler
    safe.sampler.set_epoch(1)
    assert labels(safe) != first


def test_faces_are_anonymized_in_batches_of_ragged_pictures(photo: Photo) -> None:
    pictures = [Image.open(io.BytesIO(photo(i))).crop((0, 0, 150 + i, 158 - i)) for i in range(4)]
    samples = [(pil_to_tensor(picture), i) for i, picture in enumerate(pictures)]
    seen: list[Any] = []

    def resized(sample: Any) -> Any:
        seen.append(sample[0])
        return torch.nn.functional.interpolate(sample[0][None] / 255.0, (64, 64))[0], sample[1]

    [(images, numbers)] = list(wrapped(DataLoader(samples, batch_size=4), transform=resized))
    assert images.shape == (4, 3, 64, 64)
    assert numbers.tolist() == [0, 1, 2, 3]
    for (original, _), given in zip(samples, seen, strict=True):
        assert given.shape == original.shape
        assert not torch.equal(given, original)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_no_more_than_prefetch_batches_are_read_ahead(prefetch: int) -> None:
    dataset = Blanks()
    batches = iter(wrapped(loader_of(dataset, batch_size=2), prefetch=prefetch))
    assert dataset.read == []
    next(batches)
    assert len(dataset.read) == 2 * (1 + prefetch)
    next(batches)
    assert len(dataset.read) == 2 * (2 + prefetch)


def test_the_user_s_code_runs_in_the_thread_that_iterates() -> None:
    threads = set()

    class Noting(Blanks):
        def __getitem__(self, index: int) -> Any:
            threads.add(threading.current_thread())
            return super().__getitem__(index)

    def noting(value: Any) -> Any:
        threads.add(threading.current_thread())
        return value

    list(wrapped(loader_of(Noting(other={3: b"broken"}), collate_fn=noting), transform=noting))
    assert threads == {threading.current_thread()}


def test_nothing_that_anonymizes_is_sent_to_workers() -> None:
    safe = wrapped(loader_of(Blanks(1)))
    assert KEY in pickle.dumps(safe._source)
    assert KEY not in pickle.dumps(safe._inner.dataset)


class Ranged(Numbered):
    """A stream that a ``worker_init_fn`` splits, as torch's documentation does it."""

    def __iter__(self) -> Iterator[Any]:
        return map(self.samples.__getitem__, range(self.first, self.samples.count))


def split(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    dataset: Any = info.dataset
    dataset.first, dataset.samples.count = [(0, 3), (3, dataset.samples.count)][worker]


def test_a_worker_init_fn_can_set_the_dataset_up() -> None:
    options = {"num_workers": 2, "worker_init_fn": split, "multiprocessing_context": "fork", "batch_size": 2}
    given = labels(wrapped(loader_of(Ranged(6), **options)))
    assert given == labels(loader_of(Ranged(6), **options))
    assert sorted(label for batch in given for label in batch) == [0, 1, 2, 3, 4, 5]


def test_the_dataset_is_not_passed_on() -> None:
    safe = wrapped(loader_of())
    with pytest.raises(RefusedError, match="has no 'dataset', and passes no attribute"):
        _ = safe.dataset
    assert (safe.batch_size, safe.drop_last, safe.num_workers) == (4, False, 0)


class Own(DataLoader[Any]):
    def __iter__(self) -> Any:
        return super().__iter__()


@pytest.mark.parametrize(
    ("loader", "options", "says"),
    [
        ([1, 2], {}, "the loader is a list; expected a torch DataLoader"),
        (Own(Blanks()), {}, "Own iterates in its own way"),
        (DataLoader(Blanks()), {"prefetch": -1}, "prefetch is -1"),
        (DataLoader(Blanks()), {"keep": (0,)}, "declared twice"),
        (DataLoader(Blanks()), {"group": [1]}, "one for each of 14 samples"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_at_once(loader: Any, options: Any, says: str) -> None:
    with pytest.raises((FieldTypeError, PolicyError), match=says):
        wrapped(loader, **options)


def test_a_dropped_sample_makes_its_batch_smaller_and_an_empty_batch_is_left_out() -> None:
    for dataset in (Blanks, Numbered):
        broken = dict.fromkeys([1, 4, 5, 6, 7], b"broken")
        safe = wrapped(loader_of(dataset(10, broken)), on_withheld="drop")
        assert labels(safe) == [[0, 2, 3], [8, 9]]
        assert (safe.report.seen, safe.report.counts["instead"]["dropped"]) == (10, 5)


def test_a_stand_in_takes_a_withheld_sample_s_place() -> None:
    broken = {1: b"broken", 6: OSError(SECRET)}
    safe = wrapped(loader_of(Blanks(8, broken)), group=[i % 2 for i in range(8)])
    given = labels(safe)
    assert [label % 2 for batch in given for label in batch] == [0, 1] * 4
    assert given[0][1] != 1
    assert safe.report.counts["instead"]["replaced"] == 2
    assert labels(wrapped(loader_of(Numbered(4, broken)), on_withheld="replace")) == [[0, 0, 2, 3]]


def test_the_report_counts_what_was_given_out() -> None:
    safe = wrapped(loader_of())
    batches = iter(safe)
    next(batches)
    assert safe.report.seen == 4
    list(batches)
    assert safe.report.seen == COUNT


# Errors


def until(batches: Iterator[Any], given: list[Any]) -> None:
    for batch in batches:
        given.append(labels([batch])[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [KeyError(SECRET), ("a tuple", "of another", "length")])
def test_an_error_of_the_dataset_comes_after_the_batches_before_it(error: Any, workers: int) -> None:
    class Failing(Blanks):
        def __getitem__(self, index: int) -> Any:
            return (blank(1), 1, SECRET) if index == 9 and isinstance(error, tuple) else super().__getitem__(index)

    loader = loader_of(Failing(other={9: error}), num_workers=workers)
    batches, given = iter(wrapped(loader)), list[Any]()
    with pytest.raises(KeyError, match=r"sample 9 raised KeyError|position 2 of a sample is not declared") as caught:
        until(batches, given)
    assert given == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, UndeclaredFieldError) or isinstance(error, KeyError)
    assert list(batches) == []


def test_a_dataset_cannot_end_an_epoch_by_an_error() -> None:
    with pytest.raises(RuntimeError, match="sample 9 raised StopIteration"):
        list(wrapped(loader_of(Blanks(other={9: StopIteration(SECRET)}))))


def test_a_withheld_sample_raises_at_its_batch() -> None:
    given = list[Any]()
    with pytest.raises(WithheldError, match="not_an_image"):
        until(iter(wrapped(loader_of(Blanks(other={9: b"broken"})), on_withheld="raise")), given)
    assert given == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("where", ["transform", "collate_fn"])
def test_an_error_of_the_user_s_own_code_comes_up_as_it_is(where: str) -> None:
    def fails(value: Any) -> Any:
        raise ZeroDivisionError("mine")

    options: dict[str, Any] = {where: fails}
    safe = wrapped(loader_of(**options)) if where == "collate_fn" else wrapped(loader_of(), **options)
    with pytest.raises(ZeroDivisionError, match="mine"):
        list(safe)


def test_an_error_of_the_engine_comes_out_of_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Anonymizer("faces-protected", device="cpu", galleries={"protected": "/none/such.gallery"})
    safe = AnonymizedLoader.from_dataloader(loader_of(), made, fields={0: "image"}, keep=(1,))
    with pytest.raises(GalleryError):
        list(safe)


def test_a_file_that_breaks_in_a_worker_withholds_its_sample(photo: Photo) -> None:
    class Lazy(Blanks):
        def __getitem__(self, index: int) -> Any:
            return Image.open(io.BytesIO(photo()[:-2000])) if index == 1 else Image.fromarray(blank(index)), index

    safe = wrapped(loader_of(Lazy(4), num_workers=1), on_withheld="drop")
    assert labels(safe) == [[0, 2, 3]]
    assert safe.report.withheld == {"unreadable": 1}


def test_what_cannot_leave_a_worker_is_an_error_and_no_hang() -> None:
    loader = loader_of(Unsendable(), num_workers=1)
    with pytest.raises(FieldTypeError, match="a function that cannot be sent from a worker"):
        list(wrapped(loader))


class Unsendable(Blanks):
    def __getitem__(self, index: int) -> Any:
        return blank(index), lambda: index


class Deadly(Blanks):
    def __getitem__(self, index: int) -> Any:
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    given = list[Any]()
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        until(iter(wrapped(loader_of(Deadly(), num_workers=1))), given)
    assert given in ([], [[0, 1, 2, 3]], [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert multiprocessing.active_children() == []


class Stuck(Blanks):
    def __getitem__(self, index: int) -> Any:
        time.sleep(60 if index == 4 else 0)
        return super().__getitem__(index)


def test_the_loader_s_timeout_holds() -> None:
    with pytest.raises(RuntimeError, match="timed out after 1 seconds"):
        list(wrapped(loader_of(Stuck(), num_workers=1, timeout=1)))


# Leaving early


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("anondata")]


def gone(found: Callable[[], Any], within_s: float = 5) -> bool:
    end = time.monotonic() + within_s
    while found() and time.monotonic() < end:
        time.sleep(0.02)
    return not found()


@pytest.mark.parametrize("how", ["break", "close", "error"])
def test_leaving_early_ends_thread_and_workers(how: str) -> None:
    batches = iter(wrapped(loader_of(Blanks(1000), num_workers=2)))
    next(batches)
    assert engine_threads()
    assert len(multiprocessing.active_children()) == 2
    start = time.monotonic()
    if how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "break":
        for _ in batches:
            break
        del batches
    else:
        with pytest.raises(ZeroDivisionError):
            _ = [1 / 0 for _ in batches]
        del batches
    gc.collect()
    assert gone(engine_threads)
    assert gone(multiprocessing.active_children)
    assert time.monotonic() - start < 4


def test_workers_end_with_an_error_while_it_is_still_held() -> None:
    with pytest.raises(KeyError) as caught:
        list(wrapped(loader_of(Blanks(other={1: KeyError()}), num_workers=2)))
    assert multiprocessing.active_children() == []
    assert caught.tb


def test_another_epoch_may_follow_one_that_was_left() -> None:
    safe = wrapped(loader_of(num_workers=1, persistent_workers=True))
    for _ in safe:
        break
    assert labels(safe) == labels(loader_of())


SCRIPT = """
import time
import numpy as np, torch
from anondata import Anonymizer
from anondata.loaders.torch import AnonymizedLoader

class Photos(torch.utils.data.Dataset):
    def __len__(self): return 10**6
    def __getitem__(self, index): return np.full((600, 600, 3), 9, np.uint8), index

if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(Photos(), batch_size=256, num_workers=1, collate_fn=list)
    made = Anonymizer("faces", device="cpu")
    for batch in AnonymizedLoader.from_dataloader(loader, made, fields={0: "image"}, keep=(1,), batch=2):
        print("never", flush=True)
"""


def test_ctrl_c_ends_the_program_at_once() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); print('on', flush=True)" + SCRIPT
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        time.sleep(6)  # within the first batch, which takes a minute
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, said = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0
    assert time.monotonic() - start < 15


LEFT_OPEN = """
import sys
import numpy as np, torch
from anondata import Anonymizer
from anondata.loaders.torch import AnonymizedLoader

photos = [(np.full((24, 24, 3), 9, np.uint8), i) for i in range(8)]
loader = torch.utils.data.DataLoader(photos, num_workers=int(sys.argv[1]))
made = AnonymizedLoader.from_dataloader(loader, Anonymizer("faces", device="cpu"), fields={0: "image"}, keep=(1,))
sys.modules["held to the end"] = batches = iter(made)
next(batches)
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_program_may_end_within_an_epoch(workers: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LEFT_OPEN, workers]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""


# Going on


def passed_on(state: Any) -> Any:
    """As it comes back from a checkpoint, by either way."""
    assert json.loads(json.dumps(state)) == state
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_a_resumed_epoch_gives_the_batches_that_were_left(order: str, taken: int) -> None:
    torch.manual_seed(11)
    first = wrapped(loader_of(**ORDERS[order]()))
    batches = iter(first)
    given = labels(islice(batches, taken))
    state = passed_on(first.state_dict())
    rest, later = labels(batches), labels(first)
    if not taken:
        torch.manual_seed(11)  # no epoch was begun: its order is the global generator's
    dataset = Blanks()
    again = wrapped(loader_of(dataset, **ORDERS[order]()))
    again.load_state_dict(state)
    before = torch.get_rng_state()
    assert labels(again) == rest
    assert dataset.read == [label for batch in rest for label in batch]
    if taken and given:
        assert torch.equal(torch.get_rng_state(), before)
    if "own generator" in order or order in ("replacement", "distributed", "in order", "last dropped"):
        assert labels(again) == later


@pytest.mark.parametrize("persistent", [False, True])
def test_a_run_resumed_with_workers_goes_on_as_it_would_have(persistent: bool) -> None:
    options: dict[str, Any] = {"num_workers": 2, "persistent_workers": persistent, "multiprocessing_context": "fork"}
    first = wrapped(loader_of(shuffle=True, generator=seeded(), **options))
    states, epochs = [], []
    for _ in range(3):
        batches = iter(first)
        next(batches)
        states.append(first.state_dict())
        epochs.append(labels(batches))
        states.append(first.state_dict())
    for number, state in enumerate(states[:-1]):
        again = wrapped(loader_of(shuffle=True, generator=seeded(), **options))
        again.load_state_dict(passed_on(state))
        between = number % 2  # whose next epoch is a whole one
        assert labels(again)[between:] == epochs[(number + 1) // 2]


def test_a_resumed_stream_reads_what_was_given_and_does_not_anonymize_it() -> None:
    for workers in (0, 2):
        first = wrapped(loader_of(Numbered(), num_workers=workers))
        batches = iter(first)
        next(batches)
        state = passed_on(first.state_dict())
        rest = labels(batches)
        again = wrapped(loader_of(Numbered(), num_workers=workers))
        again.load_state_dict(state)
        assert labels(again) == rest
        assert again.report.seen == COUNT - 4


def test_stand_ins_are_the_same_after_resuming() -> None:
    def made() -> AnonymizedLoader:
        return wrapped(loader_of(Blanks(other={9: b"broken", 2: b"broken"}), shuffle=True, generator=seeded()))

    straight, first = labels(made()), made()
    batches = iter(first)
    given = labels([next(batches), next(batches)])
    again = made()
    again.load_state_dict(first.state_dict())
    assert given + labels(again) == straight


def test_a_state_that_was_loaded_is_the_state_until_an_iteration_begins() -> None:
    first = wrapped(loader_of(shuffle=True))
    next(iter(first))
    again = wrapped(loader_of(shuffle=True))
    again.load_state_dict(first.state_dict())
    assert again.state_dict() == first.state_dict()


def test_a_resumed_epoch_can_be_saved_again() -> None:
    first = wrapped(loader_of(shuffle=True))
    batches = iter(first)
    next(batches)
    second = wrapped(loader_of(shuffle=True))
    second.load_state_dict(first.state_dict())
    next(iter(second))
    third = wrapped(loader_of(shuffle=True))
    third.load_state_dict(second.state_dict())
    assert labels(third) == labels(batches)[1:]


def test_a_state_tells_no_secret_and_no_sample() -> None:
    safe = wrapped(loader_of(other := Blanks(other={0: blank(77)})))
    next(iter(safe))
    told = json.dumps(safe.state_dict())
    assert other.read
    assert KEY.decode() not in told
    assert KEY.hex() not in told
    assert set(safe.state_dict()) == {
        *("format", "policy", "length", "batch_size", "num_workers", "generators"),
        *("batches", "order", "at_iter", "at_first"),
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "0" * 32}, "its policy is"),
        ({"length": 3}, "its length is 3, and this one's 4"),
        ({"batch_size": 5}, "its batch_size is 5"),
        ({"format": "other/1"}, "its format is 'other/1'"),
        ({"generators": ["loader"]}, "its generators is"),
        ({"batches": "1"}, "not the state of an anonymized loader"),
        ({"batches": -1}, "not the state of an anonymized loader"),
        ({"at_iter": None}, "not the state of an anonymized loader"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: Any, says: str) -> None:
    safe = wrapped(loader_of())
    with pytest.raises(PolicyError, match=says):
        safe.load_state_dict({**safe.state_dict(), **change})
    with pytest.raises(PolicyError, match="not the state"):
        safe.load_state_dict({})


def test_a_state_of_another_policy_is_refused() -> None:
    made = Anonymizer("faces-fill", device="cpu")
    other = AnonymizedLoader.from_dataloader(loader_of(), made, fields={0: "image"}, keep=(1,))
    with pytest.raises(PolicyError, match="its policy is"):
        wrapped(loader_of()).load_state_dict(other.state_dict())


class Unseeded(BatchSampler):
    """Shuffles by Python's generator, which no state holds."""

    def __init__(self) -> None:
        pass

    def __iter__(self) -> Iterator[list[int]]:
        order = random.Random().sample(range(1000), 12)
        return iter([order[i : i + 3] for i in range(0, 12, 3)])

    def __len__(self) -> int:
        return 4


def test_an_order_that_cannot_be_had_again_is_found_out() -> None:
    first = wrapped(loader_of(Blanks(1000), batch_sampler=Unseeded()))
    next(iter(first))
    again = wrapped(loader_of(Blanks(1000), batch_sampler=Unseeded()))
    again.load_state_dict(first.state_dict())
    with pytest.raises(PolicyError, match="the sampler gives other samples than when the state was saved"):
        list(again)


def test_a_stream_that_has_become_shorter_is_found_out() -> None:
    first = wrapped(loader_of(Numbered()))
    batches = iter(first)
    next(batches), next(batches)
    again = wrapped(loader_of(Numbered(4)))
    again.load_state_dict(first.state_dict())
    with pytest.raises(PolicyError, match="the stream is shorter"):
        list(again)


def test_batches_in_no_order_have_no_state() -> None:
    safe = wrapped(loader_of(num_workers=1, in_order=False))
    assert labels(safe) == labels(loader_of())
    with pytest.raises(PolicyError, match="take in_order=True"):
        safe.state_dict()
