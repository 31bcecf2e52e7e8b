"""The loop that anonymizes, verifies and escalates, and what it asks at each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anondata.engine.loop import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:  # on first use: the loop needs torch
    if name == "Engine":
        from anondata.engine.loop import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
