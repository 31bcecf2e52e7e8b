"""Embedders: faces to templates, batched, on the device of the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anondata.components import own_class, own_code_of, suggest
from anondata.errors import PolicyError
from anondata.models.dlib_resnet import CHIP_PX, TEMPLATE
from anondata.models.registry import entry
from anondata.models.shared import network
from anondata.protocols import Embedder
from anondata.regions import Regions
from anondata.verifiers.alignment import chips
from anondata.verifiers.insightface import InsightFaceEmbedder

ALIGNMENT = "similarity/1"  # changes when the same face would give another template
BATCH = 64  # chips in one call of the network: bounds memory on a picture of a crowd


@dataclass(frozen=True)
class DlibEmbedder:
    """dlib's face recognition ResNet (King 2017): 128 numbers, compared by Euclidean distance.

    It finds the same person at a distance of about 0.6 or less; see :mod:`anondata.verifiers.calibration`.
    """

    name: ClassVar[str] = "dlib-face-resnet"

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.name)

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        """``(R, 128)`` float32. Regions without landmarks are aligned by their box."""
        faces = chips(views, regions, template=torch.tensor(TEMPLATE), chip_px=CHIP_PX)
        return _batched(self.name, faces, dimensions=128)


@dataclass(frozen=True)
class MobileFaceNetEmbedder:
    """MobileFaceNet (Chen et al. 2018, arXiv:1804.07573) trained on MS1M: 128 numbers of unit length.

    Its weights are not bundled. The independent attacker of audits: no gate should use the network that judges it.
    """

    name: ClassVar[str] = "mobilefacenet-ms1m"

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.name)

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        """``(R, 128)`` float32 of unit length, so that Euclidean distance orders as cosine does."""
        faces = chips(views, regions, template=torch.tensor(ARCFACE_TEMPLATE), chip_px=112)
        return torch.nn.functional.normalize(_batched(self.name, (faces - 0.5) * 2, dimensions=128))


# The places of eyes, nose and mouth corners in the 112 px chips of the ArcFace family (Deng et al. 2019).
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

EMBEDDERS: Mapping[str, type[Embedder]] = {e.name: e for e in (DlibEmbedder, MobileFaceNetEmbedder)}


def embedder_of(name: str) -> Embedder:
    """The embedder of a name: a known one, ``insightface:SOURCE``, or ``package.module:Class`` of the user's own.

    SOURCE is a pack or an ``.onnx`` file, see :class:`anondata.verifiers.insightface.InsightFace`. A class of the
    user's own is made without arguments. Cheap: no weights are looked for before the first face.

    Raises:
        PolicyError: for an unknown name (with the nearest known one), or a class that is no embedder.
    """
    if name in EMBEDDERS:
        return EMBEDDERS[name]()
    module, colon, rest = name.partition(":")
    if colon and module == "insightface":
        return InsightFaceEmbedder(rest)
    if not rest:
        known = suggest(name, dict.fromkeys([*EMBEDDERS, "insightface:SOURCE"]))
        raise PolicyError(f"unknown embedder {name!r}; {known}")
    return _own(name)


def embedder_of_file(name: str) -> Embedder:
    """The embedder that a gallery's file names; code of somebody's own is not run because a file says so.

    Raises:
        PolicyError: for an unknown name, or a class.
    """
    try:
        with own_code_of(()):
            return embedder_of(name)
    except PolicyError as error:
        raise PolicyError(
            "the gallery names an embedder that does not come with anondata; name it yourself, where there is the "
            "option --embedder"
        ) from error


def _own(name: str) -> Embedder:
    try:
        made = own_class(name)()
    except PolicyError:
        raise
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise PolicyError(f"embedder {name!r} cannot be made: {error}") from error
    lacking = [part for part in ("name", "fingerprint", "embed") if part not in dir(made)]  # computes none
    if lacking:
        raise PolicyError(f"embedder {name!r} has no {lacking[0]}; see anondata.protocols.Embedder")
    embedder: Embedder = made
    return embedder


def _fingerprint(name: str) -> str:
    """Of the registered weights and of how faces are brought to them; needs no file."""
    return hashlib.sha256(f"{ALIGNMENT}:{entry(name).sha256}".encode()).hexdigest()[:32]


def _batched(name: str, faces: Tensor, *, dimensions: int) -> Tensor:
    if not len(faces):
        return torch.zeros(0, dimensions, device=faces.device)
    run = network(name, faces.device)
    out: list[Tensor] = []
    for start in range(0, len(faces), BATCH):
        result = run(faces[start : start + BATCH])
        out.append(result if isinstance(result, Tensor) else result[0])
    return torch.cat(out).float()
