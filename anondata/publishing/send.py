"""Where a finished publication goes: a folder in one rename, a storage file by file, the Hub in one commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anondata.errors import PublishError
from anondata.publishing.layout import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from tenacity import RetryCallState

T = TypeVar("T")

LONGEST_WAIT_S = 300.0  # that a Retry-After may ask for
NOT_OURS = {".gitattributes"}  # what the Hub puts into a new repository
_REFUSED = {
    401: "the Hub refused the token, or there is none; `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there; use one with write access to this repository",
    404: "there is no such place on the Hub, or the token may not see it; check the repository id",
    409: "the Hub reports a conflict: somebody changed the repository meanwhile; look at it and publish again",
    412: "the Hub reports that the repository changed meanwhile; look at it and publish again",
    413: "the Hub refuses files of this size; use fewer --rows-per-file",
}


# --- folders and storages -----------------------------------------------------------------------------------------


def check_place(to: str, folder: Path) -> None:
    """Raises PublishError for a destination that is not empty, or one that lies in the output or around it."""
    fs, root = _storage(to)
    if _is_local(fs):
        target, source = Path(root).resolve(), folder.resolve()
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise PublishError("the destination and the output lie inside each other; choose another place")
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise PublishError("the destination is not empty; choose an empty place")
        return
    from anondata.loaders._retry import with_retries

    try:
        taken = with_retries(lambda: fs.find(root))
    except FileNotFoundError:
        return
    except Exception as error:  # storages raise what they like; its text would name the place
        raise PublishError(f"cannot list the destination: {type(error).__name__}") from error
    if taken:
        raise PublishError("the destination is not empty; choose an empty place")


def workshop_of(to: str | None) -> Path | None:
    """The local folder in which a publication is made, on the disk of its destination; None for any temporary one."""
    if to is None:
        return None
    fs, root = _storage(to)
    return Path(root).resolve().parent if _is_local(fs) else None


def send(made: Path, to: str, show: Callable[[int], None]) -> None:
    """Puts a finished publication into a folder, which then is there whole, or into a storage, its manifest last.

    Raises: PublishError; a folder is not there then, and of a storage what was sent is removed, as far as it can be.
    """
    fs, root = _storage(to)
    if _is_local(fs):
        try:
            os.rename(made, Path(root).resolve())  # onto an empty folder, too
        except OSError as error:
            raise PublishError(
                f"the destination cannot be written: {error.strerror}; nothing was published"
            ) from error
        return
    _upload(made, fs, root.rstrip("/"), show)


def _upload(made: Path, fs: Any, root: str, show: Callable[[int], None]) -> None:
    from anondata.loaders._retry import with_retries

    sent: list[str] = []
    try:
        for done, name in enumerate(_manifest_last(made), 1):
            target = f"{root}/{name}"
            sent.append(target)
            with_retries(partial(_put, fs, made / name, target))
            show(done)
    except BaseException as error:
        left = _remove(fs, sent)
        if not isinstance(error, Exception):
            raise
        after = "what was sent is removed" if not left else "part of it is left there, without a manifest"
        raise PublishError(f"the destination cannot be written: {_words(error)}; {after}") from error


def _put(fs: Any, file: Path, target: str) -> None:
    fs.makedirs(target.rpartition("/")[0], exist_ok=True)
    fs.put_file(str(file), target)
    fs.invalidate_cache()
    if int(fs.info(target)["size"]) != file.stat().st_size:
        raise OSError("the storage holds fewer bytes than were sent")


def _remove(fs: Any, sent: list[str]) -> int:
    left = 0
    for target in sent:
        try:
            if fs.exists(target):
                fs.rm_file(target)
        except Exception:  # noqa: BLE001 - storages raise what they like; the first error is told
            left += 1
    return left


def _manifest_last(made: Path) -> list[str]:
    names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    return sorted(names, key=lambda name: name == MANIFEST)


def _storage(to: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(to)
    except Exception as error:  # storages raise what they like; its text would name the place
        raise PublishError(f"cannot write to the destination: {type(error).__name__}") from error
    return fs, str(root)


def _is_local(fs: Any) -> bool:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & {"file", "local"})


# --- the Hub ------------------------------------------------------------------------------------------------------


def check_repo(api: HfApi, repo_id: str, *, public: bool) -> None:
    """What can be told of a repository before the work.

    Raises: PublishError where the token is refused, or the repository holds files, or is public without ``public``.
    """
    _ask(api.whoami)
    if _ask(lambda: api.repo_exists(repo_id, repo_type="dataset")):
        _parent(api, repo_id, public=public)


def commit(made: Path, api: HfApi, repo_id: str, *, public: bool, show: Callable[[int], None]) -> str:
    """Puts a finished publication on the Hub in one commit, and returns its address.

    Large files go first; those that an earlier try sent are not sent again. Nobody sees any of it before the commit.

    Raises: PublishError; nothing was committed then.
    """
    from huggingface_hub import CommitOperationAdd

    _ask(lambda: api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True))
    parent = _parent(api, repo_id, public=public)
    names = _manifest_last(made)
    files = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=made / name) for name in names]
    done = 0
    for batch in _batches(files):
        _ask(partial(_send_large, api, repo_id, batch))
        done += len(batch)
        show(done)
    try:
        info = _ask(
            lambda: api.create_commit(
                repo_id, files, commit_message="Publish with anondata", repo_type="dataset", parent_commit=parent
            )
        )
    except PublishError:
        if _is_there(api, repo_id, set(names)):  # it was committed, and only the answer was lost
            return f"{api.endpoint}/datasets/{repo_id}"
        raise
    if not _is_there(api, repo_id, set(names)):
        raise PublishError("the Hub took the commit, but does not list all of its files; look at the repository")
    return str(info.commit_url)


def _batches(files: list[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    """Small files together, rows and shards one by one: what was sent before a break is not sent again."""
    large = [file for file in files if file.path_in_repo.endswith((".parquet", ".tar"))]
    yield from ([file] for file in large)
    yield [file for file in files if file not in large]


def _send_large(api: HfApi, repo_id: str, files: list[CommitOperationAdd]) -> None:
    """Sends those that the Hub wants apart from the commit. No .gitignore may leave one out."""
    api.preupload_lfs_files(repo_id, files, repo_type="dataset", free_memory=False, gitignore_content="")


def _parent(api: HfApi, repo_id: str, *, public: bool) -> str | None:
    """The commit that a repository is at. Raises: PublishError, where it holds files or is public unasked."""
    info = _ask(lambda: api.dataset_info(repo_id))
    if {file.rfilename for file in info.siblings or ()} - NOT_OURS:
        raise PublishError("the repository is not empty; publish into a new one")
    if info.private is False and not public:
        raise PublishError("the repository is public already; say so with --public, or choose another")
    return info.sha


def _is_there(api: HfApi, repo_id: str, names: set[str]) -> bool:
    try:
        info = _ask(lambda: api.dataset_info(repo_id))
    except PublishError:
        return False
    return {file.rfilename for file in info.siblings or ()} - NOT_OURS == names


def _ask(do: Callable[[], T]) -> T:
    """What the Hub answers; asked again while it says that it is busy, or the connection breaks.

    Raises: PublishError, which says what to do and quotes nothing.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    from anondata.loaders._retry import TRIES, TRIES_VARIABLE

    tries = max(1, int(os.environ.get(TRIES_VARIABLE, TRIES)))
    asking = Retrying(stop=stop_after_attempt(tries), wait=_wait, retry=retry_if_exception(_passing), reraise=True)
    try:
        return asking(do)
    except Exception as error:  # the client raises much; its text holds addresses and may hold more
        raise PublishError(f"{_words(error)}; nothing was published") from error


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error, or of what it was raised for: the client wraps errors of uploads."""
    for one in _causes(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _passing(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return any(
        type(one).__module__.partition(".")[0] in ("httpx", "httpx2", "requests", "urllib3")
        or isinstance(one, ConnectionError | TimeoutError)
        for one in _causes(error)
    )


def _wait(state: RetryCallState) -> float:
    """As long as the Hub asks for, else longer each time."""
    from tenacity import wait_exponential_jitter

    error = state.outcome.exception() if state.outcome else None
    for one in _causes(error):
        asked = getattr(getattr(one, "response", None), "headers", {}).get("retry-after", "")
        if asked.isdigit():
            return min(float(asked), LONGEST_WAIT_S)
    return wait_exponential_jitter(initial=1.0, max=15.0)(state)


def _words(error: BaseException) -> str:
    status = _status(error)
    if status is not None:
        busy = "the Hub is busy; publish again later, what was sent need not be sent again"
        return _REFUSED.get(status, busy if status in (408, 429) or status >= 500 else f"the Hub answers {status}")
    if type(error).__name__ == "HFValidationError":
        return "the repository id is not valid; write it as org/name"
    if isinstance(error, OSError) and error.errno:
        return str(os.strerror(error.errno))
    if _passing(error):
        return "the connection broke again and again; publish again, what was sent need not be sent again"
    return f"the client says {type(error).__name__}"
