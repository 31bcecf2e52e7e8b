"""Rules: a policy with every component made, as the engine takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from anondata.components import allowed_before, content_type
from anondata.errors import PolicyError
from anondata.policy import ContentPolicy, Policy, RegionPolicy
from anondata.protocols import Area, ContentType, Cover, Detector, Embedder, NeedsGalleries, Pseudonyms, Verifier
from anondata.regions import Regions
from anondata.transforms.base import RegionTransform


@dataclass(frozen=True)
class Everyone:
    """Covers every region."""

    area: ClassVar[Area] = "face"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return ()

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros_like(regions.scores, dtype=torch.bool)


@dataclass(frozen=True)
class Head(Everyone):
    """Covers every face together with its hair, neck and shoulders; see :meth:`anondata.regions.Regions.heads`.

    Who knows a person by what lies around a face then has less to go by, and less of the picture is left.
    """

    area: ClassVar[Area] = "head"


@dataclass(frozen=True)
class KindRules:
    """What happens to one kind of region.

    cover: says which regions stay as they are; it is not asked about tiny ones, which never do.
    ladder, tiny_ladder: techniques from the weakest to the last resort. tiny_below_px: regions whose geometric mean
    side is below it go the tiny ladder and are not verified, because no recognizer can tell them apart.
    utility: what must hold, too, unless a region is wholly filled because the ladder is exhausted (``fills``).
    layer: kinds of a higher one are laid on top of others. pseudonyms: who looks the same in all samples of a run.
    """

    ladder: tuple[RegionTransform, ...]
    verifiers: tuple[Verifier, ...]
    tiny_below_px: float = 0.0
    tiny_ladder: tuple[RegionTransform, ...] = ()
    raises: bool = False
    cover: Cover = Everyone()
    utility: tuple[Verifier, ...] = ()
    fills: bool = False
    layer: int = 0
    pseudonyms: Pseudonyms | None = None

    @property
    def embedders(self) -> list[Embedder]:
        """Whose templates the cover, the pseudonyms and the verifiers need."""
        judges = (*self.verifiers, *self.utility)
        named = self.pseudonyms.embedders if self.pseudonyms else ()
        return [*self.cover.embedders, *named, *(e for verifier in judges for e in verifier.embedders)]

    def covered(self, region: Regions, technique: RegionTransform) -> Regions:
        """What a technique is to cover of a region: itself, or the whole head, then whatever the coverage is."""
        if getattr(self.cover, "area", "face") == "face":
            return region
        return region.heads().scaled(1 / technique.coverage)

    @property
    def knowers(self) -> list[Any]:
        """The components that look at galleries, those within others one by one."""
        named = (self.pseudonyms,) if self.pseudonyms else ()
        parts = [one for top in (self.cover, *named, *self.verifiers, *self.utility) for one in _each(top)]
        return [one for one in parts if isinstance(one, NeedsGalleries) and one.galleries]

    def steps(self, tiny: bool) -> tuple[RegionTransform, ...]:
        return self.tiny_ladder if tiny else self.ladder


def _each(component: Any) -> Iterator[Any]:
    """A component, or those that it is made of."""
    parts = getattr(component, "gates", None)
    if parts is None:
        yield component
    for part in parts or ():
        yield from _each(part)


@dataclass(frozen=True)
class ContentRules:
    """What happens to one content type. ``scan_passes`` 0 means that the output is not scanned.

    given: what categories of regions that come with samples mean: a kind of ``kinds``, or ``"ignore"``.
    """

    content: ContentType[Any]
    detectors: tuple[Detector, ...]
    kinds: Mapping[str, KindRules]
    scanners: tuple[Detector, ...] = ()
    scan_passes: int = 0
    given: Mapping[str, str] = field(default_factory=dict)


def distinct_embedders(kinds: Iterable[KindRules]) -> dict[str, Embedder]:
    """The embedders that these rules need, by name.

    Raises:
        PolicyError: two that differ have one name: the templates of one would be judged as those of the other.
    """
    out: dict[str, Embedder] = {}
    for embedder in (e for kind in kinds for e in kind.embedders):
        known = out.setdefault(embedder.name, embedder)
        if known != embedder and (type(known) is not type(embedder) or vars(known) != vars(embedder)):
            raise PolicyError(f"two embedders are called {embedder.name!r} and differ; give them different names")
    return out


def rules_of(policy: Policy, galleries: Mapping[str, Any] | None = None) -> dict[str, ContentRules]:
    """The engine's rules, with every component made and bound to its galleries, by the names in the policy.

    Raises:
        PolicyError: a gallery that the policy names is not given, or one is given that it does not name.
        GalleryError: a gallery that does not fit its component.
    """
    check_galleries(policy, galleries or {})
    own = {n: _content_rules(n, part, galleries or {}) for n, part in policy.content.items() if not part.like}
    return {n: own.get(n) or replace(own[p.like], content=_made(n, p)) for n, p in policy.content.items()}


def _made(name: str, policy: ContentPolicy) -> ContentType[Any]:
    with allowed_before():
        content: ContentType[Any] = content_type(name).made(policy)
    return content


def check_galleries(policy: Policy, galleries: Iterable[str]) -> None:
    """Raises :class:`PolicyError` unless these are the galleries that a policy names."""
    regions = [region for content in policy.content.values() for region in content.regions.values()]
    steps = [step for r in regions for step in (r.cover, r.pseudonyms, *r.verify, *r.utility)]
    made = [step.make() for step in steps if step]
    looking = [component for component in made if isinstance(component, NeedsGalleries)]
    needed = {name: getattr(one, "gallery_options", "") for one in looking for name in one.galleries}
    given = set(galleries)
    if lacking := needed.keys() - given:
        name = min(lacking)
        raise PolicyError(
            f"policy {policy.name!r} needs a gallery called {name!r}: give galleries={{{name!r}: …}}, "
            f"or --gallery {name}=FILE; `anondata gallery build PHOTOS --out FILE{needed[name]}` makes one"
        )
    if given - needed.keys():
        name = min(given - needed.keys())
        raise PolicyError(
            f"policy {policy.name!r} looks at no gallery called {name!r}; it would protect nobody. "
            f"Galleries that it names: {', '.join(sorted(needed)) or 'none'}"
        )


def _bound(component: Any, galleries: Mapping[str, Any]) -> Any:
    return component.bound(galleries) if isinstance(component, NeedsGalleries) else component


def _content_rules(name: str, policy: ContentPolicy, galleries: Mapping[str, Any]) -> ContentRules:
    scan, content = policy.scan, _made(name, policy)
    return ContentRules(
        content=content,
        detectors=tuple(step.make() for step in policy.detect),
        kinds={
            kind: _kind_rules(rules, layer, content.blank, galleries)
            for layer, (kind, rules) in enumerate(policy.regions.items())
        },
        scanners=tuple(step.make() for step in scan.detect) if scan else (),
        scan_passes=scan.passes if scan else 0,
        given=policy.given,
    )


def _kind_rules(policy: RegionPolicy, layer: int, blank: RegionTransform, galleries: Mapping[str, Any]) -> KindRules:
    fills = policy.on_exhausted == "fill"
    last = (blank,) if fills else ()
    tiny = policy.tiny
    return KindRules(
        ladder=tuple(step.make() for step in policy.ladder) + last,
        verifiers=tuple(_bound(step.make(), galleries) for step in policy.verify),
        tiny_below_px=tiny.below_px if tiny else 0.0,
        tiny_ladder=tuple(step.make() for step in tiny.ladder) if tiny else (),
        raises=policy.on_exhausted == "raise",
        cover=_bound(policy.cover.make(), galleries),
        utility=tuple(_bound(step.make(), galleries) for step in policy.utility),
        fills=fills,
        layer=layer,
        pseudonyms=_bound(policy.pseudonyms.make(), galleries) if policy.pseudonyms else None,
    )
