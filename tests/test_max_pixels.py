"""How large pictures may be, and how many of them a batch holds at once."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anondata import Anonymizer
from anondata.content.images import ImageContent
from anondata.engine import loop as engine
from anondata.policy import from_yaml, load_policy
from anondata.tools._memory import warning


def jpeg(side: int, level: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, 90, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_policy_says_how_large_pictures_may_be() -> None:
    default = load_policy("faces")
    small = from_yaml(default.to_yaml().replace("max_pixels: 178956970", "max_pixels: 2000"))
    assert small.fingerprint == default.with_max_pixels(2000).fingerprint != default.fingerprint
    released, withheld = Anonymizer(small, run_key=b"k" * 16).anonymize([jpeg(40), jpeg(64)])
    assert released.released
    assert (withheld.released, withheld.reason) == (False, "too_large")


def test_a_batch_holds_few_huge_pictures_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is settled before the next but one is decoded; outcomes are those of a batch that holds all."""
    alive, most, decode, render = 0, 0, ImageContent.decode, ImageContent.render

    def counted(self: ImageContent, value: Any, device: Any) -> Any:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return decode(self, value, device)

    def done(self: ImageContent, media: Any) -> Any:
        nonlocal alive
        alive -= 1
        return render(self, media)

    monkeypatch.setattr(ImageContent, "decode", counted)
    monkeypatch.setattr(ImageContent, "render", done)
    anonymizer = Anonymizer("faces", run_key=b"k" * 16)
    pictures = [jpeg(64, level) for level in range(0, 240, 30)]
    together = anonymizer.anonymize(pictures)
    assert most == len(pictures)
    alive = most = 0
    monkeypatch.setattr(engine, "AT_ONCE_BYTES", 2 * 3 * 64 * 64)
    apart = anonymizer.anonymize(pictures)
    assert most == 2
    assert [o.image for o in apart] == [o.image for o in together]


def test_float_arrays_and_broken_samples_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AT_ONCE_BYTES", 1)
    values = [np.zeros((8, 8, 3), np.float32), b"no image", np.zeros((9, 9, 3), np.uint8)]
    outcomes = Anonymizer("faces", run_key=b"k" * 16).anonymize(values, keys=["a", "b", "c"])
    assert [o.released for o in outcomes] == [True, False, True]
    assert [o.image.shape for o in outcomes if o.released] == [(8, 8, 3), (9, 9, 3)]
    assert Anonymizer("faces").anonymize([]) == []


def test_workers_that_may_take_more_than_the_machine_has_are_told_of() -> None:
    assert "8 workers may take" in warning(8, 200_000_000, processes=False, machine=16 << 30)
    assert not warning(8, 12_000_000, processes=True, machine=16 << 30)
    assert "40 workers may take" in warning(40, 1_000_000, processes=True, machine=16 << 30)
