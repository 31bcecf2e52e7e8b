"""The last look at a written file, before it is given away: nothing of an original may be in it.

::

    originals ──┐                                   ┌─ pictures: only what was released, byte for byte
                ├─ Traces.add ... Traces.check_file ┤
    released ───┘  (faces are compared here)        └─ all else: no part of an original's file, pixels or metadata

What is remembered of originals are digests and fingerprints, in memory alone and for one file: about 5 KB a sample,
12 KB while the file is searched. Faces are compared while the sample is at hand, and leave nothing; in kept pictures
they are looked for at every place (`anondata.loaders.leaks.placed`). The search takes any column, member, header, gap
or metadata, also in base64 or compressed (`anondata.loaders.leaks.readings`), reversed, or XORed with one byte.

What it does not find:

- pixels as floats, as text, of 16 bits, mirrored, or with channels in another order;
- pictures within a kept field that is no picture, more than the first of a kept AVIF or HEIC, and a kept TGA, PCX
  or PPM that ends early (a kept picture known by its first bytes that cannot be decoded is an error);
- base85, base32, percent-encoding, hexadecimal with spaces, base64 in UTF-16; zstd, lz4, Brotli and bare deflate
  within a value; what follows 64 MiB of something inflated;
- values in the dictionary of a compressed parquet column that no row uses;
- less than about 100 bytes of an original's file, of a large one less than a thirtieth; less than a quarter of a
  segment of metadata; and what `anondata.loaders.leaks.faces` says of faces below 16 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anondata.components import redraws
from anondata.loaders.leaks.faces import Box, near_copy
from anondata.loaders.leaks.files import pieces
from anondata.loaders.leaks.pictures import is_bare, is_picture, shows_picture, take_apart
from anondata.loaders.leaks.piece import Piece, leak
from anondata.loaders.leaks.placed import is_shown
from anondata.loaders.leaks.prints import Prints, Search
from anondata.loaders.leaks.readings import readings
from anondata.loaders.leaks.values import Value, digest, values_of
from anondata.records import RegionRecord, SampleRecord

_SEGMENTS = 8  # of metadata that are told apart


class Traces:
    """What is remembered of the samples of one file, to look for it in that file."""

    def __init__(self) -> None:
        self._index = Prints()
        self._released: set[bytes] = set()
        self._shown: set[bytes] = set()  # pixels of what was not released as bytes
        self._kept: set[bytes] = set()

    def add(
        self,
        originals: Mapping[str, Any],
        record: SampleRecord,
        released: Mapping[str, Any],
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        """Remembers a sample, and compares what was released of it with its originals.

        originals, released: fields that hold content, or lists of it. ``released`` is empty for a sample that was
        withheld; one that stands in for it is added like any. kept: fields that are written as they are; pictures
        and files among them may be in the file only if they are given here.

        Raises:
            LeakError: a released picture is the original, shows a face of it or holds more than pixels; or a kept one
                shows a face that was to be changed.
        """
        before, after = dict(values_of(originals)), dict(values_of(released))
        for place, value in after.items():
            self._allow(value)
            if place in before:
                _compare(before[place], value, _changed(record, place), "a released picture", drawn=True)
        if after:
            for _, value in values_of(kept or {}):
                self._keep(value, before, record)
        for place, value in before.items():
            self._remember(value, after.get(place, Value(b"")), _changed(record, place))

    def check_file(self, path: Path) -> None:
        """Looks through a written file.

        Raises:
            LeakError: something of an original, a picture that was not released, or a file that cannot be read.
            MissingExtraError: a parquet or Arrow file, where pyarrow is not installed.
        """
        search = self._index.search()
        for piece in pieces(path):
            self._check(piece, search)

    def _check(self, piece: Piece, search: Search) -> None:
        where, kind, data = piece
        if kind == "picture" or (kind == "value" and is_picture(data)):
            if self._is_released(data):
                return
            if digest(data) not in self._kept:
                raise leak(where, "holds a picture or file that was neither released nor kept")
        if search.finds(data, any_way=kind != "raw"):
            raise leak(where, "holds a part of an original, or completes one")
        if kind == "raw":
            return
        kept = digest(data) in self._kept  # and so compared, with all that it can be read as
        if not kept and shows_picture(data):
            raise leak(where, "holds a picture within something else")
        for reading in readings(data):
            if not kept and shows_picture(reading) and not self._is_released(reading):
                raise leak(where, "holds a picture that was not released, spelled out or compressed")
            if search.finds(reading):
                raise leak(where, "holds a part of an original, spelled out or compressed")

    def _is_released(self, data: bytes) -> bool:
        if digest(data) in self._released:
            return True
        return bool(self._shown) and is_bare(data) and Value(data).pixels_digest in self._shown

    def _allow(self, value: Value) -> None:
        if value.encoded is None:
            self._shown.add(value.pixels_digest)
        else:
            if is_picture(value.encoded) and not is_bare(value.encoded):
                raise leak("a released picture", "holds more than its pixels")
            self._released.add(digest(value.encoded))

    def _keep(self, value: Value, before: Mapping[str, Value], record: SampleRecord) -> None:
        if value.encoded is not None:
            self._kept.add(digest(value.encoded))
        spelled_out = () if is_picture(value.encoded or b"") else readings(value.encoded or b"")
        for picture in (value, *map(Value, spelled_out)):
            if picture.is_picture:
                self._shown |= {picture.pixels_digest} - {b""}
                for place, original in before.items():
                    changed = _changed(record, place)
                    _compare(original, picture, changed, "a kept picture")
                    _look_for(original, picture, changed)

    def _remember(self, original: Value, released: Value, changed: list[RegionRecord]) -> None:
        """Only what the released value does not share: the unchanged top of a picture may well be written alike."""
        parts = take_apart(original.raw)
        self._index.add(parts.pixels, without=released.raw)
        for segment in (*parts.metadata[:_SEGMENTS], b"".join(parts.metadata[_SEGMENTS:])):
            self._index.add_text(segment)
        if changed:
            self._index.add(original.raw_regions(changed), without=released.raw_regions(changed))


def _changed(record: SampleRecord, place: str) -> list[RegionRecord]:
    return [region for region in record.regions if region.place == place and not region.spared]


def _compare(original: Value, value: Value, changed: list[RegionRecord], what: str, *, drawn: bool = False) -> None:
    """Raises LeakError where a picture is its original, or shows a region of it almost as it was.

    drawn: whether the techniques of the record made the picture; in one that was kept nothing is redrawn.
    """
    if not changed:
        return
    before, after = original.pixels, value.pixels
    if before is None or after is None:
        raise leak(what, "cannot be decoded, and so not be compared with its original; leave it out, or keep a PNG")
    if before.shape == after.shape and torch.equal(before, after):
        raise leak(what, "is its original, in which something was to be changed")
    if any(near_copy(before, after, region.box, redrawn=drawn and redraws(region.technique)) for region in changed):
        raise leak(what, "shows a region almost as it was, though it was to be changed")


def _look_for(original: Value, kept: Value, changed: list[RegionRecord]) -> None:
    """Raises LeakError where a kept picture shows a region anywhere: a crop of it, or the original with a border."""
    if not changed or original.pixels is None or kept.pixels is None:
        return
    index = Prints()
    index.add(original.raw_regions([replace(region, box=_inner(region.box)) for region in changed]), without=b"")
    pixels = kept.pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
    boxes = [region.box for region in changed]
    if index.search().finds(pixels, any_way=True) or is_shown(original.pixels, kept.pixels, boxes):
        raise leak("a kept picture", "shows a region that was to be changed")


def _inner(box: Box) -> Box:
    """Without the corners of a box, which no technique need change."""
    across, down = (box[2] - box[0]) / 5, (box[3] - box[1]) / 5
    return (box[0] + across, box[1] + down, box[2] - across, box[3] - down)
