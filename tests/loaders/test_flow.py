"""What all adapters share: micro-batches, stand-ins for withheld samples, and reports of many processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anondata import Anonymizer
from anondata.errors import PolicyError, ReportError, UndeclaredFieldError, WithheldError
from anondata.loaders._flow import HOPELESS, Flow, Row
from anondata.loaders._reports import Reports
from anondata.loaders._spares import MAX_SAMPLES, Delivery, Spares, group_of
from anondata.records import Withheld
from anondata.samples import declare

BLANK = np.zeros((24, 24, 3), np.uint8)
BROKEN = b"no picture"
Photo = Callable[..., bytes]


def flow(**options: Any) -> Flow:
    options = {"schema": declare({"image": "image"}, keep="label"), **options}
    return Flow(Anonymizer("faces", run_key=b"0123456789abcdef"), **options)


def rows(*images: Any) -> list[Row]:
    return [{"image": image, "label": i % 2} for i, image in enumerate(images)]


def test_rows_come_back_in_order_whatever_the_batch(photo: Photo) -> None:
    given = rows(*[photo(i) for i in range(5)])
    one, three = (flow(batch=size).settle(given, Spares()) for size in (1, 3))
    assert [s.fields for s in one] == [s.fields for s in three]
    assert [s.fields and s.fields["label"] for s in one] == [0, 1, 0, 1, 0]
    assert all(s.note == "released" for s in one)


def test_the_same_content_gets_the_same_result_wherever_it_lies(photo: Photo) -> None:
    made = flow()
    first, *_, last = made.settle(rows(photo(0), photo(1), photo(2), photo(0)), Spares())
    assert first.fields is not None
    assert last.fields is not None
    assert first.fields["image"] == last.fields["image"]


def test_a_stream_is_read_no_further_than_a_batch() -> None:
    taken = []

    def source() -> Any:
        for i in range(100):
            taken.append(i)
            yield i

    stream = flow(batch=2).stream(source(), lambda i: {"image": BLANK, "label": i})
    assert taken == []
    next(stream)
    assert taken == [0, 1]


def test_an_undeclared_field_stops_everything_before_anything_comes_out() -> None:
    with pytest.raises(UndeclaredFieldError, match="caption"):
        flow().settle([{"image": BLANK, "label": 1, "caption": "Jane"}], Spares())


def test_a_dropped_sample_is_counted() -> None:
    made = flow(on_withheld="drop")
    settled = made.settle(rows(BLANK, BROKEN), Spares())
    assert [s.fields is None for s in settled] == [False, True]
    assert settled[1].note == "dropped: not_an_image"
    assert made.report.counts["instead"] == {"replaced": 0, "dropped": 1}
    assert (made.report.seen, made.report.released) == (2, 1)


def test_raise_raises_without_a_word_of_the_sample() -> None:
    made = flow(on_withheld="raise")
    with pytest.raises(WithheldError, match="not_an_image") as error:
        made.settle([{"image": b"secret words", "label": "Jane"}], Spares())
    assert "secret" not in str(error.value)
    assert "Jane" not in str(error.value)
    assert made.report.withheld == {"not_an_image": 1}


def test_a_stream_replaces_by_one_of_the_same_group() -> None:
    made = flow(group="label")
    given = rows(BLANK, BLANK + 1, BROKEN, BROKEN)
    settled = made.settle(given, Spares())
    assert [s.fields and s.fields["label"] for s in settled] == [0, 1, 0, 1]
    assert settled[2].note == "replaced: not_an_image"
    assert made.report.counts["instead"] == {"replaced": 2, "dropped": 0}


def test_without_a_comparable_sample_a_stream_drops() -> None:
    settled = flow(group=lambda kept: kept["label"]).settle(rows(BLANK, BROKEN), Spares())
    assert [s.note for s in settled] == ["released", "dropped: not_an_image"]


def test_a_group_function_sees_kept_fields_only() -> None:
    seen = []

    def group(kept: Any) -> Hashable:
        seen.append(set(kept))
        return 1

    flow(group=group).settle(rows(BLANK), Spares())
    assert seen == [{"label"}]


def reader(given: list[Row]) -> Callable[[Sequence[int]], list[Row]]:
    return lambda indices: [given[i] for i in indices]


def test_an_index_gives_the_same_stand_in_whatever_was_asked_before() -> None:
    given = rows(*[BLANK + i for i in range(6)], BROKEN)

    def get(*asked: list[int]) -> Any:
        made = flow()
        for indices in asked:
            settled = made.fetch(indices, reader(given), lambda group: range(6))
        return settled[-1].fields

    alone, later = get([6]), get([3], [1, 2], [0, 6])
    assert np.array_equal(alone["image"], later["image"])
    assert alone["label"] == later["label"]


def test_an_index_is_replaced_within_its_group() -> None:
    given = rows(*[BLANK + i for i in range(6)], BROKEN, BROKEN)
    members = {0: [0, 2, 4], 1: [1, 3, 5]}
    settled = flow(group="label").fetch([6, 7], reader(given), members.__getitem__)  # type: ignore[arg-type]
    assert [s.fields and s.fields["label"] for s in settled] == [0, 1]


def test_an_index_that_nothing_can_stand_in_for_raises() -> None:
    for others in ([0], []):
        with pytest.raises(WithheldError, match="not_an_image"):
            flow().fetch([0], reader(rows(BROKEN)), lambda group, others=others: others)


def test_a_row_that_could_not_be_read_is_withheld() -> None:
    settled = flow(on_withheld="drop").settle([Withheld("k", "unreadable", "OSError")], Spares())
    assert settled[0].note == "dropped: unreadable"


def test_a_run_that_releases_nothing_stops() -> None:
    made = flow(on_withheld="drop")
    with pytest.raises(WithheldError, match=f"first {HOPELESS} samples were all withheld"):
        made.settle(rows(*[None] * HOPELESS), Spares())


@pytest.mark.parametrize(
    "options",
    [{"on_withheld": "ignore"}, {"group": "image"}, {"group": "nobody"}, {"batch": 0}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        flow(**options)


@pytest.mark.parametrize(
    "declared",
    [({"image": "image"}, "image", ()), ({"image": "image"}, "a", "a"), ({}, "a", ())],
)
def test_a_field_is_declared_once_and_some_hold_content(declared: Any) -> None:
    with pytest.raises(PolicyError):
        declare(*declared)


def test_the_pool_holds_no_more_than_it_may() -> None:
    spares = Spares()
    for i in range(MAX_SAMPLES * 2):
        spares.offer(i, Delivery({"x": b""}))
    assert spares.choose(0, 0) is None
    assert spares.choose(MAX_SAMPLES * 2 - 1, 5) == Delivery({"x": b""})
    for i in range(3):
        spares.offer(i, Delivery({"x": bytes(20 << 20), "y": [np.zeros(4)]}))
    assert spares.choose(1, 0) is None
    assert spares.choose(2, 0) is not None


def test_what_a_consumer_does_to_a_sample_does_not_show_in_its_stand_ins() -> None:
    spares, given = Spares(), {"x": torch.ones(3), "y": [np.ones(3)], "z": Image.new("L", (2, 2), 9)}
    spares.offer(None, Delivery(given))
    for _ in range(2):
        given["x"].zero_(), given["y"][0].fill(0), given["z"].putpixel((0, 0), 0)
        chosen = spares.choose(None, 0)
        assert chosen is not None
        again = chosen.fields
        assert (again["x"].sum(), again["y"][0].sum(), again["z"].getpixel((0, 0))) == (3, 3, 9)
        given = dict(again)


def test_groups_of_tensors_and_lists_compare_by_value() -> None:
    assert group_of("x", {"x": np.int64(3)}) == group_of("x", {"x": np.array(3)}) == 3
    assert group_of("x", {"x": [1, 2]}) == group_of("x", {"x": [1, 2]})


def settle_two(made: Flow, seen: Any) -> None:
    made.settle(rows(BLANK, BROKEN), Spares())
    seen.put(made.report.seen)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_the_report_counts_what_all_processes_did(start: Any) -> None:
    context, made = multiprocessing.get_context(start), flow(on_withheld="drop")
    made.settle(rows(BLANK), Spares())
    seen = context.Queue()
    for _ in range(2):
        worker = context.Process(target=settle_two, args=(made, seen))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    assert sorted(seen.get() for _ in range(2)) == [3, 5]
    assert (made.report.seen, made.report.released) == (5, 3)


def test_a_report_folder_of_one_s_own_stays(tmp_path: Path) -> None:
    flow(reports=Reports(tmp_path / "reports")).settle(rows(BLANK), Spares())
    again = flow(reports=Reports(tmp_path / "reports"))
    again.settle(rows(BLANK), Spares())
    assert again.report.seen == 2


def test_the_temporary_folder_goes_with_its_owner() -> None:
    made = flow()
    made.settle(rows(BLANK), Spares())
    folder = made.reports.folder
    del_by_copy = pickle.loads(pickle.dumps(made))
    del del_by_copy
    assert os.listdir(folder)
    del made
    assert not folder.exists()


def test_building_a_flow_makes_no_file() -> None:
    assert not flow().reports.folder.exists()


def test_reports_of_another_policy_in_the_folder_are_refused(tmp_path: Path) -> None:
    flow(reports=Reports(tmp_path)).settle(rows(BLANK), Spares())
    other = Flow(Anonymizer("faces-fill"), declare({"image": "image"}), reports=Reports(tmp_path))
    with pytest.raises(ReportError):
        _ = other.report
