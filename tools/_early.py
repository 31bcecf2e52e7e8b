"""What can be said of options without loading a network library: a typing error is told in a fraction of a second."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from anondata.errors import PolicyError

_MAGIC = frozenset("*?[{")
_DEVICES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def check_policy_named(policy: str) -> None:
    """Raises ``click.UsageError`` for a name that no preset has, or a file that is not there."""
    from anondata.policy import load_policy, presets

    if policy in presets() or Path(policy).is_file():
        return  # read in full later: its components load torch
    try:
        load_policy(policy)
    except PolicyError as error:
        raise click.UsageError(f"{error}\nPresets: {', '.join(presets())}") from error


def check_device_named(device: str) -> None:
    """Raises ``click.UsageError`` for what is no device, wherever it may be."""
    if not _DEVICES.fullmatch(device):
        raise click.UsageError(f"device {device!r} cannot be used here; take auto or cpu")


def check_there(sources: Sequence[str], what: str = "SRC") -> None:
    """Raises ``click.UsageError`` for a local source that is not there; globs and URLs are looked at later."""
    for number, source in enumerate(sources, 1):
        path = source.removeprefix("file://").removeprefix("local://")
        elsewhere = "://" in path or "::" in path or path.startswith("pipe:")
        if not (elsewhere or _MAGIC & set(path) or os.path.lexists(path)):
            raise click.UsageError(f"{what} {number} does not exist")


def gallery_paths(given: Sequence[str]) -> dict[str, str]:
    """The paths of ``--gallery NAME=FILE``, by name. Raises ``click.UsageError`` for one that is not there."""
    paths = dict(item.partition("=")[::2] for item in given)
    if len(paths) < len(given) or not all(paths.values()) or not all(paths):
        raise click.UsageError("--gallery takes NAME=FILE, each name once")
    for name, path in paths.items():
        if "://" not in path and not Path(path).exists():
            raise click.UsageError(f"--gallery {name}: the file does not exist")
    return paths
