"""insightface's detectors and recognizers, through insightface's own code, on model files that the user supplies.

The published packs (``buffalo_l`` and others) are licensed for non-commercial research only. None comes with
anondata, and nothing here downloads one: insightface itself would, so it is only ever given files that are there.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anondata.components import check_file_is_trusted
from anondata.errors import MissingExtraError, PolicyError, WeightsError
from anondata.models.registry import OVERRIDE_VARIABLE
from anondata.regions import Regions, cat_regions
from anondata.verifiers.alignment import landmarks_or_usual

DEFAULT_PACK = "buffalo_l"  # insightface's own
CLOSE_UP_PX = 128  # insightface looks at this size, too: there a face that fills the picture is found whole
ALIGNMENT = "insightface.norm_crop/1"  # changes when the same face would give another template
BATCH = 64  # chips in one call of the network
MAX_ASPECT = 64  # of what insightface resizes: of a longer strip nothing would be left across

Task = Literal["detection", "recognition"]
Pixels = NDArray[np.uint8]

_lock = threading.Lock()


@dataclass(frozen=True)
class InsightFace:
    """Both roles of one source.

    source: path of an ``.onnx`` file or of a pack's folder, or a bare name such as ``"buffalo_l"``, which is looked
        for in the folder that ``ANONDATA_WEIGHTS`` names, in ``~/.insightface/models`` and in the working directory.
    """

    source: str = DEFAULT_PACK

    def detector(self, *, threshold: float = 0.5, size_px: int = 640) -> InsightFaceDetector:
        return InsightFaceDetector(self.source, threshold, size_px)

    def embedder(self) -> InsightFaceEmbedder:
        return InsightFaceEmbedder(self.source)


@dataclass(frozen=True)
class InsightFaceDetector:
    """Finds faces and their five landmarks with a pack's detector, such as SCRFD (Guo et al. 2021, arXiv:2105.04714).

    pack: see :class:`InsightFace`.
    threshold: the least score of a face, in (0, 1). 0.5 is insightface's own; anondata has measured no pack. Lower
        finds more faces, and more that are none.
    size_px: each picture is scaled to fit a square of this side, a multiple of 32, and looked at once more at 128 px
        for close-ups. Unlike CenterFace's, the smallest face that can be found grows with the picture: what is 100 px
        in a photo of 6400 px is 10 px at 640. Its cost grows with its square. A model of a fixed size keeps that.

    Raises, when it is used:
        WeightsError: no such file, or one that insightface does not take for a detector.
        MissingExtraError: insightface is not installed.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    pack: str = DEFAULT_PACK
    threshold: float = 0.5
    size_px: int = 640

    def __post_init__(self) -> None:
        _check_source(self.pack)
        if not 0 < self.threshold < 1:
            raise PolicyError(f"detector 'insightface': threshold must be between 0 and 1, got {self.threshold:g}")
        if not isinstance(self.size_px, int) or not 128 <= self.size_px <= 4096 or self.size_px % 32:
            raise PolicyError(
                f"detector 'insightface': size_px must be a multiple of 32 from 128 to 4096, got {self.size_px!r}"
            )

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return cat_regions(
            [self._faces(view).renumbered(i) for i, view in enumerate(views)],
            views[0].device if views else "cpu",
        )

    def _faces(self, view: Tensor) -> Regions:
        model = _model(self.pack, "detection", view.device)
        sizes = [(side, side) for side in (CLOSE_UP_PX, self.size_px)]
        rows, points = model.detect(_padded(_bgr(view)), input_size=sizes, det_thresh=self.threshold)
        found = torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, 5))
        if not bool(found.isfinite().all()):
            raise ValueError("the detector's boxes are not finite")
        landmarks = np.full((len(found), 5, 2), np.nan) if points is None else points
        regions = Regions(
            torch.zeros(len(found), dtype=torch.int64),
            found[:, :4],
            torch.from_numpy(np.asarray(landmarks, np.float32).reshape(-1, 5, 2)),
            found[:, 4].clamp(0, 1),
            ("face",) * len(found),
        )
        centre = (found[:, :2] + found[:, 2:4]) / 2
        inside = ((centre >= 0) & (centre <= torch.tensor([view.shape[2], view.shape[1]]))).all(dim=1)
        return regions.select(inside).to(view.device)


@dataclass(frozen=True)
class InsightFaceEmbedder:
    """Templates of a recognizer such as ArcFace (Deng et al. 2019, arXiv:1801.07698), aligned as insightface does.

    source: see :class:`InsightFace`; of a pack its recognition model is taken.

    It raises what :class:`InsightFaceDetector` raises. Weights that an ONNX file keeps in other files beside it are
    not in the fingerprint.
    """

    source: str = DEFAULT_PACK

    def __post_init__(self) -> None:
        _check_source(self.source)

    @property
    def name(self) -> str:
        return f"insightface-{Path(self.source).name.removesuffix('.onnx')}"

    @property
    def fingerprint(self) -> str:
        """Of the recognition model's file and how faces are brought to it. Loads the model."""
        model = _model(self.source, "recognition", torch.device("cpu"))
        sha256 = _sha256(model.model_file, _stamp(Path(model.model_file)))
        words = f"{ALIGNMENT}:{sha256}:{model.input_size}:{model.input_mean}:{model.input_std}"
        return hashlib.sha256(words.encode()).hexdigest()[:32]

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        """``(R, D)`` float32 of unit length; NaN for a region without area or outside of its picture.

        Regions without landmarks are aligned by their box.
        """
        device = regions.boxes.device
        model = _model(self.source, "recognition", device)
        usable = _usable(views, regions)
        templates = np.full((len(regions), _dimensions(model)), np.nan, np.float32)
        if usable:
            chips = list(_chips(views, regions.select(usable).to("cpu"), model.input_size[0]))
            templates[usable] = np.concatenate(list(_features(model, chips)))
        length = np.linalg.norm(templates, axis=1, keepdims=True)
        templates = np.divide(templates, length, out=np.full_like(templates, np.nan), where=length > 0)
        return torch.from_numpy(templates).to(device)


def find(source: str) -> Path:
    """The ``.onnx`` file or the pack's folder that a source means.

    Raises:
        WeightsError: it is not on this machine; the message says how to get it and what its licence forbids.
    """
    given = Path(source).expanduser()
    bare = given.name == source
    override = os.environ.get(OVERRIDE_VARIABLE)
    folders = [Path(override)] if override else []
    folders.append(Path.home() / ".insightface" / "models")
    for place in [*(folder / source for folder in folders if bare), given]:
        for path in (place, Path(f"{place}.onnx")):
            if path.is_dir():
                nested = path / path.name  # as some of the published archives unpack
                return nested.resolve() if nested.is_dir() and not any(path.glob("*.onnx")) else path.resolve()
            if path.is_file() and path.suffix == ".onnx":
                return path.resolve()
    raise WeightsError(
        f"insightface model {source!r} is not on this machine. anondata downloads none: get it yourself and put its "
        f"folder or .onnx file into {folders[-1]}, or into a folder that {OVERRIDE_VARIABLE} names. insightface's "
        "published packs are licensed for non-commercial research only"
    )


def _check_source(source: object) -> None:
    if not isinstance(source, str) or not source.strip():
        raise PolicyError("insightface needs the path of a pack or of an .onnx file, or a pack's name, as a text")
    if Path(source).name != source:
        check_file_is_trusted()


def _bgr(view: Tensor) -> Pixels:
    """``(3, H, W)`` uint8 RGB to ``(H, W, 3)`` blue first, as OpenCV has it."""
    pixels: Pixels = view.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def _padded(pixels: Pixels) -> Pixels:
    """A long strip made broad enough to be scaled, with black at its right and bottom."""
    least = math.ceil(max(pixels.shape[:2]) / MAX_ASPECT)
    below, beside = (max(0, least - side) for side in pixels.shape[:2])
    return np.pad(pixels, ((0, below), (0, beside), (0, 0))) if below or beside else pixels


def _usable(views: Sequence[Tensor], regions: Regions) -> list[int]:
    """Rows of the regions that have an area within their picture."""
    out = []
    for row, (image, (x0, y0, x1, y1)) in enumerate(zip(regions.image.tolist(), regions.boxes.tolist(), strict=True)):
        height, width = views[image].shape[1:]
        if min(x1, width) - max(x0, 0) > 0 and min(y1, height) - max(y0, 0) > 0 and math.isfinite(x0 + y0 + x1 + y1):
            out.append(row)
    return out


def _chips(views: Sequence[Tensor], regions: Regions, side_px: int) -> Iterator[Pixels]:
    """Aligned faces, by insightface's own code."""
    from insightface.utils import face_align

    _silence()
    pictures = {image: _bgr(views[image]) for image in set(regions.image.tolist())}
    landmarks = landmarks_or_usual(regions).numpy()
    for image, points in zip(regions.image.tolist(), landmarks, strict=True):
        yield face_align.norm_crop(pictures[image], landmark=points, image_size=side_px)


def _features(model: Any, chips: list[Pixels]) -> Iterator[NDArray[np.float32]]:
    """Templates of chips, in batches as large as the file takes them."""
    fixed = model.input_shape[0]
    step = fixed if isinstance(fixed, int) else BATCH
    for start in range(0, len(chips), step):
        batch = chips[start : start + step]
        filled = batch + batch[-1:] * (step - len(batch) if isinstance(fixed, int) else 0)
        yield model.get_feat(filled)[: len(batch)]


def _dimensions(model: Any) -> int:
    told = model.output_shape[-1]
    if isinstance(told, int):
        return told
    side = model.input_size[0]
    [template] = np.concatenate(list(_features(model, [np.zeros((side, side, 3), np.uint8)])))
    return len(template)


def _silence() -> None:
    """insightface 2.1 calls what scikit-image 0.26 warns of, for each face.

    One filter that stays: ``warnings.catch_warnings`` is not safe among threads.
    """
    message = "`estimate` is deprecated"
    if not any(getattr(entry[1], "pattern", None) == message for entry in warnings.filters):
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)


def _model(source: str, task: Task, device: torch.device) -> Any:
    """insightface's model of a task, loaded once for each process and device."""
    path = find(source)
    with _lock:
        return _load(path, _stamp(path), task, str(device), torch.get_num_threads(), os.getpid())


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file, or one of a pack's, does."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, info.st_size, info.st_mtime_ns) for file in files for info in [file.stat()])


@lru_cache(maxsize=64)
def _sha256(path: str, stamp: object) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=16)
def _load(path: Path, stamp: object, task: Task, device: str, threads: int, process: int) -> Any:
    """``stamp``, ``threads`` and ``process`` are part of the key: see :mod:`anondata.models.shared`."""
    try:
        import insightface  # noqa: F401 - a module of it that is already there would hide that it cannot be imported
        import onnxruntime
        from insightface.app import FaceAnalysis
        from insightface.model_zoo import get_model
    except ImportError as error:
        raise MissingExtraError("insightface is not installed: run `pip install 'anondata[insightface]'`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = {"providers": _providers(device, onnxruntime), "sess_options": options}
    try:
        if path.is_dir():
            wanted = ["detection"] if task == "detection" else ["detection", "recognition"]
            model = FaceAnalysis(str(path), allowed_modules=wanted, **session).models.get(task)
        else:
            model = get_model(str(path), **session)
    except Exception as error:  # whatever insightface and ONNX Runtime raise, plain assertions among them
        raise WeightsError(
            f"insightface cannot load {path} ({type(error).__name__}: {error}). A pack's folder needs a detection "
            "model; a recognition model alone is named by its .onnx file"
        ) from error
    return _checked(model, path, task)


def _providers(device: str, onnxruntime: Any) -> list[Any]:
    where = torch.device(device)
    if where.type != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": where.index or 0}), "CPUExecutionProvider"]


def _checked(model: Any, path: Path, task: Task) -> Any:
    found = getattr(model, "taskname", "no kind that it knows")
    if found != task:
        raise WeightsError(f"insightface takes {path} for {found}, and {task} is needed here")
    if task == "recognition" and model.input_size[0] % 112 and model.input_size[0] % 128:
        raise WeightsError(f"insightface aligns faces to 112 or 128 px, and {path} takes {model.input_size[0]} px")
    return model
