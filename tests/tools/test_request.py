"""``anondata request``: what was asked for and nothing more, complete and charged once, or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from anondata.errors import AnondataError, CatalogError, OutputError, QuotaExceeded, RequestError, UnknownClientError
from anondata.ledger import Ledger, Limit
from anondata.policy import load_policy
from anondata.requests.catalog import load_catalog
from anondata.requests.request import plan, request
from anondata.requests.result import RequestResult
from anondata.tools import request as module

KEY = b"0123456789abcdef"
Ask = Callable[..., RequestResult]


@pytest.fixture
def at(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """A catalog of one dataset of six photos, one of them broken, of which client acme may receive ten."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for number, name in enumerate(["alice", "bob", "carol", "dave", "erin"]):
        (photos / f"{name}.jpg").write_bytes(photo(number))
        pose = "dancing" if number < 3 else "singing"
        rows.append({"file_name": f"{name}.jpg", "pose": pose, "who": name, "age": 20 + number})
    (photos / "frank.jpg").write_bytes(b"no picture")
    rows.append({"file_name": "frank.jpg", "pose": "singing", "who": "frank", "age": 25})
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    weak = load_policy("faces-fill").to_yaml().replace("above_chance: 5.0", "above_chance: 90.0")
    (tmp_path / "mine.yaml").write_text(weak)  # five photos of one person are no audit
    entry = {
        "location": "photos",
        "builder": "imagefolder",
        "fields": {"image": "image"},
        "keep": ["pose", "age"],
        "drop": ["who"],
        "policy": {"image": "mine.yaml"},
        "clients": ["acme"],
        "licence": "cc-by-4.0",
    }
    write(tmp_path, {"ledger": "quotas.db", "datasets": {"portraits": entry}})
    limit(tmp_path, 10)
    return tmp_path


def write(at: Path, catalog: dict[str, Any]) -> None:
    (at / "catalog.yaml").write_text(yaml.safe_dump(catalog))


def change(at: Path, **entry: Any) -> None:
    catalog = yaml.safe_load((at / "catalog.yaml").read_text())
    catalog["datasets"]["portraits"].update(entry)
    write(at, catalog)


def limit(at: Path, amount: int, **more: Any) -> None:
    with closing(Ledger(at / "quotas.db")) as ledger:
        ledger.set_limit(Limit("acme", amount=amount, **more))


def used(at: Path) -> int:
    with closing(Ledger(at / "quotas.db")) as ledger:
        return sum(usage.used + usage.reserved for usage in ledger.usage("acme"))


@pytest.fixture
def ask(at: Path) -> Ask:
    """The request for two of the portraits, unless it is said otherwise."""

    def call(**changed: Any) -> RequestResult:
        given = {"client": "acme", "dataset": "portraits", "n": 2, "out": at / "out", "run_key": KEY, **changed}
        return request(at / "catalog.yaml", **given)

    return call


def rows(folder: Path) -> list[dict[str, Any]]:
    from datasets import Image, load_dataset

    read = load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return [dict(row) for row in read.cast_column("image", Image(decode=False))]


# --- what comes --------------------------------------------------------------------------------------------------


def test_as_many_come_as_were_asked_for_and_are_charged(ask, at, anondata):
    result = ask(where={"pose": "dancing"})
    assert (result.delivered, result.complete, result.charged_now) == (2, True, True)
    found = rows(at / "out")
    assert [row["pose"] for row in found] == ["dancing"] * 2
    assert {*found[0]} == {"image", "pose", "age", "insights"}
    assert all(row["insights"] for row in found)
    assert used(at) == 2
    assert {path.name for path in at.iterdir()}.isdisjoint({".out.request"})
    shown = anondata("verify", at / "out")
    assert shown.code == 0, shown.out


def test_attackers_are_told_the_technique(ask, at):
    """Or nobody would learn on it, and a delivery would look stronger than ``anondata audit`` finds it."""
    ask()
    told = json.loads((at / "out/anonymization/audit.json").read_text())["parameters"]["technique"]
    assert told is not None
    assert told.startswith("random_colors")


def test_what_is_not_charged_can_be_read_by_nobody_else(ask, at):
    """A request that goes through but for its quota leaves all of its samples in the work folder."""
    limit(at, 1, unit="bytes")
    with pytest.raises(QuotaExceeded):
        ask()
    assert (at / ".out.request" / "publication").is_dir()
    assert (at / ".out.request").stat().st_mode & 0o077 == 0


def test_nothing_names_who_it_was_or_where(ask, at):
    ask()
    told = b"".join(path.read_bytes() for path in (at / "out").rglob("*") if path.is_file())
    for word in (b"alice", b"bob", b"carol", b"dave", b"erin", b"frank", bytes(at), KEY):
        assert word not in told


def test_the_history_says_what_was_done(ask, at):
    result = ask()
    with closing(Ledger(at / "quotas.db")) as ledger:
        entry = list(ledger.history())[-1]
        assert not ledger.verify().problem
    told = json.dumps(entry.__dict__, default=str)
    assert result.fingerprint in told
    assert result.report in told


def test_what_is_withheld_is_replaced_by_others(ask):
    result = ask(n=5)
    assert result.delivered == 5
    assert sum(result.withheld.values()) in (0, 1)  # the broken one was among the first five, or was not needed


def test_fewer_come_where_there_are_no_more_and_only_they_are_charged(ask, at):
    result = ask(n=6)
    assert (result.delivered, result.complete, used(at)) == (5, False, 5)
    assert sum(result.withheld.values()) == 1


def test_the_draw_is_the_keys(ask, at):
    def ages(out: str, key: bytes) -> list[int]:
        ask(out=at / out, run_key=key)
        return [row["age"] for row in rows(at / out)]

    assert ages("one", KEY) == ages("two", KEY)
    drawn = {tuple(ages(f"k{i}", bytes([i]) * 16)) for i in range(3)}
    assert len(drawn) > 1


def test_asked_again_it_changes_nothing_and_charges_nothing(ask, at, tree):
    ask()
    before = tree(at / "out")
    again = ask()
    assert (again.charged_now, tree(at / "out"), used(at)) == (False, before, 2)


def test_an_editors_texts_come_with_the_insights(ask, at):
    (at / "notes.csv").write_text("key,insights\nalice.jpg,On a stage.\nbob.jpg,On a stage.\ncarol.jpg,On a stage.\n")
    change(at, insights={"key": "file_name", "file": "notes.csv"})
    ask(where={"pose": "dancing"})
    assert all(row["insights"].endswith("On a stage.") for row in rows(at / "out"))


@pytest.mark.parametrize("kind", ["regions", "masks"])
def test_boxes_and_masks_of_the_dataset_are_followed(ask, at, kind, grey_policy):
    """Boxes are delivered as they are, masks are not."""
    (at / "mine.yaml").write_text(grey_policy("{3: face}").replace("above_chance: 5.0", "above_chance: 90.0"))
    objects = {"bbox": [[4, 100, 40, 30]], "category": [3]}
    if kind == "masks":
        plane = [[100 <= y < 130 and 4 <= x < 44 for x in range(160)] for y in range(160)]
        objects = {"masks": [plane], "labels": [3]}
    lines = map(json.loads, (at / "photos/metadata.jsonl").read_text().splitlines())
    (at / "photos/metadata.jsonl").write_text("\n".join(json.dumps({**row, "objects": objects}) for row in lines))
    change(at, fields={"image": "image", "objects": kind}, drop=["who"])
    ask(where={"pose": "dancing"})
    found = rows(at / "out")
    assert {*found[0]} - {"objects"} == {"image", "pose", "age", "insights"}
    assert ("objects" in found[0]) == (kind == "regions")
    for row in found:
        pixels = np.array(Image.open(io.BytesIO(row["image"]["bytes"])).convert("L")).astype(int)
        assert abs(pixels[102:128, 6:42] - pixels[115, 20]).max() < 12  # JPEG


def test_insights_can_be_left_out(ask, at):
    ask(insights=False)
    assert "insights" not in rows(at / "out")[0]


# --- the command -------------------------------------------------------------------------------------------------


def args(at: Path, *more: object, n: int = 2) -> list[object]:
    who = ["--catalog", at / "catalog.yaml", "--client", "acme", "--dataset", "portraits", "--n", n]
    return ["request", *who, "--out", at / "out", *more]


def test_the_command_prints_the_place_or_json(anondata, at):
    shown = anondata(*args(at, "--where", "pose=dancing", "--json", n=3))
    assert shown.code == 0, shown.err
    assert shown.json["delivered"] == 3
    assert anondata(*args(at, "--where", "pose=dancing", n=3)).out.strip() == str(at / "out")


def test_several_choices_must_all_hold(anondata, at):
    assert "1 candidates" in anondata(*args(at, "--where", "pose=dancing", "--where", "age=21", "--dry-run")).out


def test_fewer_is_exit_code_3(anondata, at):
    assert anondata(*args(at, "--where", "pose=dancing", n=4)).code == 3


def test_a_rehearsal_says_what_would_be_done_and_does_nothing(anondata, at):
    shown = anondata(*args(at, "--dry-run"))
    assert shown.code == 0
    assert "6 candidates" in shown.out
    assert "may still receive 10" in shown.out
    assert not (at / "out").exists()
    assert used(at) == 0


def test_the_list_holds_what_the_client_may_ask_for(anondata, at):
    assert anondata("request", "--catalog", at / "catalog.yaml", "--client", "acme", "--list").out == (
        "portraits\tportraits\timage: 10\n"
    )
    other = anondata("request", "--catalog", at / "catalog.yaml", "--client", "other", "--list")
    assert (other.code, other.out) == (0, "")


@pytest.mark.parametrize("where", ["pose", "=dancing"])
def test_a_choice_that_is_none_is_usage(anondata, at, where):
    assert anondata(*args(at, "--where", where)).code == 2


# --- what the client may not ------------------------------------------------------------------------------------


def test_other_clients_are_not_told_that_there_is_such_a_dataset(ask):
    with pytest.raises(RequestError) as unknown:
        ask(client="other")
    assert "may not ask for any dataset of this catalog" in str(unknown.value)


def test_a_dropped_column_cannot_be_chosen_by(ask, at):
    with pytest.raises(RequestError, match="no kept column 'who'"):
        ask(where={"who": "alice"})
    assert used(at) == 0


def test_a_value_that_nothing_has_lists_no_others(ask):
    with pytest.raises(RequestError) as error:
        ask(where={"pose": "sleeping"})
    assert "dancing" not in str(error.value)


def test_more_than_is_left_is_refused_before_any_work(ask, at, monkeypatch):
    limit(at, 1)
    monkeypatch.setattr("anondata.requests.source.loaded", None)
    with pytest.raises(QuotaExceeded, match="1 are left, and 2 samples were asked for"):
        ask()
    assert not (at / "out").exists()


def test_what_is_left_is_taken_where_the_client_says_so(ask, at):
    limit(at, 2)
    result = ask(n=4, as_many_as_there_are=True)
    assert (result.asked, result.granted, result.delivered, used(at)) == (4, 2, 2, 2)


def test_one_sample_is_refused_because_nobody_could_be_confused_with_it(ask, at):
    with pytest.raises(RequestError, match="needs at least two samples"):
        ask(n=1)
    assert used(at) == 0


def test_a_limit_of_bytes_that_is_passed_delivers_and_charges_nothing(ask, at):
    limit(at, 100, unit="bytes")
    with pytest.raises(QuotaExceeded):
        ask()
    assert not (at / "out").exists()
    assert used(at) == 0


def test_what_was_not_attacked_as_the_policy_demands_is_neither_delivered_nor_charged(ask, at):
    (at / "mine.yaml").write_text((at / "mine.yaml").read_text().replace("composite", "parrot"))
    change(at, identity="who")  # each of them is in one picture, so a parrot has nothing to compare
    with pytest.raises(RequestError, match=r"parrot.*nothing was delivered, and nothing charged"):
        ask()
    assert not (at / "out").exists()
    assert used(at) == 0


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        ({"location": "nowhere"}, Exception, "is not where the catalog says"),
        ({"feilds": {}}, CatalogError, "did you mean 'fields'?"),
        ({"keep": ["pose", "who"]}, CatalogError, "declared twice"),
        ({"policy": {"text": "faces"}}, CatalogError, "content type"),
        ({"fields": {"picture": "image"}}, Exception, "image"),
        ({"policy": {"image": "fases"}}, Exception, "did you mean 'faces'?"),
        ({"drop": []}, Exception, "who"),
        ({"identity": "nobody"}, CatalogError, "identity"),
        ({"fields": {"image": "image", "who": "drop"}}, CatalogError, "is no content type"),
        ({"fields": {"image": "image", "boxes": "masks:left"}}, CatalogError, "name the field of content"),
        ({"fields": {"boxes": "regions"}}, CatalogError, "no column is declared to hold content"),
    ],
)
def test_a_catalog_that_is_wrong_says_where(ask, at, entry, error, words):
    change(at, **entry)
    with pytest.raises(error, match=words) as raised:
        ask()
    assert not any(name in str(raised.value) for name in ("alice", "frank"))
    assert not (at / "out").exists()
    assert used(at) == 0


def test_a_place_that_is_taken_is_left_as_it_is(ask, at):
    (at / "out").mkdir()
    (at / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="not empty"):
        ask()
    assert [path.name for path in (at / "out").iterdir()] == ["mine.txt"]


def test_a_place_among_the_originals_is_refused(ask, at):
    with pytest.raises(RequestError, match="lies in the dataset"):
        ask(out=at / "photos" / "out")


def test_a_full_disk_costs_nothing_and_the_same_request_goes_on(ask, at, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copyfile", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="No space left"):
            ask()
    assert not (at / "out").exists()
    assert used(at) == 0
    assert ask().delivered == 2


# --- stopped on the way ------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from anondata.requests.delivery import Delivery
from anondata.requests.workfolder import WorkFolder
def die(*args, **more): os.kill(os.getpid(), signal.SIGKILL)
setattr({"Work": WorkFolder, "Delivery": Delivery}[sys.argv[1]], sys.argv[2], die)
from anondata.requests.request import request
request(sys.argv[3], client="acme", dataset="portraits", n=2, out=sys.argv[4], run_key=b"0123456789abcdef")
"""


@pytest.mark.parametrize(
    ("where", "what", "charged"), [("Delivery", "_publish", 0), ("Delivery", "_charge", 0), ("Work", "deliver", 2)]
)
def test_killed_anywhere_it_goes_on_and_is_charged_once(ask, at, where, what, charged):
    run = [sys.executable, "-c", _KILLED, where, what, str(at / "catalog.yaml"), str(at / "out")]
    assert subprocess.run(run, env=os.environ).returncode == -signal.SIGKILL
    assert not (at / "out").exists()
    assert used(at) == charged
    limit(at, 2)  # nothing else fits, now
    result = ask()
    assert (result.delivered, result.charged_now, used(at)) == (2, charged == 0, 2)
    assert not (at / ".out.request").exists()


def test_another_request_does_not_take_up_what_is_not_its_own(ask, at):
    run = [sys.executable, "-c", _KILLED, "Work", "deliver", str(at / "catalog.yaml"), str(at / "out")]
    subprocess.run(run, env=os.environ)
    with pytest.raises(RequestError, match="was stopped before its end"):
        ask(n=3)


# --- in Python ---------------------------------------------------------------------------------------------------


def test_a_catalog_may_be_read_before(ask, at):
    catalog = load_catalog(at / "catalog.yaml")
    found = plan(catalog, client="acme", dataset="portraits", n=3, where={"pose": "singing"})
    assert (found.granted, found.left, found.candidates) == (3, 10, 3)
    assert module.request is request


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"location": "nowhere"}, "is not where the catalog says"),
        ({"drop": []}, "field 'who' is not declared"),
        ({"galleries": {"protected": "none.gallery"}}, "looks at no gallery called 'protected'"),
        ({"insights": {"key": "file_name", "file": "none.csv"}}, "the file of insights is not where"),
    ],
)
def test_what_is_wrong_with_the_catalog_is_told_before_that_no_limit_is_set(ask, at, entry, words):
    (at / "quotas.db").unlink()
    limit(at, 10, content_type="text")
    with pytest.raises(UnknownClientError):
        ask()
    change(at, **entry)
    with pytest.raises(AnondataError, match=words):
        ask()
    (at / "quotas.db").unlink()
    with pytest.raises(AnondataError, match=words):
        ask(out=at / "other")
    with pytest.raises(AnondataError, match=words):
        plan(at / "catalog.yaml", client="acme", dataset="portraits", n=2)
