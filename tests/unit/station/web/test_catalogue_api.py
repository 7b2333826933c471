"""The catalogue's use cases over the real socket, as pht-station types them; and what the two documents tell outside."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalogue_log import COLLECTION, patient
from local_api_kit import served_home
from station_kit import PATIENTS, StationKit

from policies.console import run
from policies.documents import digest_of
from policies.errors import ExitCode, SettingsError, TrustError
from policies.manifest import Modality
from policies.signing import generate_key, load_signer
from policies.station_profile import open_profile
from station.catalogue.desk import CatalogueDesk
from station.catalogue.published import PublishedCounts
from station.catalogue.readiness_job import ReadinessJob
from station.cli import app
from station.egress.records.ledger import MessageType
from station.settings.example import example
from station.web.catalogue_api import add_catalogue_routes
from station.web.client import LocalApi
from station.web.edge import put_behind_token

TOKEN = "t" * 64


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = StationKit.make(tmp_path, dcat=example().dcat)
    yield made
    made.close()


@pytest.fixture
def desk(kit: StationKit, tmp_path: Path) -> CatalogueDesk:
    generate_key(tmp_path / "identity.pem")
    launcher: Any = kit.launcher
    counts = PublishedCounts(kit.database, kit.settings.counts, [COLLECTION], draw=lambda: 0)
    return CatalogueDesk(
        kit.settings, kit.database, counts, kit.catalogue.sync, launcher, kit.ledger, kit.audit,
        load_signer(tmp_path / "identity.pem"), ReadinessJob(kit.database, kit.intake.folder, kit.clock), kit.clock,
    )  # fmt: skip


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what the commands leave to the end of their process."""
    opened: list[LocalApi] = []
    make = LocalApi.__init__

    def remember(self: LocalApi, *places: Path) -> None:
        make(self, *places)
        opened.append(self)

    monkeypatch.setattr(LocalApi, "__init__", remember)
    yield
    for client in opened:
        client._client.close()


@pytest.fixture
def home(desk: CatalogueDesk, clients: None) -> Iterator[Path]:
    """A home whose compute answers the catalogue's routes."""
    from fastapi import FastAPI

    api = FastAPI()
    put_behind_token(api, TOKEN, "run/api.token")
    add_catalogue_routes(api, desk)
    with served_home(api, TOKEN) as home:
        yield home


def said(capsys: pytest.CaptureFixture[str], home: Path, *command: str, code: int = ExitCode.OK) -> str:
    assert run(app, [*command, "--home", str(home)]) == code, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_query_is_typed_and_answered_exactly(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = json.loads(said(capsys, home, "catalogue", "query", "--json"))
    assert everything == [
        {"collection": COLLECTION, "patients": 40, "studies": 40, "series": 40, "images": 40}
    ]
    odd = json.loads(
        said(
            capsys, home, "catalogue", "query", "--modality", "DX", "--view", "PA", "--field", "pneumonia=1", "--field",
            "sex!=M", "--json",
        )
    )  # fmt: skip
    assert odd[0]["patients"] == 20
    assert json.loads(said(capsys, home, "catalogue", "query", "--slice-thickness", "..2.5", "--json")) == []
    assert json.loads(said(capsys, home, "catalogue", "query", "--mask", "--json")) == []
    assert "not for outside" in said(capsys, home, "catalogue", "query", "--no-mask", "--face", "unknown")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--slice-thickness", "thin"], ExitCode.USAGE),
        (["--slice-thickness", ".."], ExitCode.USAGE),
        (["--year", "2020..2019"], ExitCode.USAGE),
        (["--field", "sex"], ExitCode.USAGE),
        (["--field", "shoe_size=1"], ExitCode.USAGE),
        (["--modality", "x' OR 1=1"], ExitCode.USAGE),
        (["--profile", "nobody-knows@1", "--field", "sex=F"], ExitCode.USAGE),
    ],
)
def test_a_query_that_is_none_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int
) -> None:
    assert run(app, ["catalogue", "query", *options, "--home", str(home)]) == code
    assert "OR 1=1" not in capsys.readouterr().err


def test_the_profile_is_signed_rounded_and_in_the_ledger_first(
    kit: StationKit, desk: CatalogueDesk, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "profile.json"
    said(capsys, home, "profile", "export", str(out))
    profile = open_profile(out.read_bytes(), desk.signer.public_hex)
    (collection,) = profile.collections
    assert (profile.station, collection.name, collection.marking) == ("amstel", COLLECTION, "patient")
    assert (collection.counts.patients, collection.counts.images[Modality.DX]) == (40, 40)
    assert (collection.counts.images[Modality.CT], profile.ceilings.memory_mib) == (0, 1024)
    assert profile.engine is not None
    assert profile.engine.name == "simulated"
    (entry,) = [one.entry for one in kit.ledger.entries() if one.entry.type is MessageType.COUNTS]
    assert (entry.digest, entry.size) == (digest_of(out.read_bytes()), out.stat().st_size)
    assert "counts-exported" in kit.events()
    with pytest.raises(TrustError):
        open_profile(out.read_bytes(), "0" * 64)
    text = out.read_text()
    assert not any(patient(number) in text for number in PATIENTS)


def test_what_cannot_be_entered_does_not_leave(
    desk: CatalogueDesk,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from station_kit import broken_disk

    monkeypatch.setattr(type(desk.ledger), "append", broken_disk)
    for command in (
        ["profile", "export", str(tmp_path / "o")],
        ["catalogue", "dcat", "--out", str(tmp_path / "o")],
    ):
        said(capsys, home, *command, code=ExitCode.STORAGE)
    assert not (tmp_path / "o").exists()


def test_what_is_told_stays_while_single_patients_come(
    kit: StationKit, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = said(capsys, home, "catalogue", "told", "--json")
    assert json.loads(before)[0]["patients"] == 40
    for number in range(100, 109):
        kit.intake.instances(number)
        kit.clock.forward(days=8)
        assert said(capsys, home, "catalogue", "told", "--json") == before
    assert "CT" in said(capsys, home, "catalogue", "told")


def test_readiness_as_it_is_typed(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = json.loads(said(capsys, home, "readiness", "--json"))
    assert (report["finished"], report["total"], report["collections"][0]["ready_patients"]) == (True, 40, 40)
    manifest = tmp_path / "train.yaml"
    from station_kit import MANIFEST

    manifest.write_bytes(MANIFEST.replace(b"modalities: [DX]", b"modalities: [CT]"))
    told = said(capsys, home, "readiness", "--for", str(manifest), "--collection", COLLECTION, "--series")
    assert "0 of 40 series ready" in told
    assert "too-few-patients" in told
    assert "2.25.1000" in told
    said(capsys, home, "readiness", "--collection", "others", code=ExitCode.NOT_FOUND)
    manifest.write_text("no: manifest")
    said(capsys, home, "readiness", "--for", str(manifest), code=ExitCode.DOCUMENT)


# -- HealthDCAT-AP ---------------------------------------------------------------------------------------------

# Release 8, SHACL shapes for NON_PUBLIC: property, least, most (None: any number), what it must be.
DATASET = (
    ("dct:title", 1, None, "literal"), ("dct:description", 1, None, "literal"), ("dct:identifier", 1, None, "literal"),
    ("dct:accessRights", 1, 1, "iri"), ("dcatap:applicableLegislation", 1, None, "iri"),
    ("dcat:distribution", 1, None, "node"), ("dcat:theme", 1, None, "iri"), ("healthdcatap:hdab", 1, 1, "node"),
    ("healthdcatap:healthCategory", 1, None, "iri"), ("healthdcatap:hasStructuredData", 1, 1, "xsd:boolean"),
    ("dcat:contactPoint", 1, None, "node"), ("dcat:keyword", 1, None, "literal"), ("dct:type", 1, None, "iri"),
    ("dct:provenance", 1, None, "node"), ("dct:publisher", 0, 1, "node"),
    ("healthdcatap:minTypicalAge", 0, 1, "xsd:nonNegativeInteger"),
    ("healthdcatap:maxTypicalAge", 0, 1, "xsd:nonNegativeInteger"),
    ("healthdcatap:numberOfRecords", 0, 1, "xsd:nonNegativeInteger"),
    ("healthdcatap:numberOfUniqueIndividuals", 0, 1, "xsd:nonNegativeInteger"),
)  # fmt: skip
DISTRIBUTION = (("dcatap:applicableLegislation", 1, None, "iri"), ("dcat:accessURL", 1, None, "iri"))
AGENT = (("foaf:name", 1, None, "literal"), ("cv:contactPoint", 1, 1, "node"))
GROUP = (("csvw:table", 1, None, "node"), ("dct:title", 1, None, "literal"))
TABLE = (("csvw:column", 1, None, "node"), ("dct:title", 1, None, "literal"))
COLUMN = (
    ("csvw:name", 1, 1, "literal"), ("dct:description", 1, None, "literal"), ("csvw:title", 1, None, "literal"),
    ("csvw:datatype", 1, 1, "literal"),
)  # fmt: skip


def values(node: dict[str, Any], name: str) -> list[Any]:
    found = node.get(name, [])
    return found if isinstance(found, list) else [found]


def kind(value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, dict) and "@language" in value):
        return "literal"
    if "@value" in value:
        return str(value["@type"])
    return "iri" if set(value) == {"@id"} else "node"


def faults(node: dict[str, Any], shape: tuple[tuple[str, int, int | None, str], ...]) -> list[str]:
    """What of a shape a node breaks."""
    broken = []
    for name, least, most, wanted in shape:
        found = values(node, name)
        if len(found) < least or (most is not None and len(found) > most):
            broken.append(f"{name}: {len(found)}")
        broken += [f"{name}: {kind(value)}" for value in found if kind(value) != wanted]
    return broken


def all_faults(document: dict[str, Any]) -> list[str]:
    broken = faults(document, (("dcatap:applicableLegislation", 1, None, "iri"),))
    for dataset in values(document, "dcat:dataset"):
        broken += faults(dataset, DATASET)
        for name, shape in (
            ("dcat:distribution", DISTRIBUTION), ("healthdcatap:hdab", AGENT), ("dct:publisher", AGENT),
            ("healthdcatap:hasVariables", GROUP),
        ):  # fmt: skip
            for node in values(dataset, name):
                broken += faults(node, shape)
        for node in values(dataset, "healthdcatap:hdab") + values(dataset, "dct:publisher"):
            contact = values(node, "cv:contactPoint")[0]
            broken += [] if {"cv:email", "cv:contactPage"} & set(contact) else ["cv:contactPoint"]
        for contact in values(dataset, "dcat:contactPoint"):
            broken += [] if {"vcard:hasEmail", "vcard:hasURL"} & set(contact) else ["vcard:Kind"]
        structured = dataset["healthdcatap:hasStructuredData"]["@value"] == "true"
        if structured and not values(dataset, "healthdcatap:hasVariables"):
            broken.append("healthdcatap:hasVariables: 0")
        for group in values(dataset, "healthdcatap:hasVariables"):
            for table in values(group, "csvw:table"):
                broken += faults(table, TABLE)
                for column in values(table, "csvw:column"):
                    broken += faults(column, COLUMN)
    return broken


def prefixes(node: Any) -> Iterator[str]:
    """Every prefix that a document uses, in keys and types."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "@context":
                continue
            names = [key] if not key.startswith("@") else value if key == "@type" else []
            yield from (
                name.split(":")[0] for name in ([names] if isinstance(names, str) else names) if ":" in name
            )
            yield from prefixes(value)
    elif isinstance(node, list):
        for one in node:
            yield from prefixes(one)


def test_the_catalogue_has_what_healthdcat_ap_asks(
    kit: StationKit, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "catalogue.jsonld"
    said(capsys, home, "catalogue", "dcat", "--out", str(out))
    document = json.loads(out.read_bytes())
    assert all_faults(document) == []
    (dataset,) = document["dcat:dataset"]
    assert dataset["dct:accessRights"]["@id"].endswith("/access-right/NON_PUBLIC")
    assert dataset["healthdcatap:numberOfUniqueIndividuals"]["@value"] == "40"
    assert dataset["healthdcatap:minTypicalAge"]["@value"] == "20"
    columns = dataset["healthdcatap:hasVariables"][0]["csvw:table"]["csvw:column"]
    assert "pneumonia" in {column["csvw:name"] for column in columns}
    assert set(prefixes(document)) <= set(document["@context"])
    assert [one.entry.digest for one in kit.ledger.entries() if one.entry.type is MessageType.COUNTS] == [
        digest_of(out.read_bytes())
    ]


@pytest.mark.parametrize("name", [name for name, least, _, _ in DATASET if least])
def test_the_check_of_shapes_sees_what_is_missing(desk: CatalogueDesk, name: str) -> None:
    document = json.loads(desk.export_dcat())
    del document["dcat:dataset"][0][name]
    with pytest.raises((AssertionError, KeyError)):
        assert all_faults(document) == []


def test_a_catalogue_that_lacks_something_is_not_written(
    tmp_path: Path, desk: CatalogueDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from station.catalogue.dcat import catalogue
    from station.settings.outside import DcatSettings

    settings = desk.settings.model_copy(update={"dcat": DcatSettings()})
    with pytest.raises(SettingsError, match="hdab_name"):
        catalogue(settings, (), (), desk.clock())
