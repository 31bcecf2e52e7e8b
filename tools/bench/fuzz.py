"""Mutated real pictures through the default policy: what gets out raw, hangs, or breaks.

    python -m anondata.tools.bench.fuzz --files 10000 --workers 4 --seconds 3600

Each file is a scene of ``scenes_london``, made smaller, and changed by one mutation: written in one of the formats
with bits flipped, cut short, turned or with an EXIF orientation, stretched, as a float array of narrow range, with a
header that promises other sides, or with none of these. A released picture in which a known face's region is as it
was in the input is a raw release. It counts as still alike where a face network takes it for the person in the scene:
many a flipped bit leaves nothing that anybody would know. Where the input cannot be decoded, or has other sides than
the scene, nothing is known of faces. Time and peak memory are of the engine alone, one picture at a time, in a
process of several; on shared cores CPU seconds tell more than those of the wall.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import signal
import struct
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from anondata import Anonymizer, Released
from anondata.content.codec import decode
from anondata.errors import UndecodableError
from anondata.regions import Regions
from anondata.tools.bench._common import data_folder, save
from anondata.verifiers.embedders import DlibEmbedder

SIDE_PX = 480
HANG_S = 10.0  # of CPU: on shared cores the wall tells of others
STOP_S = 180  # of the wall, after which a file counts as hanging whatever it did
RAW_LEVELS = 4.0  # mean difference in a face's core under which it is as it was; writing alone costs 1-2
ALIKE = 0.6  # of templates: dlib's own threshold
MUTATIONS = ("none", "bits", "bytes", "cut", "turn", "orientation", "stretch", "float", "header", "dark")
FORMATS = (
    "JPEG",
    "PROGRESSIVE",
    "GREY",
    "PNG",
    "PALETTE",
    "RGBA",
    "GREY16",
    "WEBP",
    "LOSSLESS",
    "GIF",
    "TIFF",
    "LZW",
    "BMP",
    "AVIF",
    "HEIF",
    "JPEG2000",
)
_TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@cache
def scenes() -> list[tuple[Image.Image, np.ndarray[Any, Any]]]:
    """Scenes of at most :data:`SIDE_PX`, with boxes of the faces that are at least 16 px high there."""
    folder, out = data_folder() / "scenes_london", []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        image = Image.open(folder / row["file_name"]).convert("RGB")
        scale = min(1.0, SIDE_PX / max(image.size))
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        boxes = np.array([face["box"] for face in row["faces"]]).reshape(-1, 4) * scale
        boxes = boxes[boxes[:, 3] - boxes[:, 1] >= 16]
        if len(boxes):
            out.append((small, boxes))
    return out


@cache
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"fuzz" * 4)


def written(image: Image.Image, form: str, **options: Any) -> bytes:
    """An encoded file."""
    if form == "GREY16":
        image, form = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8), "PNG"
    mode = {"GREY": "L", "PALETTE": "P", "RGBA": "RGBA", "GIF": "P"}.get(form)
    image = image.convert(mode) if mode else image
    extra: dict[str, Any] = {"PROGRESSIVE": {"progressive": True}, "LOSSLESS": {"lossless": True}}.get(form, {})
    extra |= {"TIFF": {"compression": "raw"}, "LZW": {"compression": "tiff_lzw"}}.get(form, {})
    names = {
        "PROGRESSIVE": "JPEG",
        "GREY": "JPEG",
        "PALETTE": "PNG",
        "RGBA": "PNG",
        "LOSSLESS": "WEBP",
        "LZW": "TIFF",
    }
    buffer, form = io.BytesIO(), names.get(form, form)
    if form == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(image).save(buffer, format="HEIF", quality=90)
    else:
        image.save(buffer, form, **extra, **options)
    return buffer.getvalue()


def mutated(seed: int) -> tuple[str, str, Any]:
    """Mutation, format and value of a file; what the faces' boxes are is told by :func:`shown`."""
    random = np.random.default_rng(seed)
    image, _ = scenes()[random.integers(len(scenes()))]
    mutation, form = MUTATIONS[seed % len(MUTATIONS)], FORMATS[seed // len(MUTATIONS) % len(FORMATS)]
    if mutation == "turn":
        image = image.transpose(list(_TURNS.values())[random.integers(3)])
    elif mutation == "stretch":
        factor = float(random.choice([1 / 3, 0.5, 1.5, 2.0]))
        image = image.resize((max(8, round(image.width * factor)), image.height))
    elif mutation in ("float", "dark"):
        share = float(random.choice([0.02, 0.05, 0.2]))
        if mutation == "float":
            value = (np.asarray(image).astype(np.float32) / 255) * share
            value[:, -max(2, image.width // 8) :] = 0.95  # a bright window at the edge
            return mutation, "array", value
        image = Image.fromarray((np.asarray(image) * max(share, 0.1)).astype(np.uint8))
    options: dict[str, Any] = {}
    if mutation == "orientation" and form in ("JPEG", "PROGRESSIVE", "GREY", "WEBP", "LOSSLESS"):
        tags = Image.Exif()
        tags[0x0112] = int(random.integers(1, 9))
        options["exif"] = tags.tobytes()
    data = bytearray(written(image, form, **options))
    if mutation == "bits":
        for at in random.integers(0, len(data), int(random.integers(1, 9))):
            data[at] ^= 1 << int(random.integers(8))
    elif mutation == "bytes":
        at, size = int(random.integers(len(data))), int(random.integers(1, 200))
        data[at : at + size] = random.bytes(size)
    elif mutation == "cut":
        data = data[: int(random.integers(len(data)))]
    elif mutation == "header":
        data = with_sides(data, random)
    return mutation, form, bytes(data)


def with_sides(data: bytearray, random: np.random.Generator) -> bytearray:
    """The same pixels under a header of other sides, where the format has plain ones; else the first bytes anew."""
    factor = int(random.choice([2, 8, 64, 1000]))
    if data[:4] == b"\x89PNG":
        width, height = struct.unpack_from(">II", data, 16)
        struct.pack_into(">II", data, 16, width, min(height * factor, 2**31 - 1))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif data[:2] == b"\xff\xd8":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">H", data, at + 5, min(65_500, struct.unpack_from(">H", data, at + 5)[0] * factor))
    elif data[:2] == b"BM":
        struct.pack_into("<i", data, 22, struct.unpack_from("<i", data, 22)[0] * factor)
    else:
        at = int(random.integers(4, 64))
        data[at : at + 4] = random.bytes(4)
    return data


def shown(value: Any) -> np.ndarray[Any, Any] | None:
    """What a value shows, as ``(H, W, 3)`` of [0, 255]; None where it cannot be told."""
    if isinstance(value, np.ndarray):
        return value * 255
    try:
        return decode(value).pixels.permute(1, 2, 0).numpy().astype(np.float32)
    except UndecodableError:
        return None


def unchanged(seed: int, mutation: str, width: int) -> tuple[Image.Image, np.ndarray[Any, Any]] | None:
    """The scene as a file shows it but for what was done to its bytes and levels, and the boxes of its faces."""
    random = np.random.default_rng(seed)
    image, boxes = scenes()[random.integers(len(scenes()))]
    if mutation == "orientation":
        return None  # it may be mirrored, too, and faces lie elsewhere; "turn" has them where they are known
    if mutation == "turn":
        turn = list(_TURNS.values())[random.integers(3)]
        return image.transpose(turn), np.array([turned(box, image.size, turn) for box in boxes])
    if mutation == "stretch":
        factor = np.array([width / image.width, 1, width / image.width, 1])
        return image.resize((width, image.height)), boxes * factor
    return image, boxes


def raw_faces(seed: int, mutation: str, before: Any, after: Any) -> tuple[int, int, int]:
    """How many faces are known to be in a released picture, how many of them are as they were, and of how many of
    these a face network still takes what is shown for the person in the scene."""
    old, new = shown(before), shown(after)
    if old is None or new is None or old.shape != new.shape:
        return 0, 0, 0
    height, width = old.shape[:2]
    scene = unchanged(seed, mutation, width)
    if scene is None or scene[0].size != (width, height):
        return 0, 0, 0
    known, raw = 0, []
    for x0, y0, x1, y1 in scene[1]:
        inset_x, inset_y = (x1 - x0) / 5, (y1 - y0) / 5
        core = np.s_[round(y0 + inset_y) : round(y1 - inset_y), round(x0 + inset_x) : round(x1 - inset_x)]
        if old[core].size == 0 or old[core].max() - old[core].min() < 8:
            continue  # nothing is left to be seen, or the mutation broke off before
        limit = RAW_LEVELS * min(1.0, float(old[core].max() - old[core].min()) / 100)
        known += 1
        if float(np.abs(old[core] - new[core]).mean()) < max(limit, 0.25):
            raw.append((x0, y0, x1, y1))
    return known, len(raw), sum(still_alike(np.asarray(scene[0]), old, box) for box in raw)


def still_alike(scene: np.ndarray[Any, Any], changed: np.ndarray[Any, Any], box: Sequence[float]) -> bool:
    """Whether a face network takes what a changed picture shows in a box, over its full range, for whom it shows in
    the scene: by dlib's own threshold, from boxes alone."""
    x0, y0, x1, y1 = box
    high, wide = scene.shape[:2]
    left, right = max(0, round(1.5 * x0 - 0.5 * x1)), min(wide, round(1.5 * x1 - 0.5 * x0))
    top, bottom = max(0, round(1.5 * y0 - 0.5 * y1)), min(high, round(1.5 * y1 - 0.5 * y0))
    parts = []
    for picture in (scene, changed):
        part = picture[top:bottom, left:right].astype(np.float32)
        low, most = np.percentile(part, (1, 99))
        part = ((part - low) * (255 / max(1.0, float(most - low)))).clip(0, 255)
        parts.append(torch.from_numpy(part.astype(np.uint8)).permute(2, 0, 1).contiguous())
    one = torch.tensor([[x0 - left, y0 - top, x1 - left, y1 - top]])
    faces = Regions(
        torch.tensor([0, 1]),
        one.repeat(2, 1).float(),
        torch.full((2, 5, 2), float("nan")),
        torch.ones(2),
        ("face",) * 2,
    )
    return float(DlibEmbedder().embed(parts, faces).diff(dim=0).norm()) < ALIKE


def turned(box: Any, size: tuple[int, int], turn: Image.Transpose) -> list[float]:
    """A box in a picture that was turned."""
    (x0, y0, x1, y1), (width, height) = box, size
    if turn == Image.Transpose.ROTATE_180:
        return [width - x1, height - y1, width - x0, height - y0]
    if turn == Image.Transpose.ROTATE_90:
        return [y0, width - x1, y1, width - x0]
    return [height - y1, x0, height - y0, x1]


def peak_mb() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def reset_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # then it is the process's peak so far
        return


def judge(seed: int) -> dict[str, Any]:
    """One file through the engine."""
    mutation, form, value = mutated(seed)
    body: dict[str, Any] = {"seed": seed, "mutation": mutation, "format": form}

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(STOP_S)
    anonymizer()
    reset_peak()
    cpu, wall = time.process_time(), time.monotonic()
    try:
        [out] = anonymizer().anonymize([value], keys=[str(seed)])
        body |= {"released": out.released, "reason": "" if isinstance(out, Released) else out.reason}
    except BaseException as error:  # noqa: BLE001 - what must not happen is what is looked for
        body |= {"released": False, "reason": "", "exception": type(error).__name__}
        return body
    finally:
        signal.alarm(0)
        body |= {"cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.monotonic() - wall, 3)}
        body["peak_mb"] = round(peak_mb())
    if isinstance(out, Released):
        body["known"], body["raw"], body["alike"] = raw_faces(seed, mutation, value, out.image)
    return body


def start() -> None:
    torch.set_num_threads(1)
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    anonymizer().anonymize([np.asarray(scenes()[0][0])])  # loads the networks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=3600, help="no file is begun after that")
    options = parser.parse_args()
    begin, rows, lost = time.monotonic(), list[dict[str, Any]](), 0
    context = multiprocessing.get_context("spawn")
    seeds = iter(range(options.first, options.first + options.files))
    with ProcessPoolExecutor(options.workers, mp_context=context, initializer=start) as pool:
        waiting = {pool.submit(judge, seed) for _, seed in zip(range(4 * options.workers), seeds, strict=False)}
        while waiting:
            done = next(as_completed(waiting))
            waiting.discard(done)
            try:
                rows.append(done.result())
            except BrokenProcessPool:  # killed: for want of memory, or by a crash in a decoder
                lost = 1
                break
            more = next(seeds, None) if time.monotonic() - begin < options.seconds else None
            if more is not None:
                waiting.add(pool.submit(judge, more))
            if len(rows) % 100 == 0:
                print(f"{len(rows)} files, {sum(row.get('raw', 0) for row in rows)} raw faces", flush=True)
    save("fuzz", summary(rows, lost, time.monotonic() - begin))


def summary(rows: list[dict[str, Any]], lost: int, seconds: float) -> dict[str, Any]:
    """The figures, by mutation and by format."""
    by: dict[str, dict[str, Any]] = {}
    for word in ("mutation", "format"):
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[row[word]].append(row)
        by[f"by_{word}"] = {name: _figures(group) for name, group in sorted(groups.items())}
    worst = [
        {k: row[k] for k in ("seed", "mutation", "format", "known", "raw", "alike")} for row in rows if row.get("raw")
    ]
    return {
        "policy": anonymizer().policy.fingerprint,
        "seconds": round(seconds),
        "processes_lost": lost,
        "all": _figures(rows),
        **by,
        "raw": sorted(worst, key=lambda row: row["seed"])[:200],
        "exceptions": [row for row in rows if "exception" in row][:50],
        "reasons": dict(Counter(row["reason"] for row in rows if row["reason"]).most_common()),
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    released = [row for row in rows if row["released"]]
    cpu = [row["cpu_s"] for row in rows]
    return {
        "files": len(rows),
        "released": len(released),
        "faces_known": sum(row.get("known", 0) for row in released),
        "faces_raw": sum(row.get("raw", 0) for row in released),
        "faces_raw_still_alike": sum(row.get("alike", 0) for row in released),
        "files_with_raw_faces": sum(bool(row.get("raw")) for row in released),
        "exceptions": sum("exception" in row for row in rows),
        f"over_{HANG_S:g}_cpu_s": sum(seconds > HANG_S for seconds in cpu),
        "cpu_s_median": round(float(np.median(cpu)), 2),
        "cpu_s_most": max(cpu),
        "wall_s_most": max(row["wall_s"] for row in rows),
        "peak_mb_most": max(row["peak_mb"] for row in rows),
    }


if __name__ == "__main__":
    main()
