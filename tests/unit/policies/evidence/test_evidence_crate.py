"""The description is an RO-Crate 1.1 and a Process Run Crate, by the rules of both; the command reads a pack and says so."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from evidence_kit import EvidenceRun, members, resigned
from typer.testing import CliRunner

from policies.cli import app
from policies.evidence.archive import CRATE, STATEMENT
from policies.evidence.statement import PREDICATE_TYPE
from policies.signing import unsafe_payload


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceRun]:
    made = EvidenceRun.make(tmp_path_factory.mktemp("crate"))
    yield made
    made.kit.close()


@pytest.fixture(scope="module")
def crate(run: EvidenceRun) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(members(run.pack())[CRATE])
    return loaded


def entity(crate: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in crate["@graph"] if one["@id"] == name]
    return dict(found)


def test_it_has_the_descriptor_and_the_root_of_an_ro_crate(crate: dict[str, Any]) -> None:
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    descriptor = entity(crate, "ro-crate-metadata.json")
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = entity(crate, "./")
    assert root["@type"] == "Dataset"
    assert root["name"]
    assert root["description"]
    assert datetime.fromisoformat(root["datePublished"]).tzinfo is not None
    assert entity(crate, root["license"]["@id"])["name"]


def test_its_graph_is_flat_and_every_name_in_it_is_one_of_its_entities(crate: dict[str, Any]) -> None:
    names = [one["@id"] for one in crate["@graph"]]
    assert len(set(names)) == len(names)
    assert all(one["@type"] for one in crate["@graph"])
    outside = ("https://w3id.org/ro/crate/1.1", "http://schema.org/")

    def references(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            assert set(value) == {"@id"}, "entities are referenced, never nested"
            yield value["@id"]
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    for one in crate["@graph"]:
        for key, value in one.items():
            if key not in {"@id", "@type"}:
                for name in references(value):
                    assert name in names or name.startswith(outside), (one["@id"], key, name)


def test_every_file_is_a_data_entity_with_its_digest(crate: dict[str, Any], run: EvidenceRun) -> None:
    files = {one["@id"]: one for one in crate["@graph"] if one["@type"] == "File"}
    assert {part["@id"] for part in entity(crate, "./")["hasPart"]} == set(files)
    content = members(run.pack())
    assert set(files) == set(content) - {CRATE}
    for name, one in files.items():
        assert one["encodingFormat"]
        assert one["name"]
        assert name == STATEMENT or int(one["contentSize"]) == len(content[name])
        assert (name == STATEMENT) == ("sha256" not in one)


def test_it_is_a_process_run_crate(crate: dict[str, Any]) -> None:
    root = entity(crate, "./")
    profile = entity(crate, root["conformsTo"]["@id"])
    assert (profile["@type"], profile["@id"]) == ("CreativeWork", "https://w3id.org/ro/wfrun/process/0.5")
    (action,) = [one for one in crate["@graph"] if one["@type"] == "CreateAction"]
    assert {"@id": action["@id"]} in root["mentions"]
    assert entity(crate, action["instrument"]["@id"])["@type"] == "SoftwareApplication"
    assert entity(crate, action["agent"]["@id"])["@type"] == "Organization"
    assert datetime.fromisoformat(action["startTime"]) <= datetime.fromisoformat(action["endTime"])
    assert len(action["result"]) == 4


def test_the_statement_is_an_in_toto_statement(run: EvidenceRun) -> None:
    envelope = members(run.pack())[STATEMENT]
    statement = json.loads(unsafe_payload(envelope, "application/vnd.in-toto+json"))
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == PREDICATE_TYPE
    assert [subject["name"] for subject in statement["subject"]][:3] == [
        "order", "release/1/train/reply", "release/1/train/arrays",
    ]  # fmt: skip
    assert all(len(subject["digest"]["sha256"]) == 64 for subject in statement["subject"])


def test_the_command_says_what_holds_and_names_what_does_not(run: EvidenceRun, tmp_path: Path) -> None:
    root = tmp_path / "1.root.json"
    root.write_bytes(run.root)
    pack = run.pack()
    done = CliRunner().invoke(app, ["evidence", "verify", str(pack), "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert done.output.count("holds") == 7
    assert "4 releases" in done.output
    assert "Differential privacy spent: none." in done.output
    asked = CliRunner().invoke(app, ["evidence", "verify", str(pack), "--root", str(root), "--json"])
    assert json.loads(asked.output)["run"]["station"] == "amstel"
    forged = resigned(run, pack, lambda said: said.model_copy(update={"releases": ()}))
    refused = CliRunner().invoke(app, ["evidence", "verify", str(forged), "--root", str(root)])
    assert refused.exit_code != 0
    assert "BROKEN ledger" in refused.output
