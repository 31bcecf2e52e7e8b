"""``anondata doctor``: what is installed, which weights are here, and whether a picture gets through."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

import click

from anondata.tools import cli
from anondata.tools.weights import State, states

if TYPE_CHECKING:
    import numpy as np

FORMAT = "anondata.doctor/1"
PACKAGES = (
    "anondata",
    "torch",
    "torchvision",
    "kornia",
    "numpy",
    "pillow",
    "pydantic",
    "fsspec",
    "onnxruntime",
    "faiss-cpu",
    "datasets",
    "webdataset",
    "insightface",
)
# Extra -> module that shows that it is there, and what is lost without it.
EXTRAS: Mapping[str, tuple[str, str]] = {
    "cpu": ("onnxruntime", "networks run slower on the CPU"),
}


@dataclass(frozen=True)
class Finding:
    """One step of the self-test."""

    name: str
    passed: bool
    detail: str


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(as_json: bool) -> None:
    """Show what is installed and which weights are here, and send a test picture through.

    Exit code 0 when everything that is needed works, else 1.
    """
    found, checks = states(), self_test()
    broken = any(s.broken for s in found) or not all(c.passed for c in checks)
    body: dict[str, Any] = {
        "format": FORMAT,
        "ok": not broken,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "missing_extras": {n: f"pip install 'anondata[{n}]'" for n, (m, _) in EXTRAS.items() if not _has(m)},
        "device": device(),
        "weights": [asdict(s) for s in found],
        "self_test": [asdict(c) for c in checks],
    }
    if as_json:
        click.echo(json.dumps(body))
    else:
        _show(body, found, checks)
    click.get_current_context().exit(cli.FAILURE if broken else cli.OK)


def self_test() -> list[Finding]:
    """Sends one picture through the default policy, from encoded bytes to encoded bytes."""
    try:
        picture, with_face = _picture()
        return _through(picture, with_face)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return [Finding("self-test", False, f"{type(error).__name__}: {error}")]


def _through(picture: np.ndarray[Any, Any], with_face: bool) -> list[Finding]:
    import io

    from PIL import Image

    from anondata.anonymizer import Anonymizer
    from anondata.content import codec

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    [outcome] = Anonymizer("faces").anonymize([buffer.getvalue()])
    checks = [
        Finding("released", outcome.released, getattr(outcome, "reason", "") or "the picture passed every check")
    ]
    if not outcome.released:
        return checks
    regions = outcome.record.regions
    if with_face:
        checks.append(Finding("detected", len(regions) > 0, f"{len(regions)} face(s) in a photo of one"))
        verified = [v.passed for r in regions for v in r.verdicts]
        checks.append(
            Finding("verified", bool(verified) and all(verified), f"{sum(verified)} of {len(verified)} verdicts")
        )
    data = getattr(outcome, "image", b"")
    codec.decode(data)
    checks.append(Finding("written", True, f"{len(data)} bytes that decode again"))
    changed = "changed" if regions else "no face in a drawn picture; install scikit-image to test with a photo"
    return [*checks, Finding("regions", True, f"{len(regions)}: {changed}")]


def _picture() -> tuple[np.ndarray[Any, Any], bool]:
    """A photo that comes with scikit-image, or a drawing; and whether there is a face in it."""
    if _has("skimage"):
        from skimage import data

        astronaut: np.ndarray[Any, Any] = data.astronaut()  # type: ignore[no-untyped-call]  # it has no types
        return astronaut[:320, 60:380], True
    import numpy as np
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (256, 256), (120, 150, 180))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((78, 58, 178, 198), fill=(224, 188, 160))
    for x in (108, 148):
        draw.ellipse((x - 8, 108, x + 8, 118), fill=(40, 30, 30))
    draw.arc((105, 140, 151, 172), 20, 160, fill=(150, 60, 60), width=4)
    return np.asarray(canvas), False


def device() -> dict[str, Any]:
    """Where networks would run by default."""
    import torch

    from anondata.anonymizer import choose_device
    from anondata.loaders._cores import usable_cores

    chosen = choose_device("auto")
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return {"default": str(chosen), "name": name, "cores": usable_cores()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    return util.find_spec(module) is not None


def _show(body: Mapping[str, Any], found: list[State], checks: list[Finding]) -> None:
    click.echo(
        f"python {body['python']} on {body['device']['default']} ({body['device']['name']}), "
        f"{body['device']['cores']} cores"
    )
    for name, version in body["packages"].items():
        click.echo(f"  {name:<14}{version or '-'}")
    for name, remedy in body["missing_extras"].items():
        click.echo(f"  not installed: {name} ({EXTRAS[name][1]}): {remedy}")
    click.echo("weights")
    for state in found:
        click.echo(f"  {state.name:<27}{state.word:<10}{state.licence}")
        if state.problem:
            click.echo(f"    {state.problem}")
    click.echo("self-test")
    for check in checks:
        click.echo(f"  {'passed' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    click.echo("all is well" if body["ok"] else "something is broken, see above")
