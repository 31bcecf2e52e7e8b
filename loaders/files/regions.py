"""``--regions FILE``: boxes of pictures by file name.

::

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],                  # COCO
     "annotations": [{"image_id": 1, "bbox": [x, y, w, h], "category_id": 3}],
     "categories": [{"id": 3, "name": "head"}]}
    {"file_name": "a.jpg", "objects": {"bbox": [[x, y, w, h]], "categories": ["head"]}}         # metadata.jsonl

Names are paths below SRC. Boxes are in pixels of the upright picture; where the file tells the picture's size, boxes
for another one withhold it. Nothing here quotes a name or a category: both may be of people.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from anondata.errors import ArgumentError

if TYPE_CHECKING:
    from anondata.policy import Policy

log = logging.getLogger("anondata")

FIELD = "objects"
"""The field of a sample that holds its boxes."""

Category: TypeAlias = str | int
_CATEGORIES = ("categories", "category", "labels", "kind")
_OPTION = "--regions"


@dataclass(frozen=True, slots=True)
class Boxes:
    """What one picture's boxes are.

    bbox: x, y, width, height of each. category: of each. canvas: height and width of the picture, if they are told.
    """

    bbox: tuple[tuple[float, ...], ...] = ()
    category: tuple[Category, ...] = ()
    canvas: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """What changes when anything of them does; empty where there are none."""
        return json.dumps([self.bbox, self.category, self.canvas]) if self.bbox else ""

    def value(self) -> dict[str, Any]:
        """What a field of regions holds, see :mod:`anondata.content.given`."""
        if self.canvas is None or not self.bbox:
            return {"bbox": [list(box) for box in self.bbox], "category": list(self.category)}
        import torch
        from torchvision.tv_tensors import BoundingBoxes

        rows = torch.tensor(self.bbox, dtype=torch.float64)
        return {"bbox": BoundingBoxes(rows, format="XYWH", canvas_size=self.canvas), "category": list(self.category)}


def read_regions(path: Path, names: Sequence[str], policy: Policy) -> dict[str, Boxes]:
    """The boxes of pictures by their names. Pictures in the file that are no source are counted in a warning.

    names: of all pictures in SRC.

    Raises:
        ArgumentError: the file is in neither form, names a picture twice, says nothing of one in SRC, has a box
            that is no box, or a category of which the policy does not say what it means.
    """
    if len(set(names)) < len(names):
        raise ArgumentError(f"{_OPTION} finds pictures by their names, and two SRC have pictures of one name")
    told: dict[str, Boxes] = {}
    for name, boxes in _entries(path):
        if name in told:
            raise ArgumentError(f"{_OPTION} names a picture twice; write all of its boxes into one entry")
        told[name] = boxes
    if missing := sum(name not in told for name in names):
        raise ArgumentError(
            f"{_OPTION} does not name {missing} of {len(names)} pictures in SRC; name each by its path below SRC, "
            "also those without boxes"
        )
    if others := len(told) - len(names):
        log.warning("%s names %d pictures that no SRC holds; they are ignored", _OPTION, others)
    found = {name: told[name] for name in names}
    _check_categories(found.values(), policy)
    return found


def _check_categories(found: Iterable[Boxes], policy: Policy) -> None:
    """Before a run, because each picture with an unknown one would be withheld."""
    content = policy.content.get("image")
    if content is None:
        return  # which the run refuses
    used = {str(category) for boxes in found for category in boxes.category}
    unknown = [name for name in used if name not in content.given and name not in content.regions]
    if unknown:
        raise ArgumentError(
            f"{len(unknown)} of {len(used)} categories in {_OPTION} are neither kinds of the policy "
            f"({', '.join(content.regions)}) nor named by its given:; say there what they mean, or CATEGORY: ignore"
        )


def _entries(path: Path) -> Iterator[tuple[str, Boxes]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            yield from _of_lines(text)
        else:
            yield from _of_coco(json.loads(text, object_pairs_hook=_once))
    except ArgumentError:
        raise
    except json.JSONDecodeError as error:
        which = f"line {error.lineno}, column {error.colno}"
        raise ArgumentError(f"{_OPTION} is not JSON at {which}; expected COCO, or a metadata.jsonl") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{_OPTION} cannot be read as JSON in UTF-8: {type(error).__name__}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says everything once: of two lists of boxes one would be lost."""
    if len(dict(pairs)) < len(pairs):
        raise ArgumentError(f"{_OPTION} has an object that says something twice; write each name once")
    return dict(pairs)


# --- metadata.jsonl -----------------------------------------------------------------------------------------------


def _of_lines(text: str) -> Iterator[tuple[str, Boxes]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a text may hold other line ends
        if line.strip():
            entry = json.loads(line, object_pairs_hook=_once)
            where = f"line {number} of {_OPTION}"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("file_name"), str):
                raise ArgumentError(
                    f"{where} has no file_name; expected the metadata.jsonl of an imagefolder, or COCO"
                )
            yield entry["file_name"], _boxes(*_objects(entry, where), _canvas(entry, where), where)


def _objects(entry: Mapping[str, Any], where: str) -> tuple[list[Any], list[Any]]:
    """What an entry's boxes and categories are. One that does not say is refused: boxes may be elsewhere in it."""
    objects = entry.get(FIELD)
    if not isinstance(objects, Mapping):
        raise ArgumentError(
            f'{where} has no {FIELD}; for a picture without boxes write "{FIELD}": {{"bbox": [], "categories": []}}'
        )
    called = [name for name in _CATEGORIES if name in objects]
    if len(called) != 1 or not isinstance(objects.get("bbox"), list) or not isinstance(objects[called[0]], list):
        raise ArgumentError(f"{where}: {FIELD} must have a list bbox, and one list of {', '.join(_CATEGORIES)}")
    if len(objects["bbox"]) != len(objects[called[0]]):
        raise ArgumentError(f"{where} has {len(objects['bbox'])} boxes and {len(objects[called[0]])} categories")
    return objects["bbox"], objects[called[0]]


# --- COCO ---------------------------------------------------------------------------------------------------------


def _of_coco(data: Any) -> Iterator[tuple[str, Boxes]]:
    images, annotations, categories = (_list(data, name) for name in ("images", "annotations", "categories"))
    names, files = _by_id(categories, "name", "categories"), _by_id(images, "file_name", "images")
    boxes, called = defaultdict[Any, list[Any]](list), defaultdict[Any, list[Any]](list)
    for number, one in enumerate(annotations, 1):
        whose, category = _id(one.get("image_id")), _id(one.get("category_id"))
        if whose not in files or category not in names:
            what = "image" if whose not in files else "category"
            raise ArgumentError(f"annotation {number} of {_OPTION} refers to an unknown {what}")
        boxes[whose].append(one.get("bbox"))
        called[whose].append(names[category])
    for number, (key, image) in enumerate(zip(files, images, strict=True), 1):
        where = f"image {number} of {_OPTION}"
        yield files[key], _boxes(boxes[key], called[key], _canvas(image, where), where)


def _list(data: Any, name: str) -> list[Mapping[str, Any]]:
    part = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(part, list) or not all(isinstance(one, Mapping) for one in part):
        raise ArgumentError(
            f"{_OPTION} holds no list of {name}; expected COCO, or the metadata.jsonl of an imagefolder under a name "
            "that ends in .jsonl"
        )
    return part


def _by_id(entries: Sequence[Mapping[str, Any]], name: str, what: str) -> dict[Any, str]:
    found = {_id(entry.get("id")): entry.get(name) for entry in entries}
    if len(found) < len(entries) or None in found or not all(isinstance(value, str) for value in found.values()):
        raise ArgumentError(f"{what} of {_OPTION} need an id of their own and a text {name}")
    return {key: str(value) for key, value in found.items()}


def _id(value: Any) -> Any:
    """A number or a text that names something; None for what does not."""
    return value if type(value) in (int, str) else None


# --- both ---------------------------------------------------------------------------------------------------------


def _boxes(bbox: Sequence[Any], category: Sequence[Any], canvas: tuple[int, int] | None, where: str) -> Boxes:
    if not all(map(_is_box, bbox)):
        raise ArgumentError(f"{where} has a box that is not x, y, width and height, four finite numbers")
    if not all(type(one) in (str, int) for one in category):
        raise ArgumentError(f"{where} has a category that is neither a text nor a whole number")
    return Boxes(tuple(tuple(map(float, box)) for box in bbox), tuple(category), canvas)


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(type(number) in (int, float) for number in box):
        return False
    return all(abs(number) < 1e9 for number in box)  # also false for what is no number


def _canvas(entry: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    """Height and width of a picture; None where neither is told."""
    height, width = entry.get("height"), entry.get("width")
    if height is None and width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ArgumentError(f"{where} has a width and height that no picture can have")
    return height, width
