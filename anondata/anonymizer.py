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

    It can be pickled and used from several threads. Networks are loaded on first use, once in each process.

    Args:
        policy: the name of a preset, the path of a YAML file, or a :class:`~anondata.policy.Policy`.
        device: ``"auto"`` (CUDA if there is a device), or a torch device.
        run_key: the secret that this run's randomness is drawn from. The same key, samples and policy give the same
            result. None makes a new key, so that no other process can repeat the results or resume what was written.
            A pickle of the Anonymizer holds the key; for a key of :meth:`RunKey.from_file` or
            :meth:`RunKey.from_env` it only holds the path or the name.
        galleries: for each gallery that the policy names, the path of its file, or an open gallery. A file is opened
            on first use, with the key in the variable ``ANONDATA_GALLERY_KEY``.
        own_code: modules of yours whose classes the policy's file may name; see :func:`anondata.load_policy`.

    Raises:
        PolicyError: the policy does not validate, or ``galleries`` are not the ones that it names.

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
            DeviceError: the device is CUDA and this process was forked.
            WeightsError: weights are not on this machine; the message names all of them.
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
        """Finds weights and generates faces now, so that the first samples need not wait for them.

        Both are kept in the cache folder, so this is slow only once: minutes for a policy that draws synthetic faces.

        Args:
            download: fetch weights that are not here and can be fetched.
            progress: called with what is being done, how far it is, and of how much.

        Raises:
            WeightsError: weights are missing (the message names all of them), or one cannot be fetched.
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
        if not self._galleries:
            self._galleries = {name: open_gallery(source) for name, source in self._sources.items()}
        return self._galleries

    def run(self, samples: Sequence[Sample], schema: Schema) -> list[Outcome]:
        """One outcome for each sample, in order; see :meth:`anondata.engine.loop.Engine.run`."""
        return self.engine.run(samples, schema)

    def anonymize(self, images: Sequence[Any], *, keys: Sequence[str] | None = None) -> list[Outcome]:
        """Anonymizes single images: encoded bytes, PIL images, numpy arrays or torch tensors, in any mixture.

        Args:
            images: a list of them, of any sizes.
            keys: names of the images, from which randomness is drawn. By default it is drawn from their content.

        Returns:
            One outcome for each image: :class:`~anondata.records.Released`, whose ``image`` is of the same kind as
            the one that came in, or :class:`~anondata.records.Withheld` with a reason.

        Raises:
            TypeError: ``images`` is not a list.
            ValueError: there are not as many keys as images.
        """
        if isinstance(images, str | bytes | bytearray) or not isinstance(images, Sequence):
            raise TypeError("anonymize takes a list of images; wrap a single one: anonymize([image])")
        if keys is not None and len(keys) != len(images):
            raise ValueError(f"{len(keys)} keys for {len(images)} images")
        names = keys if keys is not None else [content_key(image) for image in images]
        samples = [Sample(key, {"image": image}) for key, image in zip(names, images, strict=True)]
        return self.run(samples, Schema({"image": "image"}))

    def __call__(self, image: Any, *more: Any) -> Any:
        """Anonymizes one picture, for ``ImageFolder(transform=…)`` or within a ``v2.Compose``.

        It must come before normalisation. For samples of several fields take an adapter, which also gives another
        sample instead of one that is withheld.

        Args:
            image: encoded bytes, a PIL image, an array or a tensor.

        Returns:
            An anonymized picture of the same kind.

        Raises:
            WithheldError: the picture could not be made safe, or cannot be read.
            FieldTypeError: this is not a single picture; the message says which adapter takes it.
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
        """A random number, at least 0 and below 2^63, that depends only on the run key and ``parts``."""
        return self._run_key.seed("draw", *parts)

    def name(self, *parts: str | int) -> str:
        """32 hexadecimal digits that stand for ``parts``; without the run key nobody can tell what they stand for."""
        return self._run_key.name(*parts)

    def report(self, outcomes: Sequence[Outcome]) -> Report:
        """The report of some outcomes. Reports can be added: ``a + b``."""
        return report_of(self.policy, outcomes, self.galleries)


def _after_fork() -> None:
    """Makes a forked child usable, which would wait for ever for locks and threads that only its parent has.

    The threads are OpenMP's, which torch computes with. (A DataLoader's workers have one thread, too.)
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
