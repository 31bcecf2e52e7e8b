"""Publishes an anonymized output with a card and a manifest, if its audit allows that."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import MissingExtraError, PublishError
from anondata.publishing.checks import audit_problems, checked, read_audit, seal_problems
from anondata.publishing.layout import AUDIT, CARD, CROISSANT, DATA, MANIFEST, PLOTS, POLICY, REPORT
from anondata.publishing.rows import LABEL, Options, write_rows
from anondata.samples import KEEP

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.randomness import RunKey

NEEDED = ("datasets", "huggingface_hub", "jinja2", "matplotlib", "mlcroissant")
Show = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""


@dataclass(frozen=True)
class About:
    """What only the publisher can say about a dataset.

    Args:
        title: the dataset's title.
        licence: an id of the Hub's list, such as ``cc-by-4.0``.
        summary: text about the data, in paragraphs.
        homepage: the address of a page about the dataset.
        sources: what it was made from: ids of datasets, or single words such as ``private``.
        tags: further tags for the Hub.
    """

    title: str
    licence: str
    summary: str | None = None
    homepage: str | None = None
    sources: Sequence[str] = ()
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Published:
    """What was published.

    Args:
        place: where it is.
        files, bytes, pictures: how much it is.
        sealed: whether the seal of the output holds; None if no run key was there to check it.
    """

    place: str
    files: int
    bytes: int
    pictures: int
    sealed: bool | None


def publish(
    folder: str | os.PathLike[str],
    *,
    audit: str | os.PathLike[str],
    about: About,
    to: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    public: bool = False,
    run_key: RunKey | bytes | None = None,
    own_code: Iterable[str] = (),
    rows_per_file: int | None = None,
    webdataset: bool = False,
    labels: bool = False,
    endpoint: str | None = None,
    show: Show = lambda what, done, total: None,
) -> Published:
    """Publishes an output of ``anonymize``, ``materialize`` or ``shards``, after checking all of it.

    Names of files and keys of samples are not published. Rows that are made of pictures are in the order of their
    digests.

    Args:
        folder: the output. Its run must have come to its end.
        audit: an ``audit.json``, or the folder that :meth:`anondata.Audited.write` wrote.
        about: what only the publisher can say.
        to: a folder that does not exist or is empty, or a URL that fsspec writes.
        repo_id: instead of ``to``, a dataset ``org/name`` on the Hugging Face Hub.
        public: everybody may see the repository. By default it is private.
        run_key: the key of the run, to check the output's seal.
        own_code: modules whose classes the policy may name. Not needed if the run key shows that the policy is yours.
        rows_per_file: rows of a parquet file; None makes files of about 256 MiB.
        webdataset: puts the shards beside the parquet files. Their keys must have been renamed.
        labels: for outputs of ``anonymize``: the folder that each picture lies in becomes the column ``label``. The
            folders' names come out.
        endpoint: the address of another Hub.
        show: called with what is being done, how far it is, and of how much.

    Returns:
        Where the publication is and how large it is.

    Raises:
        ManifestError: the output has no manifest, or one that contradicts itself; nothing was published.
        PublishError: the output may not be published, or it cannot be; nothing was published.
        CardError: the card lacks something.
        MissingExtraError: a package of the extras ``cards`` or ``hf`` is not installed.
    """
    check_packages()
    if (to is None) == (repo_id is None):
        raise PublishError("say where to publish: either to, a place, or repo_id")
    source, place = Path(folder), None if to is None else os.fspath(to)
    maker = _Maker(source, about, Options(rows_per_file, webdataset, labels), _key(run_key), tuple(own_code), show)
    api = _before(source, place, repo_id, public=public, endpoint=endpoint)
    body = read_audit(Path(audit))
    try:
        with tempfile.TemporaryDirectory(prefix=".anondata-", dir=_workshop(place)) as above:
            made = Path(above) / "publication"
            made.mkdir()
            published = maker.make(made, body)
            where = _send(made, place, api, repo_id, public=public, show=show)
    except OSError as error:
        if isinstance(error, PublishError):
            raise
        raise PublishError(f"the publication cannot be made: {error.strerror}; nothing was published") from error
    return Published(where, *published)


@dataclass(frozen=True)
class _Maker:
    """Makes a whole publication in a local folder."""

    source: Path
    about: About
    options: Options
    key: RunKey | None
    own_code: tuple[str, ...]
    show: Show

    def make(self, made: Path, audit: Mapping[str, Any]) -> tuple[int, int, int, bool | None]:
        """Number of files, bytes and pictures, and whether the seal held. Raises as :func:`publish` does."""
        from anondata.manifest import differences

        manifest, sealed = checked(
            self.source, self.key, own_code=self.own_code, show=self._showing("checking", None)
        )
        if self.options.webdataset and manifest.kind != "shards":
            raise PublishError("--webdataset is for outputs of `anondata shards`")
        if self.options.labels and manifest.kind != "images":
            raise PublishError("--labels is for outputs of `anondata anonymize`; others keep the columns of --keep")
        if manifest.policy.audit is None:  # known before the work, and told with the other problems
            self._refuse(audit_problems(manifest.policy, audit, pictures=0, digest=""), last=True)
        wanted = write_rows(self.source, manifest, made, self.options, self._showing("writing", len(manifest.files)))
        data = self._data(made, manifest)
        pictures = self._read_back(made, data, wanted)
        digest = _digest(pictures)
        found = audit_problems(manifest.policy, audit, pictures=pictures.total(), digest=digest)
        self._refuse((*found, *seal_problems(audit, self.key)))
        self._describe(made, data, audit, sealed)
        whole = self._whole(made, data)
        if differences(whole, made, ignored=[MANIFEST]):
            raise PublishError("the publication was changed while it was made; nothing was published")
        self._verify(made)
        return len(whole.files) + 1, sum(one.size for one in whole.files.values()), pictures.total(), sealed

    def _refuse(self, problems: Iterable[str], *, last: bool = False) -> None:
        found = list(problems)
        if found:
            raise PublishError("this may not be published: " + "; ".join(found[-1:] if last else found))

    def _data(self, made: Path, source: Manifest) -> Manifest:
        """The manifest of the rows, by which the card is written."""
        from dataclasses import replace

        from anondata.manifest import digest_of

        files = {DATA + path.name: digest_of(path) for path in sorted((made / DATA).iterdir())}
        fields = {"image": "image", **source.fields} if source.kind == "shards" else dict(source.fields)
        fields |= {LABEL: KEEP} if self.options.labels else {}
        return replace(source, files=files, fields=fields, kind="parquet", source=source.seal, seal="")

    def _read_back(self, made: Path, data: Manifest, wanted: Counter[str] | None) -> Counter[str]:
        """How often each picture is there. Every one must be of the output, and none may be missing."""
        import hashlib

        from anondata.publishing.pictures import pictures_in

        found: Counter[str] = Counter()
        for done, name in enumerate(data.files, 1):
            found.update(hashlib.sha256(one).hexdigest() for one in pictures_in(made / name, data.fields))
            self.show("reading back", done, len(data.files))
        if wanted is not None and found != wanted:
            raise PublishError("the written pictures are not those of the output; nothing was published")
        if not found:
            raise PublishError("the output holds no encoded picture; only those can be audited and published")
        return found

    def _describe(self, made: Path, data: Manifest, audit: Mapping[str, Any], sealed: bool | None) -> None:
        """Card, croissant, plots, policy, report and audit."""
        from anondata.cards.croissant import croissant_of
        from anondata.cards.readme import card_of
        from anondata.publishing.contents import contents_of
        from anondata.publishing.facts import facts_of

        (made / PLOTS).mkdir(parents=True)
        plots = _plots(audit, data, made / PLOTS)
        contents = contents_of(made, data)
        facts = facts_of(
            data,
            audit=audit,
            title=self.about.title,
            licence=self.about.licence,
            splits=contents.splits,
            features=contents.features,
            files=contents.files,
            summary=self.about.summary,
            homepage=self.about.homepage,
            sources=self.about.sources,
            tags=self.about.tags,
            sealed=sealed,
            plots=[path.relative_to(made).as_posix() for path in plots if path.suffix == ".png"],
        )
        texts = {
            CARD: card_of(facts),
            CROISSANT: json.dumps(croissant_of(facts), indent=1, ensure_ascii=False) + "\n",
            REPORT: data.report.to_json(),
            AUDIT: json.dumps(audit, indent=1) + "\n",
            POLICY: data.policy.to_yaml(),
        }
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")

    def _whole(self, made: Path, data: Manifest) -> Manifest:
        """The publication's manifest, written."""
        from dataclasses import replace

        from anondata.manifest import digest_of

        paths = sorted(path for path in made.rglob("*") if path.is_file())
        whole = replace(data, files={path.relative_to(made).as_posix(): digest_of(path) for path in paths})
        whole = whole.sealed(self.key) if self.key else whole
        (made / MANIFEST).write_text(whole.to_json())
        return whole

    def _verify(self, made: Path) -> None:
        from anondata.publishing.verify import verify

        total = sum(1 for _ in made.rglob("*"))
        found = verify(
            made,
            own_code=self.own_code,
            run_key=self.key,
            show=lambda done: self.show("verifying", done, total),
        )
        bad = [check for check in found if check.ok is False]
        if bad:
            raise PublishError(f"the publication does not pass its own checks: {bad[0].name}: {bad[0].words}")

    def _showing(self, what: str, total: int | None) -> Callable[[int], None]:
        return lambda done: self.show(what, done, total or done)


def _digest(pictures: Counter[str]) -> str:
    from anondata.manifest import content_digest

    return content_digest(pictures.elements())


def _plots(audit: Mapping[str, Any], data: Manifest, folder: Path) -> list[Path]:
    from anondata.cards import audit_plots, report_plots

    return [*audit_plots.write_plots(audit, folder), *report_plots.write_plots(data.report, folder)]


def check_packages() -> None:
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise MissingExtraError(f"publishing needs {', '.join(lacking)}: pip install 'anondata[cards,hf]'")


def _key(given: RunKey | bytes | None) -> RunKey | None:
    from anondata.randomness import RunKey

    return RunKey(given) if isinstance(given, bytes) else given


def _before(source: Path, to: str | None, repo_id: str | None, *, public: bool, endpoint: str | None) -> Any:
    """Looks at the destination before the work; returns the Hub's client, where it is the Hub."""
    from anondata.publishing.send import check_place, check_repo

    if to is not None:
        check_place(to, source)
        return None
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    check_repo(api, str(repo_id), public=public)
    return api


def _workshop(to: str | None) -> Path | None:
    from anondata.publishing.send import workshop_of

    above = workshop_of(to)
    if above is not None:
        above.mkdir(parents=True, exist_ok=True)
    return above


def _send(made: Path, to: str | None, api: Any, repo_id: str | None, *, public: bool, show: Show) -> str:
    from anondata.publishing.send import commit, send

    total = sum(1 for path in made.rglob("*") if path.is_file())
    if to is not None:
        send(made, to, lambda done: show("sending", done, total))
        return to
    return commit(made, api, str(repo_id), public=public, show=lambda done: show("sending", done, total))


__all__ = ["About", "Published", "publish"]
