"""From a stream of pairs to templates: pictures come and go, a few numbers of each face stay."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from anondata.errors import AuditError
from anondata.protocols import Embedder
from anondata.regions import cat_regions
from anondata.transforms.base import RegionTransform
from anondata.verifiers.audit.attacks import ANONYMIZED, CLEAR, GATE_FAR, VIEWS, FaceTable, gate_threshold, refused
from anondata.verifiers.audit.crops import ALIGNMENTS, Alignment
from anondata.verifiers.audit.evidence import Evidence
from anondata.verifiers.audit.faces import Eyes, PhotoPair, SeenFace, SeenPair
from anondata.verifiers.audit.groups import binned
from anondata.verifiers.audit.metrics import Bools, Floats, share
from anondata.verifiers.audit.rerun import Reruns

BATCH = 32  # faces in one call of a network
BATCH_BYTES = 256 << 20  # or as many as fit, where faces are large
MOST_PEOPLE = 150  # who are attacked without a network, for memory's sake: a face's crops are half a megabyte
MOST_PHOTOS = 4  # of each

PROBLEMS = ("unreadable_original", "unreadable_anonymized", "different_shape", "no_face")
UNUSABLE = PROBLEMS[:3]

T = TypeVar("T")
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
    """All ``F`` faces of an audit. counts: of pairs, by what became of them. templates: by network and view.

    closer: places of the faces that have crops, and these; templates of their further views.
    """

    faces: tuple[Known, ...]
    templates: Mapping[str, Mapping[str, Floats]]
    counts: Mapping[str, int]
    closer: Closer


@dataclass
class Closer:
    """What attackers without a network look at, of the faces in ``rows``; filled as pairs are looked at."""

    rows: list[int] = field(default_factory=list)
    before: dict[Alignment, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    after: dict[Alignment, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    runs: list[Reruns] = field(default_factory=list)
    templates: dict[tuple[str, str], list[Floats]] = field(default_factory=lambda: defaultdict(list))
    places: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, start: int, faces: Sequence[SeenFace], networks: Sequence[Embedder]) -> None:
        """Keeps what there is of a batch of faces, the first of which has the number ``start``."""
        chosen = [(start + i, face) for i, face in enumerate(faces) if face.before]
        for row, face in chosen:
            self.rows.append(row)
            self.places.append(face.place)
            for alignment in ALIGNMENTS:
                self.before[alignment].append(face.before[alignment])
                self.after[alignment].append(face.after[alignment])
            if face.runs:
                self.runs.append(replace(face.runs, views={}))  # pictures go, as all pictures do
        further = [view for view in chosen[0][1].views if view not in VIEWS] if chosen else []
        for view in further:
            for network in networks:
                self.templates[network.name, view].append(_embedded([face for _, face in chosen], network, view))

    def evidence(self, table: FaceTable, technique: RegionTransform | None) -> Evidence | None:
        """Of the faces whose person is known; None where there are none."""
        kept = [i for i, row in enumerate(self.rows) if table.owners[row] >= 0]
        if not kept:
            return None
        part = table.select(np.array([self.rows[i] for i in kept], dtype=np.int64))
        views = {name: dict(of) for name, of in part.templates.items()}
        for (network, view), batches in self.templates.items():
            views[network][view] = np.concatenate(batches)[kept]

        def stacked(crops: Sequence[Tensor], scale: float = 255.0) -> Floats:
            return np.stack([crops[i].numpy() for i in kept]).astype(np.float32) / scale

        means = [run.means for run in self.runs]
        return Evidence(
            replace(part, templates=views),
            {alignment: stacked(crops) for alignment, crops in self.before.items()},
            {alignment: stacked(crops) for alignment, crops in self.after.items()},
            technique if self.runs else None,
            np.stack([self.runs[i].singles.numpy() for i in kept]) if self.runs else None,
            {n: stacked([one[n] for one in means], 1.0) for n in means[0]} if means else {},
            np.array([self.places[i] for i in kept], dtype=np.float64),
        )


def collect(
    pairs: Iterable[PhotoPair],
    eyes: Eyes,
    networks: Sequence[Embedder],
    *,
    workers: int,
    show: Show,
    closely: bool = False,
) -> Collected:
    """Looks at all pairs, ``workers`` at a time. Their number changes nothing in the result.

    closely: keep what attackers without a network look at, of the first :data:`MOST_PEOPLE` people.

    Raises: AuditError when no pair shows a face.
    """
    counts, known, closer = Counter[str](), list[Known](), Closer()
    parts: dict[tuple[str, str], list[Floats]] = {(n.name, view): [] for n in networks for view in VIEWS}
    chosen = Choice() if closely else None
    asked = ((pair, chosen.of(pair) if chosen else frozenset[str]()) for pair in pairs)
    for batch in _batches(_seen(_in_order(lambda one: eyes.see(*one), asked, workers), counts, show)):
        closer.add(len(known), [face for _, face in batch], networks)
        known += [Known(photo, f.identity, f.groups, f.found_by, f.detected_after, f.unchanged) for photo, f in batch]
        for network in networks:
            for view in VIEWS:
                parts[network.name, view].append(_embedded([face for _, face in batch], network, view))
    if not known:
        raise AuditError(nothing(counts))
    templates = {n.name: {view: np.concatenate(parts[n.name, view]) for view in VIEWS} for n in networks}
    return Collected(
        tuple(known), templates, {key: counts[key] for key in ("pairs", *PROBLEMS, "unlike", "left_alone")}, closer
    )


class Choice:
    """Whose faces are looked at closely: the first people's, so many photos of each."""

    def __init__(self) -> None:
        self._photos = Counter[str]()

    def of(self, pair: PhotoPair) -> frozenset[str]:
        """The identities to be looked at in the next pair."""
        told = {pair.identity} if pair.faces is None else {face.identity for face in pair.faces}
        most = {name: MOST_PHOTOS if name else MOST_PEOPLE * MOST_PHOTOS // 2 for name in told}
        chosen = {
            name
            for name in told
            if self._photos[name] < most[name] and (name in self._photos or len(self._photos) < MOST_PEOPLE)
        }
        self._photos.update(chosen)
        return frozenset(chosen)


def nothing(counts: Mapping[str, int]) -> str:
    """Why there is nothing to attack."""
    if not counts["pairs"]:
        return "there is no pair of an original and an anonymized picture"
    told = ", ".join(f"{counts[key]} {key.replace('_', ' ')}" for key in PROBLEMS if counts[key])
    return f"none of {counts['pairs']} pairs shows a face to be attacked ({told})"


def _in_order(see: Callable[[T], SeenPair], pairs: Iterable[T], workers: int) -> Iterator[SeenPair]:
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
