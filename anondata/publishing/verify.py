"""Checks a publication, wherever it lies, against what it says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from anondata.errors import AnondataError, ManifestError, PublishError
from anondata.publishing.checks import audit_problems
from anondata.publishing.examine import FaceLook, Seen, look_at, strange_members, undeclared
from anondata.publishing.layout import AUDIT, CARD, CROISSANT, DATA, MANIFEST, POLICY, REPORT, SHARDS, belongs
from anondata.publishing.place import Location

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.randomness import RunKey
    from anondata.verifiers.gallery import Gallery

IGNORED = (".gitattributes", ".git/", MANIFEST)
SHOWN = 3  # differences that are told of each kind
_NOT_AS_IT_SHOULD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
Json = Mapping[str, Any]
Show = Callable[[int], None]


@dataclass(frozen=True)
class Check:
    """One check of a publication.

    Args:
        name: what was checked.
        ok: whether it passed; None if it could not be checked, or only informs.
        words: what was found.
    """

    name: str
    ok: bool | None
    words: str


def verify(
    place: str | os.PathLike[str],
    *,
    limit: int | None = 0,
    galleries: Mapping[str, Gallery] | None = None,
    run_key: RunKey | None = None,
    own_code: Iterable[str] = (),
    show: Show = lambda done: None,
) -> list[Check]:
    """Checks a publication. Nothing in it is trusted, and none of its code is run.

    Args:
        place: a folder, a URL that fsspec reads, or ``hf://datasets/org/name``.
        limit: in how many pictures the policy's detectors look for faces; None means all.
        galleries: galleries by name. A face that is near one of their people fails. All pictures are looked at,
            unless ``limit`` says otherwise.
        run_key: the key of the run, to check the seal.
        own_code: modules whose classes the policy may name, because you trust its maker; they are imported and run.
        show: called with how many files were looked at.

    Returns:
        One check for each thing that was looked at. The publication is good if no ``ok`` is False.

    Raises:
        PublishError: the place cannot be read.
        GalleryError: a gallery was made with an unknown embedder.
    """
    there = Location(os.fspath(place))
    try:
        text = there.text(MANIFEST)
        manifest = _manifest(text, own_code, run_key)
    except ManifestError as error:
        return [Check("manifest", False, _printable(str(error)))]
    whole = limit if not galleries or limit else None
    found = _checks(there, manifest, FaceLook(manifest.policy, whole, galleries or {}), run_key, show)
    return [replace(check, words=_printable(check.words)) for check in found]


def _manifest(text: str | None, own_code: Iterable[str], run_key: RunKey | None) -> Manifest:
    from anondata.manifest import from_json

    if text is None:
        raise ManifestError(f"there is no {MANIFEST}: this is not a publication, or it is not complete")
    return from_json(text, own_code=own_code, run_key=run_key)


def _checks(
    place: Location, manifest: Manifest, look: FaceLook, run_key: RunKey | None, show: Show
) -> Iterator[Check]:
    from anondata.manifest import differences

    yield Check(
        "manifest", True, f"of {manifest.created}, policy {manifest.policy.name}, {len(manifest.files)} files"
    )
    yield _seal(manifest, run_key)
    found = differences(manifest, place.url, ignored=IGNORED, show=show)
    others = [name for name in manifest.files if not belongs(name)]
    told = [*([_named(found)] if found else []), *([_foreign(others)] if others else [])]
    yield Check("files", not told, "; ".join(told) or "as in the manifest")
    yield _guarded("report", lambda: _report(place, manifest))
    yield _guarded("policy", lambda: _policy(place, manifest))
    audit = _audit_of(place)
    names = [name for name in manifest.files if name.startswith(DATA)]
    try:
        seen = look_at(((name, place.file(name)) for name in names), manifest, look, show)
    except (PublishError, OSError, *_NOT_AS_IT_SHOULD):
        yield Check("pictures", False, "a file of rows cannot be read")
    else:
        yield _pictures(seen)
        yield _metadata(seen)
        yield _guarded("audit", lambda: _audit(manifest, audit, seen))
        yield from _faces(seen, look)
        yield _guarded("columns", lambda: _columns(place, manifest, seen))
    yield _guarded("card", lambda: _card(place, manifest, audit))
    yield _guarded("croissant", lambda: _croissant(place, manifest))


def _guarded(name: str, check: Callable[[], str]) -> Check:
    """A check whose function returns what is wrong. What cannot be looked at does not pass."""
    try:
        wrong = check()
    except AnondataError as error:
        wrong = str(error)
    except _NOT_AS_IT_SHOULD:  # what a stranger wrote may be of any kind
        wrong = "is not of the form that it should have"
    return Check(name, not wrong, wrong or "agrees")


def _printable(words: str) -> str:
    """Words that quote a stranger: nothing of them steers a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in words)


def _named(found: Any) -> str:
    """Names of a publication are no secret, but somebody may have put any number of files there."""
    kinds = {"missing": found.missing, "changed": found.changed, "in no manifest": found.strange}
    told = [f"{kind}: {', '.join(map(repr, names[:SHOWN]))}" for kind, names in kinds.items() if names]
    return f"{found.words} ({'; '.join(told)})"


def _foreign(names: list[str]) -> str:
    return f"{len(names)} that no publication has ({', '.join(map(repr, names[:SHOWN]))})"


def _columns(place: Location, manifest: Manifest, seen: Seen) -> str:
    """Nothing is in rows or shards but what was declared."""
    files = (place.opened(name) for name in manifest.files if name.startswith(DATA))
    if more := sorted(undeclared(files, manifest)):
        return f"{len(more)} that were not declared ({', '.join(map(repr, more[:SHOWN]))})"
    strange = 0
    for name in (name for name in manifest.files if name.startswith(SHARDS)):
        with place.file(name) as path:
            strange += strange_members(path, manifest, seen)
    return f"{strange} members of shards were not declared, or are in no row" if strange else ""


def _report(place: Location, manifest: Manifest) -> str:
    from anondata.report import from_json

    text = place.text(REPORT)
    return "" if text is not None and from_json(text) == manifest.report else "is not the manifest's"


def _policy(place: Location, manifest: Manifest) -> str:
    return "" if place.text(POLICY) == manifest.policy.to_yaml() else "is not the manifest's"


def _audit_of(place: Location) -> Json | None:
    body = None
    with suppress(PublishError, ValueError, RecursionError):
        body = json.loads(place.text(AUDIT) or "")
    return body if isinstance(body, dict) else None


def _audit(manifest: Manifest, audit: Json | None, seen: Seen) -> str:
    if audit is None:
        return "there is none"
    pictures, digest = seen.digests.total(), seen.digest
    return "; ".join(audit_problems(manifest.policy, audit, pictures=pictures, digest=digest))


def _seal(manifest: Manifest, run_key: RunKey | None) -> Check:
    if not manifest.seal:
        return Check(
            "seal", None if run_key is None else False, "there is none: it was published without its run key"
        )
    if run_key is None:
        return Check("seal", None, "not looked at: that needs the run key")
    holds = manifest.seal_holds(run_key)
    return Check("seal", holds, "holds" if holds else "does not hold: edited, or another key")


def _pictures(seen: Seen) -> Check:
    whole = seen.digests.total()
    if seen.broken or not whole:
        return Check("pictures", False, f"{seen.broken} of {whole} cannot be decoded" if whole else "there are none")
    return Check("pictures", True, f"all {whole} decode")


def _metadata(seen: Seen) -> Check:
    told = ", ".join(f"{word} in {count}" for word, count in seen.extras.most_common())
    return Check("metadata", not told, told or "none beside the pixels")


def _faces(seen: Seen, look: FaceLook) -> Iterator[Check]:
    if seen.looked:
        told = f"detectors still find {seen.faces} in {seen.looked} pictures"
        yield Check("faces", None, f"{told}; whether they can be named is what the audit tells")
    for name in look.galleries:
        near = seen.near[name]
        yield Check(f"gallery {name}", not near, f"{near} faces are near somebody" if near else "nobody is near")


def _card(place: Location, manifest: Manifest, audit: Json | None) -> str:
    from anondata.cards.check import check_card
    from anondata.publishing.contents import contents_of
    from anondata.publishing.facts import facts_of

    text = place.text(CARD)
    if text is None:
        return "there is none"
    data = replace(manifest, files={name: one for name, one in manifest.files.items() if name.startswith(DATA)})
    contents = contents_of(Path(place.root), data, opened=place.opened)
    facts = facts_of(
        data,
        audit=audit,
        title="a title",
        licence="other",
        splits=contents.splits,
        features=contents.features,
        files=contents.files,
    )
    found = check_card(text, facts)
    return "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _croissant(place: Location, manifest: Manifest) -> str:
    """Every digest that it tells is that of the file."""
    text = place.text(CROISSANT)
    if text is None:
        return "there is none"
    try:
        body = json.loads(text)
        told = {str(one["contentUrl"]): one["sha256"] for one in body["distribution"] if "sha256" in one}
    except (ValueError, KeyError, TypeError, RecursionError):
        return "cannot be read"
    wrong = [url for url, sha256 in told.items() if _digest(manifest, url) != sha256]
    return f"{len(wrong)} files have another digest" if wrong else ""


def _digest(manifest: Manifest, url: str) -> str | None:
    known = manifest.files.get(PurePosixPath(url).as_posix())
    return known.sha256 if known else None


__all__ = ["Check", "verify"]
