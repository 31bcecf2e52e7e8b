"""Files of several pictures to pictures and back: animated GIF, PNG and WebP, and TIFF of several pages.

Each picture is taken out as a file of its own and read by `anondata.content.codec`, so that all that holds for still
pictures holds here: nothing but pixels comes through, and what ends early is refused. Pictures of an animation that
show a part of the canvas are laid on it here. What is written holds whole pictures, one by one, their durations and
how often they are played.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anondata.content import codec
from anondata.content._container import corrupt
from anondata.content._reel import (
    BACK,
    CLEAR,
    PNG,
    Part,
    chunk,
    gif_blocks,
    palette_bytes,
    png_chunks,
    riff,
    riff_chunk,
    riff_file,
    take_apart,
)
from anondata.content._reel import several as several
from anondata.content.codec import Picture
from anondata.errors import UndecodableError

MAX_FRAMES = 1000
FORMATS = ("GIF", "PNG", "WEBP", "TIFF")
PAGE_MS = 1000  # for which a page is shown, where pages become an animation
_OF_PARTS = ("written_as_png", "hidden_pixels_cleared", "first_frame_only")  # notes that tell nothing of the whole
_LONGEST_MS = 655_350  # what a GIF can say


@dataclass(frozen=True)
class Film:
    """Several pictures, and what is told of them.

    pictures: whole ones, in order; of one size unless they are pages.
    form: ``GIF``, ``PNG``, ``WEBP`` or ``TIFF``. durations: milliseconds, one a picture. plays: 0 is for ever.
    aside: the first picture is for readers that show no animation, and not played.
    """

    pictures: tuple[Picture, ...] = field(repr=False)
    form: str
    durations: tuple[int, ...]
    plays: int = 0
    aside: bool = False


def decode(data: bytes, *, max_pixels: int = codec.MAX_PIXELS, max_frames: int = MAX_FRAMES) -> Film:
    """Decodes all pictures of a file.

    max_pixels: limit on the pixels of all pictures together. max_frames: limit on their number.

    Raises: UndecodableError and nothing else for bad bytes, as :func:`anondata.content.codec.decode`.
    """
    return codec.fail_closed(lambda: _decode(data, max_pixels, max_frames))


def _decode(data: bytes, max_pixels: int, max_frames: int) -> Film:
    reel = take_apart(data, max_frames)
    if not reel.parts:
        raise corrupt()
    if reel.size is not None:
        width, height = reel.size
        if not width or not height:
            raise corrupt()
        _check_total(width * height * len(reel.parts), max_pixels)
        pictures = tuple(_laid(reel.parts, (height, width), aside=reel.aside))
    else:
        pictures = tuple(_pages(reel.parts, max_pixels))
    return Film(pictures, reel.form, tuple(part.duration for part in reel.parts), reel.plays, reel.aside)


def _check_total(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        message = f"the file's pictures have {pixels} pixels together, more than the limit of {max_pixels}"
        message += "; raise max_pixels: in a policy below decode, on the command line --max-pixels"
        raise UndecodableError(message, reason="too_large")


def _pages(parts: Sequence[Part], max_pixels: int) -> Iterator[Picture]:
    left = max_pixels
    for part in parts:
        picture = codec.decode(part.still(), max_pixels=left)
        left -= picture.pixels[0].numel()
        yield replace(picture, notes=tuple(note for note in picture.notes if note != "first_frame_only"))


def _laid(parts: Sequence[Part], size: tuple[int, int], *, aside: bool) -> Iterator[Picture]:
    """The canvas as it is shown, picture by picture."""
    canvas = torch.zeros(4, *size, dtype=torch.uint8)
    for number, part in enumerate(parts):
        picture = codec.decode(part.still(), max_pixels=size[0] * size[1])
        height, width = picture.pixels.shape[-2:]
        if part.x + width > size[1] or part.y + height > size[0]:
            raise corrupt()
        place = (slice(part.y, part.y + height), slice(part.x, part.x + width))
        before = canvas[:, *place].clone()
        canvas[:, *place] = _over(_planes(picture), before) if part.over else _planes(picture)
        alpha = canvas[3].clone()
        yield replace(
            picture,
            pixels=canvas[:3].clone(),
            alpha=None if bool((alpha == 255).all()) else alpha,
            notes=tuple(note for note in picture.notes if note not in _OF_PARTS),
        )
        if part.then == CLEAR or (aside and not number):
            canvas[:, *place] = 0
        elif part.then == BACK:
            canvas[:, *place] = before


def _planes(picture: Picture) -> Tensor:
    alpha = torch.full_like(picture.pixels[0], 255) if picture.alpha is None else picture.alpha
    return torch.cat([picture.pixels, alpha[None]])


def _over(top: Tensor, below: Tensor) -> Tensor:
    """``(4, H, W)`` uint8 of two such: the first laid over the second."""
    a, b = top[3:].float() / 255, below[3:].float() / 255
    whole = a + b * (1 - a)
    colour = (top[:3].float() * a + below[:3].float() * b * (1 - a)) / whole.clamp(min=1e-6)
    colour = torch.where(whole > 0, colour, 0.0)
    return torch.cat([colour, whole * 255]).round_().to(torch.uint8)


def in_format(film: Film, form: str) -> Film:
    """The same pictures, to be written in another format, PNG or WebP; empty for their own.

    Raises: UndecodableError for pages of several sizes, which one animation cannot show.
    """
    if not form or form == film.form:
        return film
    if len({picture.pixels.shape for picture in film.pictures}) > 1:
        why = f"pages of several sizes cannot be written as one {form}, in which all pictures are to be written"
        raise UndecodableError(why, reason="unsupported")
    pages = film.form == "TIFF"
    return replace(film, form=form, durations=(PAGE_MS,) * len(film.durations) if pages else film.durations)


def encode(film: Film, *, quality: int = 95) -> bytes:
    """Writes a file of whole pictures, their durations and plays, and nothing else.

    GIF has 256 colours a picture, so that what is written differs from the pictures: decode it again to see it.

    Raises: as :func:`anondata.content.codec.encode`.
    """
    alpha, grey = any(p.alpha is not None for p in film.pictures), all(p.grey for p in film.pictures)
    if film.form != "TIFF":  # one header for all
        film = replace(film, pictures=tuple(replace(p, alpha=_alpha(p, alpha), grey=grey) for p in film.pictures))
    return {"PNG": _to_png, "WEBP": _to_webp, "GIF": _to_gif, "TIFF": _to_tiff}[film.form](film, quality)


def _alpha(picture: Picture, needed: bool) -> Tensor | None:
    if not needed or picture.alpha is not None:
        return picture.alpha
    return torch.full_like(picture.pixels[0], 255)


def _to_png(film: Film, quality: int) -> bytes:
    height, width = film.pictures[0].pixels.shape[-2:]
    head, body, order = b"", list[bytes](), 0
    for number, (picture, duration) in enumerate(zip(film.pictures, film.durations, strict=True)):
        still = list(png_chunks(codec.encode(replace(picture, format="PNG"))))
        head = still[0][1]
        if number or not film.aside:
            ms = min(duration, _LONGEST_MS)
            ticks, per_second = (ms, 1000) if ms < 1 << 16 else (ms // 10, 100)
            body.append(
                chunk(b"fcTL", struct.pack(">IIIIIHHBB", order, width, height, 0, 0, ticks, per_second, 0, 0))
            )
            order += 1
        for piece in (piece for kind, piece in still if kind == b"IDAT"):
            body.append(chunk(b"fdAT", struct.pack(">I", order) + piece) if number else chunk(b"IDAT", piece))
            order += bool(number)
    played = struct.pack(">II", len(film.pictures) - film.aside, film.plays)
    return b"".join([PNG, chunk(b"IHDR", head), chunk(b"acTL", played), *body, chunk(b"IEND", b"")])


def _to_webp(film: Film, quality: int) -> bytes:
    height, width = film.pictures[0].pixels.shape[-2:]
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    transparent = 0x10 if film.pictures[0].alpha is not None else 0
    chunks = [
        (b"VP8X", struct.pack("<I", 2 | transparent) + sides),
        (b"ANIM", struct.pack("<IH", 0, min(film.plays, 0xFFFF))),
    ]
    for picture, duration in zip(film.pictures, film.durations, strict=True):
        still = codec.encode(replace(picture, format="WEBP"), quality=quality)
        inside = b"".join(
            riff_chunk(k, p) for k, p in riff(still, 12, len(still)) if k in (b"ALPH", b"VP8 ", b"VP8L")
        )
        head = bytes(6) + sides + min(duration, 0xFFFFFF).to_bytes(3, "little") + b"\x02"  # not blended
        chunks.append((b"ANMF", head + inside))
    return riff_file(chunks)


def _to_gif(film: Film, quality: int) -> bytes:
    height, width = film.pictures[0].pixels.shape[-2:]
    out = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)]
    if film.plays != 1:
        repeats = struct.pack("<H", min(max(film.plays - 1, 0), 0xFFFF))
        out.append(b"!\xff\x0bNETSCAPE2.0\x03\x01" + repeats + b"\0")
    for picture, duration in zip(film.pictures, film.durations, strict=True):
        still, clear = _to_still_gif(picture)
        flags = (2 if picture.alpha is not None else 1) << 2 | (clear >= 0)
        out.append(
            b"!\xf9\x04" + struct.pack("<BHB", flags, min(round(duration / 10), 0xFFFF), max(clear, 0)) + b"\0"
        )
        [block] = [block for block in gif_blocks(still) if block[:1] == b","]
        palette = still[13 : 13 + palette_bytes(still[10])]
        out.append(block[:9] + bytes([block[9] & 0x40 | 0x80 | still[10] & 7]) + palette + block[10:])
    return b"".join([*out, b";"])


def _to_still_gif(picture: Picture) -> tuple[bytes, int]:
    """A GIF of one picture, and which of its colours is transparent, -1 for none."""
    colour = Image.fromarray(picture.pixels.permute(1, 2, 0).contiguous().numpy())
    clear = None if picture.alpha is None else picture.alpha.numpy() < 128
    few = _few_colours(colour)
    flat = few or colour.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    index = -1
    if clear is not None and clear.any():
        levels = np.array(flat)
        index = int(levels.max()) + 1
        levels[clear] = index
        transparent = Image.fromarray(levels, "P")
        transparent.putpalette([*(flat.getpalette() or [])[: 3 * index], 0, 0, 0])
        flat = transparent
    buffer = io.BytesIO()
    flat.save(buffer, "GIF", optimize=False, interlace=0)
    return buffer.getvalue(), index


def _few_colours(colour: Image.Image) -> Image.Image | None:
    """A picture of at most 255 colours with all of them, or None."""
    pixels = np.asarray(colour).reshape(-1, 3)
    codes = pixels[:, 0].astype(np.int64) << 16 | pixels[:, 1].astype(np.int64) << 8 | pixels[:, 2]
    found, where = np.unique(codes, return_inverse=True)
    if len(found) > 255:
        return None
    flat = Image.fromarray(where.reshape(colour.height, colour.width).astype(np.uint8), "P")
    flat.putpalette([level for code in found.tolist() for level in (code >> 16, code >> 8 & 255, code & 255)])
    return flat


def _to_tiff(film: Film, quality: int) -> bytes:
    first, *others = [codec.to_pil(picture) for picture in film.pictures]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
    return buffer.getvalue()
