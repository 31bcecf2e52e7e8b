"""Shards to shards on local disks: what is written, what is refused, and what a stop of any kind leaves behind."""

from __future__ import annotations

import base64
import gzip
import io
import json
import multiprocessing
import os
import pickle
import signal
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset as wds
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from anondata import Anonymizer
from anondata.errors import (
    LeakError,
    OutputError,
    PolicyError,
    ShardsError,
    UndeclaredFieldError,
    UnreadableSourceError,
    WithheldError,
)
from anondata.loaders.shards import Progress, anonymize_shards, plan, pool
from anondata.loaders.shards.read import Left, Stream, samples
from anondata.loaders.shards.sources import list_shards
from anondata.loaders.shards.write import write_tar

# webdataset 1.0.2 closes no file that it opens.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

KEY = b"0123456789abcdef"
Member = tuple[str, bytes]
DECLARED: dict[str, Any] = {"keep": "cls", "drop": "json"}


def anonymizer(policy: str = "faces", key: bytes = KEY) -> Anonymizer:
    return Anonymizer(policy, device="cpu", run_key=key)


def tarred(members: Iterable[Member | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mtime, info.uname = len(member[1]), 1234567890, "alice"
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def written(path: Path, members: Iterable[Member | tarfile.TarInfo]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tarred(members))
    return str(path)


@pytest.fixture
def src(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """Three shards of three samples, the second of which holds a corrupt picture."""
    for s in range(3):
        members = []
        for i in range(3):
            data = b"no photo" if (s, i) == (1, 1) else photo(3 * s + i)
            members += [(f"{s}{i}.jpg", data), (f"{s}{i}.cls", b"%d" % (i % 2)), (f"{s}{i}.json", b"alice")]
        written(tmp_path / f"in/s-{s}.tar", members)
    return tmp_path / "in"


def read(path: Path) -> list[dict[str, Any]]:
    """The samples of a shard, as webdataset reads them."""
    found = wds.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [{k: v for k, v in sample.items() if k not in ("__url__", "__local_path__")} for sample in found]


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def test_each_shard_becomes_one_of_the_same_name_with_the_same_keys_and_labels(src, tmp_path):
    done = anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED)
    assert (done.shards, done.done, done.skipped, done.samples, done.failed) == (3, 3, 0, 8, {})
    for s in range(3):
        before, after = read(src / f"s-{s}.tar"), read(tmp_path / f"out/s-{s}.tar")
        expected = [sample for sample in before if sample["__key__"] != "11"]
        assert [(x["__key__"], x["cls"]) for x in after] == [(x["__key__"], x["cls"]) for x in expected]
        assert all(set(x) == {"__key__", "jpg", "cls"} for x in after)
        assert not {x["jpg"] for x in after} & {x["jpg"] for x in before}
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".anondata") == [
        "index.json", "report.json", "s-0.idx", "s-0.tar", "s-1.idx", "s-1.tar", "s-2.idx", "s-2.tar",
    ]  # fmt: skip


def test_the_report_adds_up_over_shards_and_is_written(src, tmp_path):
    done = anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED)
    assert (done.report.seen, done.report.released, done.report.withheld) == (9, 8, {"not_an_image": 1})
    assert done.report.counts["instead"] == {"dropped": 1, "replaced": 0}
    assert (tmp_path / "out/report.json").read_text() == done.report.to_json()


def test_headers_tell_neither_time_nor_owner_nor_machine(src, tmp_path):
    anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED)
    with tarfile.open(tmp_path / "out/s-0.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
            assert (info.mode, info.pax_headers) == (0o644, {})


def test_the_index_tells_the_truth_about_every_shard(src, tmp_path):
    import hashlib

    out = tmp_path / "out"
    anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED)
    index = json.loads((out / "index.json").read_text())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    for entry in index["shardlist"]:
        data = (out / entry["url"]).read_bytes()
        assert (entry["filesize"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry["nsamples"] == len(read(out / entry["url"]))
    assert [entry["url"] for entry in index["shardlist"]] == ["s-0.tar", "s-1.tar", "s-2.tar"]


def test_the_index_for_dali_points_at_the_bytes(src, tmp_path):
    out = tmp_path / "out"
    anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED)
    first, *lines = (out / "s-0.idx").read_text().splitlines()
    assert first == "v1.2 3"
    data = (out / "s-0.tar").read_bytes()
    for line, sample in zip(lines, read(out / "s-0.tar"), strict=True):
        words = line.split(" ")
        for suffix, at, size, name in (words[:4], words[4:]):
            assert data[int(at) : int(at) + int(size)] == sample[suffix]
            assert name == f"{sample['__key__']}.{suffix}"


def test_two_processes_write_what_one_writes(src, tmp_path):
    for workers in (1, 2):
        anonymize_shards(src, tmp_path / f"{workers}", anonymizer(), workers=workers, batch=workers, **DECLARED)
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_the_same_call_again_does_only_what_is_missing_or_was_changed(src, tmp_path, photo):
    out = tmp_path / "out"
    anonymize_shards(src, out, anonymizer(), workers=1, limit=2, **DECLARED)
    before = files(out)
    assert anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED).skipped == 2
    assert {name: data for name, data in files(out).items() if name.startswith("s-0")} == {
        name: data for name, data in before.items() if name.startswith("s-0")
    }
    (out / "s-1.tar").write_bytes(b"x" + before["s-1.tar"][1:])
    written(src / "s-2.tar", [("20.jpg", photo(7))])
    assert anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED).skipped == 1
    assert files(out)["s-1.tar"] == before["s-1.tar"]
    assert [sample["__key__"] for sample in read(out / "s-2.tar")] == ["20"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "faces-fill"}, "policy"),
        ({"key": b"another key, of 16"}, "key"),
        ({"keep": ()}, "fields"),
        ({"rename_keys": True}, "rename_keys"),
        ({"on_withheld": "replace"}, "on_withheld"),
    ],
)
def test_a_place_that_was_written_with_another_setting_is_refused(src, tmp_path, change, words):
    anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, limit=1, **DECLARED)
    other = anonymizer(change.pop("policy", "faces"), change.pop("key", KEY))
    options = {**DECLARED, **change}
    if "keep" in change:
        options["drop"] = ("json", "cls")
    with pytest.raises(OutputError, match=f"with other settings: {words}"):
        anonymize_shards(src, tmp_path / "out", other, workers=1, **options)


def test_a_forgotten_declaration_can_be_added_in_the_same_place(src, tmp_path):
    with pytest.raises(UndeclaredFieldError, match="'json' is not declared"):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, keep="cls")
    assert not list((tmp_path / "out").glob("*.tar"))
    assert anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED).done == 3


def test_an_undeclared_field_stops_other_processes_and_those_that_keep_going_too(src, tmp_path):
    with pytest.raises(UndeclaredFieldError, match="'json' is not declared"):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=2, keep="cls", keep_going=True)
    assert files(tmp_path / "out").keys() == {".anondata/run.json"}


def test_a_replaced_sample_has_its_own_key_and_place_and_another_of_its_group(tmp_path, photo):
    members = []
    for key, label, data in [("a", b"0", photo(0)), ("b", b"1", b""), ("c", b"1", photo(2)), ("d", b"2", b"")]:
        members += [(f"{key}.jpg", data), (f"{key}.cls", label)]
    url = written(tmp_path / "in/s.tar", members)
    for out in ("one", "two"):
        options: dict[str, Any] = {"on_withheld": "replace", "group": "cls", "keep": "cls", "workers": 1}
        done = anonymize_shards(url, tmp_path / out, anonymizer(), **options)
    a, b, c = read(tmp_path / "one/s.tar")
    assert (b["__key__"], b["cls"], b["jpg"]) == ("b", b"1", c["jpg"])
    assert [x["anondata.txt"] for x in (a, b, c)] == [b"released", b"replaced: empty", b"released"]
    assert done.report.counts["instead"] == {"replaced": 1, "dropped": 1}  # nobody else is of group 2
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_renamed_keys_tell_nothing_and_stay_the_same_between_runs(tmp_path, photo):
    names = ["bob", "people/alice smith", "people/zoe"]
    url = written(tmp_path / "in/s.tar", [(f"{name}.jpg", photo(i)) for i, name in enumerate(names)])
    anonymize_shards(url, tmp_path / "plain", anonymizer(), workers=1)
    for out in ("one", "two"):
        anonymize_shards(url, tmp_path / out, anonymizer(), workers=1, rename_keys=True)
    renamed = read(tmp_path / "one/s.tar")
    keys = [sample["__key__"] for sample in renamed]
    assert keys == sorted(keys)
    assert all(len(key) == 32 and not set(key) - set("0123456789abcdef") for key in keys)
    assert {x["jpg"] for x in renamed} == {x["jpg"] for x in read(tmp_path / "plain/s.tar")}
    assert not any(
        word in b"".join(files(tmp_path / "one").values()) for word in (b"alice", b"bob", b"zoe", b"people/")
    )
    assert files(tmp_path / "one") == files(tmp_path / "two")
    anonymize_shards(url, tmp_path / "other", anonymizer(key=b"another key, of 16"), workers=1, rename_keys=True)
    assert not set(keys) & {sample["__key__"] for sample in read(tmp_path / "other/s.tar")}


def test_a_suffix_follows_what_was_written(tmp_path, photo):
    members = [("a.gif", photo(0, "GIF")), ("b.jpg", photo(1, "PNG")), ("c.jpeg", photo(2)), ("d.photo", photo(3))]
    url = written(tmp_path / "in/s.tar", members)
    fields = {"gif;jpg;jpeg;photo": "image"}
    anonymize_shards(url, tmp_path / "out", anonymizer(), workers=1, fields=fields)
    found = {sample.pop("__key__"): sample for sample in read(tmp_path / "out/s.tar")}
    assert {key: [*sample] for key, sample in found.items()} == {
        "a": ["png"], "b": ["png"], "c": ["jpeg"], "d": ["photo"],
    }  # fmt: skip
    assert found["a"]["png"].startswith(b"\x89PNG")


def test_a_field_whose_true_suffix_another_has_withholds_the_sample(tmp_path, photo):
    url = written(tmp_path / "in/s.tar", [("a.jpg", photo(0, "PNG")), ("a.png", photo(1, "PNG"))])
    done = anonymize_shards(url, tmp_path / "out", anonymizer(), workers=1)
    assert done.report.withheld == {"name_taken": 1}
    assert read(tmp_path / "out/s.tar") == []


def test_what_is_no_part_of_a_sample_is_left_out_and_counted(tmp_path, photo):
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [("README", b"alice"), ("__meta__", b"alice"), link, ("a.jpg", photo(0))]
    done = anonymize_shards(written(tmp_path / "in/s.tar", members), tmp_path / "out", anonymizer(), workers=1)
    assert (done.left_alone, done.samples) == (3, 1)
    assert b"alice" not in b"".join(files(tmp_path / "out").values())


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_shards_are_read_and_their_results_are_plain_tars(tmp_path, photo, suffix):
    (tmp_path / f"s{suffix}").write_bytes(gzip.compress(tarred([("a.jpg", photo(0))])))
    anonymize_shards(tmp_path / f"s{suffix}", tmp_path / "out", anonymizer(), workers=1)
    assert [sample["__key__"] for sample in read(tmp_path / "out/s.tar")] == ["a"]


def test_members_are_grouped_as_webdataset_groups_them(tmp_path):
    folder = tarfile.TarInfo("d/")
    folder.type = tarfile.DIRTYPE
    names = [
        "a.jpg",
        "a.JSON",
        "b.left.jpg",
        "b.right.jpg",
        "noext",
        "__meta__",
        "__meta__/x.jpg",
        ".hidden",
        "d/c.jpg",
    ]
    names += ["d/.dot", "d.e/f.tar.gz", "./g.jpg", "ü/名.jpg", "x" * 120 + ".cls", "h.", "d/__in__.jpg"]
    path = tmp_path / "s.tar"
    written(path, [folder, *((name, name.encode()) for name in names)])
    ours = list(samples(Stream(fsspec.filesystem("file"), str(path)), Left()))
    assert ours == read(path)
    assert len(ours) > 8


class Connection(io.BytesIO):
    """Gives 3000 bytes, and is then dead."""

    def read(self, size: int | None = -1) -> bytes:
        if getattr(self, "used", False):
            raise ConnectionResetError("s3://bucket/alice.tar")
        self.used = True
        return super().read(3000)


class Breaking(MemoryFileSystem):
    """A storage whose connections break."""

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        return Connection(self.cat_file(path))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    data = tarred([("a.jpg", os.urandom(20_000)), ("b.jpg", os.urandom(500))])
    MemoryFileSystem().pipe_file("/breaking/s.tar", data)
    found = list(samples(Stream(Breaking(), "/breaking/s.tar"), Left()))
    assert [(sample["__key__"], len(sample["jpg"])) for sample in found] == [("a", 20_000), ("b", 500)]
    assert found[0]["jpg"] in data


WHOLE = tarred([("a.jpg", bytes(range(250)) * 12), ("alice.jpg", b"y" * 3000)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a tar"),
        (b"hello" * 999, "is not a tar"),
        (WHOLE[:2000], "is truncated"),  # in a file
        (WHOLE[:3584], "is not a tar, is truncated or has a broken header"),  # between two files
        (WHOLE[:3700], "is not a tar, is truncated or has a broken header"),  # in a header
        (WHOLE[: 2 * 3584], "is not a tar, is truncated or has a broken header"),  # before the end of the archive
        (WHOLE[:3590] + b"?" + WHOLE[3591:], "has a broken header"),
        (gzip.compress(WHOLE)[:-100], "is truncated or damaged"),
        (gzip.compress(WHOLE)[:-4], "is truncated or damaged"),
        (gzip.compress(WHOLE)[:-8] + b"\0" * 8, "is truncated or damaged"),
        (WHOLE + WHOLE, "goes on after its end"),
        (tarred([("alice.jpg", b""), ("alice.JPG", b"")]), "has two files of the same name in one sample"),
        (tarred([("alice.jpg", b""), ("b.jpg", b""), ("alice.jpg", b"")]), "has two samples of the same key"),
    ],
)
def test_a_damaged_shard_is_refused_as_a_whole_and_no_name_is_told(tmp_path, data, words):
    (tmp_path / "alice.tar").write_bytes(data)
    with pytest.raises(ShardsError, match=f"shard 1 of 1 .*{words}.*repack the shard") as caught:
        anonymize_shards(tmp_path / "alice.tar", tmp_path / "out", anonymizer(), workers=1)
    assert "alice" not in str(caught.value)
    assert files(tmp_path / "out").keys() == {".anondata/run.json"}


def test_webdataset_itself_takes_a_broken_header_for_the_end(tmp_path):
    """Why its reader is not used; when this fails, it may be."""
    (tmp_path / "s.tar").write_bytes(WHOLE[:3590] + b"?" + WHOLE[3591:])
    assert [sample["__key__"] for sample in read(tmp_path / "s.tar")] == ["a"]


def test_a_damaged_shard_stops_the_run_before_the_next_one(src, tmp_path):
    (src / "s-1.tar").write_bytes((src / "s-1.tar").read_bytes()[:5000])
    with pytest.raises(ShardsError, match="shard 2 of 3"):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED)
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["s-0.tar"]
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_shard_stops_only_itself_when_the_run_keeps_going(src, tmp_path, workers):
    (src / "s-1.tar").write_bytes((src / "s-1.tar").read_bytes()[:5000])
    done = anonymize_shards(src, tmp_path / "out", anonymizer(), workers=workers, keep_going=True, **DECLARED)
    assert (done.done, list(done.failed)) == (2, [2])
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["s-0.tar", "s-2.tar"]
    assert (done.report.seen, done.samples) == (6, 6)


def test_raise_fails_the_shard_with_the_withheld_sample(src, tmp_path):
    with pytest.raises(WithheldError, match=r"shard 2 of 3: a sample was withheld \(not_an_image\)"):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, on_withheld="raise", **DECLARED)
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["s-0.tar"]


def test_a_shard_of_which_nothing_can_be_released_fails_early(tmp_path):
    url = written(tmp_path / "s.tar", [(f"{i:03}.jpg", b"no photo %d" % i) for i in range(100)])
    with pytest.raises(WithheldError, match="its first 16 samples were all withheld"):
        anonymize_shards(url, tmp_path / "out", anonymizer(), workers=1)


def test_a_shard_that_is_not_there_any_more_fails_without_its_name(src, tmp_path):
    job = plan(src, tmp_path / "out", anonymizer(), **DECLARED)
    (src / "s-1.tar").unlink()
    done = job.run(workers=1, keep_going=True)
    assert {number: str(error) for number, error in done.failed.items()} == {
        2: "shard 2 of 3 cannot be read: No such file or directory"
    }
    assert isinstance(done.failed[2], UnreadableSourceError)


def test_a_shard_that_changes_while_it_is_read_is_not_used(src, tmp_path, photo):
    def change(progress: Progress) -> None:
        if progress.samples and not progress.shards_done:
            os.utime(src / "s-0.tar", (1, 1))

    with pytest.raises(UnreadableSourceError, match="shard 1 of 3 was changed while it was read; run again"):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, progress=change, **DECLARED)
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg"])
def test_a_key_that_leads_out_of_its_folder_is_refused_unless_renamed(tmp_path, photo, name):
    url = written(tmp_path / "s.tar", [(name, photo(0))])
    with pytest.raises(ShardsError, match="shard 1 of 1 has a key that leads out of its folder"):
        anonymize_shards(url, tmp_path / "out", anonymizer(), workers=1)
    assert anonymize_shards(url, tmp_path / "new", anonymizer(), workers=1, rename_keys=True).samples == 1


def test_a_kept_field_in_which_an_original_hides_fails_the_shard(src, tmp_path, photo):
    hidden = photo(0)
    members = [("a.jpg", hidden), ("a.txt", base64.b64encode(hidden)), ("b.jpg", photo(1)), ("b.txt", b"")]
    written(src / "s-3.tar", members)
    options: dict[str, Any] = {"keep": ("cls", "txt"), "drop": "json", "workers": 1, "keep_going": True}
    done = anonymize_shards(src, tmp_path / "out", anonymizer(), **options)
    assert list(done.failed) == [4]
    assert isinstance(done.failed[4], LeakError)
    assert str(done.failed[4]).startswith("shard 4 of 4: ")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["s-0.tar", "s-1.tar", "s-2.tar"]


def test_a_kept_picture_is_written_as_it_is(tmp_path, photo):
    mask = io.BytesIO()
    Image.effect_mandelbrot((160, 160), (-3, -2.5, 2, 2.5), 100).save(mask, "PNG")
    url = written(tmp_path / "in/s.tar", [("a.jpg", photo(0)), ("a.seg.png", mask.getvalue()), ("b.jpg", photo(1))])
    anonymize_shards(url, tmp_path / "out", anonymizer(), workers=1, keep="seg.png")
    assert [sample.get("seg.png") for sample in read(tmp_path / "out/s.tar")] == [mask.getvalue(), None]


def interrupt(after: int) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.shards_done == after:
            os.kill(os.getpid(), signal.SIGINT)

    return show


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as in a terminal: a CI may start tests with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_nothing_half_and_the_next_run_goes_on(src, tmp_path, workers):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        anonymize_shards(src, out, anonymizer(), workers=workers, progress=interrupt(1), **DECLARED)
    assert multiprocessing.active_children() == []
    assert 1 <= len(list(out.glob("*.tar"))) < 3
    assert not (out / ".anondata/tmp").exists()
    assert not (out / "report.json").exists()
    assert anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED).skipped >= 1
    anonymize_shards(src, tmp_path / "straight", anonymizer(), workers=1, **DECLARED)
    assert files(out) == files(tmp_path / "straight")


def test_a_shard_whose_process_is_killed_is_tried_again(src, tmp_path):
    killed = []

    def kill(progress: Progress) -> None:
        if progress.samples and not killed:
            killed.append(multiprocessing.active_children()[0])
            killed[0].kill()

    done = anonymize_shards(src, tmp_path / "out", anonymizer(), workers=2, progress=kill, **DECLARED)
    assert len(killed) == 1
    assert (done.done, done.failed) == (3, {})
    anonymize_shards(src, tmp_path / "straight", anonymizer(), workers=1, **DECLARED)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_a_shard_whose_process_is_always_killed_is_given_up(src, tmp_path, monkeypatch):
    give = pool._Worker.give

    def give_and_kill(worker: pool._Worker, *job: Any) -> None:
        give(worker, *job)
        worker.process.kill()

    monkeypatch.setattr(pool._Worker, "give", give_and_kill)
    with pytest.raises(
        ShardsError, match=r"of 2 was given up: its process was killed 2 times \(signal 9\), maybe for"
    ):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=2, limit=2, **DECLARED)
    assert not list((tmp_path / "out").glob("*.tar"))
    assert not (tmp_path / "out/.anondata/tmp").exists()


def test_a_result_that_cannot_be_written_stops_the_run(src, tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/.anondata").write_text("in the way")
    else:
        (tmp_path / "out").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError):
        anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, **DECLARED)


def test_planning_reads_no_shard_and_writes_nothing(tmp_path):
    (tmp_path / "s.tar").write_bytes(b"no tar")
    job = plan(tmp_path / "s.tar", tmp_path / "out", anonymizer())
    assert job.done() == {}
    assert not (tmp_path / "out").exists()
    assert len(pickle.loads(pickle.dumps(job)).shards) == 1


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders with empty files: a/1.tar, a/2.tar.gz, a/notes.txt, a/.hidden.tar, b/1.tgz, b/x.zip."""
    for name in ("a/1.tar", "a/2.tar.gz", "a/notes.txt", "a/.hidden.tar", "b/1.tgz", "b/x.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a"], ["1.tar", "2.tar"]),
        (["a/*.tar"], ["1.tar"]),
        (["a/{1.tar,2.tar.gz}"], ["1.tar", "2.tar"]),
        (["a/2.tar.gz", "b"], ["2.tar", "1.tar"]),
        (["a/1.tar", "a", "a/*.tar"], ["1.tar", "2.tar"]),
        (["file://{here}/a/1.tar"], ["1.tar"]),
    ],
)
def test_sources_are_files_folders_globs_braces_and_urls(place, sources, names):
    given = [s.replace("{here}", str(place)) if "://" in s else str(place / s) for s in sources]
    listed = list_shards(given, str(place / "out"))
    assert [shard.name for shard in listed] == names
    assert [shard.number for shard in listed] == [*range(1, len(names) + 1)]
    assert str(place) not in repr(listed)


@pytest.mark.parametrize(
    ("sources", "out", "words"),
    [
        (["pipe:cat a/1.tar"], "out", "SRC 1 begins with pipe:, which would run a shell command"),
        (["simplecache::s3://bucket/alice.tar"], "out", "SRC 1 goes through a cache, which would keep originals"),
        (["blockcache::file:///alice.tar"], "out", "SRC 1 goes through a cache"),
        (["a", "b"], "out", "two shards would have results of the same name, of SRC 1 and SRC 2"),
        (["a/*.zip"], "out", "there are no shards in the sources"),
        (["b/x.zip"], "out", "SRC 1 is neither a shard nor a folder of shards"),
        (["b/nothing"], "out", "SRC 1 does not exist"),
        (["alice.tar"], "out", "SRC 1 names a file that does not exist"),
        (["a/{1,2"], "out", "the braces of SRC 1 do not match"),
        (["nosuch://bucket/alice.tar"], "out", "SRC 1 is a URL with a protocol that fsspec does not know"),
        (["a"], "a", "the output place lies in SRC 1"),
        (["a"], "a/out", "the output place lies in SRC 1"),
        (["a/1.tar"], "a", "a shard of SRC 1 lies in the output place"),
        (["a/1.tar"], "link", "a shard of SRC 1 lies in the output place"),
        (["a/1.tar"], ".", "a shard of SRC 1 lies in the output place"),
    ],
)
def test_sources_that_do_not_fit_are_refused_without_a_name(place, sources, out, words):
    (place / "link").symlink_to(place / "a")
    given = [s if ":" in s else str(place / s) for s in sources]
    with pytest.raises(ShardsError, match=words) as caught:
        list_shards(given, str(place / out))
    assert "alice" not in str(caught.value)
    assert str(place) not in str(caught.value)


def test_a_bucket_and_a_folder_in_it_are_told_apart_as_folders_are(photo):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/sources/raw/s.tar", tarred([("a.jpg", photo(0))]))
    with pytest.raises(ShardsError, match="lies in SRC 1"):
        list_shards("memory://sources/raw/", "memory://sources/raw/out")
    with pytest.raises(ShardsError, match="lies in the output place"):
        list_shards("memory://sources/raw/s.tar", "memory://sources")
    anonymize_shards("memory://sources/raw/*.tar", "memory://sources/clean", anonymizer(), workers=1)
    assert sorted(name for name in fs.find("/sources/clean") if ".anondata" not in name) == [
        f"/sources/clean/{name}" for name in ("index.json", "report.json", "s.idx", "s.tar")
    ]


def test_a_place_that_holds_files_of_somebody_else_is_refused(src, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/alice.jpg").touch()
    with pytest.raises(ShardsError, match="holds files that no run of anondata wrote; choose an empty one"):
        plan(src, tmp_path / "out", anonymizer(), **DECLARED)


def test_unknown_files_and_shards_of_other_sources_are_counted(src, tmp_path):
    out = tmp_path / "out"
    anonymize_shards(src, out, anonymizer(), workers=1, **DECLARED)
    (out / "alice.jpg").touch()
    done = anonymize_shards(src / "s-0.tar", out, anonymizer(), workers=1, **DECLARED)
    assert (done.orphans, done.unknown, done.skipped) == (2, 1, 1)
    assert len(json.loads((out / "index.json").read_text())["shardlist"]) == 1


def test_a_field_that_is_written_here_cannot_be_declared(tmp_path, photo):
    url = written(tmp_path / "s.tar", [("a.jpg", photo(0)), ("a.anondata.txt", b"released")])
    with pytest.raises(PolicyError, match=r"'anondata\.txt' is written where samples are replaced"):
        plan(url, tmp_path / "out", anonymizer(), keep="anondata.txt", on_withheld="replace")


def test_progress_counts_shards_and_samples(src, tmp_path):
    seen: list[Progress] = []
    anonymize_shards(src, tmp_path / "out", anonymizer(), workers=1, progress=seen.append, **DECLARED)
    assert seen[-1] == Progress(shards=3, shards_done=3, failed=0, samples=9, withheld=1)
    assert [p.samples for p in seen] == sorted(p.samples for p in seen)


def test_a_key_with_white_space_keeps_its_line_in_the_index(tmp_path: Path) -> None:
    index = write_tar(tmp_path / "x.tar", [("a b\nc", {"txt": b"x"}), ("d", {"txt": b"y"})])
    assert [line.split()[0] for line in index.splitlines()] == ["v1.2", "txt", "txt"]
    assert "a_b_c.txt" in index
