"""An output place whose parts are there whole or not at all, so that a run that was killed goes on where it was.

::

    OUT/shard-0001.tar ...                  parts, in place only when they are whole and scanned
    OUT/report.json, index.json ...         written at the end of a run
    OUT/.anondata/run.json                  what all runs into this place must share
    OUT/.anondata/parts/shard-0001.tar.json what is known of a part; written after it
    OUT/.anondata/manifest.json             all parts, sealed; the last thing that a run writes
    OUT/.anondata/tmp/                      parts in the making, of a local place

A part counts as done when it is there as its record says, and the record has the seal of the run key: who may write
into the place and has no key cannot pass anything off as done. A kill between the two costs one part's work.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import fsspec
from filelock import FileLock, Timeout

from anondata._files import NotPlainError, open_plain, read_plain
from anondata.errors import OutputError, ReportError
from anondata.loaders._retry import stamp_of, with_retries, words_of
from anondata.manifest import FILE, FileDigest, Kind, Manifest, Namer, software
from anondata.report import Report, from_json

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer

FORMAT = "anondata.parts/1"
WORK_FOLDER = ".anondata"
STARTED = f"{WORK_FOLDER}/run.json"

_KEY_HINT = "; or give the run key of the first run: where none is given, each run draws its own"

# An object is there when its upload is complete; elsewhere a file shows while it grows, and is renamed into place.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "hf", "memory"}


@dataclass(frozen=True)
class Part:
    """What is known of a part.

    version: of what it was made from. facts: numbers about it, such as its samples. rows: which rows of the source
    are in it, where those have numbers. originals: keyed digests of what its pictures were made of, in their order.
    stamp: what an object store says of it, such as its ETag.
    """

    name: str
    version: str
    size: int
    sha256: str
    report: Report
    facts: Mapping[str, int] = field(default_factory=dict)
    rows: Sequence[int] = ()
    originals: Sequence[str] = ()
    stamp: str = ""


class Parts:
    """A folder or URL of parts.

    One run at a time where the place is local; elsewhere two runs would do the same work twice, with the same result.
    Copies by pickle work on the same place and hold no lock.

    Args:
        out: a local folder or a URL that fsspec can write.
        setting: words that must agree between runs into this place: policy, keys, fields.
        key: what has the run key, by which records are sealed.

    Raises:
        OutputError: on entering: the place was written with another setting, another run is writing into it, or it
            cannot be written.
    """

    def __init__(self, out: str | os.PathLike[str], *, setting: Mapping[str, str], key: Namer) -> None:
        self.out, self.setting, self.key = os.fspath(out), dict(setting), key
        self.fs, root = fsspec.core.url_to_fs(self.out)
        self.root = root.rstrip("/")
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        self.local = bool(protocols & {"file", "local"})
        self._whole = bool(protocols & _OBJECT_STORES)
        self._lock: FileLock | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_parts, (self.out, self.setting, self.key))

    def __enter__(self) -> Parts:
        try:
            if self.local:
                Path(self.root, WORK_FOLDER).mkdir(parents=True, exist_ok=True)
                self._lock = FileLock(Path(self.root, WORK_FOLDER, "lock"), blocking=False)
                self._lock.acquire()
                shutil.rmtree(Path(self.root, WORK_FOLDER, "tmp"), ignore_errors=True)  # of a run that was killed
            self._check_setting()
        except Timeout:
            raise OutputError("another run is writing into this place; wait for it, or choose another") from None
        except OutputError:
            raise
        except Exception as error:  # storages raise what they like; its text would name the place
            raise OutputError(f"the output place cannot be used: {words_of(error)}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            shutil.rmtree(Path(self.root, WORK_FOLDER, "tmp"), ignore_errors=True)
            self._lock.release()

    def _check_setting(self) -> None:
        told = self.read(STARTED)
        body = {"format": FORMAT, **self.setting}
        if told is None:
            self._write_setting()
            return
        try:
            before = json.loads(told)
        except ValueError as error:
            raise OutputError("the output place's run.json is damaged; choose another place") from error
        changed = sorted(k for k in {*before, *body} if before.get(k) != body.get(k))
        if changed and self.recorded():
            raise OutputError(
                f"the output place was written with other settings: {', '.join(changed)}. Choose another place, or "
                f"empty it{_KEY_HINT if 'key' in changed else ''}"
            )
        if changed:  # a run that stopped before its first part, such as one that forgot to declare a field
            self._write_setting()

    def _write_setting(self) -> None:
        body = {"format": FORMAT, **self.setting}
        self.write(STARTED, json.dumps(body, sort_keys=True, indent=2).encode() + b"\n")

    def recorded(self) -> set[str]:
        """Names of the parts that were put in place, whether they are still there or not. Raises: OutputError."""
        folder = self._place(f"{WORK_FOLDER}/parts")
        try:
            places = with_retries(lambda: self.fs.find(folder))
        except FileNotFoundError:
            return set()
        except Exception as error:  # storages raise what they like
            raise OutputError(f"the output place cannot be read: {words_of(error)}") from error
        return {place.removeprefix(folder).lstrip("/").removesuffix(".json") for place in places}

    def temporary(self) -> Path:
        """A fresh local folder for parts in the making; the caller removes it. Nothing raw belongs there."""
        if not self.local:
            return Path(tempfile.mkdtemp(prefix="anondata-"))
        above = Path(self.root, WORK_FOLDER, "tmp")
        above.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=above))

    def find(self, name: str, version: str | None = None) -> Part | None:
        """The part of a name, if it is there as its record says, and was made from that version.

        A part's bytes are read again, but for what lies in an object store as the store said of it when it was put
        there.
        """
        part = read_record(self.read(record_of(name)), name, self.key, setting=self.setting)
        if part is None or (version is not None and part.version != version):
            return None
        return part if self._is_whole(part) else None

    def _is_whole(self, part: Part) -> bool:
        place = self._place(part.name)
        try:
            if not self.local:
                info = with_retries(lambda: self._looked_up(place))
                if int(info["size"]) != part.size:
                    return False
                if part.stamp and part.stamp == stamp_of(info):
                    return True
            return with_retries(lambda: self._digest(place)) == part.sha256
        except (FileNotFoundError, NotPlainError):  # what took a part's place is replaced
            return False
        except Exception as error:  # storages raise what they like
            raise OutputError(f"a part cannot be read back: {words_of(error)}") from error

    def _looked_up(self, place: str) -> Mapping[str, Any]:
        self.fs.invalidate_cache()  # a listing from before could hide a change
        info: Mapping[str, Any] = self.fs.info(place)
        return info

    def _digest(self, place: str) -> str:
        with open_plain(place) if self.local else self.fs.open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def commit(
        self,
        made: Path,
        name: str,
        *,
        version: str,
        report: Report,
        facts: Mapping[str, int] | None = None,
        rows: Sequence[int] = (),
        originals: Sequence[str] = (),
    ) -> Part:
        """Puts a finished local file into place under a name, then its record. The local file is gone afterwards.

        Raises: OutputError.
        """
        with open(made, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        size = made.stat().st_size
        stamp = self._put(made, name)
        part = Part(name, version, size, digest, report, dict(facts or {}), list(rows), list(originals), stamp)
        body = {**asdict(part), "report": json.loads(report.to_json()), "setting": _digest_of(self.setting)}
        body["seal"] = _seal(body, self.key)
        self.write(record_of(name), json.dumps(body, sort_keys=True).encode() + b"\n")
        return part

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file whole or not at all. Raises: OutputError."""
        folder = self.temporary()
        try:
            (folder / "file").write_bytes(data)
            self._put(folder / "file", name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none. Raises: OutputError."""
        try:
            if self.local:
                return read_plain(self._place(name))
            data: bytes = with_retries(lambda: self.fs.cat_file(self._place(name)))
        except FileNotFoundError:
            return None
        except Exception as error:  # storages raise what they like
            raise OutputError(f"the output place cannot be read: {words_of(error)}") from error
        return data

    def remove(self, *names: str) -> None:
        """Removes small files that tell of a finished run; what is not there is fine. Raises: OutputError."""
        for name in names:
            try:
                if self.read(name) is not None:
                    with_retries(partial(self.fs.rm_file, self._place(name)))
            except FileNotFoundError:
                continue
            except OutputError:
                raise
            except Exception as error:  # storages raise what they like
                raise OutputError(f"the output place cannot be written: {words_of(error)}") from error

    def finish(
        self, anonymizer: Anonymizer, report: Report, done: Iterable[Part], *, fields: Mapping[str, str], kind: Kind
    ) -> None:
        """Writes the manifest: what all parts were when they were put in place. Raises: OutputError."""
        files = {part.name: FileDigest(part.sha256, part.size) for part in done}
        manifest = Manifest(anonymizer.policy, report, files, fields, kind, software())
        self.write(FILE, manifest.sealed(anonymizer).to_json().encode())

    def strangers(self, known: Iterable[str]) -> Iterator[str]:
        """Names of files in the place that are none of the known ones, nor of the work folder."""
        expected = set(known)
        try:
            places = with_retries(lambda: self.fs.find(self.root, withdirs=False))
        except FileNotFoundError:
            return
        for place in places:
            name = place.removeprefix(self.root).lstrip("/")
            if name not in expected and not name.startswith(f"{WORK_FOLDER}/"):
                yield name

    def is_taken(self) -> bool:
        """Whether the place holds files though no run ever began here. Raises: OutputError."""
        return self.read(STARTED) is None and next(self.strangers([]), None) is not None

    def _place(self, name: str) -> str:
        if ".." in name.split("/") or name.startswith("/"):
            raise OutputError("a part's name leads out of the output place")
        return f"{self.root}/{name}"

    def _put(self, made: Path, name: str) -> str:
        """Puts a file in place, and returns what an object store says of it; nothing where it can be forged."""
        target = self._place(name)
        try:
            if self.local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(made, target)
                return ""
            stamp = with_retries(lambda: self._upload(made, target))
            made.unlink(missing_ok=True)
            return stamp
        except OutputError:
            raise
        except Exception as error:  # storages raise what they like; its text would name the place
            raise OutputError(f"a part cannot be written: {words_of(error)}") from error

    def _upload(self, made: Path, target: str) -> str:
        where = target if self._whole else f"{target.rpartition('/')[0]}/.{secrets.token_hex(8)}.part"
        if not self._whole:
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(made), where)
        info = self._looked_up(where)
        if int(info["size"]) != made.stat().st_size:
            raise OSError("the storage holds fewer bytes than were sent")
        if where != target:
            self.fs.mv(where, target)
        return stamp_of(info) if self._whole else ""  # a file server's times are set by whoever writes


def read_record(
    told: bytes | None, name: str, key: Namer, *, setting: Mapping[str, str] | None = None
) -> Part | None:
    """What a record says of the part of this name; None where it is damaged, of another, or without the key's seal.

    setting: that the part must have been made with; None: any.
    """
    try:
        body = json.loads(told) if told else {}
        seal = body.pop("seal")
        if not hmac.compare_digest(str(seal).encode(), _seal(body, key).encode()) or body["name"] != name:
            return None
        if setting is not None and body["setting"] != _digest_of(setting):
            return None
        del body["setting"]
        return Part(**{**body, "report": from_json(json.dumps(body["report"]))})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ReportError):
        return None  # damaged: the part is done again


def _seal(body: Mapping[str, Any], key: Namer) -> str:
    return key.name("part", json.dumps(body, sort_keys=True))


def _digest_of(setting: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()


def record_of(name: str) -> str:
    """Where the record of a part lies, below the place."""
    return f"{WORK_FOLDER}/parts/{name}.json"


def _parts(out: str, setting: Mapping[str, str], key: Namer) -> Parts:
    return Parts(out, setting=setting, key=key)
