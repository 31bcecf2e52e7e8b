"""Adapters charge what they deliver, before it is delivered, and stop at a limit."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image
from torch.utils.data import DataLoader, IterableDataset

from anondata import Anonymizer
from anondata.errors import LedgerError, PolicyError, QuotaExceeded, UnknownClientError
from anondata.ledger import Ledger, Limit
from anondata.loaders import hf
from anondata.loaders.shards import anonymize_shards
from anondata.loaders.torch import AnonymizedLoader
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.loaders.webdataset import anonymize
from anondata.report import from_json

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")

Photo = Callable[..., bytes]
COUNT, LIMIT = 11, 7  # two micro-batches of four, with some left


class Stream(IterableDataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "quotas.db")
    made.set_limit(Limit("acme", content_type="image", amount=LIMIT))
    return made


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Small ones, as no face is needed here; the third cannot be decoded."""
    from PIL import Image as Pictures

    made = []
    for i in range(COUNT):
        file = io.BytesIO()
        Pictures.new("RGB", (32, 32), (i * 20, 90, 40)).save(file, "PNG")
        made.append(file.getvalue())
    return [*made[:2], b"no picture", *made[3:]]


def table(pictures: list[bytes]) -> Dataset:
    return Dataset.from_dict(
        {"image": [{"bytes": p, "path": None} for p in pictures]}, features=Features(image=Image())
    )


def used(ledger: Ledger) -> int:
    [usage] = ledger.usage("acme")
    return usage.used


def taken(samples: Iterable[Any]) -> tuple[int, type[Exception] | None]:
    """How many samples come, and what ended them."""
    count = 0
    try:
        for _ in samples:
            count += 1
    except Exception as error:  # noqa: BLE001 - what it is, is the test's matter
        return count, type(error)
    return count, None


def streams(anonymizer: Anonymizer, pictures: list[bytes], **quota: Any) -> dict[str, Iterable[Any]]:
    rows = [{"__key__": str(i), "png": picture} for i, picture in enumerate(pictures)]
    return {
        "webdataset": anonymize(anonymizer, fields={"png": "image"}, **quota)(rows),
        "torch": anonymize_torch(Stream([(p,) for p in pictures]), anonymizer, fields={0: "image"}, **quota),
        "hf": hf.anonymize(table(pictures).to_iterable_dataset(), anonymizer, **quota),
        "loader": AnonymizedLoader.from_dataloader(
            DataLoader(Stream([(p,) for p in pictures]), batch_size=1, collate_fn=list),
            anonymizer,
            fields={0: "image"},
            **quota,
        ),
    }


NAMES = ["webdataset", "torch", "hf", "loader"]


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_stops_quietly_with_exactly_what_may_be_given(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], name: str
) -> None:
    stream = streams(anonymizer, pictures, client="acme", ledger=ledger, at_limit="stop")[name]
    assert taken(stream) == (LIMIT, None)
    assert used(ledger) == LIMIT


@pytest.mark.parametrize("name", ["webdataset", "torch", "loader"])
def test_a_stream_raises_after_the_last_that_may_be_given(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], name: str
) -> None:
    stream = streams(anonymizer, pictures, client="acme", ledger=ledger)[name]
    assert taken(stream) == (LIMIT, QuotaExceeded)
    assert used(ledger) == LIMIT


def test_a_stream_of_datasets_raises_before_the_micro_batch_that_does_not_fit(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    """Its third picture is withheld: 3 + 4 samples fit, and are charged; of the next batch nothing is."""
    stream = hf.anonymize(table(pictures).to_iterable_dataset(), anonymizer, client="acme", ledger=ledger)
    assert taken(stream) == (7, QuotaExceeded)
    ledger.set_limit(Limit("acme", content_type="image", amount=9))
    stream = hf.anonymize(table(pictures).to_iterable_dataset(), anonymizer, client="acme", ledger=ledger)
    assert taken(stream) == (0, QuotaExceeded)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_withheld_is_not_charged(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], name: str
) -> None:
    ledger.set_limit(Limit("acme", content_type="image", amount=1000))
    stream = streams(anonymizer, pictures, client="acme", ledger=ledger)[name]
    assert taken(stream) == (COUNT - 1, None)
    if name != "hf":  # whose leases are settled when the process ends
        assert used(ledger) == COUNT - 1


def test_a_view_gives_all_that_is_asked_for_or_nothing(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    """Stand-ins are charged, too: row 2 is one."""
    view = hf.anonymize(table(pictures), anonymizer, client="acme", ledger=ledger)
    assert len(view[:6]["image"]) == 6
    with pytest.raises(QuotaExceeded) as caught:
        view[6:9]
    assert caught.value.limit == LIMIT
    assert view[9]["image"].size == (32, 32)
    with pytest.raises(QuotaExceeded):
        view[0]


def test_a_torch_dataset_gives_all_that_is_asked_for_or_nothing(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    safe = anonymize_torch([(p,) for p in pictures], anonymizer, fields={0: "image"}, client="acme", ledger=ledger)
    assert len(safe[:LIMIT]) == LIMIT
    with pytest.raises(QuotaExceeded):
        safe[0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_together_never_pass_the_limit(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], context: str
) -> None:
    ledger.set_limit(Limit("acme", content_type="image", amount=9))
    safe = anonymize_torch([(p,) for p in pictures], anonymizer, fields={0: "image"}, client="acme", ledger=ledger)
    loader = DataLoader(safe, batch_size=1, num_workers=2, multiprocessing_context=context, collate_fn=len)  # type: ignore[arg-type]
    count, error = taken(loader)
    assert error is QuotaExceeded
    assert count <= 9
    [usage] = ledger.usage("acme")  # one read: a worker that ends turns what was reserved into what was used
    assert count <= usage.used + usage.reserved <= 9


def test_a_view_in_workers_that_end_leaves_no_lease_open(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    ledger.set_limit(Limit("acme", content_type="image", amount=100))
    view = hf.anonymize(table(pictures), anonymizer, client="acme", ledger=ledger)
    assert len(list(DataLoader(view, batch_size=4, num_workers=2, collate_fn=len))) == 3  # type: ignore[arg-type]
    [usage] = ledger.usage("acme")
    assert (usage.used, usage.reserved) == (COUNT, 0)


def test_a_client_whom_no_limit_names_gets_nothing(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    stream = streams(anonymizer, pictures, client="zeta", ledger=ledger)["webdataset"]
    assert taken(stream) == (0, UnknownClientError)


def test_a_ledger_that_is_not_there_gives_nothing(
    anonymizer: Anonymizer, tmp_path: Path, pictures: list[bytes]
) -> None:
    stream = streams(anonymizer, pictures, client="acme", ledger=tmp_path / "none.db")["webdataset"]
    count, error = taken(stream)
    assert count == 0
    assert error is not None
    assert issubclass(error, LedgerError)


def test_leaving_an_iteration_early_charges_what_came(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    stream = iter(streams(anonymizer, pictures, client="acme", ledger=ledger)["webdataset"])
    next(stream), next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 2 <= used(ledger) <= 4  # a micro-batch is charged as it comes out of the engine
    assert ledger.usage("acme")[0].reserved == 0


def test_threads_that_share_an_adapter_never_pass_the_limit(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes]
) -> None:
    view, got = hf.anonymize(table(pictures), anonymizer, client="acme", ledger=ledger), list[int]()

    def read(start: int) -> None:
        for i in range(start, COUNT, 2):
            try:
                view[i]
            except QuotaExceeded:
                return
            got.append(i)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == LIMIT


@pytest.mark.parametrize(
    ("quota", "error", "said"),
    [
        ({"client": "acme"}, PolicyError, "belong together"),
        ({"ledger": "quotas.db"}, PolicyError, "belong together"),
        ({"at_limit": "stop"}, PolicyError, "need"),
        ({"client": "acme", "ledger": "quotas.db", "at_limit": "stop"}, PolicyError, "cannot end before it"),
        ({"clients": "acme"}, TypeError, "unexpected keyword 'clients'"),
        ({"client": "", "ledger": "quotas.db"}, ValueError, "client"),
    ],
)
def test_keywords_that_do_not_fit_are_refused(
    anonymizer: Anonymizer, pictures: list[bytes], quota: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        hf.anonymize(table(pictures), anonymizer, **quota)
    with pytest.raises(error, match=said):
        anonymize_torch(pictures, anonymizer, fields={0: "image"}, **quota)


def written(view: Any, out: Path, **options: Any) -> int:
    return len(view.materialize(out, cache_dir=out.with_name("cache"), **options))


def test_files_are_charged_when_they_are_written_and_once(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], tmp_path: Path
) -> None:
    """The file that does not fit is not there; the same call goes on when the limit is raised."""
    view = hf.anonymize(table(pictures), anonymizer, client="acme", ledger=ledger)
    with pytest.raises(QuotaExceeded):
        written(view, tmp_path / "out", rows_per_file=3)
    assert used(ledger) == 2 + 3
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2
    ledger.set_limit(Limit("acme", content_type="image", amount=COUNT - 1))
    assert written(view, tmp_path / "out", rows_per_file=3) == COUNT - 1
    assert used(ledger) == COUNT - 1
    assert written(view, tmp_path / "out", rows_per_file=3) == COUNT - 1


def test_a_file_that_was_charged_and_never_came_into_place_is_not_charged_again(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    view = hf.anonymize(table(pictures[:5]), anonymizer, client="acme", ledger=ledger)
    with monkeypatch.context() as broken:
        broken.setattr("anondata.loaders._parts.Parts.commit", killed)
        with pytest.raises(KeyboardInterrupt):
            written(view, tmp_path / "out")
    assert used(ledger) == 4
    assert written(view, tmp_path / "out") == 4
    assert used(ledger) == 4


def test_later_rows_come_in_place_of_those_withheld_and_no_more_than_asked_for(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], tmp_path: Path
) -> None:
    view = hf.anonymize(table(pictures), anonymizer, client="acme", ledger=ledger)
    assert written(view, tmp_path / "out", at_most=6, rows_per_file=4) == 6
    assert used(ledger) == 6
    report = from_json((tmp_path / "out" / "report.json").read_text())
    assert (report.seen, report.released) == (7, 6)
    assert written(view, tmp_path / "out", at_most=6, rows_per_file=4) == 6
    assert used(ledger) == 6


def test_shards_are_charged_when_they_are_written_and_once(
    anonymizer: Anonymizer, ledger: Ledger, pictures: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / "src" / f"{shard}.tar", "w") as tar:
            for i, picture in enumerate(pictures[shard * 4 : shard * 4 + 4]):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(picture)
                tar.addfile(info, io.BytesIO(picture))
    args: dict[str, Any] = {"fields": {"png": "image"}, "client": "acme", "ledger": ledger, "workers": 1}
    with pytest.raises(QuotaExceeded):
        anonymize_shards(tmp_path / "src", tmp_path / "out", anonymizer, **args)
    assert used(ledger) == 3 + 4
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["0.tar", "1.tar"]
    ledger.set_limit(Limit("acme", content_type="image", amount=100))
    assert anonymize_shards(tmp_path / "src", tmp_path / "out", anonymizer, **args).samples == COUNT - 1
    assert used(ledger) == COUNT - 1


def test_other_originals_of_the_same_size_and_time_are_charged_again(
    anonymizer: Anonymizer, ledger: Ledger, tmp_path: Path
) -> None:
    """Once is once for what was delivered, not for where it came from: a storage may tell no version at all."""
    from PIL import Image as Pictures

    def put(shade: int) -> Dataset:
        Pictures.new("RGB", (32, 32), (shade, 90, 40)).save(tmp_path / "a.bmp")
        os.utime(tmp_path / "a.bmp", (10**9, 10**9))
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(tmp_path / "a.bmp", "a.bmp")
        os.utime(tmp_path / "a.tar", (10**9, 10**9))
        return Dataset.from_dict({"image": [str(tmp_path / "a.bmp")]}, features=Features(image=Image()))

    quota: dict[str, Any] = {"client": "acme", "ledger": ledger}
    for number, shade in enumerate((20, 20, 60)):
        written(hf.anonymize(put(shade), anonymizer, **quota), tmp_path / "rows")
        anonymize_shards(
            tmp_path / "a.tar", tmp_path / "out", anonymizer, fields={"bmp": "image"}, workers=1, **quota
        )
        assert used(ledger) == (2, 2, 4)[number]
        for place in ("rows", "out", "cache"):
            shutil.rmtree(tmp_path / place, ignore_errors=True)


def test_materialize_asks_whether_the_client_is_known_before_the_work(photo, tmp_path, monkeypatch):
    from datasets import Dataset, Image

    table = Dataset.from_list([{"image": {"bytes": photo(0), "path": None}}]).cast_column("image", Image())
    monkeypatch.setattr(Anonymizer, "run", None)  # no work
    for ledger, error in (("absent.db", LedgerError), ("other.db", UnknownClientError)):
        if error is UnknownClientError:
            Ledger(tmp_path / ledger).set_limit(Limit("other", amount=1))
        view = hf.anonymize(
            table, Anonymizer("faces"), fields={"image": "image"}, client="acme", ledger=str(tmp_path / ledger)
        )
        with pytest.raises(error):
            view.materialize(tmp_path / "out")
