"""Components by name: what a policy's YAML may call, and where it lives.

A name is one of the tables' or a dotted path ``package.module:Class`` of the user's own. Nothing is imported before
it is asked for, so the core names rooms beside it without depending on them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Literal

from anondata.errors import AnondataError, PolicyError

Role = Literal["content", "cover", "detector", "pseudonyms", "technique", "verifier"]

TABLES: Mapping[Role, Mapping[str, str]] = {
    "content": {
        "frames": "anondata.content.frames:FramesContent",
        "image": "anondata.content.images:ImageContent",
    },
    "cover": {
        "everyone": "anondata.engine.rules:Everyone",
        "everyone_except": "anondata.verifiers.gates.cover:EveryoneExcept",
        "gallery": "anondata.verifiers.gates.cover:OnlyGallery",
        "head": "anondata.engine.rules:Head",
    },
    "detector": {
        "centerface": "anondata.detectors.centerface:CenterFaceDetector",
        "frame": "anondata.detectors.frame:FrameDetector",
        "insightface": "anondata.verifiers.insightface:InsightFaceDetector",
        "persons": "anondata.detectors.persons:PersonDetector",
        "persons-torchvision": "anondata.detectors.persons_torchvision:TorchvisionPersonDetector",
        "plates": "anondata.detectors.plates:PlateDetector",
        "text": "anondata.detectors.text:TextDetector",
        "yunet": "anondata.detectors.yunet:YuNetDetector",
    },
    "pseudonyms": {"gallery_people": "anondata.verifiers.gates.cover:GalleryPeople"},
    "technique": {
        "chain": "anondata.transforms.chain:Chain",
        "fill": "anondata.transforms.fill:Fill",
        "frequency_filter": "anondata.transforms.frequency:FrequencyFilter",
        "gaussian_blur": "anondata.transforms.blur:GaussianBlur",
        "mask": "anondata.transforms.mask:Mask",
        "ksame": "anondata.transforms.ksame:KSame",
        "noise": "anondata.transforms.noise:Noise",
        "pixelate": "anondata.transforms.pixelate:Pixelate",
        "synthetic_face": "anondata.transforms.synthetic_face:SyntheticFace",
        "plate_swap": "anondata.transforms.plate_swap:PlateSwap",
        "random_colors": "anondata.transforms.random_colors:RandomColors",
        "random_replace": "anondata.transforms.random_replace:RandomReplace",
        "resize": "anondata.transforms.resize:Resize",
        "shuffle": "anondata.transforms.shuffle:Shuffle",
        "silhouette": "anondata.transforms.silhouette:Silhouette",
        "style_transfer": "anondata.transforms.style:StyleTransfer",
        "text_swap": "anondata.transforms.text_swap:TextSwap",
        "warp": "anondata.transforms.warp:Warp",
    },
    "verifier": {
        "all_of": "anondata.verifiers.gates.compose:AllOf",
        "any_of": "anondata.verifiers.gates.compose:AnyOf",
        "confidence_drop": "anondata.verifiers.gates.confidence_drop:ConfidenceDrop",
        "ensemble": "anondata.verifiers.gates.compose:Ensemble",
        "gallery_match": "anondata.verifiers.gates.gallery_match:GalleryMatch",
        "keeps_category": "anondata.verifiers.gates.keeps_category:KeepsCategory",
        "keeps_count": "anondata.verifiers.gates.count_utility:KeepsCount",
        "keeps_face": "anondata.verifiers.gates.face_utility:KeepsFace",
        "keeps_mouth": "anondata.verifiers.gates.face_utility:KeepsMouth",
        "parrot_match": "anondata.verifiers.gates.parrot_match:ParrotMatch",
        "person_match": "anondata.verifiers.gates.person_match:PersonMatch",
        "pixel_match": "anondata.verifiers.gates.pixel_match:PixelMatch",
        "place_match": "anondata.verifiers.gates.place_match:PlaceMatch",
        "plate_unread": "anondata.verifiers.gates.text_gates:PlateUnread",
        "self_match": "anondata.verifiers.gates.self_match:SelfMatch",
        "still_text": "anondata.verifiers.gates.text_gates:StillText",
        "text_unread": "anondata.verifiers.gates.text_gates:TextUnread",
    },
}


NEEDED: Mapping[Role, tuple[str, ...]] = {
    "content": ("rules", "made", "takes", "decode", "view", "change", "compose", "render", "covered"),
    "cover": ("embedders", "spares"),
    "detector": ("detect",),
    "pseudonyms": ("embedders", "people"),
    "technique": ("name", "change", "extent"),
    "verifier": ("judge", "embedders", "name"),
}
"""What a component of a role must have. :mod:`anondata.protocols` says what each is, and what else there may be."""

_MORE_IN: Mapping[Role, str] = {
    "content": "anondata.content.base.Content, which content types are derived from",
    "cover": "anondata.protocols.Cover",
    "detector": "anondata.protocols.Detector",
    "pseudonyms": "anondata.protocols.Pseudonyms",
    "technique": "anondata.transforms.base.RegionTransform, which techniques are derived from",
    "verifier": "anondata.protocols.Verifier",
}


def is_below(module: object, own_code: Iterable[str]) -> bool:
    """Whether a module is one of those that somebody allows, or below one. A text is one name."""
    named = [own_code] if isinstance(own_code, str) else own_code
    return any(module == name or str(module).startswith(f"{name}.") for name in named)


@dataclass(frozen=True)
class _Trust:
    """What may be used of all that is named. modules: whose code, None for any. files: whether files are read."""

    modules: frozenset[str] | None = None
    files: bool = True

    def covers(self, module: object) -> bool:
        """Whether code of a module may be run: one that is named, or one below it."""
        return self.modules is None or is_below(module, self.modules)


# Held where code would be run, not by the look of a name: there are more ways to write one than one thinks of.
_UNSAID = _Trust()  # a script may name what it likes; a policy that it reads may not
_trust: ContextVar[_Trust] = ContextVar("anondata_trust", default=_UNSAID)


@contextmanager
def own_code_of(own_code: Iterable[str], *, files: bool = True) -> Iterator[None]:
    """A context in which only anondata's own code and that of some modules is imported and run.

    Args:
        own_code: the modules; those below them are allowed, too.
        files: whether files that a policy names are read.
    """
    token = _trust.set(_Trust(frozenset([own_code] if isinstance(own_code, str) else own_code), files))
    try:
        yield
    finally:
        _trust.reset(token)


@contextmanager
def allowed_before() -> Iterator[None]:
    """While it lasts, what was allowed when it was read may be made again."""
    token = _trust.set(_Trust())
    try:
        yield
    finally:
        _trust.reset(token)


@contextmanager
def only_what_is_allowed() -> Iterator[None]:
    """While it lasts, no code is run of a module that nobody named."""
    known = _trust.get()
    token = _trust.set(_Trust(frozenset()) if known is _UNSAID else known)
    try:
        yield
    finally:
        _trust.reset(token)


def check_file_is_trusted() -> None:
    """Refuses files that are named by somebody who is not trusted.

    Raises:
        PolicyError: such a file is named.
    """
    if not _trust.get().files:
        raise PolicyError(
            "the policy names a file of its maker's own, which is read only where that maker is trusted; name the "
            "module that reads it: --own-code MODULE, or own_code=[…] in Python"
        )


def own_class(path: str) -> Any:
    """Imports what a dotted path ``package.module:Class`` names, if its module is allowed.

    Raises:
        PolicyError: nobody allowed the module.
        ImportError, AttributeError: the class does not exist.
    """
    trust = _trust.get()
    module, _, attribute = path.partition(":")
    if not trust.covers(module):
        raise _not_allowed(path, module)
    found = getattr(import_module(module), attribute)
    home = getattr(found, "__module__", None)
    if not trust.covers(home):  # what a module imports for itself, such as subprocess.Popen
        raise _not_allowed(path, str(home))
    return found


def _not_allowed(path: str, module: str) -> PolicyError:
    return PolicyError(
        f"{path!r} is code of its maker's own, and was not run; if you trust its maker, allow its module: "
        f"--own-code {module}, or own_code=[{module!r}] in Python"
    )


def build(role: Role, name: str, params: Mapping[str, Any]) -> Any:
    """Makes a component. This is cheap: weights are loaded on first use.

    Args:
        role: what it is for.
        name: its name in :data:`TABLES`, or ``package.module:Class``.
        params: keywords of its constructor.

    Raises:
        PolicyError: the name is unknown (the message suggests the nearest one), a parameter is not accepted, or the
            user's class lacks something of :data:`NEEDED`.
    """
    made = _class(role, name)
    try:
        component = made(**params)
        _check_has(role, name, component)
        return component
    except PolicyError:
        raise
    except (TypeError, ValueError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown:
            known = dict.fromkeys(params_of(made())) if name in TABLES[role] else {}
            hint = suggest(unknown[1], known) if known else ""
            raise PolicyError(f"{role} {name!r} has no parameter {unknown[1]!r}; {hint}") from error
        raise PolicyError(f"{role} {name!r}: {error}") from error
    except Exception as error:
        if name in TABLES[role] or isinstance(error, AnondataError):
            raise
        raise PolicyError(f"{role} {name!r} cannot be made: its code raised {type(error).__name__}") from error


def content_type(name: str) -> Any:
    """The class of a content type: one of :data:`TABLES`, or ``package.module:Class``.

    Raises:
        PolicyError: the name is unknown (the message suggests the nearest one), or the user's class lacks something.
    """
    made = _class("content", name)
    _check_has("content", name, made)
    return made


def _check_has(role: Role, name: str, component: Any) -> None:
    """Raises :class:`PolicyError` if a component lacks something; perhaps it was named in the wrong place."""
    lacking = [word for word in NEEDED[role] if word not in dir(component)]  # computes none
    if lacking:
        raise PolicyError(f"{name!r} is not a {role}: it has no {lacking[0]!r}; see {_MORE_IN[role]}")
    if role == "technique" and not isinstance(component, import_module("anondata.transforms.base").RegionTransform):
        raise PolicyError(f"{name!r} is not a {role}; see {_MORE_IN[role]}")


def redraws(description: str) -> bool:
    """Whether the technique of a record, ``"name {parameters}"``, draws another of the same kind in its place."""
    name = description.partition(" ")[0]
    return name in TABLES["technique"] and bool(_class("technique", name).redraws)


def kinds_of(component: Any) -> tuple[str, ...]:
    """The kinds of region that a component says it finds or is made for; none where it does not say.

    Raises:
        PolicyError: the ``kinds`` of the user's component are not texts.
    """
    kinds = getattr(component, "kinds", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(kinds, tuple | list | set | frozenset) or not all(isinstance(kind, str) for kind in kinds):
        raise PolicyError(
            f"kinds of {type(component).__name__!r} is {type(kinds).__name__}; expected a tuple of kinds of region, "
            "such as ('face',), or no such attribute"
        )
    return tuple(kinds)


def open_gallery(source: Any) -> Any:
    """A gallery by the path of its file, or as it is."""
    if not isinstance(source, str | os.PathLike):
        return source
    return import_module("anondata.verifiers.gallery.file").open_any(source)


def params_of(component: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every parameter of a component as plain data, defaults included.

    They are a dataclass's fields, or what ``config()`` returns. If a user's class has neither, they are the keywords
    that it was made with, and the defaults of its constructor.

    Args:
        component: the component.
        given: the keywords that it was made with, if they are known.

    Raises:
        PolicyError: the parameters of the user's component are unknown, or not plain data.
    """
    if is_dataclass(component) and not isinstance(component, type):
        told = asdict(component)
        return {field.name: told[field.name] for field in fields(component) if field.init}
    if hasattr(component, "config"):
        params: dict[str, Any] = component.config()
        return params
    return _written(component, given)


def _written(component: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    taken = signature(type(component)).parameters.values()
    names = [p for p in taken if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    if given is None and names:
        raise PolicyError(
            f"{type(component).__name__!r} does not tell its parameters: make it a dataclass, or give it a method "
            "config() that returns the constructor's keywords"
        )
    defaults = {p.name: p.default for p in names if _is_plain(p.default)}
    return {**defaults, **(given or {})}


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in YAML and JSON."""
    if isinstance(value, Mapping):
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return (
        value is None
        or type(value) in (bool, int, float, str)
        or (type(value) is list and all(_is_plain(item) for item in value))
    )


def name_of(role: Role, component: Any) -> str:
    """What a policy calls a component: its name in the table, or the dotted path of its class."""
    path = f"{type(component).__module__}:{type(component).__qualname__}"
    return next((name for name, known in TABLES[role].items() if known == path), path)


def suggest(name: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them.

    >>> suggest("pixelat", {"pixelate": 1, "fill": 2})
    "did you mean 'pixelate'?"
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def _class(role: Role, name: str) -> Any:
    table = TABLES[role]
    if name not in table and ":" not in name:
        what = "content type" if role == "content" else role
        raise PolicyError(f"unknown {what} {name!r}; {suggest(name, table)}")
    try:
        if name not in table:
            return own_class(name)
        module, _, attribute = table[name].partition(":")
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        hint = "; is its folder in PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else ""
        raise PolicyError(f"{role} {name!r} cannot be imported: {error}{hint}") from error
