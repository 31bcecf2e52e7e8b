"""Galleries: templates of known people, their files, and how people are enrolled into them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anondata.verifiers.gallery.gallery import Gallery, Matches, Portrait, Role, empty_gallery

__all__ = ["Gallery", "Matches", "Portrait", "Role", "empty_gallery"]


def __getattr__(name: str) -> Any:  # on first use: the command line reads names of files without any network library
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("anondata.verifiers.gallery.gallery"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
