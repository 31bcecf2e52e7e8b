"""A dataset as Croissant 1.1 (JSON-LD): what there is to load, whence it came, and what its people are exposed to.

Uses schema.org, the Croissant vocabulary, its RAI extension 1.0 and W3C PROV, and no term that these do not have.
Sources: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html (2026), https://mlcommons.org/croissant/RAI/1.0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from anondata.cards._limits import unprotected
from anondata.cards._words import sentences
from anondata.cards.facts import Facts, Feature, Split
from anondata.cards.licences import licence_url

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")

_OF_CROISSANT = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in _OF_CROISSANT},
}

_TYPES: Mapping[str, str] = {
    "image": "sc:ImageObject",
    "string": "sc:Text",
    "large_string": "sc:Text",
    "bool": "sc:Boolean",
    "date32": "sc:Date",
    "date64": "sc:Date",
    **{f"{sign}int{n}": f"cr:{'U' if sign else ''}Int{n}" for n in (8, 16, 32, 64) for sign in ("", "u")},
    **{f"float{n}": f"cr:Float{n}" for n in (16, 32, 64)},
}

Json = dict[str, Any]


def croissant_of(facts: Facts) -> Json:
    """The dataset in Croissant. Columns of kinds that Croissant has no type for are counted, not described."""
    return {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": facts.title,
        "description": facts.summary or facts.title,
        "license": licence_url(facts.licence) or facts.licence,
        **({"url": facts.homepage} if facts.homepage else {}),
        "version": facts.version,
        "dateCreated": facts.created,
        "datePublished": facts.created,
        "citeAs": f"{facts.title}, version {facts.version}, {facts.created}",
        "keywords": ["anonymized", "privacy", *facts.tags],
        **_provenance(facts),
        **_responsible(facts),
        "distribution": [*_objects(facts), *(_file_set(split) for split in facts.splits)],
        "recordSet": [_record_set(split, facts.features) for split in facts.splits if facts.features],
    }


# --- what there is to load ----------------------------------------------------------------------------------------


def _objects(facts: Facts) -> Iterator[Json]:
    for file in facts.files:
        yield {
            "@type": "cr:FileObject",
            "@id": quote(file.path),
            "name": PurePosixPath(file.path).name,
            "contentUrl": quote(file.path),
            "contentSize": f"{file.size} B",
            "encodingFormat": file.media_type,
            "sha256": file.sha256,
        }


def _file_set(split: Split) -> Json:
    """Globs reach into folders in one reader, and not in another: both forms are given."""
    flat = [glob.removeprefix("**/") for glob in split.globs]
    return {
        "@type": "cr:FileSet",
        "@id": _files_id(split),
        "name": f"files of {split.name}",
        "description": f"{split.rows} rows, {split.bytes} bytes.",
        "encodingFormat": sorted({_media_type(glob) for glob in split.globs}),
        "includes": list(dict.fromkeys((*split.globs, *flat))),
    }


def _media_type(glob: str) -> str:
    suffix = PurePosixPath(glob).suffix.lstrip(".").lower()
    known = {"parquet": "application/x-parquet", "tar": "application/x-tar", "jpg": "image/jpeg"}
    return known.get(suffix, f"image/{suffix}")


def _files_id(split: Split) -> str:
    return f"files-{split.name}"


def _record_set(split: Split, features: tuple[Feature, ...]) -> Json:
    fields = [found for feature in features if (found := _field(split, feature)) is not None]
    left_out = len(features) - len(fields)
    told = f"The rows of {split.name}." + (f" {left_out} columns are not described." if left_out else "")
    return {"@type": "cr:RecordSet", "@id": split.name, "name": split.name, "description": told, "field": fields}


def _field(split: Split, feature: Feature) -> Json | None:
    row, is_array = feature.row, False
    dtype = row.get("dtype")
    if "list" in row:
        dtype, is_array = row["list"], True
    if isinstance(dtype, Mapping) and "class_label" in dtype:
        kinds = ["cr:Int64", "cr:Label"]
    elif isinstance(dtype, str) and (dtype in _TYPES or dtype.startswith("timestamp")):
        kinds = [_TYPES.get(dtype, "sc:DateTime")]
    else:
        return None
    if kinds == ["sc:ImageObject"] and is_array:
        return None
    return {
        "@type": "cr:Field",
        "@id": f"{split.name}/{quote(feature.name, safe='')}",
        "name": feature.name,
        "dataType": kinds[0] if len(kinds) == 1 else kinds,
        **({"isArray": True} if is_array else {}),
        "source": {"fileSet": {"@id": _files_id(split)}, **_extract(split, feature, kinds[0])},
    }


def _extract(split: Split, feature: Feature, kind: str) -> Json:
    if PurePosixPath(split.globs[0]).suffix != ".parquet":
        return {"extract": {"fileProperty": "content"}}
    read = {"extract": {"column": feature.name}}
    # `datasets` keeps an embedded picture as a struct of its bytes and a path, which is empty here.
    return {**read, "transform": {"jsonPath": "bytes"}} if kind == "sc:ImageObject" else read


# --- where it came from, and what its people are exposed to -------------------------------------------------------


def _provenance(facts: Facts) -> Json:
    """W3C PROV: sources, and the activity with its software agent and plan, which is the policy."""
    software = f"anondata {facts.versions['anondata']}"
    agent = {"@type": "prov:SoftwareAgent", "prov:label": software}
    plan = {"@type": "prov:Plan", "prov:label": f"policy {facts.policy.name} {facts.policy.fingerprint}"}
    activity = {
        "@type": "prov:Activity",
        "prov:label": f"anonymization with {software} by policy {facts.policy.fingerprint}",
        "prov:wasAssociatedWith": agent,
        "prov:qualifiedAssociation": {"@type": "prov:Association", "prov:agent": agent, "prov:hadPlan": plan},
    }
    sources = [_source(name) for name in facts.source_datasets]
    return {**({"prov:wasDerivedFrom": sources} if sources else {}), "prov:wasGeneratedBy": activity}


def _source(name: str) -> Json:
    if name.count("/") == 1:
        return {"@id": f"https://huggingface.co/datasets/{name}"}
    return {"@type": "prov:Entity", "prov:label": name}


def _responsible(facts: Facts) -> Json:
    report, kinds = facts.report, sorted({kind for one in facts.policy.content.values() for kind in one.regions})
    why = ", ".join(f"{reason} {n}" for reason, n in sorted(report.withheld.items()))
    sources = f" The originals came from: {', '.join(facts.source_datasets)}." if facts.source_datasets else ""
    return {
        "rai:dataCollection": f"Made from existing pictures by anonymization; nothing was collected for it.{sources}",
        "rai:dataCollectionType": ["Secondary Data analysis"],
        "rai:dataCollectionRawData": "The originals are not part of this dataset.",
        "rai:dataCollectionMissingData": f"{sum(report.withheld.values())} of {report.seen} samples were withheld"
        + (f": {why}." if why else "."),
        "rai:dataManipulationProtocol": " ".join(sentences(facts.policy)),
        "rai:personalSensitiveInformation": [
            f"Pictures of people. Regions of the kind {', '.join(kinds)} were changed and verified.",
            _strength(facts),
        ],
        "rai:dataLimitations": unprotected(facts.policy, report),
        "rai:dataReleaseMaintenancePlan": f"Version {facts.version} of {facts.created}. `anondata verify` compares "
        "its files with the manifest beside them.",
    }


def _strength(facts: Facts) -> str:
    if facts.audit is None:
        return "Nobody has attacked it: how many people could still be named is not known."
    return f"Audited: {facts.audit['verdict']}."
