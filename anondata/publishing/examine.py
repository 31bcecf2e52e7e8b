"""The pictures of a publication: do they decode, hold nothing beside pixels, and show somebody who may be named?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import UndecodableError
from anondata.samples import comes_out

if TYPE_CHECKING:
    from torch import Tensor

    from anondata.manifest import Manifest
    from anondata.policy import DetectorStep, Policy
    from anondata.protocols import Embedder
    from anondata.verifiers.gallery import Gallery

GATE_FAR = 0.01
_OURS = ("insights", "anondata", "anondata.txt")  # what anondata adds: texts, and what came of a sample
_FOOTER = (b"ARROW:schema", b"huggingface", b"content_defined_chunking")


@dataclass
class Seen:
    """What was seen in the pictures so far. faces: still found, in ``looked`` of them; near: by gallery."""

    digests: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    extras: Counter[str] = field(default_factory=Counter)
    looked: int = 0
    faces: int = 0
    near: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        from anondata.manifest import content_digest

        return content_digest(self.digests.elements())


@dataclass(frozen=True)
class FaceLook:
    """What a second look at the faces needs. limit: of how many pictures; None is all of them, 0 none."""

    policy: Policy
    limit: int | None
    galleries: Mapping[str, Gallery] = field(default_factory=dict)

    def _detect(self) -> list[DetectorStep]:
        """The policy's detectors, and ours: one whose maker wants nobody to be found could name a blind one."""
        from anondata.policy import load_policy

        parts = [part for one in (self.policy, load_policy("faces")) for part in one.own.values()]
        own = [step for part in parts for step in part.detect]
        return [step for i, step in enumerate(own) if step not in own[:i]]

    def scan(self) -> Callable[[Any, Seen], None]:
        """A function that looks for faces in one decoded picture."""
        import torch

        from anondata.detectors.centerface import MERGE_IOU
        from anondata.detectors.pyramid import merge
        from anondata.regions import cat_regions
        from anondata.verifiers.embedders import embedder_of_file

        detectors = [step.make() for step in self._detect()]
        known: list[tuple[str, Gallery, Embedder, float]] = []
        for name, gallery in self.galleries.items():
            embedder = embedder_of_file(gallery.embedder)
            gallery.check_embedder(embedder.name, embedder.fingerprint)
            known.append((name, gallery, embedder, _radius(gallery)))

        def look(view: Tensor, seen: Seen) -> None:
            with torch.no_grad():
                found = cat_regions([detector.detect([view]) for detector in detectors])
                seen.faces += len(merge(found, iou=MERGE_IOU))
                for name, gallery, embedder, radius in known if len(found) else ():
                    distance = gallery.search(embedder.embed([view], found)).distance[:, 0]
                    # Merged after it is known who is near: the surer box of a face may have the worse template.
                    seen.near[name] += len(merge(found.select(distance <= radius), iou=MERGE_IOU))

        return look


def _radius(gallery: Gallery) -> float:
    from anondata.verifiers.calibration import shipped

    return float(shipped(gallery.embedder).at(GATE_FAR).distance)


def look_at(
    paths: Iterable[tuple[str, Any]], manifest: Manifest, look: FaceLook, show: Callable[[int], None]
) -> Seen:
    """Looks at every picture of parquet files, each given by a context that yields its path.

    Raises: PublishError for a file that cannot be read.
    """
    seen, scan = Seen(), None
    for done, (_, opened) in enumerate(paths, 1):
        with opened as path:
            for data in _pictures(path, manifest):
                for view in _examined(data, seen):
                    if look.limit is not None and seen.looked >= look.limit:
                        break
                    scan = scan or look.scan()
                    scan(view, seen)
                    seen.looked += 1
        show(done)
    return seen


def _pictures(path: Path, manifest: Manifest) -> Iterable[bytes]:
    from anondata.publishing.pictures import pictures_in

    return pictures_in(path, manifest.fields)


def undeclared(files: Iterable[Any], manifest: Manifest) -> set[str]:
    """Columns, and words in footers, of parquet files that nobody declared. Pictures are looked at, declared or not.

    Raises: CardError, and what the storage raises.
    """
    import pyarrow.parquet as pq
    from datasets import Features

    from anondata.publishing.pictures import has_images

    known = {name for name, kind in manifest.fields.items() if comes_out(kind)} | set(_OURS)
    known |= {name.partition(".")[0] for name in known}
    found: set[str] = set()
    for opened in files:
        with opened as file:
            parquet = pq.ParquetFile(file)
            columns = Features.from_arrow_schema(parquet.schema_arrow)
            found |= {name for name, feature in columns.items() if name not in known and not has_images(feature)}
            found |= {repr(key) for key in parquet.metadata.metadata or {} if key not in _FOOTER}
    return found


def strange_members(shard: Path, manifest: Manifest, seen: Seen) -> int:
    """How many members of a shard were not declared, or are pictures that no row has. Raises: ShardsError."""
    from anondata.publishing.rows import shard_members

    known = {name for name, kind in manifest.fields.items() if comes_out(kind)} | set(_OURS)
    return sum(
        hashlib.sha256(data).hexdigest() not in seen.digests if picture else name not in known
        for name, data, picture in shard_members(shard, manifest.fields)
    )


def _examined(data: bytes, seen: Seen) -> list[Tensor]:
    """The decoded picture, or all of several in one file; none where one is broken. What it is gets counted."""
    import torch

    from anondata.content.base import parts_of
    from anondata.content.images import ImageContent
    from anondata.content.metadata import metadata_in

    seen.digests[hashlib.sha256(data).hexdigest()] += 1
    seen.extras.update(metadata_in(data))
    content = ImageContent()
    try:
        pictures = [picture for _, picture in parts_of(data)] or [data]
        return [content.view(content.decode(picture, torch.device("cpu"))) for picture in pictures]
    except UndecodableError:
        seen.broken += 1
        return []
