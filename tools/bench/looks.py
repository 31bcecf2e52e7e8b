"""Who gets out raw from pictures that are turned, dark, squeezed, of one channel or cut off, and what looking costs.

    python -m anondata.tools.bench.looks [--people 17] [--scenes 64] [--cifar 200]

The same pictures go through the policy ``faces`` with and without its further looks. A face counts as raw when less
than 95 % of its true box differs from the original. A picture that is withheld counts as covered.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.crops import resize
from anondata.policy import DetectorStep, Policy, ScanPolicy, load_policy
from anondata.tools.bench._common import Portrait, by_expression, data_folder, portraits, save, show
from anondata.tools.bench.detection import faceless as empty
from anondata.tools.bench.detection import scenes

Case = tuple[Tensor, Tensor]
"""A picture, and the boxes ``(N, 4)`` of its faces."""

EVEN = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(view: Tensor) -> Tensor:
    return (view.float() * EVEN).sum(0).round().to(torch.uint8).expand(3, -1, -1).contiguous()


def turned(view: Tensor, boxes: Tensor, quarters: int) -> Case:
    for _ in range(quarters):
        width = view.shape[2]
        view = torch.rot90(view, 1, (1, 2)).contiguous()
        boxes = torch.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], dim=1)
    return view, boxes


def stretched(view: Tensor, boxes: Tensor, across: float, down: float) -> Case:
    size = [round(view.shape[1] * down), round(view.shape[2] * across)]
    return resize(view[None], *size)[0], boxes * torch.tensor([across, down, across, down])


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(), dtype=torch.uint8)


def beside_a_window(view: Tensor, light: float) -> Tensor:
    """A float picture: the portrait at a share of the range, and a bright window beside it."""
    window = torch.rand(view.shape, generator=generator()) * 0.1 + 0.9
    return torch.cat([view.float() / 255 * light, window], dim=2)


def in_alpha(view: Tensor, levels: int, low: int) -> Tensor:
    """A plain picture whose alpha channel holds the portrait in a few levels, and a strip of noise."""
    face = (grey(view)[:1].float() / 255 * (levels - 1)).round().to(torch.uint8) + low
    face[:, -20:] = noise(1, 20, view.shape[2])
    return torch.cat([torch.full_like(view, 128), face])


def in_channel(view: Tensor, channel: int, others: Tensor) -> Tensor:
    out = others.clone()
    out[channel] = grey(view)[0]
    return out


def barred(view: Tensor, bars: Tensor) -> Tensor:
    out = view.clone()
    out[:, :, ::3] = bars[:, :, ::3]
    return out


def tight(p: Portrait, extent: float = 1.0) -> Case:
    """The face alone, as wide as its box."""
    x0, y0, x1, y1 = (round(v) for v in p.face.scaled(extent).boxes[0].tolist())
    view = p.view[:, max(y0, 0) : y1, max(x0, 0) : x1].contiguous()
    return view, torch.tensor([[0.0, 0, view.shape[2], view.shape[1]]]) * 0.8 + torch.tensor(
        [0.1 * view.shape[2], 0.1 * view.shape[1]]
    ).repeat(2)


def hand(view: Tensor) -> Tensor:
    """An oval of the skin's own colour over the mouth and one cheek."""
    height, width = view.shape[1:]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    skin = view[:, height // 2, width // 4].float()
    over = ((x - 0.35) / 0.4) ** 2 + ((y - 0.8) / 0.3) ** 2 < 1
    shade = (1 + 0.1 * torch.sin(x * 30))[None] * skin[:, None, None]
    return torch.where(over, shade.clamp(0, 255).to(torch.uint8), view)


def on_portraits(change: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    return lambda people: ((change(p.view), p.face.boxes) for p in people)


def turned_by(quarters: int) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    return lambda people: (turned(p.view, p.face.boxes, quarters) for p in people)


def shaped(across: float, down: float) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    return lambda people: (stretched(p.view, p.face.boxes, across, down) for p in people)


def closeup(change: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    def cases(people: Sequence[Portrait]) -> Iterator[Case]:
        for p in people:
            view, box = tight(p)
            yield change(view), box

    return cases


def tiny(width_px: int) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    def cases(people: Sequence[Portrait]) -> Iterator[Case]:
        for p in people:
            view, box = tight(p, 1.2)
            scale = width_px * 1.2 / view.shape[2]
            yield stretched(view, box, scale, scale)

    return cases


def cut_by_edge(side: str) -> Callable[[Sequence[Portrait]], Iterator[Case]]:
    """Two fifths of the face are beyond the picture's edge."""

    def cases(people: Sequence[Portrait]) -> Iterator[Case]:
        for p in people:
            x0, y0, x1, y1 = p.face.boxes[0].tolist()
            wide, high = x1 - x0, y1 - y0
            left, top, right, bottom = 0, 0, p.view.shape[2], p.view.shape[1]
            if side == "left":
                left = round(x0 + 0.4 * wide)
            elif side == "right":
                right = round(x1 - 0.4 * wide)
            elif side == "top":
                top = round(y0 + 0.4 * high)
            else:
                bottom = round(y1 - 0.4 * high)
            box = torch.tensor([[x0 - left, y0 - top, x1 - left, y1 - top]])
            size = torch.tensor([right - left, bottom - top]).repeat(2)
            yield p.view[:, top:bottom, left:right].contiguous(), torch.minimum(box.clamp(min=0), size)

    return cases


KINDS: Mapping[str, Callable[[Sequence[Portrait]], Iterator[Case]]] = {
    "upright": on_portraits(lambda v: v),
    **{f"turned {90 * quarters}": turned_by(quarters) for quarters in (1, 2, 3)},
    "at 5 % of the range, beside a window (float)": on_portraits(lambda v: beside_a_window(v, 0.05)),
    "at 3 % of the range, beside a window (float)": on_portraits(lambda v: beside_a_window(v, 0.03)),
    "at 5 % brightness": on_portraits(lambda v: (v.float() * 0.05).round().to(torch.uint8)),
    "in 16 levels of alpha, a strip of noise": on_portraits(lambda v: in_alpha(v, 16, 120)),
    "in 16 dark levels of alpha, a strip of noise": on_portraits(lambda v: in_alpha(v, 16, 0)),
    "overexposed": on_portraits(lambda v: (v.float() * 0.2 + 204).round().to(torch.uint8)),
    "squeezed to a third of the width": shaped(1 / 3, 1),
    "squeezed to 0.4 of the width": shaped(0.4, 1),
    "squeezed to a quarter of the height": shaped(1, 0.25),
    "in the red channel, noise in the others": on_portraits(lambda v: in_channel(v, 0, noise(*v.shape))),
    "in the green channel, noise in the others": on_portraits(lambda v: in_channel(v, 1, noise(*v.shape))),
    "in the blue channel, noise in the others": on_portraits(lambda v: in_channel(v, 2, noise(*v.shape))),
    "in the green channel, another picture in the others": on_portraits(
        lambda v: in_channel(v, 1, v.flip(2)[[1, 1, 1]])
    ),
    "every third column white": on_portraits(lambda v: barred(v, torch.full_like(v, 255))),
    "every third column noise": on_portraits(lambda v: barred(v, noise(*v.shape))),
    **{f"cut by the {side} edge": cut_by_edge(side) for side in ("left", "right", "top", "bottom")},
    "tight": closeup(lambda v: v),
    "tight, a hand before it": closeup(hand),
    "tight, lower half hidden": closeup(
        lambda v: torch.cat([v[:, : v.shape[1] // 2], v[:, v.shape[1] // 2 :] * 0 + 90], 1)
    ),
    "tight, overexposed": closeup(lambda v: (v.float() * 1.8 + 60).clamp(0, 255).to(torch.uint8)),
    "tight, noisy": closeup(
        lambda v: (v.float() + 70 * torch.randn(v.shape, generator=generator())).clamp(0, 255).to(torch.uint8)
    ),
    "tight, 12 px": tiny(12),
    "tight, 10 px": tiny(10),
}


def upright_alone() -> Policy:
    """The policy ``faces`` as it was before: without further looks, and without a second one."""
    policy = load_policy("faces")
    plain = [DetectorStep.model_validate({"centerface": {"looks": ["upright"], "second_look": False}})]
    again = {"centerface": {"threshold": 0.35, "smallest_px": 20, "looks": ["upright"], "second_look": False}}
    scan = ScanPolicy(passes=2, detect=[DetectorStep.model_validate(again)])
    content = policy.content["image"].model_copy(update={"detect": plain, "scan": scan})
    return policy.model_copy(update={"content": {"image": content}})


def raw(anonymizer: Anonymizer, view: Tensor, boxes: Tensor) -> list[bool]:
    """Whether each face came out as it was."""
    [outcome] = anonymizer.anonymize([view])
    if not isinstance(outcome, Released) or not isinstance(outcome.image, Tensor):
        return [False] * len(boxes)
    changed = (view != outcome.image).any(dim=0).float()
    out = []
    for x0, y0, x1, y1 in boxes.round().int().tolist():
        out.append(float(changed[max(y0, 0) : y1, max(x0, 0) : x1].mean()) < 0.95)
    return out


def by_kind(people: Sequence[Portrait], policies: Mapping[str, Anonymizer]) -> list[dict[str, Any]]:
    """Raw faces of each kind of picture."""
    rows = []
    for kind, made in KINDS.items():
        cases = list(made(people))
        row: dict[str, Any] = {"pictures": kind, "faces": len(cases)}
        row |= {n: sum(x for view, boxes in cases for x in raw(a, view, boxes)) for n, a in policies.items()}
        rows.append(row)
        print(row, flush=True)
    return rows


def by_orientation(count: int, policies: Mapping[str, Anonymizer]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Raw faces of the scenes in every orientation, and images a second, both policies in turn."""
    taken, rows = dict.fromkeys(policies, 0.0), []
    pictures = scenes()[:count]
    for colours in ("colour", "grey"):
        for quarters in range(4):
            row: dict[str, Any] = {"pictures": f"scenes in {colours}, turned {90 * quarters}"}
            row["faces"] = sum(len(boxes) for _, boxes in pictures)
            row |= dict.fromkeys(policies, 0)
            for upright, boxes in pictures:
                view, places = turned(upright if colours == "colour" else grey(upright), boxes, quarters)
                for name, anonymizer in policies.items():
                    start = time.process_time()
                    row[name] += sum(raw(anonymizer, view, places))
                    taken[name] += time.process_time() - start
            rows.append(row)
            print(row, flush=True)
    return rows, {name: round(8 * len(pictures) / seconds, 2) for name, seconds in taken.items()}


def faceless(policies: Mapping[str, Anonymizer], cifar: int) -> list[dict[str, Any]]:
    """Of pictures without people, how many are changed."""
    rows = []
    for name, views in {"scikit-image": empty(), "CIFAR-10, enlarged": enlarged(cifar)}.items():
        row: dict[str, Any] = {"pictures": name, "of": len(views)}
        for policy, anonymizer in policies.items():
            outcomes = [anonymizer.anonymize([view])[0] for view in views]
            row[policy] = sum(not isinstance(o, Released) or bool(o.record.regions) for o in outcomes)
        rows.append(row)
        print(row, flush=True)
    return rows


def enlarged(count: int) -> list[Tensor]:
    """Pictures of CIFAR-10's training part, which nothing was tuned on, at 224 px."""
    table = pq.read_table(data_folder() / "cifar10" / "train.parquet").take(list(range(0, 40 * count, 40)))
    out = []
    for row in table.to_pylist():
        small = np.array(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        out.append(resize(torch.from_numpy(small).permute(2, 0, 1)[None], 224, 224)[0])
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=17)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--cifar", type=int, default=200)
    given = parser.parse_args(arguments)
    key = RunKey(b"benchmark, not a secret")
    policies = {"before": Anonymizer(upright_alone(), run_key=key), "now": Anonymizer("faces", run_key=key)}
    for anonymizer in policies.values():
        anonymizer.anonymize([portraits()[0].view])  # loads networks
    people = by_expression("smiling")[:: max(1, 51 // given.people)][: given.people]
    false = faceless(policies, given.cifar)
    kinds = by_kind(people, policies)
    orientations, rates = by_orientation(given.scenes, policies)
    show("raw faces", list(kinds[0]), [list(r.values()) for r in [*orientations, *kinds]])
    show("pictures without people that were changed", list(false[0]), [list(r.values()) for r in false])
    show("images a second of processor time", list(rates), [list(rates.values())])
    save("looks", {"raw": [*orientations, *kinds], "false": false, "images_per_cpu_s": rates})


if __name__ == "__main__":
    main()
