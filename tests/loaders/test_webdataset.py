"""The stage of WebDataset pipelines: what comes out, in what order, and what never does."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from anondata import Anonymizer
from anondata.errors import FieldTypeError, PolicyError, UndeclaredFieldError, WithheldError
from anondata.loaders.webdataset import anonymize

# webdataset 1.0.2 closes no file that it opens.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

KEY = b"0123456789abcdef"
Member = tuple[str, bytes]


def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=KEY)


def write_tar(path: Path, members: Iterable[Member]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def shards(tmp_path: Path, photo: Callable[..., bytes]) -> list[str]:
    """Two shards of three samples: a photo, a label, a caption."""
    out = []
    for shard in range(2):
        members = []
        for i in range(3):
            key = f"{shard}{i:03}"
            members += [(f"{key}.jpg", photo(3 * shard + i)), (f"{key}.cls", b"%d" % (i % 2))]
            members += [(f"{key}.json", b'{"name": "alice"}')]
        out.append(write_tar(tmp_path / f"in-{shard}.tar", members))
    return out


def dataset(urls: Any, **options: Any) -> wds.WebDataset:
    return wds.WebDataset(urls, shardshuffle=False, **options)


def stage(**options: Any) -> Any:
    return anonymize(anonymizer(), **{"keep": "cls", "drop": "json", **options})


def by_key(samples: Iterable[dict[str, Any]]) -> dict[str, bytes]:
    return {sample["__key__"]: sample["jpg"] for sample in samples}


def opened(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_samples_keep_key_order_and_label_and_lose_what_is_dropped(shards):
    before, after = list(dataset(shards)), list(dataset(shards).compose(stage()))
    assert [s["__key__"] for s in after] == [s["__key__"] for s in before]
    assert [s["cls"] for s in after] == [s["cls"] for s in before]
    assert list(after[0]) == ["__key__", "jpg", "cls", "__anondata__"]
    assert {s["__anondata__"] for s in after} == {"released"}
    for one, other in zip(before, after, strict=True):
        assert (np.abs(opened(one["jpg"]) - opened(other["jpg"])) > 20).mean() > 0.1


def test_a_pipeline_of_stages_takes_it_as_any_other(shards):
    pipeline = wds.DataPipeline(
        wds.SimpleShardList(shards),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        stage(),
        wds.to_tuple("jpg", "cls"),
    )
    expected = [(s["jpg"], s["cls"]) for s in dataset(shards).compose(stage())]
    assert list(pipeline) == expected


@pytest.mark.parametrize("spec", ["pil", "rgb8", "rgb", "torchrgb", "torchrgb8", "l8", "pilrgba"])
def test_decoded_values_come_back_as_what_they_were(shards, spec):
    before = next(iter(dataset(shards).decode(spec)))["jpg"]
    [sample] = list(dataset(shards).slice(1).decode(spec).compose(stage()))
    after = sample["jpg"]
    assert type(after) is (Image.Image if spec.startswith("pil") else type(before))
    if isinstance(before, Image.Image):
        assert (after.mode, after.size) == (before.mode, before.size)
    else:
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
    one, other = (np.asarray(value).astype(float) for value in (before, after))
    assert np.abs(one - other).mean() > 0.01 * one.max()
    assert sample["cls"] == 0


def test_every_image_field_of_a_sample_is_anonymized(tmp_path, photo):
    left, right = photo(1), photo(2)
    url = write_tar(tmp_path / "in.tar", [("a.left.jpg", left), ("a.right.jpg", right), ("a.seg.png", b"mask")])
    two = anonymize(anonymizer(), fields={"left.jpg": "image", "right.jpg": "image"}, keep="seg.png")
    [sample] = list(dataset(url).compose(two))
    assert sample["seg.png"] == b"mask"
    for name, original in (("left.jpg", left), ("right.jpg", right)):
        assert (np.abs(opened(original) - opened(sample[name])) > 20).mean() > 0.1


def test_any_of_the_alternatives_will_do_and_all_that_are_there_are_anonymized(tmp_path, photo):
    members = [("a.jpg", photo(1)), ("b.png", photo(2, "PNG")), ("c.jpg", photo(3)), ("c.png", photo(4, "PNG"))]
    members += [("d.webp", photo(5, "WEBP"))]
    url = write_tar(tmp_path / "in.tar", members)
    samples = {s["__key__"]: s for s in dataset(url).compose(anonymize(anonymizer()))}
    assert [sorted(set(s) - {"__key__", "__url__", "__local_path__", "__anondata__"}) for s in samples.values()] == [
        ["jpg"], ["png"], ["jpg", "png"], ["webp"],
    ]  # fmt: skip
    for name, original in members:
        key, _, field = name.partition(".")
        assert (np.abs(opened(original) - opened(samples[key][field])) > 20).mean() > 0.1


def test_the_result_does_not_depend_on_the_batch_nor_on_the_samples_beside_it(shards):
    expected = by_key(dataset(shards).compose(stage(batch=1)))
    assert by_key(dataset(shards).compose(stage(batch=5))) == expected
    assert by_key(dataset(shards[::-1]).compose(stage(batch=4))) == expected
    assert by_key(dataset(shards[1]).compose(stage())) == {k: v for k, v in expected.items() if k.startswith("1")}


def test_an_undeclared_field_stops_the_stream_and_its_file_name_is_not_told(tmp_path, photo):
    url = write_tar(tmp_path / "in.tar", [("mr.smith.jpg", photo())])
    with pytest.raises(UndeclaredFieldError, match=r"'\*\.jpg' \(of 2 parts.*declare it") as caught:
        list(dataset(url).compose(stage()))
    assert "smith" not in str(caught.value)


def test_nothing_of_a_batch_gets_out_before_all_its_fields_are_checked(tmp_path, photo):
    url = write_tar(tmp_path / "in.tar", [("a.jpg", photo()), ("b.jpg", photo(1)), ("b.txt", b"bob")])
    given = iter(dataset(url).compose(stage(batch=2)))
    with pytest.raises(UndeclaredFieldError, match="'txt' is not declared"):
        next(given)


@pytest.mark.parametrize("handler", [wds.ignore_and_continue, wds.ignore_and_stop])
def test_no_handler_takes_an_error_of_the_stage_for_a_bad_sample(shards, handler):
    quiet = dataset(shards, handler=handler).compose(stage(drop=())).decode("pil", handler=handler)
    with pytest.raises(UndeclaredFieldError, match="json"):
        list(quiet.map(lambda sample: sample, handler=handler).shuffle(10).to_tuple("jpg", handler=handler))


@pytest.mark.parametrize("name", ["__rank__", "__worker__", "__secret__"])
def test_a_private_field_that_webdataset_does_not_set_is_undeclared_too(photo, name):
    with pytest.raises(UndeclaredFieldError, match=name):
        list(stage()([{"__key__": "a", name: "alice", "jpg": photo()}]))


def test_what_is_no_sample_is_refused_with_what_to_do(shards):
    with pytest.raises(FieldTypeError, match="got tuple; expected dict samples: put it before to_tuple"):
        list(dataset(shards).to_tuple("jpg").compose(stage()))
    with pytest.raises(FieldTypeError, match="put it before batched"):
        list(dataset(shards).batched(2).compose(stage()))


def test_a_corrupt_picture_is_dropped_counted_and_said(tmp_path, photo, caplog):
    good = [photo(i) for i in range(3)]
    members = [("a.jpg", good[0]), ("b.jpg", good[1][:700]), ("c.jpg", b""), ("d.jpg", good[2])]
    one = stage()
    samples = list(dataset(write_tar(tmp_path / "in.tar", members)).compose(one))
    assert [s["__key__"] for s in samples] == ["a", "d"]
    assert one.report.withheld == {"truncated": 1, "empty": 1}
    assert one.report.counts["instead"] == {"dropped": 2, "replaced": 0}
    [message] = caplog.messages
    assert message.startswith("a sample was withheld (truncated): ")
    assert message.endswith("More are only counted, in the report")


def test_a_sample_without_any_of_the_alternatives_is_withheld(tmp_path):
    one = stage()
    assert list(dataset(write_tar(tmp_path / "in.tar", [("a.cls", b"1")]), empty_check=False).compose(one)) == []
    assert one.report.withheld == {"missing_field": 1}


def test_a_replaced_sample_keeps_its_key_and_says_so(tmp_path, photo):
    members = []
    for key, label, data in [("a", b"0", photo(0)), ("b", b"1", photo(1)), ("c", b"0", b"no photo")]:
        members += [(f"{key}.jpg", data), (f"{key}.cls", label)]
    url = write_tar(tmp_path / "in.tar", members)
    a, b, c = list(dataset(url).compose(stage(on_withheld="replace", group="cls")))
    assert (c["__key__"], c["__anondata__"]) == ("c", "replaced: not_an_image")
    assert (c["jpg"], c["cls"]) == (a["jpg"], b"0")
    assert b["jpg"] != a["jpg"]


def test_where_a_sample_was_read_does_not_come_out(shards):
    """An earlier stage may put anything there, such as a caption."""

    def tell(sample):
        return {**sample, "__url__": "Alice Miller on a beach", "__local_path__": {"caption": "Alice Miller"}}

    [first, *_] = dataset(shards).map(tell).compose(stage()).decode("pil")
    assert "Alice Miller" not in repr(first)
    assert set(first) == {"__key__", "jpg", "cls", "__anondata__"}


def test_raise_stops_at_the_first_withheld_sample(tmp_path):
    url = write_tar(tmp_path / "in.tar", [("alice.jpg", b"no photo")])
    with pytest.raises(WithheldError, match="not_an_image") as caught:
        list(dataset(url).compose(stage(on_withheld="raise")))
    assert "alice" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_workers_share_the_shards_and_add_up_their_reports(shards, context):
    expected, one = by_key(dataset(shards).compose(stage())), stage()
    pipeline = dataset(shards).compose(one)
    loader = wds.WebLoader(pipeline, batch_size=None, num_workers=2, multiprocessing_context=context)
    assert by_key(loader) == expected
    assert (one.report.seen, one.report.released) == (6, 6)


def test_nodes_each_get_their_own_shards(shards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts.append(by_key(dataset(shards, nodesplitter=wds.split_by_node).compose(stage())))
    assert [sorted(part) for part in parts] == [["0000", "0001", "0002"], ["1000", "1001", "1002"]]


def test_shuffled_resampled_and_batched_streams_hold_the_same_pictures(shards):
    expected = by_key(dataset(shards).compose(stage()))
    shuffled = dataset(shards, seed=7).compose(stage()).shuffle(4)
    assert by_key(shuffled) == expected
    sampled = dataset(shards, resampled=True, seed=1).compose(stage()).with_epoch(7)
    assert all(expected[s["__key__"]] == s["jpg"] for s in sampled)
    [batch] = list(dataset(shards[0]).compose(stage()).decode("torchrgb").batched(3))
    assert batch["jpg"].shape == (3, 3, 160, 160)
    assert batch["__key__"] == ["0000", "0001", "0002"]


def test_no_more_than_a_batch_is_read_ahead(photo):
    taken = []

    def samples() -> Iterator[dict[str, Any]]:
        for i in range(9):
            taken.append(i)
            yield {"__key__": str(i), "jpg": photo(i)}

    given = stage(batch=3)(samples())
    assert taken == []
    next(given)
    assert taken == [0, 1, 2]


def test_no_global_generator_is_touched(shards):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(dataset(shards).compose(stage()))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"jpg;cls": "image"}, "keep": "cls"}, "declared twice"),
        ({"fields": {"jpg": "image", "png;jpg": "image"}}, "declared twice"),
        ({"fields": {"": "image"}}, "is empty"),
        ({"fields": {}}, "no field is declared to hold content"),
        ({"keep": "__url__"}, "WebDataset's own"),
        ({"fields": {"txt": "text"}}, "has rules for frames, image only"),
        ({"group": "json"}, "group names a field that is not kept"),
        ({"on_withheld": "ignore"}, "expected replace, drop, raise"),
    ],
)
def test_a_declaration_that_cannot_be_followed_is_refused_at_once(options, message):
    with pytest.raises(PolicyError, match=message):
        stage(**options)


def test_a_stage_unpickled_where_there_are_no_weights_gives_nothing_out(tmp_path, shards):
    (tmp_path / "stage").write_bytes(pickle.dumps(stage()))
    code = (
        "import pathlib, pickle, sys, webdataset as wds\n"
        "stage = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "for sample in wds.WebDataset(sys.argv[2], shardshuffle=False).compose(stage):\n"
        "    print('GIVEN', sample['__key__'])\n"
    )
    # The bundled weights are out of sight: another file stands before them, as an interrupted copy would.
    (tmp_path / "weights").mkdir()
    for name in ("centerface.safetensors", "centerface.int8.onnx"):
        (tmp_path / "weights" / name).write_bytes(b"half of it")
    env = {**os.environ, "ANONDATA_WEIGHTS": str(tmp_path / "weights")}
    arguments = [sys.executable, "-c", code, str(tmp_path / "stage"), shards[0]]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "WeightsError" in done.stderr
    assert "GIVEN" not in done.stdout
