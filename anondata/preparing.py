"""What a policy needs on this machine before its first sample: networks' weights, and generated faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import WeightsError
from anondata.policy import Policy, load_policy, presets

if TYPE_CHECKING:
    from anondata.models.registry import Weights

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""


def components(policy: Policy) -> Iterator[Any]:
    """Every component that a policy names, made; those of a scan without passes are left out."""
    for content in policy.own.values():
        scan = content.scan.detect if content.scan and content.scan.passes else ()
        steps: list[Any] = [*content.detect, *scan]
        for region in content.regions.values():
            steps += [region.cover, *region.ladder, *region.verify, *region.utility]
            steps += region.tiny.ladder if region.tiny else ()
            steps += [region.pseudonyms] if region.pseudonyms else []
        yield from (step.make() for step in steps)


def weights_of(policy: Policy) -> tuple[Weights, ...]:
    """The registered weights that a policy computes with, bundled ones included; those of one's own are unknown."""
    from anondata.components import name_of
    from anondata.models.registry import weights

    used: set[str] = set()
    for made in components(policy):
        used |= {str(name) for name in getattr(made, "networks", [name_of("detector", made)])}
        used |= {str(embedder.name) for embedder in getattr(made, "embedders", ())}
    return tuple(item for item in weights() if item.name in used)


def missing_weights(policy: Policy) -> tuple[Weights, ...]:
    """Those of :func:`weights_of` that are not on this machine. Looks for files, and not into them."""
    from anondata.models.registry import is_here

    return tuple(item for item in weights_of(policy) if not is_here(item))


def check_weights(policy: Policy) -> None:
    """Raises :class:`WeightsError` that names all missing weights at once, and the command that gets them."""
    from anondata.models.registry import OVERRIDE_VARIABLE, Supplied, remedy

    lacking = missing_weights(policy)
    if not lacking:
        return
    told = ", ".join(f"{item.name} ({item.size_bytes / 1e6:.1f} MB)" for item in lacking)
    own = [remedy(item) for item in lacking if isinstance(item.source, Supplied)]
    other = [item for item in lacking if not isinstance(item.source, Supplied)]
    preset = policy.name in presets() and load_policy(policy.name).fingerprint == policy.fingerprint
    names = f"--policy {policy.name}" if preset and not own else " ".join(item.name for item in other)
    fetch = f"Run `anondata weights pull {names}`, or without a network put their files into a folder and set "
    words = [fetch + f"{OVERRIDE_VARIABLE} to it."] if other else []
    raise WeightsError(
        f"policy {policy.name!r} needs weights that are not on this machine: {told}. {' '.join([*words, *own])}"
    )


def fetch_weights(policy: Policy, progress: Progress) -> list[tuple[str, Path]]:
    """Fetches the weights that a policy needs and that are not here; returns the place of each that it needs.

    Raises:
        WeightsError: one that cannot be fetched; those before it stay.
    """
    from anondata.models.registry import pull

    needed, out = weights_of(policy), list[tuple[str, Path]]()
    for done, item in enumerate(needed):
        progress("fetching weights", done, len(needed))
        out.append((item.name, pull(item)))
    progress("fetching weights", len(needed), len(needed))
    return out


def people_of(policy: Policy) -> int:
    """How many generated people its techniques draw from."""
    return max((getattr(made, "generated_people", 0) for made in components(policy)), default=0)


def make_faces(policy: Policy, progress: Progress) -> int:
    """Makes the generated people that a policy's techniques draw from, unless they are there; returns how many.

    They are kept in the cache folder as they are made, so that an interruption loses no more than the last few.
    """
    people = people_of(policy)
    if people:
        from anondata.transforms.face_pool import generated_pool

        generated_pool(people, progress=lambda there, wanted: progress("making faces", there, wanted))
    return people
