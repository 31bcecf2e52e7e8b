"""Publishing on the Hub: one commit or none, whatever the network does."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from anondata.errors import PublishError
from anondata.publishing.verify import verify

# huggingface_hub 2.4 itself hands bytes to its HTTP client in a way that the client no longer wants.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

WAIT = {"Retry-After": "0"}
BATCH = "/info/lfs/objects/batch"


def publish(finished: Any, hub: Any, **options: Any) -> Any:
    return finished.publish(repo_id="org/name", endpoint=hub.url, **options)


def test_everything_comes_in_one_commit_into_a_private_repository(finished: Any, hub: Any, tmp_path: Path) -> None:
    done = publish(finished, hub)
    finished.publish(tmp_path / "p")
    there = {p.relative_to(tmp_path / "p").as_posix(): p for p in (tmp_path / "p").rglob("*") if p.is_file()}
    assert (hub.commits, hub.private) == (1, True)
    assert {name: data for name, data in hub.files.items() if name != ".gitattributes"} == {
        name: path.read_bytes() for name, path in there.items()
    }
    assert done.place == f"{hub.url}/datasets/org/name/commit/1"


def test_what_is_on_the_hub_passes_the_checks(finished: Any, hub: Any, tmp_path: Path) -> None:
    publish(finished, hub)
    for name, data in hub.files.items():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(data)
    assert [check for check in verify(tmp_path / "clone") if check.ok is False] == []


def test_public_is_what_was_asked_for(finished: Any, hub: Any) -> None:
    publish(finished, hub, public=True)
    assert hub.private is False


def test_an_empty_repository_is_used_as_it_is(finished: Any, hub: Any) -> None:
    hub.private = True
    publish(finished, hub)
    assert hub.commits == 1


def test_a_public_repository_is_refused_unless_it_was_asked_for(finished: Any, hub: Any) -> None:
    hub.private = False
    with pytest.raises(PublishError, match="public already"):
        publish(finished, hub)
    assert hub.commits == 0


def test_a_repository_with_files_is_refused_before_the_work(finished: Any, hub: Any) -> None:
    hub.private, hub.files = True, {"data/other.parquet": b""}
    with pytest.raises(PublishError, match="the repository is not empty"):
        publish(finished, hub)
    assert hub.large == {}


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refused the token"), (403, "may not write there"), (404, "no such place"), (400, "the Hub answers 400")],
)
@pytest.mark.parametrize("path", ["/whoami-v2", "/repos/create", BATCH, "/commit/main"])
def test_a_refusal_is_told_and_nothing_is_committed(
    finished: Any, hub: Any, path: str, status: int, message: str
) -> None:
    hub.fail(path, (status, {}))
    with pytest.raises(PublishError, match=message) as caught:
        publish(finished, hub)
    assert hub.commits == 0
    assert "hf_of_this_test" not in str(caught.value)


def test_without_a_token_nothing_is_begun(finished: Any, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(PublishError, match="refused the token"):
        publish(finished, hub)
    assert set(hub.taken) == {"GET /api/whoami-v2"}


@pytest.mark.parametrize("path", ["/whoami-v2", "/repos/create", "/preupload/main", BATCH, "/commit/main"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(finished: Any, hub: Any, path: str, status: int) -> None:
    hub.fail(path, (status, WAIT), (status, WAIT))
    publish(finished, hub)
    assert hub.commits == 1


def test_a_hub_that_stays_busy_ends_without_a_commit(finished: Any, hub: Any) -> None:
    hub.fail("/commit/main", *[(429, WAIT)] * 9)
    with pytest.raises(PublishError, match="the Hub is busy; publish again later"):
        publish(finished, hub)
    assert hub.commits == 0


def test_a_hub_is_waited_for_as_long_as_it_says(finished: Any, hub: Any) -> None:
    import time

    hub.fail("/commit/main", (429, {"Retry-After": "2"}))
    start = time.monotonic()
    publish(finished, hub)
    assert time.monotonic() - start > 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_store_that_refuses_a_large_file_ends_without_a_commit(finished: Any, hub: Any, status: int) -> None:
    hub.refuse_large = status
    with pytest.raises(PublishError, match="; nothing was published"):
        publish(finished, hub)
    assert (hub.commits, hub.large) == (0, {})


def test_a_pipe_that_breaks_again_and_again_ends_without_a_commit(finished: Any, hub: Any) -> None:
    hub.fail("/commit/main", *["break"] * 9)
    with pytest.raises(PublishError, match="the connection broke again and again"):
        publish(finished, hub)
    assert hub.commits == 0


def test_a_connection_that_breaks_is_made_again(finished: Any, hub: Any) -> None:
    hub.fail("/repos/create", "break")
    publish(finished, hub)
    assert hub.commits == 1


def test_after_a_break_what_was_sent_is_not_sent_again(finished: Any, hub: Any) -> None:
    hub.fail("/commit/main", *[(503, WAIT)] * 9)
    with pytest.raises(PublishError):
        publish(finished, hub)
    sent = len([one for one in hub.taken if one.startswith("PUT /lfs/")])
    hub.faults.clear()
    publish(finished, hub)
    assert sent == len([one for one in hub.taken if one.startswith("PUT /lfs/")]) == 1
    assert hub.commits == 1


def test_a_commit_whose_answer_is_lost_counts(finished: Any, hub: Any) -> None:
    """The Hub took it, and the connection broke before it said so."""
    hub.lost = 1
    assert publish(finished, hub).place == f"{hub.url}/datasets/org/name"
    assert hub.commits == 1


@pytest.mark.parametrize("repo_id", ["a b", "x/y/z", "", "-x"])
def test_what_is_no_repository_id_is_refused(finished: Any, hub: Any, repo_id: str) -> None:
    with pytest.raises(PublishError, match="repository id"):
        finished.publish(repo_id=repo_id, endpoint=hub.url)


def test_a_repository_on_the_real_hub(finished: Any) -> None:
    token = os.environ.get("ANONDATA_TEST_HF_TOKEN")
    if not token:
        pytest.skip("needs ANONDATA_TEST_HF_TOKEN, a token that may write datasets, and the Hub")
    api = HfApi(token=token)
    repo_id = f"{api.whoami()['name']}/anondata-test-{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", token)
        try:
            finished.publish(repo_id=repo_id)
            assert [check for check in verify(f"hf://datasets/{repo_id}") if check.ok is False] == []
        finally:
            api.delete_repo(repo_id, repo_type="dataset", missing_ok=True)
