"""Folders, globs and URLs of photos into a folder of verified anonymized ones.

::

    OUT/photo.jpg ...         what was released, in the structure of its source
    OUT/report.json           numbers of the whole folder; there only when the last run came to its end
    OUT/.anondata/            what is done, so that the same call goes on after a crash; need not be published
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from anondata.errors import ArgumentError
from anondata.loaders.files.job import Files, FilesJob, default_workers
from anondata.loaders.files.naming import check_collisions, expected_name
from anondata.loaders.files.output import check_usable
from anondata.loaders.quota import Quota, account_of
from anondata.sources import Listing, list_sources

if TYPE_CHECKING:
    import torch

    from anondata.anonymizer import Anonymizer
    from anondata.policy import Policy
    from anondata.randomness import RunKey

__all__ = ["Files", "FilesJob", "Options", "anonymize", "anonymize_files", "plan"]

Places = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Options(Quota, total=False):
    """Keywords of :func:`anonymize`, :func:`anonymize_files` and :func:`plan`, with those of a quota.

    regions: a file of boxes that are anonymized, too: COCO, or the metadata.jsonl of an imagefolder. It must name
        every picture by its path below its source.
    rename: names outputs by keyed hashes in one flat folder, because names identify, too.
    insights: writes ``metadata.jsonl``, which tells what was in each picture, in words that identify nobody.
    texts: further insights by an editor, by the path of a picture below its source. Nothing checks them.
    limit: only the first pictures, in an order that stays.
    workers: threads; None is one for each core, or 4 on CUDA.
    overwrite: removes what earlier runs wrote and does everything again.
    """

    regions: str | os.PathLike[str] | None
    rename: bool
    insights: bool
    texts: Mapping[str, str] | None
    limit: int | None
    workers: int | None
    overwrite: bool


Progress = Callable[[int, int], None]
"""Takes how many samples are done, and how many of them are withheld."""


def anonymize_files(
    source: Places,
    out: str | os.PathLike[str],
    policy: str | Path | Policy = "faces",
    *,
    device: str | torch.device = "auto",
    galleries: Mapping[str, Any] | None = None,
    run_key: RunKey | bytes | None = None,
    own_code: Iterable[str] = (),
    progress: Progress | None = None,
    on_withheld: Callable[[str, str], None] | None = None,
    **options: Unpack[Options],
) -> Files:
    """Anonymizes photos and writes those that pass every check into the folder ``out``.

    The same call again does only what is missing, after a crash, too.

    Args:
        source: a file, a folder (with all folders in it), a glob, or a URL that fsspec reads; or several of them.
        out: a local folder; it is made if it does not exist.
        policy, device, galleries, own_code: as for :class:`anondata.Anonymizer`.
        run_key: the secret that randomness is drawn from. None takes one that is kept for ``out`` in your state
            folder.
        progress, on_withheld: as for :func:`anondata.loaders.files.anonymize`.
        options: see :class:`anondata.loaders.files.Options`.

    Returns:
        What was done. Pictures that were withheld are counted, and are not in ``out``.

    Raises:
        PolicyError: the policy does not validate. Other errors are those of :func:`anondata.loaders.files.anonymize`.
    """
    from anondata import keys
    from anondata.anonymizer import Anonymizer

    key = keys.run_key(Path(out), None) if run_key is None else run_key
    anonymizer = Anonymizer(policy, device=device, galleries=galleries, run_key=key, own_code=own_code)
    return anonymize(source, out, anonymizer, progress=progress, on_withheld=on_withheld, **options)


def anonymize(
    source: Places,
    out: str | os.PathLike[str],
    anonymizer: Anonymizer,
    *,
    progress: Progress | None = None,
    on_withheld: Callable[[str, str], None] | None = None,
    **options: Unpack[Options],
) -> Files:
    """Anonymizes photos and writes those that pass every check into the folder ``out``.

    Args:
        source, out: as for :func:`anondata.anonymize_files`.
        anonymizer: with the run key of earlier runs on this folder, if there were any.
        progress: called every now and then with how many samples are done, and how many of them are withheld.
        on_withheld: called with the path or URL of every picture that is withheld, and why. A path may name somebody.
        options: see :class:`Options`.

    Returns:
        What was done. Pictures that were withheld are counted, and are not in ``out``.

    Raises:
        ArgumentError: a source is not there, two pictures would get one name, ``out`` holds other files, is in use,
            or was written with another policy or key.
        OutputError: ``out`` cannot be written.
        QuotaExceeded: the client has received what was agreed.
        WeightsError: weights are missing; the message names all of them.
        KeyboardInterrupt: the run was interrupted, and finished the samples in work; the same call goes on.
    """
    job = plan(source, out, anonymizer, **options)
    result = job.run(
        progress=progress or (lambda done, withheld: None),
        on_withheld=(lambda one, reason: on_withheld(one.place, reason)) if on_withheld else lambda one, reason: None,
    )
    if result.error:
        raise result.error
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def listed(source: Places, out: Path, *, rename: bool = False, overwrite: bool = False) -> Listing:
    """Lists the pictures of all sources, and checks that a run may write them into ``out``. Loads no network library.

    Raises:
        ArgumentError, MissingExtraError, UnreadableSourceError: see :func:`anondata.sources.list_sources`.
    """
    places = [source] if isinstance(source, str | os.PathLike) else source
    listing = list_sources([os.fspath(place) for place in places], out=out)
    check_usable(out, overwrite=overwrite)
    check_collisions(((s.name if rename else expected_name(s.name), s.src) for s in listing.sources), flat=rename)
    return listing


def plan(
    source: Places | Listing,
    out: str | os.PathLike[str],
    anonymizer: Anonymizer,
    **options: Unpack[Options],
) -> FilesJob:
    """Checks what is asked for, and lists the pictures. Reads none of them.

    The arguments and errors are those of :func:`anonymize`. ``source`` may also be what :func:`listed` returned.
    """
    from anondata.loaders.files.regions import read_regions

    place, regions, texts = Path(out), options.get("regions"), options.get("texts") or {}
    rename, overwrite = options.get("rename", False), options.get("overwrite", False)
    listing = source if isinstance(source, Listing) else listed(source, place, rename=rename, overwrite=overwrite)
    names = [one.name for one in listing.sources]
    if strange := len(texts.keys() - set(names)):
        raise ArgumentError(f"{strange} of {len(texts)} texts are of pictures that no source holds")
    own = Options.__annotations__.keys() - Quota.__annotations__.keys()
    quota: Any = {
        name: value for name, value in options.items() if name not in own
    }  # an unknown one is refused there
    return FilesJob(
        anonymizer=anonymizer,
        listing=listing,
        chosen=listing.sources[: options.get("limit")],
        out=place,
        rename=rename,
        insights=options.get("insights", False) or bool(texts),
        texts=texts,
        regions=read_regions(Path(regions), names, anonymizer.policy) if regions is not None else None,
        account=account_of(quota, anonymizer),
        workers=options.get("workers") or default_workers(str(anonymizer.device)),
        overwrite=overwrite,
    )
