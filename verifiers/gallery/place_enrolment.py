"""From photos to a gallery of places: what features each has, or why it was refused."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anondata.errors import GalleryError, MissingExtraError, WeightsError
from anondata.verifiers.gallery.examination import view_of
from anondata.verifiers.gallery.photos import Photo
from anondata.verifiers.gallery.place_search import Limits, agreement
from anondata.verifiers.local_features import SIDE_PX, Features, features

log = logging.getLogger("anondata")

# Matches that a crop of a photo, four fifths of it, must have in common with it. The poorest of 87 photos, a road
# under clouds, has 145 with another view; a gallery of 500 photos takes 20.
PLAIN: Limits = (40, 40)
CROP = 0.1  # of each side, off each edge


@dataclass(frozen=True, eq=False)
class ExaminedPlace:
    """A photo after all checks: either features, or the reason why there are none.

    number: place in the stream, from 1. reason: a key of :data:`anondata.verifiers.gallery.examination.REASONS`,
    ``too_plain`` for a photo of which another view would not be found, empty for one that was taken.
    """

    number: int
    name: str = field(repr=False)
    reason: str = ""
    features: Features | None = field(default=None, repr=False)


@torch.no_grad()
def examine_places(photos: Iterable[Photo], *, device: torch.device | str = "cpu") -> Iterator[ExaminedPlace]:
    """Every photo's outcome, in order, while the stream goes on.

    Raises:
        WeightsError, MissingExtraError: the network cannot be loaded.
    """
    for number, photo in enumerate(photos, 1):
        view = view_of(photo, device)
        name = photo.identity if isinstance(photo.identity, str) else ""
        found = _features(view) if isinstance(view, Tensor) else view
        yield ExaminedPlace(number, name, found) if isinstance(found, str) else ExaminedPlace(number, name, "", found)


def _features(view: Tensor) -> Features | str:
    try:
        found, again = features(view, side_px=SIDE_PX), features(_cropped(view), side_px=SIDE_PX)
    except (WeightsError, MissingExtraError, GalleryError):
        raise
    except Exception as error:  # noqa: BLE001 - one photo must not cost the others; the text could quote it
        log.error("a photo was refused because of %s", type(error).__name__)
        return "error"
    return found if agreement(found, again, PLAIN) > 1 else "too_plain"


def _cropped(view: Tensor) -> Tensor:
    height, width = view.shape[-2:]
    y, x = int(height * CROP), int(width * CROP)
    return view[:, y : height - y, x : width - x]
