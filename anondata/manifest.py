"""The manifest of an output: which files a finished run left, by which policy, with which report.

A run writes it last, so an output without one is unfinished. Its seal is a keyed hash by the run key: who may write
into the folder and has no key can change neither a file nor a number without being found out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from anondata.components import allowed_before, is_below, own_code_of
from anondata.errors import ManifestError, PolicyError, ReportError
from anondata.policy import Policy
from anondata.report import Report
from anondata.report import from_json as report_from_json

FORMAT = "anondata.manifest/1"
FILE = ".anondata/manifest.json"
"""Where a run puts it, below its output folder."""

Kind: TypeAlias = Literal["images", "parquet", "shards"]

_PACKAGES = ("anondata", "torch", "torchvision", "onnxruntime", "pillow", "numpy", "datasets", "webdataset")
_OWN_CODE = re.compile(r"(?!insightface:)[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


_SHOWN = 5  # modules that a message names

_OF_STRANGE_DATA = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


class Namer(Protocol):
    """What has a run key: a :class:`~anondata.randomness.RunKey`, or an Anonymizer."""

    def name(self, *parts: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's digest.

    Args:
        sha256: 64 hexadecimal digits.
        size: in bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a finished run left behind.

    Args:
        policy: what was done.
        report: how often.
        files: digests of all files, by their path below the folder, with ``/``.
        fields: the declared schema.
        kind: ``images`` (one picture in each file), ``parquet`` or ``shards``.
        versions: versions of the software.
        created: a date, UTC.
        source: for a publication, the seal of the output that it was made from, which is meaningless to others; empty
            for an output.
        seal: a keyed hash of all this; empty if nobody sealed it.
    """

    policy: Policy
    report: Report
    files: Mapping[str, FileDigest]
    fields: Mapping[str, str]
    kind: Kind
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    source: str = ""
    seal: str = ""

    @property
    def digest(self) -> str:
        """One digest for the content of all files. Their names do not matter."""
        return content_digest(one.sha256 for one in self.files.values())

    def sealed(self, run_key: Namer) -> Manifest:
        """This manifest with the seal of a run key."""
        return replace(self, seal=run_key.name("manifest", self._sealed_text()))

    def seal_holds(self, run_key: Namer) -> bool:
        """Whether the seal was made with this run key, and of exactly this manifest."""
        return hmac.compare_digest(self.seal.encode(), run_key.name("manifest", self._sealed_text()).encode())

    def to_json(self) -> str:
        return json.dumps(self._body(), indent=1) + "\n"  # not sorted: the order of kinds says which lies on top

    def _sealed_text(self) -> str:
        return json.dumps({**self._body(), "seal": ""}, sort_keys=True)

    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "created": self.created,
            "policy": self.policy.model_dump(mode="json"),
            "report": json.loads(self.report.to_json()),
            "fields": dict(sorted(self.fields.items())),
            "files": {name: asdict(one) for name, one in sorted(self.files.items())},
            "versions": dict(sorted(self.versions.items())),
            "source": self.source,
            "seal": self.seal,
        }


def from_json(text: str | bytes, *, own_code: Iterable[str] = (), run_key: Namer | None = None) -> Manifest:
    """Reads a manifest from its JSON form.

    Args:
        text: the JSON.
        own_code: modules whose classes its policy may name, because you trust its maker. They are imported and run,
            and files that the policy names are read.
        run_key: if the manifest has the seal of this key it is your own, and all that its policy names is allowed.

    Raises:
        ManifestError: this is not a manifest, or its report is of another policy than it names.
    """
    own_code = (own_code,) if isinstance(own_code, str) else tuple(own_code)
    try:
        raw = json.loads(text)
        body = _Body.model_validate(raw)
        ours = run_key is not None and _is_sealed(raw, run_key)
        named = sorted(name for name in _modules_named(body.policy) if not is_below(name, own_code))
        if named and not ours:
            options = " ".join(f"--own-code {name}" for name in named[:_SHOWN])
            raise ManifestError(
                "the manifest's policy names classes of its maker's own, and reading it would run them; if you trust "
                f"that maker, allow their modules: {options}, or own_code=[…] in Python. With its run key an output "
                "may name what its own run was allowed"
            )
        with allowed_before() if ours else own_code_of(own_code, files=bool(own_code)):
            policy = Policy.model_validate(body.policy)
        report = report_from_json(json.dumps(body.report))
    except (ReportError, PolicyError, ValidationError, *_OF_STRANGE_DATA) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"not a manifest of the format {FORMAT}: {_why(error)}") from error
    if policy.fingerprint != report.fingerprint:
        raise ManifestError(
            f"the output mixes policies: the manifest names {policy.fingerprint}, its report is of "
            f"{report.fingerprint}; anonymize everything again with one policy"
        )
    files = {name: FileDigest(one.sha256, one.size) for name, one in body.files.items()}
    return Manifest(
        policy, report, files, body.fields, body.kind, body.versions, body.created, body.source, body.seal
    )


def read_manifest(
    folder: str | os.PathLike[str], *, own_code: Iterable[str] = (), run_key: Namer | None = None
) -> Manifest:
    """The manifest of an output: a local folder, or a URL that fsspec reads.

    own_code, run_key: as for :func:`from_json`.

    Raises:
        ManifestError: there is no manifest, or the file there is not one.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(os.fspath(folder))
        data: bytes = fs.cat_file(f"{root.rstrip('/')}/{FILE}")
    except FileNotFoundError as error:
        raise ManifestError(
            "the folder has no manifest: the run that wrote it did not come to its end, or no run of anondata wrote "
            "it. Run the same command again, which does the rest"
        ) from error
    except Exception as error:  # storages raise what they like; its text would name the place
        raise ManifestError(f"the folder's manifest cannot be read: {type(error).__name__}") from error
    return from_json(data, own_code=own_code, run_key=run_key)


def content_digest(sha256s: Iterable[str]) -> str:
    """One digest for the contents of many files, in whatever order: over their sorted sha256, as hexadecimal digits.

    >>> content_digest(["b", "a"]) == content_digest(["a", "b"]) != content_digest(["a"])
    True
    """
    whole = hashlib.sha256()
    for one in sorted(sha256s):
        whole.update(f"{one}\n".encode())
    return whole.hexdigest()


def software() -> dict[str, str]:
    """Versions of what a result may depend on, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Differences:
    """How a folder differs from its manifest: paths of files that are missing, changed, or in no manifest."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.strange)

    @property
    def words(self) -> str:
        """Counts without names, such as ``1 changed, 2 in no manifest``."""
        kinds = {"missing": self.missing, "changed": self.changed, "in no manifest": self.strange}
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names) or "none"


def differences(
    manifest: Manifest,
    folder: str | os.PathLike[str],
    *,
    ignored: Iterable[str] = (),
    show: Any = lambda done: None,
) -> Differences:
    """Reads every file of a folder or URL again and compares it with the manifest.

    ignored: paths, or folders as ``name/``, that need not be in the manifest. show: is told how many files are done.
    Links count as files in no manifest: what they lead to could change.

    Raises:
        ManifestError: the folder cannot be read.
    """
    from anondata import _trees

    try:
        return Differences(*_trees.compare(manifest.files, os.fspath(folder), tuple(ignored), show))
    except Exception as error:  # storages raise what they like; its text would name the place
        raise ManifestError(f"the folder cannot be read: {type(error).__name__}") from error


def digest_of(path: str | os.PathLike[str]) -> FileDigest:
    """What a local file is now."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(sha256, Path(path).stat().st_size)


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path:
        raise ValueError("a file's path leads out of the folder")
    return path


def _is_sealed(body: Mapping[str, Any], run_key: Namer) -> bool:
    """Whether a manifest that nothing was made of yet has the seal of a run key."""
    text = json.dumps({**body, "seal": ""}, sort_keys=True)
    return hmac.compare_digest(str(body.get("seal")).encode(), run_key.name("manifest", text).encode())


def _modules_named(data: Any) -> set[str]:
    """Modules of what looks like a class's dotted path: for the message; what holds is `own_code_of`."""
    if isinstance(data, Mapping):
        parts = [part for key, value in data.items() if key != "about" for part in (key, value)]
        return set().union(*map(_modules_named, parts))
    if isinstance(data, list):
        return set().union(*map(_modules_named, data))
    return {data.partition(":")[0]} if isinstance(data, str) and _OWN_CODE.fullmatch(data) else set()


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):  # its text would show values
        places = {".".join(str(part) for part in one["loc"][:1]) for one in error.errors(include_input=False)}
        return f"wrong or missing: {', '.join(sorted(places))}"
    return str(error) if isinstance(error, PolicyError | ReportError) else type(error).__name__


class _Digest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Body(BaseModel):
    """The JSON form."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["anondata.manifest/1"]
    kind: Kind
    created: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    policy: dict[str, Any]
    report: dict[str, Any]
    fields: dict[str, str]
    files: dict[Annotated[str, AfterValidator(_inside)], _Digest]
    versions: dict[str, str]
    source: str
    seal: str
