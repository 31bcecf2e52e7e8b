"""Options that several of the commands of ``anondata gallery`` have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from anondata.tools._policy_options import own_code_option

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(dir_okay=False, path_type=Path)
THERE = click.Path(dir_okay=False, exists=True, path_type=Path)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


key_option = click.option(
    "--key-file",
    type=THERE,
    help="File that holds the gallery's key, at least 16 random bytes.  [default: the variable ANONDATA_GALLERY_KEY]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
calibration_option = click.option(
    "--calibration", type=THERE, help="Thresholds of your own, as `anondata calibrate` writes them."
)
index_options = _options(
    click.option(
        "--index",
        "kind",
        type=click.Choice(["auto", "exact", "ivf"]),
        default="auto",
        show_default=True,
        help="How it is searched: by brute force, by an index whose recall is measured, or as its size suggests.",
    ),
    click.option(
        "--recall",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.9999,
        show_default=True,
        help="The least share of people within the threshold that an index must find; nothing is saved below it.",
    ),
    click.option(
        "--far", default=0.01, show_default=True, help="The threshold's false-accept rate, which must be calibrated."
    ),
)
enrol_options = _options(
    click.option(
        "--embedder",
        metavar="NAME",
        help="Network that makes the templates.  [default: dlib-face-resnet, or the gallery's]",
    ),
    click.option("--identity", metavar="COLUMN", help="Column or field that says whose photo it is."),
    click.option("--image-column", metavar="COLUMN", help="Column or field of the pictures, in datasets and shards."),
    click.option("--person", metavar="NAME", help="All photos are of this person or place; for folders and files."),
    click.option("--identities", type=THERE, help="Text or CSV file that says whose each row of a matrix is."),
    click.option(
        "--several",
        type=click.Choice(["refuse", "largest"]),
        default="refuse",
        show_default=True,
        help="What to do with a photo of several people: refuse it, or take the largest face.",
    ),
    click.option("--smallest-px", type=float, metavar="PX", help="Least width of a face.  [default: 32]"),
    click.option(
        "--keep-portraits", is_flag=True, help="Keep a picture of each face, for parrot gates; needs a key."
    ),
    click.option(
        "--parrots-of",
        metavar="POLICY",
        help="Put the portraits through this policy's techniques now, so that no run has to do it at its start.",
    ),
    own_code_option,
    click.option(
        "--list-refused",
        type=FILE,
        help="Write reason and path of each photo that was refused or looks wrong into this file; it holds names.",
    ),
    index_options,
    calibration_option,
    key_option,
    device_option,
    json_option,
)
