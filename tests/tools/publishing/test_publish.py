"""``anondata publish``: what comes out, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, Image, load_dataset
from fsspec.implementations.memory import MemoryFileSystem

from anondata.errors import CardError, ManifestError, PublishError
from anondata.manifest import FILE, from_json, read_manifest
from anondata.policy import load_policy
from anondata.publishing.publish import About
from anondata.publishing.verify import verify
from anondata.randomness import RunKey
from anondata.report import empty_report
from anondata.tools import cli


def run(*args: object) -> None:
    assert cli.run([str(arg) for arg in args]) == 0


NAMES = (b"alice", b"bob", b"carol", b"dave", b"erin")


def rows(folder: Path) -> list[bytes]:
    files = sorted((folder / "data").glob("*.parquet"))
    return [row["image"]["bytes"] for file in files for row in pq.read_table(file).to_pylist()]


def test_the_rows_are_the_pictures_of_the_output_by_their_digest(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    expected = sorted(finished.pictures, key=lambda data: hashlib.sha256(data).digest())
    assert rows(tmp_path / "p") == expected


def test_datasets_loads_it(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    loaded = load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].features == {"image": Image()}
    assert loaded["train"][0]["image"].size == (160, 160)
    assert len(loaded["train"]) == 5


def test_nothing_tells_the_name_of_a_file_or_the_place_of_the_work(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    for path in (tmp_path / "p").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [name for name in (*NAMES, os.fsencode(finished.folder.parent)) if name in data], path.name


def test_it_holds_what_is_told_and_nothing_else(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    names = {path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*") if path.is_file()}
    plots = {name for name in names if name.startswith("anonymization/plots/")}
    assert plots
    about = {f"anonymization/{name}" for name in ("audit.json", "manifest.json", "policy.yaml", "report.json")}
    assert names - plots == {"README.md", "croissant.json", "data/train-00000-of-00001.parquet", *about}


def test_it_passes_its_own_checks(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    found = verify(tmp_path / "p", run_key=RunKey(finished.key))
    assert [check.name for check in found if not check.ok] == []


def test_the_manifest_names_every_file_and_leads_back_to_the_output(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p")
    manifest = from_json((tmp_path / "p/anonymization/manifest.json").read_text())
    assert manifest.source == read_manifest(finished.folder).seal
    assert manifest.report == read_manifest(finished.folder).report
    assert manifest.seal_holds(RunKey(finished.key))


def test_the_same_output_gives_the_same_bytes(finished: Any, tmp_path: Path, tree: Callable[..., Any]) -> None:
    finished.publish(tmp_path / "a")
    finished.publish(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_rows_are_divided_into_files(finished: Any, tmp_path: Path) -> None:
    finished.publish(tmp_path / "p", rows_per_file=2)
    assert [pq.read_metadata(f).num_rows for f in sorted((tmp_path / "p/data").glob("*-of-00003.*"))] == [2, 2, 1]
    assert len(load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))["train"]) == 5


def test_without_the_key_the_card_says_that_nobody_checked_the_seal(finished: Any, tmp_path: Path) -> None:
    done = finished.publish(tmp_path / "p", run_key=None)
    assert done.sealed is None
    header = yaml.safe_load((tmp_path / "p/README.md").read_text().split("---\n")[1])
    assert header["anonymization"]["sealed"] is None


def test_an_empty_folder_may_be_the_destination(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    finished.publish(tmp_path / "p")
    assert (tmp_path / "p/README.md").is_file()


def test_insights_become_a_column(photos: Path, anondata: Any, finished: Any, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--policy", finished.folder.parent / "mine.yaml", "--insights")
    assert anondata("anonymize", photos, *out).code == 0
    given = ("--original", photos, "--anonymized", tmp_path / "out", "--out", tmp_path / "audit", "--no-plots")
    assert anondata("audit", *given).code == 0
    told = {}
    for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        told[(tmp_path / "out" / row["file_name"]).read_bytes()] = row["insights"]
    to = ("--to", tmp_path / "p", "--audit", tmp_path / "audit", "--title", "T", "--licence", "cc0-1.0")
    result = anondata("publish", tmp_path / "out", *to)
    assert result.code == 0, result.err
    table = pq.read_table(next((tmp_path / "p/data").glob("*"))).to_pylist()
    assert {row["image"]["bytes"]: row["insights"] for row in table} == told


# --- refusals -----------------------------------------------------------------------------------------------------


def remove_manifest(output: Any) -> None:
    (output.folder / FILE).unlink()


def change_a_byte(output: Any) -> None:
    path = output.folder / "alice.jpg"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def lose_a_file(output: Any) -> None:
    (output.folder / "bob.jpg").unlink()


def add_a_file(output: Any) -> None:
    (output.folder / "raw.jpg").write_bytes(b"x")


def link_a_file(output: Any) -> None:
    (output.folder / "bob.jpg").rename(output.folder.parent / "bob.jpg")
    (output.folder / "bob.jpg").symlink_to(output.folder.parent / "bob.jpg")


def edit_the_report(output: Any) -> None:
    path = output.folder / "report.json"
    path.write_text(path.read_text().replace('"seen": 5', '"seen": 6'))


def edit_the_manifest(output: Any) -> None:
    path = output.folder / FILE
    manifest = read_manifest(output.folder)
    files = {name: one for name, one in manifest.files.items() if name != "bob.jpg"}
    path.write_text(replace(manifest, files=files).to_json())


def mix_policies(output: Any) -> None:
    manifest = read_manifest(output.folder)
    mixed = replace(manifest, report=empty_report(load_policy("faces")))
    (output.folder / FILE).write_text(mixed.sealed(RunKey(output.key)).to_json())


def lose_the_audit(output: Any) -> None:
    output.audit.unlink()


def break_the_audit(output: Any) -> None:
    output.audit.write_text("{")


def audit_something_else(output: Any) -> None:
    audit(output, anonymized={"files": 5, "digest": "0" * 64})


def audit_before_digests(output: Any) -> None:
    audit(output, anonymized=None)


def audit_half(output: Any) -> None:
    counts = json.loads(output.audit.read_text())["counts"]
    audit(output, counts={**counts, "unpaired_anonymized": 2})


def audit_without_the_best(output: Any) -> None:
    audit(output, attacks=[{**one, "attacker": "parrot"} for one in attacks(output)])


def audit_of_an_earlier_version(output: Any) -> None:
    audit(output, format="anondata.audit/1")


def audit_that_names_all(output: Any) -> None:
    *rest, last = attacks(output)
    assert last["attacker"] == "composite"
    bad = {**last, "rank1": {"percent": 100.0, "low": 60.0, "high": 100.0, "chance_percent": 2.0}}
    audit(output, attacks=[*rest, bad])


def audit_in_which_another_surely_names_all(output: Any) -> None:
    first, *rest = attacks(output)
    bad = {**first, "rank1": {"percent": 100.0, "low": 96.0, "high": 100.0, "chance_percent": 2.0}}
    audit(output, attacks=[bad, *rest])


def audit_of_no_number(output: Any) -> None:
    first, *rest = attacks(output)
    audit(output, attacks=[{**first, "rank1": {**first["rank1"], "percent": float("nan")}}, *rest])


def attacks(output: Any) -> list[Any]:
    return json.loads(output.audit.read_text())["attacks"]


def audit(output: Any, **changes: Any) -> None:
    output.audit.write_text(json.dumps({**json.loads(output.audit.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_manifest, "did not come to its end"),
        (change_a_byte, "files 1 changed"),
        (lose_a_file, "files 1 missing"),
        (add_a_file, "files 1 in no manifest"),
        (link_a_file, "1 in no manifest"),
        (edit_the_report, r"report\.json is missing or was edited"),
        (edit_the_manifest, "the seal of the manifest does not hold"),
        (mix_policies, "mixes policies"),
        (lose_the_audit, r"there is no audit\.json"),
        (break_the_audit, "the audit cannot be read"),
        (audit_something_else, "about other pictures"),
        (audit_before_digests, "the audit lacks"),
        (audit_half, "2 unpaired anonymized"),
        (audit_without_the_best, "attackers that have not tried: composite"),
        (audit_of_an_earlier_version, "by an earlier version of anondata, whose attackers used face networks alone"),
        (audit_in_which_another_surely_names_all, r"the naive attacker with .* names 100\.0 % \[96-100\]"),
        (audit_that_names_all, r"names 100\.0 % \[\d+-\d+\] at rank 1, and the policy allows 92\.0 %"),
        (audit_of_no_number, "names nan %"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(
    output: Any, tmp_path: Path, spoil: Callable[[Any], None], message: str
) -> None:
    spoil(output)
    before = sorted(tmp_path.iterdir())
    with pytest.raises((PublishError, ManifestError), match=message) as caught:
        output.publish(tmp_path / "p")
    assert sorted(tmp_path.iterdir()) == before
    assert not [name for name in NAMES if name.decode() in str(caught.value)]


def test_another_key_is_not_the_key_of_the_seal(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="the seal of the manifest does not hold"):
        finished.publish(tmp_path / "p", run_key=b"another key, of 16")


def test_a_policy_without_a_bound_is_not_published(output: Any, tmp_path: Path) -> None:
    manifest = read_manifest(output.folder)
    policy = manifest.policy.model_copy(update={"audit": None})
    report = replace(manifest.report, fingerprint=policy.fingerprint)
    (output.folder / "report.json").write_text(report.to_json())
    unbound = replace(manifest, policy=policy, report=report)
    (output.folder / FILE).write_text(unbound.sealed(RunKey(output.key)).to_json())
    with pytest.raises(PublishError, match=r"sets no bound for publishing; write `audit: \{above_chance: 5"):
        output.publish(tmp_path / "p")


@pytest.mark.parametrize("about", [About("", "cc-by-4.0"), About("T", ""), About("T", "my own words")])
def test_a_card_that_lacks_something_is_not_written(finished: Any, tmp_path: Path, about: About) -> None:
    with pytest.raises(CardError):
        finished.publish(tmp_path / "p", about=about)
    assert list(tmp_path.iterdir()) == []


def test_the_licence_is_asked_for(finished: Any, tmp_path: Path, anondata: Any) -> None:
    given = ("--to", tmp_path / "p", "--audit", finished.audit, "--title", "T")
    result = anondata("publish", finished.folder, *given)
    assert (result.code, "--licence" in result.err) == (2, True)


def test_a_destination_that_is_not_empty_is_refused(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "other").touch()
    with pytest.raises(PublishError, match="not empty"):
        finished.publish(tmp_path / "p")


@pytest.mark.parametrize("place", ["out/below", "", "out"])
def test_a_destination_in_the_output_or_around_it_is_refused(output: Any, tmp_path: Path, place: str) -> None:
    with pytest.raises(PublishError, match="lie inside each other"):
        output.publish(tmp_path / place)


def test_a_full_disk_leaves_nothing(finished: Any, tmp_path: Path) -> None:
    """Files may not grow over 8 KiB in the process, which looks like a disk that fills up while rows are written."""
    code = (
        "import sys; from anondata.tools import cli; sys.exit(cli.run(sys.argv[1:]))",
        *("publish", finished.folder, "--to", tmp_path / "p", "--audit", finished.audit),
        *("--title", "T", "--licence", "cc0-1.0"),
    )
    done = subprocess.run(
        [sys.executable, "-c", *map(str, code)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "nothing was published" in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.iterdir()) == []


# --- storages -----------------------------------------------------------------------------------------------------


def test_a_storage_gets_all_files_with_the_manifest_last(finished: Any) -> None:
    finished.publish("memory://published/one")
    fs = fsspec.filesystem("memory")
    created = {name: fs.created(name) for name in fs.find("/published/one")}
    assert max(created, key=lambda name: created[name]) == "/published/one/anonymization/manifest.json"
    assert [check for check in verify("memory://published/one") if check.ok is False] == []
    with pytest.raises(PublishError, match="not empty"):
        finished.publish("memory://published/one")


class Failing(MemoryFileSystem):
    """A storage that takes three files."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent has it
    pseudo_dirs = [""]  # noqa: RUF012

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if len(self.store) == 3:
            raise PermissionError(13, "no")
        super().put_file(lpath, rpath, **options)


def test_of_a_storage_that_breaks_down_what_was_sent_is_removed(finished: Any) -> None:
    fsspec.register_implementation("failing", Failing, clobber=True)
    with pytest.raises(PublishError, match="Permission denied; what was sent is removed"):
        finished.publish("failing://bucket/x")
    assert Failing.store == {}


# --- other outputs ------------------------------------------------------------------------------------------------


def extracted(pictures: list[bytes], folder: Path) -> Path:
    """A folder of pictures as `audit` takes it."""
    folder.mkdir()
    for number, data in enumerate(pictures):
        (folder / f"{number}.jpg").write_bytes(data)
    return folder


def audited(originals: list[bytes], results: list[bytes], tmp_path: Path, anondata: Any) -> Path:
    a, b = extracted(originals, tmp_path / "a"), extracted(results, tmp_path / "b")
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    told = ("--run-key", tmp_path / "key", "--out", tmp_path / "audit", "--no-plots")
    done = anondata("audit", "--original", a, "--anonymized", b, *told)
    assert done.code == 0, done.err
    return tmp_path / "audit"


def test_what_materialize_wrote_is_published_byte_for_byte(
    finished: Any, photo: Any, tmp_path: Path, anondata: Any
) -> None:
    from datasets import ClassLabel, Dataset, Features

    from anondata import Anonymizer
    from anondata.loaders import hf

    originals = [photo(i) for i in range(4)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    table = [{"image": {"bytes": data, "path": None}, "label": i % 2} for i, data in enumerate(originals)]
    anonymizer = Anonymizer(finished.folder.parent / "mine.yaml", run_key=finished.key)
    view = hf.anonymize(
        Dataset.from_list(table, features=features), anonymizer, fields={"image": "image"}, keep="label"
    )
    view.materialize(tmp_path / "out", cache_dir=tmp_path / "cache")
    audit = audited(originals, rows(tmp_path / "out"), tmp_path, anondata)
    output = replace(finished, folder=tmp_path / "out", audit=audit / "audit.json")
    assert output.publish(tmp_path / "p").sealed
    name = "data/train-00000-of-00001.parquet"
    assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache2"))["train"].features == features


@pytest.fixture
def shards(finished: Any, photo: Any, tmp_path: Path, anondata: Any) -> Any:
    """Two shards with labels and captions, anonymized and audited, and the pictures in them."""
    return made_shards(finished, photo, tmp_path, anondata)


@pytest.fixture
def renamed(finished: Any, photo: Any, tmp_path: Path, anondata: Any) -> Any:
    """The same, whose samples' keys do not tell what they were called."""
    return made_shards(finished, photo, tmp_path, anondata, "--rename-keys")[0]


def made_shards(finished: Any, photo: Any, tmp_path: Path, anondata: Any, *more: str) -> Any:
    import tarfile

    originals = [photo(i) for i in range(4)]
    for shard in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "in" / f"s{shard}.tar", "w") as tar:
            for i in (2 * shard, 2 * shard + 1):
                for suffix, value in (("jpg", originals[i]), ("cls", str(i).encode()), ("txt", b"words")):
                    info = tarfile.TarInfo(f"alice{i}.{suffix}")
                    info.size = len(value)
                    tar.addfile(info, BytesIO(value))
    given = ("--policy", finished.folder.parent / "mine.yaml", "--key-file", finished.folder.parent / "key")
    done = anondata(
        "shards", tmp_path / "in", "--out", tmp_path / "out", *given, "--keep", "cls,txt", "--workers", "1", *more
    )
    assert done.code == 0, done.err
    results = []
    for shard in range(2):
        with tarfile.open(tmp_path / "out" / f"s{shard}.tar") as tar:
            results += [tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    told = ("--run-key", finished.folder.parent / "key", "--out", tmp_path / "audit", "--no-plots")
    done = anondata(
        "audit", "--original", extracted(originals, tmp_path / "a"), "--anonymized", tmp_path / "out", *told
    )
    assert done.code == 0, done.err
    return replace(finished, folder=tmp_path / "out", audit=tmp_path / "audit" / "audit.json"), results


def test_shards_become_rows_without_their_keys(shards: Any, tmp_path: Path) -> None:
    output, results = shards
    assert output.publish(tmp_path / "p").sealed
    loaded = load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))["train"]
    assert {name: str(kind.dtype) for name, kind in loaded.features.items() if name != "image"} == {
        "cls": "int64",
        "txt": "string",
    }
    assert rows(tmp_path / "p") == results
    assert loaded["cls"][:] == [0, 1, 2, 3]
    assert not any(b"alice" in path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file())


def test_shards_that_name_their_samples_are_not_put_beside(shards: Any, tmp_path: Path) -> None:
    output, _ = shards
    with pytest.raises(PublishError, match="--rename-keys") as error:
        output.publish(tmp_path / "p", webdataset=True)
    assert "alice" not in str(error.value)
    assert not (tmp_path / "p").exists()


def test_shards_themselves_are_put_beside_when_asked_for(renamed: Any, tmp_path: Path) -> None:
    renamed.publish(tmp_path / "p", webdataset=True)
    for name in ("s0.tar", "s1.tar"):
        assert (tmp_path / "p/webdataset" / name).read_bytes() == (renamed.folder / name).read_bytes()
    assert len(load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))["train"]) == 4
    assert [check for check in verify(tmp_path / "p") if check.ok is False] == []


@pytest.mark.parametrize("name", ["x.jpg", "x.who"])
def test_a_member_of_a_shard_that_is_in_no_row_is_found(renamed: Any, tmp_path: Path, photo: Any, name: str) -> None:
    import tarfile

    renamed.publish(tmp_path / "p", webdataset=True)
    with tarfile.open(tmp_path / "p/webdataset/s0.tar", "a") as tar:
        info, data = tarfile.TarInfo(name), photo(9)
        info.size = len(data)
        tar.addfile(info, BytesIO(data))
    assert {"files", "columns"} <= {check.name for check in verify(tmp_path / "p") if check.ok is False}


def test_webdataset_is_for_shards(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="for outputs of `anondata shards`"):
        finished.publish(tmp_path / "p", webdataset=True)


def test_a_shard_of_an_earlier_run_is_not_published_with_the_others(shards: Any, tmp_path: Path) -> None:
    output, _ = shards
    (output.folder / "old.tar").write_bytes((output.folder / "s0.tar").read_bytes())
    with pytest.raises(PublishError, match="1 in no manifest"):
        output.publish(tmp_path / "p")


# --- the command --------------------------------------------------------------------------------------------------


def test_the_kept_key_is_found_and_the_seal_is_told(
    photos: Path, anondata: Any, finished: Any, tmp_path: Path
) -> None:
    """`anonymize` keeps a key for each folder; who publishes there need not name it."""
    assert anondata("anonymize", photos, "--out", tmp_path / "out", "--policy", "faces-fill").code == 0
    given = ("--to", tmp_path / "p", "--audit", finished.audit, "--title", "T", "--licence", "cc0-1.0")
    assert "about other pictures" in anondata("publish", tmp_path / "out", *given).err
    manifest = tmp_path / "out" / FILE
    manifest.write_text(manifest.read_text().replace('"created": "2', '"created": "1'))
    assert "the seal of the manifest does not hold" in anondata("publish", tmp_path / "out", *given).err


@pytest.mark.parametrize("given", [(), ("--to", "x", "--repo-id", "org/name")])
def test_one_destination_must_be_named(finished: Any, anondata: Any, given: tuple[str, ...]) -> None:
    result = anondata(
        "publish", finished.folder, "--audit", finished.audit, "--title", "T", "--licence", "cc0-1.0", *given
    )
    assert (result.code, "say where to" in result.err) == (2, True)


def test_the_command_tells_what_it_published(finished: Any, anondata: Any, tmp_path: Path) -> None:
    given = ("--to", tmp_path / "p", "--audit", finished.audit.parent, "--title", "T", "--licence", "cc0-1.0")
    result = anondata("publish", finished.folder, *given, "--key-file", finished.folder.parent / "key")
    assert result.code == 0, result.err
    assert "published: 5 pictures" in result.err
    assert "its seal holds" in result.err
    assert result.out.strip() == str(tmp_path / "p")


def test_a_card_that_was_written_into_the_output_does_not_stand_in_the_way(output, anondata, tmp_path):
    told = ("--audit", output.audit, "--title", "Faces", "--licence", "cc-by-4.0")
    shown = anondata("card", output.folder, *told)
    assert shown.code == 0, shown.err
    output.publish(tmp_path / "public")
    assert (tmp_path / "public" / "README.md").exists()


def test_an_audit_that_was_edited_is_refused(output, edit, tmp_path):
    attacks = json.loads(output.audit.read_text())["attacks"]
    attacks[0]["rank1"]["percent"] = 0.0
    edit(output.audit, attacks=attacks)
    with pytest.raises(PublishError, match="the audit was edited"):
        output.publish(tmp_path / "public")


def test_an_audit_that_was_made_without_the_run_key_is_refused(output, tmp_path):
    body = json.loads(output.audit.read_text())
    del body["seal"]
    output.audit.write_text(json.dumps(body))
    with pytest.raises(PublishError, match="--run-key"):
        output.publish(tmp_path / "public")


def test_chance_that_is_none_is_refused(output, edit, tmp_path):
    attacks = json.loads(output.audit.read_text())["attacks"]
    attacks[0]["rank1"]["chance_percent"] = float("inf")
    edit(output.audit, attacks=attacks)
    with pytest.raises(PublishError, match="chance is inf %"):
        output.publish(tmp_path / "public", run_key=None)


def test_labels_of_an_imagefolder_are_kept_where_that_is_asked_for(
    tmp_path: Path, photo: Callable[..., bytes]
) -> None:
    for number, label in enumerate(("cats", "dogs")):
        (tmp_path / "src" / label).mkdir(parents=True)
        (tmp_path / "src" / label / "jane.jpg").write_bytes(photo(number))
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    mine = tmp_path / "mine.yaml"
    mine.write_text(load_policy("faces-fill").to_yaml().replace("above_chance: 5.0", "above_chance: 90.0"))
    key = ("--key-file", tmp_path / "key")
    run("anonymize", tmp_path / "src", "--out", tmp_path / "out", "--policy", mine, *key)
    sides = ("--original", tmp_path / "src", "--anonymized", tmp_path / "out")
    run("audit", *sides, "--identity", "-", "--run-key", tmp_path / "key", "--out", tmp_path / "audit", "--no-plots")
    told = ("--audit", tmp_path / "audit", "--title", "Pets", "--licence", "cc-by-4.0", "--labels", *key)
    run("publish", tmp_path / "out", *told, "--to", tmp_path / "p")
    loaded = load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["label"] == ClassLabel(names=["cats", "dogs"])
    pictures = {path.read_bytes(): path.parent.name for path in (tmp_path / "out").rglob("*.jpg")}
    stored = loaded.cast_column("image", Image(decode=False))
    assert [loaded.features["label"].int2str(row["label"]) for row in stored] == [
        pictures[row["image"]["bytes"]] for row in stored
    ]
    assert b"jane" not in b"".join(path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file())


def test_labels_need_folders(output: Any, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="not every picture of the output lies in a folder"):
        output.publish(tmp_path / "p", labels=True)
    assert not (tmp_path / "p").exists()
