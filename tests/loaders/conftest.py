"""Loaders are tested on clear upright faces: one look at each picture is enough."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_look(upright_alone: None) -> None:
    """The engine looks at pictures upright alone, which takes a sixth of the time."""
