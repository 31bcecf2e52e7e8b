"""Policies: what is done to which regions, what must hold afterwards, and what happens when it does not.

A policy is data: YAML in and out, validated when it is read, with a fingerprint that changes when any parameter does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from anondata._files import read_plain
from anondata._yaml import MAX_CHARS, YamlError, load_yaml
from anondata.components import (
    Role,
    allowed_before,
    build,
    content_type,
    kinds_of,
    only_what_is_allowed,
    own_code_of,
    params_of,
    suggest,
)
from anondata.content import MAX_PIXELS
from anondata.errors import PolicyError

__all__ = [
    "AuditPolicy",
    "ContentPolicy",
    "EncodePolicy",
    "Policy",
    "RegionPolicy",
    "ScanPolicy",
    "Step",
    "TinyPolicy",
    "from_yaml",
    "load_policy",
    "presets",
]

IGNORE = "ignore"
"""The meaning in ``given:`` of a category whose boxes add nothing: detectors alone decide."""

FACE, NO_FACE = "face", "not_a_face"
"""The meaning in ``given:`` of a category that looks like a face and is not one: a statue, a drawing, a doll."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Data):
    """A component by name with all of its parameters; in YAML ``name`` or ``name: {parameter: value}``."""

    role: ClassVar[Role]
    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {data: None}
        if not isinstance(data, Mapping) or len(data) != 1:
            raise ValueError(f"a {cls.role} is written 'name' or 'name: {{parameter: value}}'")
        ((name, params),) = data.items()
        if not isinstance(params, Mapping | None):
            raise ValueError(f"the parameters of {cls.role} {name!r} must be a mapping")
        with only_what_is_allowed():
            made = build(cls.role, str(name), params or {})
        told = params_of(made, params or {})
        try:
            json.dumps(told)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the parameters of {cls.role} {name!r} are not plain data: {error}") from error
        return {"name": str(name), "params": told}

    @model_serializer
    def _write(self) -> dict[str, Any]:
        return {self.name: self.params}

    def make(self) -> Any:
        """The component itself."""
        with allowed_before():
            return build(self.role, self.name, self.params)


class DetectorStep(Step):
    role = "detector"


class TechniqueStep(Step):
    role = "technique"


class VerifierStep(Step):
    role = "verifier"


class CoverStep(Step):
    role = "cover"


class PseudonymStep(Step):
    role = "pseudonyms"


class TinyPolicy(_Data):
    """What is done to regions that are too small for a gate: they are changed strongly, and not verified.

    Args:
        below_px: geometric mean of a region's sides under which it is tiny; at most 10, because attackers name larger
            faces.
        ladder: techniques, the weakest first.
    """

    below_px: float = Field(gt=0, le=10)
    ladder: list[TechniqueStep] = Field(min_length=1)


class RegionPolicy(_Data):
    """What happens to one kind of region.

    Args:
        cover: whose regions are changed: ``everyone``, or fewer, by a gallery. In doubt a region is changed. ``head``
            is everyone, with hair, neck and shoulders; covers by a gallery take it as ``area: head``.
        ladder: techniques, the least destructive first.
        verify: gates; all must pass before a region is released.
        utility: gates that must pass, too, so that the result is still of use. A region that is filled after the
            last rung need not pass them.
        tiny: what is done to regions that are too small for a gate.
        on_exhausted: what follows the last rung: ``fill`` the region and verify again, ``drop`` the sample, or
            ``raise``.
        pseudonyms: who gets the same new look in every sample of a run, by techniques that can do so
            (``synthetic_face``). Anybody can then link these samples with each other. By default nobody does.
    """

    cover: CoverStep = Field(default_factory=lambda: CoverStep.model_validate("everyone"))
    ladder: list[TechniqueStep] = Field(min_length=1)
    verify: list[VerifierStep] = Field(min_length=1)
    utility: list[VerifierStep] = []
    tiny: TinyPolicy | None = None
    on_exhausted: Literal["fill", "drop", "raise"] = "fill"
    pseudonyms: PseudonymStep | None = None

    @property
    def covers_everyone(self) -> bool:
        """Whether no region is left as it is because of whose it is."""
        return self.cover.name in ("everyone", "head")

    @model_validator(mode="after")
    def _check_pseudonyms(self) -> RegionPolicy:
        if self.pseudonyms and not any(getattr(step.make(), "pseudonymous", False) for step in self.ladder):
            raise ValueError(
                "pseudonyms: no technique of this ladder can give one person the same result again; name one that "
                "can, such as synthetic_face: {members: 64, choices: 64}"
            )
        return self


class ScanPolicy(_Data):
    """A second look, at the output: what it finds uncovered is anonymized, too.

    Args:
        passes: how often the output is looked through at most. A sample in which the last pass still finds something
            is withheld. 0 is no scan.
        detect: the detectors that look.
    """

    passes: int = Field(default=2, ge=0, le=8)
    detect: list[DetectorStep] = Field(min_length=1)


class EncodePolicy(_Data):
    """How images that came as encoded bytes are written.

    Args:
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.
        format: the format of all pictures; ``same`` keeps each one's own. JPEG loses transparency.
    """

    quality: int = Field(default=95, ge=1, le=100)
    format: Literal["same", "jpeg", "png", "webp"] = "same"


class DecodePolicy(_Data):
    """Which encoded bytes are read.

    Args:
        max_pixels: larger pictures are withheld as ``too_large``.
    """

    max_pixels: int = Field(default=MAX_PIXELS, ge=1)


class ContentPolicy(_Data):
    """What happens to one content type. Types whose rules say more derive theirs from it.

    Args:
        detect: detectors; all of them run, and what any of them finds counts.
        regions: what is done to each kind of region. Where two kinds overlap, the kind named later lies on top.
        scan: a second look, at the output.
        encode: how pictures are written.
        decode: which pictures are read.
        like: another content type of the policy, whose ``detect``, ``regions``, ``scan``, ``encode``, ``decode`` and
            ``given`` hold here, too.
        given: what the categories (names or numbers) of boxes that come with samples mean: a kind of ``regions``;
            ``ignore``; or ``not_a_face``, which leaves a detected face just there as it is, unless a gallery of the
            policy may know it. A category that is not named here must be a kind itself, or its sample is withheld.
    """

    detect: list[DetectorStep] = Field(min_length=1)
    regions: dict[str, RegionPolicy] = Field(min_length=1)
    scan: ScanPolicy | None = None
    encode: EncodePolicy = EncodePolicy()
    decode: DecodePolicy = DecodePolicy()
    given: dict[str, str] = {}
    like: str = ""

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = write(self)
        left_out = _SHARED if self.like else ("like",)
        return {name: value for name, value in told.items() if name not in left_out}

    @field_validator("given", mode="before")
    @classmethod
    def _as_text(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if not all(type(category) in (str, int) for category in data):  # YAML reads a bare yes or no as a truth value
            raise ValueError("categories are texts or whole numbers; put a text in quotes")
        if len({str(category) for category in data}) < len(data):
            raise ValueError("a category is named twice, as a text and as a number")
        return {str(category): kind for category, kind in data.items()}

    @property
    def looked_for(self) -> frozenset[str]:
        """The kinds that its detectors say they find; a detector of one's own need not say."""
        steps = [*self.detect, *(self.scan.detect if self.scan else ())]
        return frozenset(kind for step in steps for kind in kinds_of(step.make()))

    @model_validator(mode="after")
    def _check_found(self) -> ContentPolicy:
        for step in (*self.detect, *(self.scan.detect if self.scan else ())):
            for kind in kinds_of(step.make()):
                if kind not in self.regions:
                    raise ValueError(
                        f"{step.name} finds {kind!r}, but regions: has no ladder for it; add one for {kind!r}"
                    )
        return self

    @model_validator(mode="after")
    def _check_area(self) -> ContentPolicy:
        for kind, rules in self.regions.items():
            if getattr(rules.cover.make(), "area", "face") == "face":
                continue
            if kind != "face":
                raise ValueError(f"regions.{kind}.cover: only faces have a head to cover")
            swaps = [step.name for step in rules.ladder if step.make().redraws]
            if swaps:
                raise ValueError(
                    f"regions.face.cover: {swaps[0]} draws a face where the face was, and cannot cover the head; "
                    "cover heads with random_colors or fill"
                )
        return self

    @model_validator(mode="after")
    def _check_given(self) -> ContentPolicy:
        words = {IGNORE, NO_FACE} if FACE in self.regions else {IGNORE}
        for kind in self.given.values():
            if (kind in self.regions) == (kind in words):
                known = ", ".join(map(repr, [*self.regions, *sorted(words)]))
                raise ValueError(f"given: a category means {kind!r}; expected exactly one of {known}")
        return self


_SHARED = tuple(name for name in ContentPolicy.model_fields if name != "like")


def _like(part: Any, name: str, parts: Mapping[Any, Any]) -> Any:
    """A part of a policy with what it takes from another one."""
    if not isinstance(part, Mapping) or "like" not in part:
        return part
    other = parts.get(part["like"]) if part["like"] != name else None
    if not isinstance(other, Mapping | ContentPolicy) or dict(other).get("like"):
        raise PolicyError(f"{name}: like: names no content type of this policy that has rules of its own")
    if own := [key for key in _SHARED if key in part]:
        raise PolicyError(f"{name}: with like: {part['like']}, {own[0]!r} is as there; leave it out, or like:")
    return {**{key: value for key, value in dict(other).items() if key in _SHARED}, **part}


AttackerName = Literal[
    "naive", "parrot", "smoothing-parrot", "matched-filter", "trained", "averaging", "context", "place", "composite"
]


class AuditPolicy(_Data):
    """What an audit of the result must show before it may be published.

    Args:
        above_chance: how many percentage points above chance an attacker may name at rank 1, as measured.
        attackers: who must have attacked. ``composite`` is the best of all who attack one release. Attackers who are
            not named here count, too, more leniently; see :func:`audit_allows`.
    """

    above_chance: float = Field(ge=0, le=100, allow_inf_nan=False)
    attackers: list[AttackerName] = Field(default=["composite"], min_length=1)


NOT_BOUND = frozenset({"context", "place"})  # they look at what no technique changes


def audit_allows(above_chance: float, attackers: Sequence[str], attack: Mapping[str, Any]) -> bool:
    """Whether an attack, in the form of ``audit.json``, names no more than a policy's ``audit:`` allows.

    Attackers that the policy demands, and those with a gallery of enrolled people, must stay within the bound as
    measured. Of several other attackers the luckiest would exceed it by chance, so only the lower end of their
    interval must stay within it. The context attacker, who looks only at what is not covered, is not bound.

    Args:
        above_chance: percentage points above chance at rank 1.
        attackers: the attackers that the policy demands.
        attack: one attack of the audit.
    """
    if attack["attacker"] in NOT_BOUND:
        return True
    rank1, strict = attack["rank1"], attack["attacker"] in attackers or attack["gallery"] == "enrolled"
    if not float(rank1["low"]) <= float(rank1["percent"]) <= float(rank1["high"]):  # as with what is no number
        return False
    measured = float(rank1["percent" if strict else "low"])
    return measured <= float(rank1["chance_percent"]) + above_chance


class Policy(_Data):
    """A whole policy. ``name`` and ``about`` are for people and not part of the fingerprint."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    about: str = ""
    content: dict[str, SerializeAsAny[ContentPolicy]] = Field(min_length=1)
    audit: AuditPolicy | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        """Each part is read by its content type."""
        if not isinstance(data, Mapping):
            return data
        out: dict[str, Any] = {}
        for name, part in data.items():
            with only_what_is_allowed():
                rules: Any = content_type(str(name)).rules
            if not (isinstance(rules, type) and issubclass(rules, ContentPolicy)):
                raise PolicyError(
                    f"content type {name!r}: its rules are not derived from anondata.policy.ContentPolicy"
                )
            kept: Any = dict.__class_getitem__((str, rules))  # by name, so that errors tell where
            out |= TypeAdapter(kept).validate_python({str(name): _like(part, str(name), data)})
        return out

    @property
    def own(self) -> dict[str, ContentPolicy]:
        """The content types that have rules of their own; the others are like one of them."""
        return {name: part for name, part in self.content.items() if not part.like}

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over every parameter, defaults included, and which kinds lie on top of which."""
        rules = self.model_dump(mode="json", exclude={"name", "about"})
        rules["layers"] = {kind: list(content.regions) for kind, content in self.content.items()}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:32]

    def with_max_pixels(self, max_pixels: int) -> Policy:
        """The same policy with another limit on the size of pictures."""
        content = {
            kind: one.model_copy(update={"decode": one.decode.model_copy(update={"max_pixels": max_pixels})})
            for kind, one in self.content.items()
        }
        return self.model_copy(update={"content": content})

    def written_as(self, form: Literal["same", "jpeg", "png", "webp"]) -> Policy:
        """The same policy, which writes all pictures in one format."""
        content = {
            kind: one.model_copy(update={"encode": EncodePolicy(quality=one.encode.quality, format=form)})
            for kind, one in self.content.items()
        }
        return self.model_copy(update={"content": content})

    def to_yaml(self) -> str:
        """The policy with every parameter written out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=110)
        return text


def from_yaml(text: str, *, own_code: Iterable[str] = ()) -> Policy:
    """Reads and validates a policy.

    Args:
        text: YAML.
        own_code: modules whose classes the policy may name. They, and modules below them, are imported and run.

    Raises:
        PolicyError: the text is not YAML, names an unknown key or component (the message suggests the nearest one),
            has a value out of range, or names code of a module that is not in ``own_code``.
    """
    try:
        data = load_yaml(text)
    except YamlError as error:
        raise PolicyError(f"the policy cannot be read as YAML: {error}") from error
    try:
        with own_code_of(own_code):
            return Policy.model_validate(data)
    except ValidationError as error:
        raise PolicyError("the policy does not validate:\n" + explained(error, _KEYS, "policy")) from error


RENAMED = {"faces-blur": "unsafe-blur", "faces-mosaic": "unsafe-mosaic"}
UNSAFE = "unsafe-"
"""The prefix of presets that attackers are known to see through; their results are never published."""


def presets() -> tuple[str, ...]:
    """The names of the policies that come with the package."""
    folder = files("anondata.policies")
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_policy(source: str | Path | Policy, *, own_code: Iterable[str] = ()) -> Policy:
    """Loads a policy.

    Args:
        source: the name of a preset, the path of a YAML file, or a :class:`Policy`, which is returned as it is.
        own_code: modules of yours whose classes a file may name, such as ``["my_package.detectors"]``. Reading a
            policy runs its components, so without this a stranger's file could run anything.

    Raises:
        PolicyError: the name is unknown or was changed, the file cannot be read, or :func:`from_yaml` refuses it.
    """
    if isinstance(source, Policy):
        return source
    if source in RENAMED:
        raise PolicyError(
            f"the preset {source!r} is now called {RENAMED[str(source)]!r}: attackers who know the technique name "
            "most people in its results. Take 'faces', or name it as it is called now"
        )
    if str(source) in presets():
        return from_yaml((files("anondata.policies") / f"{source}.yaml").read_text())
    if Path(source).suffix not in (".yaml", ".yml"):
        hint = suggest(str(source), dict.fromkeys(presets()))
        raise PolicyError(f"no policy is called {str(source)!r}; {hint} A file must end in .yaml")
    try:
        return from_yaml(read_plain(source, limit=4 * MAX_CHARS + 1).decode(), own_code=own_code)
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy file cannot be read: {type(error).__name__}") from error


_KEYS = {
    name: None
    for model in (
        Policy,
        ContentPolicy,
        RegionPolicy,
        TinyPolicy,
        ScanPolicy,
        EncodePolicy,
        DecodePolicy,
        AuditPolicy,
    )
    for name in model.model_fields
}


def explained(error: ValidationError, keys: Mapping[str, Any], whole: str) -> str:
    """What does not validate, a line each. keys: all that there are, for suggestions. whole: what it is called."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or whole
        if item["type"] == "extra_forbidden":
            lines.append(f"  {where}: unknown key; {suggest(str(item['loc'][-1]), keys)}")
        else:
            lines.append(f"  {where}: {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def __dir__() -> list[str]:
    return sorted(__all__)
