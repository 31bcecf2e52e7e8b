"""Croissant: the reference reader takes it without a complaint, and reads the rows that were written."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcroissant as mlc
import numpy as np
import pytest
from PIL import Image

from anondata.cards.croissant import croissant_of
from anondata.cards.facts import Facts, Feature, File, Split
from anondata.cards.licences import licence_url

MakeFacts = Callable[..., Facts]

# rdflib calls what it warns of itself, and mlcroissant what pandas warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:rdflib", "ignore:.*ConjunctiveGraph.*", "ignore:The inplace keyword"
)

# https://github.com/mlcommons/croissant/blob/main/docs/croissant_rai.ttl
RAI_TERMS = {
    *("dataCollection", "dataCollectionType", "dataCollectionMissingData", "dataCollectionRawData",
    "dataCollectionTimeframe", "dataPreprocessingProtocol", "dataImputationProtocol",
    "dataManipulationProtocol", "dataReleaseMaintenancePlan", "personalSensitiveInformation",
    "dataAnnotationProtocol", "dataAnnotationPlatform", "dataAnnotationAnalysis", "annotationsPerItem",
    "annotatorDemographics", "machineAnnotationTools", "dataSocialImpact", "dataBiases", "dataLimitations",
    "dataUseCases"),
}  # fmt: skip
PROV_TERMS = {
    *("wasDerivedFrom", "wasGeneratedBy", "wasAssociatedWith", "qualifiedAssociation", "agent", "hadPlan", "label"),
    *("Activity", "SoftwareAgent", "Association", "Plan", "Entity"),
}


def read(body: dict[str, Any], folder: Path) -> mlc.Dataset:
    (folder / "croissant.json").write_text(json.dumps(body))
    return mlc.Dataset(jsonld=str(folder / "croissant.json"))


@pytest.fixture
def published(tmp_path: Path, make_facts: MakeFacts) -> tuple[Path, Facts, list[bytes]]:
    """Two splits of parquet files as `datasets` writes them, with facts about them."""
    import datasets

    folder, pictures, files = tmp_path, [], []
    for i in range(5):
        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "a column, 100 %": datasets.Value("string"),
            "boxes": datasets.List(datasets.Value("int64")),
            "box": {"x": datasets.Value("int64")},
        }
    )
    (folder / "data").mkdir()
    for name, rows in (
        ("train-00000-of-00002", (0, 1)),
        ("train-00001-of-00002", (2, 3)),
        ("test-00000-of-00001", (4,)),
    ):
        columns = {
            "image": [{"bytes": pictures[i], "path": None} for i in rows],
            "label": [i % 2 for i in rows],
            "a column, 100 %": [f"row {i}" for i in rows],
            "boxes": [[i, i] for i in rows],
            "box": [{"x": i} for i in rows],
        }
        path = folder / "data" / f"{name}.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
        data = path.read_bytes()
        files.append(
            File(f"data/{name}.parquet", hashlib.sha256(data).hexdigest(), len(data), "application/x-parquet")
        )
    facts = make_facts(
        splits=(Split("train", 4, 10), Split("test", 1, 5)),
        files=tuple(files),
        features=tuple(
            Feature(row["name"], {k: v for k, v in row.items() if k != "name"}) for row in features._to_yaml_list()
        ),
    )
    return folder, facts, pictures


def test_the_reference_reader_has_no_complaint(
    published: tuple[Path, Facts, list[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    folder, facts, _ = published
    with caplog.at_level(logging.WARNING):
        found = read(croissant_of(facts), folder).metadata
    assert not found.ctx.issues.errors
    assert not found.ctx.issues.warnings
    assert not caplog.records
    assert found.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    assert found.license == ["https://spdx.org/licenses/CC-BY-4.0.html"]
    assert any("Number plates" in one for one in found.data_limitations)


def test_the_reference_reader_reads_the_rows_that_were_written(
    published: tuple[Path, Facts, list[bytes]],
) -> None:
    folder, facts, pictures = published
    found = read(croissant_of(facts), folder)
    rows = list(found.records("train"))
    assert [row["train/label"] for row in rows] == [0, 1, 0, 1]
    assert [row["train/boxes"] for row in rows] == [[i, i] for i in range(4)]
    assert [row["train/a%20column%2C%20100%20%25"] for row in rows] == [f"row {i}".encode() for i in range(4)]
    for row, data in zip(rows, pictures, strict=False):
        assert np.array_equal(np.array(row["train/image"]), np.array(Image.open(io.BytesIO(data))))
    assert len(list(found.records("test"))) == 1


def test_every_file_is_told_with_its_sha256(published: tuple[Path, Facts, list[bytes]]) -> None:
    folder, facts, _ = published
    told = {one["contentUrl"]: one["sha256"] for one in croissant_of(facts)["distribution"] if "sha256" in one}
    there = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "data").iterdir()
    }
    assert told == there


def test_columns_that_croissant_has_no_type_for_are_counted(published: tuple[Path, Facts, list[bytes]]) -> None:
    [train, _] = croissant_of(published[1])["recordSet"]
    assert train["description"] == "The rows of train. 1 columns are not described."


def test_only_terms_that_exist_are_used(facts: Facts) -> None:
    text = json.dumps(croissant_of(facts))
    assert set(re.findall(r'"rai:(\w+)"', text)) <= RAI_TERMS
    assert set(re.findall(r'"prov:(\w+)"', text)) <= PROV_TERMS


def test_provenance_names_sources_software_and_policy(facts: Facts) -> None:
    body = croissant_of(facts)
    assert body["prov:wasDerivedFrom"] == [
        {"@type": "prov:Entity", "prov:label": "private"},
        {"@id": "https://huggingface.co/datasets/someone/streets"},
    ]
    activity = body["prov:wasGeneratedBy"]
    assert activity["prov:wasAssociatedWith"]["prov:label"] == "anondata 0.1.0"
    assert facts.policy.fingerprint in activity["prov:qualifiedAssociation"]["prov:hadPlan"]["prov:label"]


def test_without_sources_none_are_told(make_facts: MakeFacts) -> None:
    body = croissant_of(make_facts(source_datasets=()))
    assert "prov:wasDerivedFrom" not in body
    assert "came from" not in body["rai:dataCollection"]


def test_a_folder_of_pictures_is_read_and_no_name_is_told(
    make_facts: MakeFacts, tmp_path: Path, photo: Callable[..., bytes]
) -> None:
    for i, name in enumerate(["jane.jpg", "trip/jim.jpg"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo(i))
    facts = make_facts(splits=(Split("train", 2, 9, ("**/*.jpg",)),), files=(), features=(Feature("image", "image"),))
    body = croissant_of(facts)
    assert "jane" not in json.dumps(body)
    rows = list(read(body, tmp_path).records("train"))
    assert [row["train/image"].size for row in rows] == [(160, 160)] * 2


def test_without_an_audit_it_says_so(make_facts: MakeFacts) -> None:
    told = croissant_of(make_facts(audit=None))["rai:personalSensitiveInformation"]
    assert "Nobody has attacked it" in " ".join(told)


@pytest.mark.parametrize(
    ("licence", "page"),
    [("cc0-1.0", "CC0-1.0"), ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"), ("apache-2.0", "Apache-2.0"), ("mit", "MIT")],
)
def test_licences_of_the_hub_have_pages(licence: str, page: str) -> None:
    assert licence_url(licence) == f"https://spdx.org/licenses/{page}.html"
