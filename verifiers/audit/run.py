"""From a stream of pairs to templates: pictures come and go, a few numbers of each face stay."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anondata.errors import AuditError
from anondata.protocols import Embedder
from anondata.regions import cat_regions
from anondata.verifiers.audit.attacks import ANONYMIZED, CLEAR, GATE_FAR, VIEWS, FaceTable, gate_threshold, refused
from anondata.verifiers.audit.faces import Eyes, PhotoPair, SeenFace, SeenPair
from anondata.verifiers.audit.groups import binned
from anondata.verifiers.audit.metrics import Bools, Floats, share

BATCH = 32  # faces in one call of a network
BATCH_BYTES = 256 << 20  # or as many as fit, where faces are large

PROBLEMS = ("unreadable_original", "unreadable_anonymized", "different_shape", "no_face")
UNUSABLE = PROBLEMS[:3]

Show = Callable[[int, int], None]
"""Takes how many pairs are done, and how many of them could not be used."""


@dataclass(frozen=True)
class Known:
    """What stays of a face beside its templates."""

    photo: int
    identity: str = field(repr=False)
    groups: Mapping[str, str] = field(repr=False)
    found_by: tuple[str, ...]
    detected_after: bool
    unchanged: bool


@dataclass(frozen=True, eq=False)
class Collected:
    """All ``F`` faces of an audit. counts: of pairs, by what became of them. templates: by network and view."""

    faces: tuple[Known, ...]
    templates: Mapping[str, Mapping[str, Floats]]
    counts: Mapping[str, int]


def collect(
    pairs: Iterable[PhotoPair], eyes: Eyes, networks: Sequence[Embedder], *, workers: int, show: Show
) -> Collected:
    """Looks at all pairs, ``workers`` at a time. Their number changes nothing in the result.

    Raises: AuditError when no pair shows a face.
    """
    counts, known = Counter[str](), list[Known]()
    parts: dict[tuple[str, str], list[Floats]] = {(n.name, view): [] for n in networks for view in VIEWS}
    for batch in _batches(_seen(_in_order(eyes.see, pairs, workers), counts, show)):
        known += [Known(photo, f.identity, f.groups, f.found_by, f.detected_after, f.unchanged) for photo, f in batch]
        for network in networks:
            for view in VIEWS:
                parts[network.name, view].append(_embedded([face for _, face in batch], network, view))
    if not known:
        raise AuditError(nothing(counts))
    templates = {n.name: {view: np.concatenate(parts[n.name, view]) for view in VIEWS} for n in networks}
    return Collected(
        tuple(known), templates, {key: counts[key] for key in ("pairs", *PROBLEMS, "unlike", "left_alone")}
    )


def nothing(counts: Mapping[str, int]) -> str:
    """Why there is nothing to attack."""
    if not counts["pairs"]:
        return "there is no pair of an original and an anonymized picture"
    told = ", ".join(f"{counts[key]} {key.replace('_', ' ')}" for key in PROBLEMS if counts[key])
    return f"none of {counts['pairs']} pairs shows a face to be attacked ({told})"


def _in_order(see: Callable[[PhotoPair], SeenPair], pairs: Iterable[PhotoPair], workers: int) -> Iterator[SeenPair]:
    """Results in the order of the pairs, of which no more are in memory than there are workers."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[SeenPair]] = deque()
        for pair in pairs:
            waiting.append(pool.submit(see, pair))
            if len(waiting) >= workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _seen(results: Iterable[SeenPair], counts: Counter[str], show: Show) -> Iterator[tuple[int, SeenFace]]:
    for number, seen in enumerate(results):
        counts.update({"pairs": 1, seen.problem: 1, "unlike": int(seen.unlike), "left_alone": seen.left_alone})
        for face in seen.faces:
            yield number, face
        show(number + 1, sum(counts[key] for key in UNUSABLE))


def _batches(faces: Iterable[tuple[int, SeenFace]]) -> Iterator[list[tuple[int, SeenFace]]]:
    waiting, size = list[tuple[int, SeenFace]](), 0
    for number, face in faces:
        waiting.append((number, face))
        size += sum(part.numel() for part, _ in face.views.values())
        if len(waiting) >= BATCH or size >= BATCH_BYTES:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _embedded(faces: Sequence[SeenFace], network: Embedder, view: str) -> Floats:
    parts = [face.views[view] for face in faces]
    regions = cat_regions([region.renumbered(i) for i, (_, region) in enumerate(parts)])
    found: Floats = network.embed([part for part, _ in parts], regions).float().cpu().numpy()
    return found


def table_of(found: Collected, groups: Sequence[str]) -> FaceTable:
    """Faces with numbers for people. With no identity at all, everybody is somebody else.

    Raises: AuditError for a group column that nobody has, or of too many kinds.
    """
    names = [face.identity for face in found.faces]
    labelled = any(names)
    number = {name: i for i, name in enumerate(sorted({n for n in names if n}))}
    owners = [number.get(name, -1) for name in names] if labelled else list(range(len(names)))
    columns = {}
    for column in groups:
        values = [face.groups.get(column, "") for face in found.faces]
        if not any(values):
            raise AuditError("a group column is in no row of the metadata; --group names one that is")
        columns[column] = binned(values)
    photos = np.array([face.photo for face in found.faces], dtype=np.int64)
    return FaceTable(photos, np.array(owners, dtype=np.int64), columns, found.templates, labelled)


def fates(found: Collected, table: FaceTable, detectors: Sequence[str]) -> dict[str, Any]:
    """What became of the faces, for the report.

    missed: unchanged ones that are faces beyond doubt: marked by somebody, or found by every detector there is.
    unchanged_found_by: all unchanged ones by who finds them, so also those that are a face to one detector only.
    """
    finders = Counter("+".join(face.found_by) or "nobody" for face in found.faces if face.unchanged)
    if found.counts["left_alone"]:
        finders[f"{detectors[-1]} alone"] += found.counts["left_alone"]
    certain = [face for face in found.faces if "marked" in face.found_by or set(detectors) <= set(face.found_by)]
    known = table.owners >= 0
    seen_in = np.unique(np.stack([table.owners[known], table.photos[known]]), axis=1)[0]
    people, photos = np.unique(seen_in, return_counts=True)
    return {
        "in_originals": len(found.faces),
        "labelled": int((table.owners >= 0).sum()) if table.labelled else 0,
        "people": len(people) if table.labelled else None,
        "people_in_several_photos": int((photos > 1).sum()) if table.labelled else None,
        "still_detected": sum(face.detected_after for face in found.faces),
        "missed": sum(face.unchanged for face in certain),
        "unchanged_found_by": dict(sorted(finders.items())),
    }


def gate_of(found: Collected, table: FaceTable, network: Embedder) -> dict[str, Any] | None:
    """What a self-match gate with this network would say of the faces; None where it has no threshold."""
    threshold = gate_threshold(network.name)
    views = found.templates[network.name]
    near: Bools | None = refused(views[CLEAR], views[ANONYMIZED], network.name)
    if threshold is None or near is None:
        return None
    people = np.where(table.owners >= 0, table.owners, -2 - np.arange(len(near)))
    return {
        "far": GATE_FAR,
        "distance": threshold.distance,
        "faces": len(near),
        "refused": share(near, people).to_json(),
    }
