"""The front door: a policy, and samples in, outcomes out."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PILImage

from anondata.components import open_gallery
from anondata.engine.loop import Engine
from anondata.engine.rules import check_galleries, rules_of
from anondata.errors import DeviceError, FieldTypeError, WithheldError
from anondata.policy import Policy, load_policy
from anondata.preparing import Progress, check_weights, fetch_weights, make_faces
from anondata.randomness import RunKey
from anondata.records import Outcome, Withheld
from anondata.report import Report, report_of
from anondata.samples import Sample, Schema

_TAKES_ONE = (
    "an Anonymizer that is called takes one picture (encoded bytes, a PIL image, an array or a tensor), and got {}. "
    "Several pictures: anonymizer.anonymize([…]). Samples of several fields, each of which is declared: "
    "anondata.loaders.hf.anonymize(dataset, anonymizer, …) instead of dataset.map, "
    "anondata.loaders.torch.anonymize(dataset or DataLoader, anonymizer, …), or the stage "
    "anondata.loaders.webdataset.anonymize(anonymizer, …)"
)

_LIVE: weakref.WeakSet[Anonymizer] = weakref.WeakSet()


class Anonymizer:
    """Anonymizes images, samples and batches by a policy, and checks every result.

    It can be pickled and used from several threads. Networks are loaded on first use, once a process.

    Args:
        policy: the name of a preset, the path of a YAML file, or a :class:`~anondata.policy.Policy`.
        own_code: modules of yours whose classes the policy's file may name; see :func:`anondata.load_policy`.
        device: ``"auto"`` (CUDA where there is one), or a torch device.
        run_key: the secret of this run's randomness; the same key, samples and policy give the same result. None: a
            fresh one, so that no other process can repeat the results or resume what was written. Pickling the
            Anonymizer pickles its key; of :meth:`RunKey.from_file` or :meth:`RunKey.from_env` only where it is.
        galleries: for each gallery that the policy names, the path of its file, or a gallery that is open. A file is
            opened on first use, with the key that ``ANONDATA_GALLERY_KEY`` holds.

    Raises:
        PolicyError: a policy that does not validate, or galleries that are not those that it names.

    >>> import numpy as np
    >>> [outcome] = Anonymizer("faces").anonymize([np.zeros((32, 32, 3), np.uint8)])
    >>> outcome.released, outcome.image.shape
    (True, (32, 32, 3))
    """

    def __init__(
        self,
        policy: str | Path | Policy = "faces",
        *,
        device: str | torch.device = "auto",
        run_key: RunKey | bytes | None = None,
        galleries: Mapping[str, Any] | None = None,
        own_code: Iterable[str] = (),
    ) -> None:
        # A snapshot: reports name the policy that was applied.
        self.policy = load_policy(policy, own_code=own_code).model_copy(deep=True)
        check_galleries(self.policy, galleries or {})
        self.device = choose_device(device)
        self._sources = dict(galleries or {})
        self._galleries: dict[str, Any] = {}
        self._run_key = run_key if isinstance(run_key, RunKey) else RunKey(run_key)
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        _LIVE.add(self)

    def __repr__(self) -> str:
        return f"Anonymizer({self.policy.name!r}, device={str(self.device)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickle, (self.policy, str(self.device), self._run_key, self._sources))

    @property
    def run_key(self) -> RunKey:
        """The secret that this run draws from. Its repr does not tell it."""
        return self._run_key

    @property
    def engine(self) -> Engine:
        """The engine of this policy, built on first use.

        Raises:
            DeviceError: on CUDA in a forked process, where it cannot work.
            WeightsError: names all weights that are not on this machine.
        """
        if self.device.type == "cuda" and torch.cuda._is_in_bad_fork():
            raise DeviceError(
                "CUDA cannot be used in a forked process: let anondata.loaders.torch.AnonymizedLoader anonymize in "
                'the main process, give the DataLoader multiprocessing_context="spawn", or take device="cpu"'
            )
        with self._lock:
            if self._engine is None:
                check_weights(self.policy)  # all at once, and before the first sample
                rules = rules_of(self.policy, self._opened())
                self._engine = Engine(rules, run_key=self._run_key, device=self.device)
            return self._engine

    def prepare(self, *, download: bool = False, progress: Progress | None = None) -> None:
        """Does at once what would otherwise hold up the first samples: weights are looked for, and faces generated.

        Both are kept in the cache folder, so it takes long only once: minutes where a policy draws synthetic faces.

        download: fetch weights that are not here and have an address. progress: told what is being done, how far it
            is, and of how much.

        Raises:
            WeightsError: names all weights that are missing, or one that cannot be fetched.
        """
        show: Progress = progress or (lambda what, done, total: None)
        if download:
            fetch_weights(self.policy, show)
        check_weights(self.policy)
        make_faces(self.policy, show)

    @property
    def galleries(self) -> dict[str, str]:
        """Fingerprints of the galleries, by name; meaningless without the galleries."""
        with self._lock:
            return {name: gallery.fingerprint for name, gallery in self._opened().items()}

    def _opened(self) -> dict[str, Any]:
        if len(self._galleries) < len(self._sources):
            self._galleries = {name: open_gallery(source) for name, source in self._sources.items()}
        return self._galleries

    def run(self, samples: Sequence[Sample], schema: Schema) -> list[Outcome]:
        """One outcome for each sample, in order; see :meth:`anondata.engine.loop.Engine.run`."""
        return self.engine.run(samples, schema)

    def anonymize(self, images: Sequence[Any], *, keys: Sequence[str] | None = None) -> list[Outcome]:
        """Anonymizes single images: encoded bytes, PIL images, numpy arrays or torch tensors, in any mixture.

        Each outcome is :class:`~anondata.records.Released`, whose ``image`` is of the same kind as what came in, or
        :class:`~anondata.records.Withheld` with a reason.

        keys: names of the images, from which randomness is drawn; by default their content stands for them.
        """
        if isinstance(images, str | bytes | bytearray) or not isinstance(images, Sequence):
            raise TypeError("anonymize takes a list of images; wrap a single one: anonymize([image])")
        if keys is not None and len(keys) != len(images):
            raise ValueError(f"{len(keys)} keys for {len(images)} images")
        names = keys if keys is not None else [content_key(image) for image in images]
        samples = [Sample(key, {"image": image}) for key, image in zip(names, images, strict=True)]
        return self.run(samples, Schema({"image": "image"}))

    def __call__(self, image: Any, *more: Any) -> Any:
        """One anonymized picture of the same kind: for ``ImageFolder(transform=…)`` or within a ``v2.Compose``.

        It must come before what normalises. Samples of several fields are for the adapters, which also know what to
        give instead of one that is withheld.

        Raises:
            WithheldError: the picture could not be made safe, or cannot be read.
            FieldTypeError: for what is no single picture; the message says which adapter takes it.
        """
        if more or not isinstance(image, bytes | bytearray | memoryview | np.ndarray | torch.Tensor | PILImage):
            raise FieldTypeError(_TAKES_ONE.format("several values" if more else f"a {type(image).__name__}"))
        [outcome] = self.anonymize([image])
        if isinstance(outcome, Withheld):
            kind = FieldTypeError if outcome.reason == "wrong_type" else WithheldError
            raise kind(f"a picture was withheld ({outcome.reason}): {outcome.detail}")
        if type(image) in (torch.Tensor, torch.nn.Parameter) or not isinstance(image, torch.Tensor):
            return outcome.image
        from torchvision import tv_tensors  # an image of theirs stays one, so that later transforms know what it is

        return tv_tensors.wrap(outcome.image, like=image)

    def draw(self, *parts: str | int) -> int:
        """A random number, at least 0 and below 2^63, that depends on the run key and the parts alone."""
        return self._run_key.seed("draw", *parts)

    def name(self, *parts: str | int) -> str:
        """32 hexadecimal digits that stand for the parts without telling them, by the run key."""
        return self._run_key.name(*parts)

    def report(self, outcomes: Sequence[Outcome]) -> Report:
        """The report of some outcomes; reports add up."""
        return report_of(self.policy, outcomes, self.galleries)


def _after_fork() -> None:
    """In a forked child: what threads of the parent held or would do there is waited for for ever.

    That is locks, and OpenMP's threads, which torch computes with (a DataLoader's workers have one thread, too).
    """
    if _LIVE:
        torch.set_num_threads(1)
    for anonymizer in list(_LIVE):
        anonymizer._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _unpickle(policy: Policy, device: str, run_key: RunKey, galleries: dict[str, Any]) -> Anonymizer:
    return Anonymizer(policy, device=device, run_key=run_key, galleries=galleries)


def choose_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA where there is a device, else the CPU."""
    if str(device) != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def content_key(image: Any) -> str:
    """A key for a value (or a list of them) that has no name: a digest of what it holds.

    Pictures, tensors, texts, bytes, numbers and mappings of these differ wherever their content does. What cannot be
    read, or is of another kind, has one key for all: the engine withholds it, whatever its key is.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for piece in _pieces(image):
            digest.update(piece)
    except Exception:  # noqa: BLE001 - a PIL image reads its file only now, and decoders raise what they like
        digest = hashlib.blake2b(digest_size=16)
    return digest.hexdigest()


def _pieces(image: Any) -> Iterator[bytes | bytearray | memoryview]:
    if type(image) in (list, tuple):
        for item in image:
            yield content_key(item).encode()
    elif isinstance(image, torch.Tensor):
        raw = image.detach().cpu().contiguous()
        yield f"{tuple(raw.shape)} {raw.dtype}".encode()
        yield raw.flatten().view(torch.uint8).numpy().tobytes()
    elif hasattr(image, "tobytes") and not isinstance(image, memoryview):
        yield f"{getattr(image, 'size', '')} {getattr(image, 'mode', '')}".encode()
        yield image.tobytes()
    elif isinstance(image, bytes | bytearray | memoryview):
        yield image
    elif isinstance(image, str | int | float | None):
        yield f"{type(image).__name__} {image!r}".encode("utf-8", "surrogatepass")
    elif isinstance(image, Mapping):
        for name in sorted(image, key=repr):
            yield f"{content_key(name)} {content_key(image[name])}".encode()
