"""The notations that boxes are written in, as text or data, read into lists by name.

==========================  =============================================================================
a field called ``….txt``    YOLO: a line for each, class and x, y of the centre, width, height as shares
a field called ``….xml``    Pascal VOC: ``object`` with ``name`` and ``bndbox`` of ``xmin ymin xmax ymax``
any other text              JSON, of which a path may be told: ``objects``, ``meta.faces``
``face_bboxes``             as in img2dataset: x0, y0, x1, y1 as shares of the picture's sides
==========================  =============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from anondata.errors import FieldTypeError

FACES = "face_bboxes"
_WRAPPERS = ("objects", "annotations", FACES)
_SHARES = 1.5  # a larger coordinate is none: boxes may hang over an edge, and none is so small in pixels
_MANY = 100_000  # boxes of one picture

EXPECTED = (
    'expected one of {"bbox": [[x, y, w, h]], "category": ["face"]}, '
    '{"boxes": [[x0, y0, x1, y1]], "labels": ["face"]}, [{"box": [x0, y0, x1, y1], "kind": "face"}], '
    '{"face_bboxes": [[x0, y0, x1, y1]]} in shares, YOLO lines in a field .txt, Pascal VOC in a field .xml'
)


def columns_of(
    value: Any, *, name: str = "", path: Sequence[str] = (), frame: tuple[int, int]
) -> Iterator[Mapping[str, Any]]:
    """Boxes and what is told of them, as lists by name.

    name: of the field, whose end tells what its text is. path: of names, to where in a JSON text they are.
    frame: height and width of the picture, which shares are of.

    Raises: FieldTypeError, and ValueError, TypeError or RecursionError for what cannot be read.
    """
    suffix = name.rpartition(".")[2].lower()
    if isinstance(value, str | bytes | bytearray) and suffix in ("txt", "xml"):
        yield _of_yolo(_text(value), frame) if suffix == "txt" else _of_voc(_text(value), frame)
        return
    if isinstance(value, str | bytes | bytearray):
        value = json.loads(value, object_pairs_hook=once)
    key, value = _inside(value, path)
    while isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in _WRAPPERS:
        key, value = next(iter(value.items()))
    if key == FACES:
        yield _of_shares(value, frame)
    elif isinstance(value, Mapping):
        if within := [word for word in _WRAPPERS if word in value]:
            raise FieldTypeError(
                f"a field of regions holds more than regions, which may be in its {within[0]!r}; declare the path, "
                f"'regions.{within[0]}' (on the command line --regions json.{within[0]}), and the rest stays behind"
            )
        yield value
    elif isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        for item in value:
            yield {name: [part] for name, part in item.items()}
    elif not (value is None and path):  # which says that there are none
        raise FieldTypeError(f"a field of regions holds {type(value).__name__}; {EXPECTED}")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON that says everything once: its text comes out as it is, and what is read is the last."""
    if len(dict(pairs)) < len(pairs):
        raise FieldTypeError("a field of regions says something twice; write each name once")
    return dict(pairs)


def without_the_rest(value: Any, *, name: str, path: Sequence[str]) -> Any:
    """What of a field comes out: a text of which only a part was read is written anew, with that part alone.

    Raises: as :func:`columns_of`.
    """
    if type(value) in (list, tuple):
        return type(value)(without_the_rest(item, name=name, path=path) for item in value)
    if isinstance(value, str | bytes | bytearray) and name.rpartition(".")[2].lower() == "xml":
        return _like(value, _voc_alone(_text(value)))
    if not path:
        return value
    data = json.loads(value, object_pairs_hook=once)
    _, part = _inside(data, path)
    for step in reversed(path):
        part = {step: part}
    return _like(value, json.dumps(part))


def _like(value: Any, text: str) -> Any:
    return text if isinstance(value, str) else text.encode()


def _text(value: str | bytes | bytearray) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8-sig")


def _inside(value: Any, path: Sequence[str]) -> tuple[str, Any]:
    for step in path:
        if not isinstance(value, Mapping) or step not in value:
            raise FieldTypeError(f"a field of regions has nothing at its path {'.'.join(path)!r}")
        value = value[step]
    return path[-1] if path else "", value


def _of_shares(value: Any, frame: tuple[int, int]) -> dict[str, Any]:
    value = json.loads(value) if isinstance(value, str) else [] if value is None else value
    rows = [[float(number) for number in box] for box in value]
    if any(len(row) != 4 for row in rows) or any(abs(number) > _SHARES for row in rows for number in row):
        raise FieldTypeError(f"{FACES} are x0, y0, x1, y1 as shares of the picture's sides, from 0 to 1")
    height, width = frame
    scale = (width, height, width, height)
    boxes = [[number * side for number, side in zip(row, scale, strict=True)] for row in rows]
    return {"boxes": boxes, "kind": ["face"] * len(boxes)}


def _of_yolo(text: str, frame: tuple[int, int]) -> dict[str, Any]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) > _MANY or not all(len(line) in (5, 6) and line[0].isdecimal() for line in lines):
        raise FieldTypeError(
            "a field of YOLO's text has a line that is not class, centre x y, width and height; outlines are masks"
        )
    height, width = frame
    boxes = []
    for x, y, w, h in ([float(number) for number in line[1:5]] for line in lines):
        if not all(-0.5 <= number <= _SHARES for number in (x, y, w, h)):
            raise FieldTypeError("a field of YOLO's text has numbers that are not fractions of the picture's sides")
        boxes.append([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height])
    return {"boxes": boxes, "category": [int(line[0]) for line in lines]}


def _of_voc(text: str, frame: tuple[int, int]) -> dict[str, Any]:
    root = _xml(text)
    told = root.findtext("size/height"), root.findtext("size/width")
    if all(told) and (int(told[0] or 0), int(told[1] or 0)) not in (frame, (0, 0)):
        raise FieldTypeError(f"a field of Pascal VOC is of a picture of other sides than {frame}")
    boxes, names = [], []
    for found in root.iter("object"):
        box = found.find("bndbox")
        if box is None:
            raise FieldTypeError("a field of Pascal VOC has an object without a bndbox")
        x0, y0, x1, y1 = (float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append([x0 - 1, y0 - 1, x1, y1])  # its first pixel is 1, and the last one is inside
        names.append((found.findtext("name") or "").strip())
    return {"boxes": boxes, "category": names}


def _voc_alone(text: str) -> str:
    """Size, names and boxes of it: there are also file names and owners."""
    root, out = _xml(text), ElementTree.Element("annotation")
    size = ElementTree.SubElement(out, "size")
    for side in ("width", "height"):
        if (told := root.findtext(f"size/{side}")) is not None:
            ElementTree.SubElement(size, side).text = str(int(told))
    for found in root.iter("object"):
        one = ElementTree.SubElement(out, "object")
        ElementTree.SubElement(one, "name").text = (found.findtext("name") or "").strip()
        box = ElementTree.SubElement(one, "bndbox")
        for side in ("xmin", "ymin", "xmax", "ymax"):
            ElementTree.SubElement(box, side).text = f"{float(found.findtext(f'bndbox/{side}') or ''):g}"
    return ElementTree.tostring(out, encoding="unicode")


def _xml(text: str) -> ElementTree.Element:
    """Without a document type, whose entities can stand for gigabytes, or for other files."""
    if "<!" in text:
        raise FieldTypeError("a field of Pascal VOC has a document type or comments; write it without")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError("no XML") from error
