"""Running a known technique again with keys of the attacker's own: all that an attacker needs is the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anondata.content.images import ImageContent
from anondata.crops import cut, outer_rects, resize
from anondata.randomness import RunKey
from anondata.regions import Regions, cat_regions
from anondata.transforms.base import RegionTransform
from anondata.verifiers.audit.change import scaled
from anondata.verifiers.audit.crops import REACH, SIDE_PX, face_alone

RELEASES = (2, 5, 10, 50)  # of one photo under different keys, which are averaged
SLOW = 10  # releases of a technique that computes with a network for each region, as style transfer does
ENOUGH_PX = 96  # width of a face at which a technique is run again: strength is relative to the face
AT_ONCE = 10
KEPT = 6  # single runs that others learn from
VIEWED = 3  # of these, for networks
_KEY = RunKey(b"the attackers' own key, which is no secret")


def releases_of(technique: RegionTransform) -> tuple[int, ...]:
    """How many releases are averaged; none where a technique draws nothing, so that all would be the same."""
    most = SLOW if technique.networks and not technique.redraws else RELEASES[-1]
    return tuple(n for n in RELEASES if n <= most) if technique.draws else ()


def run_view(number: int) -> str:
    """The name of the view of one run."""
    return f"run {number}"


def mean_view(releases: int) -> str:
    """The name of the view of the mean of so many runs."""
    return f"mean of {releases}"


@dataclass(frozen=True, eq=False)
class Reruns:
    """What a technique makes of one face under other keys.

    singles: ``(K, 3, S, S)`` uint8 crops of a few runs. means: by number of runs, their mean as a crop ``(3, S, S)``
    in [0, 1]. views: pictures for networks, by name, of the face alone.
    """

    singles: Tensor
    means: Mapping[int, Tensor]
    views: Mapping[str, tuple[Tensor, Regions]]


def rerun(technique: RegionTransform, view: Tensor, face: Regions) -> Reruns:
    """Runs a technique on the one face of a picture as often as attackers ask for."""
    averaged = releases_of(technique)
    pictures, place = runs(technique, view, face, count=max(averaged, default=1))
    rects = outer_rects(place.boxes, REACH, torch.tensor(pictures.shape[-2:]))
    crops = torch.cat([cut(picture, rects, SIDE_PX) for picture in pictures])
    means = {n: crops[:n].mean(dim=0).half() for n in averaged or (1,)}
    views = {run_view(i): face_alone(picture, place) for i, picture in enumerate(pictures[:VIEWED])}
    for n in averaged:
        views[mean_view(n)] = face_alone(pictures[:n].float().mean(dim=0).round().to(torch.uint8), place)
    return Reruns((crops[:KEPT] * 255).round().to(torch.uint8), means, views)


def runs(technique: RegionTransform, view: Tensor, face: Regions, *, count: int) -> tuple[Tensor, Regions]:
    """``(count, 3, h, w)`` uint8 pictures of the one face, each changed with another seed, and the face in them.

    Seeds are of the content, so that no two photos share their draws and their order does not matter.
    """
    small, place = _shrunk(view, face)
    content_of, where = small.numpy().tobytes(), str(place.boxes.tolist())
    content = ImageContent()
    media, made = content.decode(small, torch.device("cpu")), []
    for start in range(0, count, AT_ONCE):
        number = range(start, min(start + AT_ONCE, count))
        regions = cat_regions([place.renumbered(i) for i in range(len(number))])
        seeds = [_KEY.seed("run", content_of, where, i) for i in number]
        patches = content.change([media] * len(number), regions, technique, seeds)
        made += [content.compose(media, [patch]).pixels for patch in patches]
    return torch.stack(made), place


def _shrunk(view: Tensor, face: Regions) -> tuple[Tensor, Regions]:
    shrink = min(1.0, ENOUGH_PX / max(float(face.sizes[0, 0]), 1e-3))
    if shrink == 1.0:
        return view.cpu(), face.to("cpu")
    height, width = (max(1, round(side * shrink)) for side in view.shape[1:])
    small = resize(view[None].cpu(), height, width)[0]
    return small, scaled(face.to("cpu"), (width / view.shape[2], height / view.shape[1]))
