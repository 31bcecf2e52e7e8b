"""The main job on two real photos that come with other packages: ``python -m anondata.tools.demo``."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from anondata.errors import MissingExtraError
from anondata.report import from_json
from anondata.tools import cli

OUT = Path("demo-out")
PHOTOS = (("skimage", "data/astronaut.png", 1), ("insightface", "data/images/t1.jpg", 6))


def photos() -> list[Path]:
    """NASA's astronaut and insightface's t1.jpg, where they lie in the installed packages."""
    out = []
    for package, inner, _ in PHOTOS:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(
                f"the demo's photos are not installed: {package}; run `pip install 'anondata[test]'`"
            )
        out.append(Path(spec.submodule_search_locations[0]) / inner)
    return out


def main() -> int:
    sources = [str(path) for path in photos()]
    if OUT.exists():
        shutil.rmtree(OUT)
    code = cli.run(["anonymize", *sources, "--out", str(OUT / "anonymized")])
    if code != cli.OK:
        return code
    report = from_json((OUT / "anonymized" / "report.json").read_text())
    faces = report.counts["regions"]["face"]["found"]
    expected = sum(count for _, _, count in PHOTOS)
    code = cli.run(["preview", *sources, "--out", str(OUT / "preview.html")])
    print(f"\n{faces} of {expected} faces found, all verified by a second network before they were written.")
    print(f"Look at   {(OUT / 'anonymized').resolve()}")
    print(f"Compare   {(OUT / 'preview.html').resolve()}  (holds the originals)")
    return code if faces == expected else cli.FAILURE


if __name__ == "__main__":
    sys.exit(main())
