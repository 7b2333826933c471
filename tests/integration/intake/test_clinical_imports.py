"""Clinical data through intake's API: real-looking exports in, the handover out, and everything that was said before kept."""

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from clinical_kit import castor, openclinica
from intake_kit import fixed_intake
from pseudonym_files import file_bytes, identified
from pydicom import dcmread
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from station.handover import (
    ClinicalContent,
    ClinicalRow,
    InstancesContent,
    load_public_key,
    read_handover,
    read_instance,
)
from station.intake.api import create_api
from station.intake.clinical.mapping import shipped_mapping
from station.intake.installation import MIGRATIONS
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.schema import IntakeAuditRow, PatientRow
from station.intake.settings import IntakeSettings
from station.pseudonymisation.options import DeidentificationOptions
from station.storage.database import open_database

PLAIN = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"
SECRETS = ("3748755", "9252896", "A1000", "A2000", "1975-11-22", "22-11-1975", "Testpatient")


class Site:
    """An intake with its API, without a process around it."""

    def __init__(self, paths: IntakePaths, intake: Intake, folder: Path) -> None:
        self.paths, self.intake, self._folder = paths, intake, folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # In a folder of its own: a Unix socket's name is short.
        self._place = tempfile.TemporaryDirectory(prefix="pht-")
        name = f"{self._place.name}/api.sock"
        self._socket.bind(name)
        self._socket.listen(8)
        app = create_api(intake, "token", lambda _name: None)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=name), base_url="http://intake", timeout=60,
            headers={"Authorization": "Bearer token"},
        )  # fmt: skip

    def close(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._place.cleanup()

    def images(self, *studies: tuple[str, str, str]) -> None:
        """Take in one image per (patient id, accession, day)."""
        folder = self._folder / f"images-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        for patient, accession, day in studies:
            number = f"{int(accession[1:])}{int(patient)}"
            made = identified(
                SOPInstanceUID=f"1.2.3.{number}.1", SeriesInstanceUID=f"1.2.3.{number}.2",
                StudyInstanceUID=f"1.2.3.{number}.3", PatientID=patient, AccessionNumber=accession, StudyDate=day,
            )  # fmt: skip
            (folder / f"{number}.dcm").write_bytes(file_bytes(made))
        assert self.intake.import_folder(folder, "covid").accepted == len(studies)

    def mapping(self, name: str, *changes: tuple[str, str]) -> str:
        data = shipped_mapping(name).decode()
        for old, new in changes:
            data = data.replace(old, new)
        answer = self.client.post("/v1/clinical/mappings", content=data.encode())
        assert answer.status_code == 200, answer.text
        return str(answer.json()["digest"])

    def send(self, data: bytes, expected: int = 200, **params: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/clinical", content=data, params={"collection": "covid", **params})
        assert answer.status_code == expected, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def told(self) -> list[ClinicalRow]:
        """What compute knows: the newest row of each study."""
        entries = read_handover(self.paths.handover, load_public_key(self.paths.handover_public_key))
        newest = {
            row.study_uid: row
            for entry in entries
            if isinstance(entry.content, ClinicalContent)
            for row in entry.content.rows
        }
        return [newest[study] for study in sorted(newest)]

    def study_day(self) -> date:
        """The day of the one image, as it was handed over."""
        entries = read_handover(self.paths.handover, load_public_key(self.paths.handover_public_key))
        (image,) = [
            record
            for entry in entries
            if isinstance(entry.content, InstancesContent)
            for record in entry.content.instances
        ]
        day = str(dcmread(BytesIO(read_instance(self.paths.handover, image))).StudyDate)
        return date(int(day[:4]), int(day[4:6]), int(day[6:]))

    def patients(self) -> set[tuple[str, str]]:
        database = open_database(self.paths.database, MIGRATIONS)
        with database.read() as session:
            found = {(row.issuer, row.patient_id) for row in session.scalars(select(PatientRow))}
        database.close()
        return found

    def audit(self) -> list[dict[str, Any]]:
        database = open_database(self.paths.database, MIGRATIONS)
        with database.read() as session:
            bodies = [json.loads(body) for body in session.scalars(select(IntakeAuditRow.body))]
        database.close()
        return bodies


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return fixed_intake(tmp_path / "home")


@pytest.fixture
def site(paths: IntakePaths, tmp_path: Path) -> Iterator[Site]:
    with Intake(paths, IntakeSettings(workers=1)) as intake, closing(Site(paths, intake, tmp_path)) as opened:
        yield opened


def test_a_castor_export_reaches_the_handover_under_pseudonyms(site: Site) -> None:
    mapping = site.mapping("castor-ncif-covid-1")
    first = site.send(castor({}), mapping=mapping, operator="steward")
    assert (first["rows"], first["added"], first["linked"], first["handed_over"]) == (1, 1, 0, 0)
    site.images(("3748755", "A1000", "20200917"))
    (row,) = site.told()
    assert row.values["rt_pcr"] == "positive"
    assert (
        row.values["rt_pcr_days"],
        row.values["symptom_onset_days"],
        row.values["icu_admission_days"],
    ) == (2, 7, 2)
    assert (row.values["age_years"], row.values["co_rads"], row.values["crp_mg_l"]) == (44, 5, None)
    assert row.values["admission_date"] != "2020-09-16"
    # Shifted as the images are: a day before the study stays a day before it.
    assert row.values["admission_date"] == (site.study_day() - timedelta(days=1)).isoformat()
    shown = repr(row) + repr(first)
    assert not [secret for secret in SECRETS if secret in shown]
    again = site.send(castor({}), mapping=mapping)
    assert (again["added"], again["corrected"], again["unchanged"], again["handed_over"]) == (0, 0, 1, 0)
    assert again["linked"] == 1


def test_dates_stay_or_go_as_in_the_images(paths: IntakePaths, tmp_path: Path) -> None:
    options = {"covid": DeidentificationOptions(chosen=())}
    settings = IntakeSettings(workers=1, options=options)
    with Intake(paths, settings) as intake, closing(Site(paths, intake, tmp_path)) as site:
        site.send(castor({}), mapping=site.mapping("castor-ncif-covid-1"))
        site.images(("3748755", "A1000", "20200917"))
        (row,) = site.told()
        assert row.values["admission_date"] is None
        assert row.values["symptom_onset_days"] == 7


def test_an_openclinica_extract_is_linked_by_patient_and_day(site: Site) -> None:
    rows = openclinica(
        ("S1", "THX-1", "3748755", "available", "f", "22-Nov-1975", "17-Sep-2020", "17-Sep-2020", "yes", "38.4", "2.82",
         "20-Sep-2020", "no", "UNK", "", "1"),
    )  # fmt: skip
    mapping = site.mapping("openclinica-thorax-1", (", issuer: UMC", ""))
    site.images(
        ("3748755", "A1000", "20200917"), ("3748755", "A2000", "20200921"), ("3748755", "A3000", "20201001")
    )
    report = site.send(rows, mapping=mapping)
    assert (report["rows"], report["linked"], report["handed_over"]) == (2, 2, 2)
    told = site.told()
    assert sorted((row.values["pneumonia"], row.values["crp_mg_l"]) for row in told) == [(0, None), (1, 28.2)]
    assert {row.patient for row in told} == {told[0].patient}


def test_a_row_that_names_an_issuer_belongs_to_that_issuers_patient(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"))
    rows = openclinica(
        (
            "S1",
            "THX-1",
            "3748755",
            "available",
            "f",
            "",
            "",
            "17-Sep-2020",
            "yes",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
        ),
    )
    assert site.send(rows, mapping=site.mapping("openclinica-thorax-1"))["linked"] == 0
    assert site.told() == []


def test_corrections_keep_what_was_said_before(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"))
    site.send(PLAIN + b"3748755,A1000,1,F,1975-11-22,39.2,28.2,yes\n", operator="anna")
    corrected = site.send(PLAIN + b"3748755,A1000,1,F,1975-11-23,38.2,,yes\n", operator="bram")
    assert (corrected["corrected"], corrected["handed_over"]) == (1, 1)
    (row,) = site.told()
    assert (row.values["temperature_c"], row.values["crp_mg_l"]) == (38.2, None)
    answer = site.client.post("/v1/clinical/history", json={"patient_id": "3748755", "operator": "carol"})
    (history,) = answer.json()
    assert (history["collection"], history["accession"], history["link"]) == ("covid", "A1000", "accession")
    first, second = history["versions"]
    assert (first["imported_by"], second["imported_by"]) == ("anna", "bram")
    assert first["source_digest"] != second["source_digest"]
    assert {change["field"]: (change["before"], change["after"]) for change in second["changes"]} == {
        "temperature_c": (39.2, 38.2), "crp_mg_l": (28.2, None), "age_years": ("1975-11-22", "1975-11-23"),
    }  # fmt: skip
    read = [entry["fields"] for entry in site.audit() if entry["event"] == "intake.clinical.history-read"]
    assert read == [{"by": "carol", "patients": row.patient, "rows": 1}]
    assert not [secret for secret in SECRETS if secret in json.dumps(site.audit())]


def test_what_was_said_cannot_be_rewritten(site: Site) -> None:
    site.send(PLAIN + b"3748755,A1000,1,F,,,,yes\n")
    database = open_database(site.paths.database, MIGRATIONS)
    with pytest.raises(IntegrityError, match="never changed"), database.write() as session:
        session.execute(text("UPDATE clinical_versions SET fields = '{}'"))
    database.close()


def test_an_unknown_patient_has_no_history_and_asking_is_audited_all_the_same(site: Site) -> None:
    answer = site.client.post("/v1/clinical/history", json={"patient_id": "1", "operator": "carol"})
    assert answer.status_code == 404
    assert [entry for entry in site.audit() if entry["event"] == "intake.clinical.history-read"]
    assert (
        site.client.post("/v1/clinical/history", json={"patient_id": "1", "operator": ""}).status_code == 422
    )


def test_a_wrong_row_refuses_the_export_whole_unless_it_is_to_be_left_out(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"))
    data = PLAIN + b"3748755,A1000,1,F,,,,yes\n9252896,A2000,secret,F,,,,yes\n"
    refused = site.send(data, expected=422)
    assert (
        refused["title"] == "ecrf.csv, line 3, column pneumonia: is not of the field's type (1 row is wrong)"
    )
    assert site.told() == []
    dry = site.client.post("/v1/clinical/validation", content=data).json()
    assert (dry["rows"], dry["refused"]) == (2, 1)
    assert dry["problems"] == [
        {
            "line": 3,
            "column": "pneumonia",
            "problem": "not-its-type",
            "says": "is not of the field's type",
        }
    ]
    assert "secret" not in json.dumps([refused, dry])
    assert site.told() == []
    taken = site.send(data, skip_wrong_rows=True)
    assert (taken["rows"], taken["refused"], taken["added"], taken["handed_over"]) == (2, 1, 1, 1)


def test_a_complete_export_takes_away_what_it_does_not_name(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"), ("9252896", "A2000", "20200918"))
    both = b"3748755,A1000,1,F,,,,yes\n9252896,A2000,0,M,,,,no\n"
    site.send(PLAIN + both)
    one = PLAIN + b"3748755,A1000,1,F,,,,yes\n"
    assert site.send(one)["handed_over"] == 0, "an export that is not complete says nothing of the others"
    emptied = site.send(one, complete=True)
    assert (emptied["emptied"], emptied["unchanged"], emptied["handed_over"]) == (1, 1, 1)
    assert sorted(str(row.values["pneumonia"]) for row in site.told()) == ["1", "None"]
    assert site.send(one, complete=True)["emptied"] == 0
    for nothing in (PLAIN, PLAIN + b"1,A1,9,,,,,\n"):
        site.send(nothing, expected=422, complete=True, skip_wrong_rows=True)
    assert site.send(PLAIN + both)["corrected"] == 1


def test_exports_that_cover_other_fields_add_up(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"))
    mapping = site.mapping("castor-ncif-covid-1")
    site.send(castor({}), mapping=mapping)
    outcome = (
        b"schema_version: 1\nname: outcomes\nsource: other\nprofile: ncif-covid-1@1\npartial: true\n"
        b"patient: {id_column: pat}\nstudy: {by: accession, column: acc}\n"
        b"fields: {outcome_30d: {column: out}}\n"
    )
    later = site.client.post("/v1/clinical/mappings", content=outcome).json()["digest"]
    assert site.send(b"pat,acc,out\n3748755,A1000,dead\n", mapping=later)["corrected"] == 1
    (row,) = site.told()
    assert (row.values["outcome_30d"], row.values["rt_pcr"]) == ("dead", "positive")
    assert [card["name"] for card in site.client.get("/v1/clinical/mappings").json()] == [
        "castor-ncif-covid-1",
        "outcomes",
    ]
    history = site.client.post("/v1/clinical/history", json={"patient_id": "3748755", "operator": "x"}).json()
    assert [version["mapping"] for version in history[0]["versions"]] == ["castor-ncif-covid-1", "outcomes"]


def test_a_later_study_of_a_known_patient_gets_its_rows_under_the_same_pseudonym(site: Site) -> None:
    site.send(PLAIN + b"3748755,A1000,1,F,,,,\n3748755,A2000,0,F,,,,\n")
    site.images(("3748755", "A1000", "20200917"))
    assert len(site.told()) == 1
    site.images(("3748755", "A2000", "20210917"))
    assert len(site.told()) == 2
    assert len({row.patient for row in site.told()}) == 1


def test_rows_under_an_id_from_before_a_merge_belong_to_the_merged_patient(site: Site) -> None:
    site.images(("3748755", "A1000", "20200917"), ("9252896", "A2000", "20200918"))
    site.send(PLAIN + b"3748755,A1000,1,F,,,,\n9252896,A2000,0,F,,,,\n")
    assert len({row.patient for row in site.told()}) == 2
    (issuer,) = {issuer for issuer, _ in site.patients()}
    header = "old_issuer,old_id,new_issuer,new_id\n"
    site.intake.merges.import_merges(f"{header}{issuer},3748755,{issuer},9252896\n".encode())
    assert len({row.patient for row in site.told()}) == 1
    corrected = site.send(PLAIN + b"3748755,A1000,0,F,,,,\n")
    assert (corrected["corrected"], corrected["linked"], corrected["handed_over"]) == (1, 2, 1)


@pytest.mark.parametrize("params", [{"mapping": "sha256:" + "0" * 64}, {"profile": "thorax-1@9"}])
def test_a_mapping_or_profile_that_is_not_here(site: Site, params: dict[str, str]) -> None:
    site.send(PLAIN + b"3748755,A1000,1,F,,,,\n", expected=404, **params)


def test_nothing_without_the_token(site: Site) -> None:
    for path in (
        "/v1/clinical",
        "/v1/clinical/history",
        "/v1/clinical/mappings",
        "/v1/labels",
        "/v1/labels/files",
    ):
        assert site.client.post(path, headers={"Authorization": "Bearer x"}).status_code == 403
