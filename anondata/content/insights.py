"""Insights: short texts that tell what anonymization took away but a task may need.

"2 faces: one at the left, large, turned to the left; one at the right, small. The picture was dark." All of it is
put together from closed vocabularies, because free text about people identifies them. Nothing is told of a face but
where it is, how large, and which way it is turned: colours of hair and skin identify (a fill with a face's mean
colour let an attacker name 22-40 % of 51 people).

Source: the additional insights of US 12387004 B2 (Disney, 2025), figure 5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from anondata.regions import Regions

SAMPLED_PX = 4096  # pixels that tell light and colours: a grid of 64 x 64
TOLD = 4  # regions that are told one by one; of more only how many there are

# The tip of a nose is about half as far in front of the eyes as they are apart, so that a head turned by an angle
# moves it sideways by tan(angle) / 2 of their distance as seen: 30 degrees make 0.3. Whether somebody smiles is not
# told: the width of the mouth told 51 smiling people from neutral ones with an AUC of 0.73 (CenterFace's landmarks).
TURNED = 0.3

DARK, BRIGHT = 0.25, 0.75  # mean luma, of 1
CHANGED = 0.1  # difference of mean luma that is told
DOMINANT = 0.4  # share of the picture that makes a colour the dominant one

COUNTS = ("no", "one", "two", "three", "four")
COLOURS = ("black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink")


def describe(before: Tensor, after: Tensor, regions: Regions) -> str:
    """What a picture showed, in words of closed vocabularies.

    before, after: ``(3, H, W)`` uint8, the original and the result. regions: what was found in it, of one image.
    """
    sentences = [_regions(regions, before.shape[-2:]), _light(before, after), _colour(before, after, regions)]
    return " ".join(sentence for sentence in sentences if sentence)


def _regions(regions: Regions, frame: Sequence[int]) -> str:
    counts = Counter(regions.kinds)
    if not counts:
        return "Nothing was found to anonymize."
    told = ", ".join(_many(kind, counts[kind]) for kind in sorted(counts))
    if len(regions) > TOLD:
        return f"{told[0].upper()}{told[1:]}."
    parts = [_region(one, frame) for one in sorted(regions, key=lambda one: float(one.boxes[0, 0]))]
    return f"{told[0].upper()}{told[1:]}: {'; '.join(parts)}."


def _many(kind: str, count: int) -> str:
    word = COUNTS[count] if count < len(COUNTS) else str(count)
    return f"{word} {kind}{'' if count == 1 else 's'}"


def _region(region: Regions, frame: Sequence[int]) -> str:
    height, width = frame
    x0, y0, x1, y1 = region.boxes[0].tolist()
    side = _third((x0 + x1) / 2 / width, ("left", "centre", "right"))
    level = _third((y0 + y1) / 2 / height, ("top", "middle", "bottom"))
    share = (y1 - y0) / height
    size = "large" if share > 1 / 3 else "small" if share < 1 / 10 else "medium"
    return ", ".join(word for word in (f"{level} {side}", size, _turned(region)) if word)


def _third(place: float, words: tuple[str, str, str]) -> str:
    return words[min(max(int(place * 3), 0), 2)]


def _turned(region: Regions) -> str:
    if region.kinds[0] != "face" or not bool(region.has_landmarks[0]):
        return ""
    left, right, nose = region.landmarks[0, 0], region.landmarks[0, 1], region.landmarks[0, 2]
    eyes = right - left
    distance = float(eyes.norm())
    if not distance:
        return ""
    aside = float(((nose - (left + right) / 2) * eyes).sum()) / distance**2  # along the line of the eyes
    return (
        "turned to the left"
        if aside < -TURNED
        else "turned to the right"
        if aside > TURNED
        else "seen from the front"
    )


def _light(before: Tensor, after: Tensor) -> str:
    was, is_now = _luma(before), _luma(after)
    word = "dark" if was < DARK else "bright" if was > BRIGHT else ""
    now = "" if abs(was - is_now) < CHANGED else "darker" if is_now < was else "brighter"
    if word:
        return f"The picture was {word}{f' and is {now} now' if now else ''}."
    return f"The picture is {now} now." if now else ""


def _colour(before: Tensor, after: Tensor, regions: Regions) -> str:
    """The dominant colour beside the regions, whose own could tell who it is."""
    mask = torch.zeros(before.shape[-2:], dtype=torch.bool)
    for x0, y0, x1, y1 in regions.scaled(2.0).boxes.tolist():
        mask[max(math.floor(y0), 0) : max(math.ceil(y1), 0), max(math.floor(x0), 0) : max(math.ceil(x1), 0)] = True
    was, is_now = _dominant(before, mask), _dominant(after, mask)
    if not was:
        return ""
    changed = f" and is {is_now} now" if is_now and is_now != was else ""
    return f"Its dominant colour was {was}{changed}."


def _grid(height: int, width: int) -> tuple[slice, slice]:
    step = max(1, math.isqrt(height * width // SAMPLED_PX))
    return slice(None, None, step), slice(None, None, step)


def _luma(pixels: Tensor) -> float:
    """Mean luma in [0, 1] (ITU-R BT.601)."""
    rows, columns = _grid(*pixels.shape[-2:])
    red, green, blue = pixels[:, rows, columns].float().mean(dim=(1, 2)) / 255
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


def _dominant(pixels: Tensor, mask: Tensor) -> str:
    rows, columns = _grid(*pixels.shape[-2:])
    seen = pixels[:, rows, columns].float().cpu()[:, ~mask[rows, columns]] / 255
    if not seen.shape[1]:
        return ""
    names = _names(seen)
    counts = torch.bincount(names, minlength=len(COLOURS))
    best = int(counts.argmax())
    return COLOURS[best] if int(counts[best]) >= DOMINANT * seen.shape[1] else ""


def _names(colours: Tensor) -> Tensor:
    """``(N,)`` index of the basic colour term of ``(3, N)`` colours in [0, 1].

    By hue, saturation and value; the terms are those of Berlin and Kay (1969), Basic Color Terms.
    """
    high, which = colours.max(dim=0)
    low = colours.min(dim=0).values
    chroma = high - low
    saturation = chroma / high.clamp(min=1e-6)
    red, green, blue = colours
    safe = chroma.clamp(min=1e-6)
    hue = 60 * torch.stack([((green - blue) / safe) % 6, (blue - red) / safe + 2, (red - green) / safe + 4])
    hue = hue.gather(0, which[None])[0]
    edges = torch.tensor([15.0, 45.0, 70.0, 165.0, 255.0, 290.0, 345.0], device=colours.device)
    by_hue = torch.tensor([3, 4, 6, 7, 8, 9, 10, 3], device=colours.device)
    names = by_hue[torch.bucketize(hue, edges)]
    names = torch.where((names == 4) & (high < 0.6), 5, names)  # a dark orange is brown
    names = torch.where((names == 3) & (saturation < 0.5) & (high > 0.7), 10, names)  # a pale red is pink
    grey = (saturation < 0.15) | (chroma < 0.06)
    names = torch.where(grey, torch.where(high > 0.85, 1, 2), names)
    return torch.where(high < 0.2, 0, names)
