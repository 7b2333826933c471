"""`pht-station pacs` against a real PACS, with intake as its service reads it from station.toml."""

import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pacs_kit import DEADLINE_S, Orthanc, dcmtk, free_port, storescu_arguments, wait_until
from pacs_station import (
    MODALITY_AET,
    MOVE_AET,
    ROOT,
    STATION_AET,
    pacs_settings,
    radiograph,
    receiver_settings,
    study,
    write_files,
)

from policies.console import run
from policies.errors import ExitCode
from station.cli import app
from station.intake.installation import init_intake
from station.settings import example
from station.settings.text import render
from station.supervisor import answers

COLLECTION = "chest-radiographs"
FEED = (MODALITY_AET, "PHT-CXR", COLLECTION)


class Operator:
    """Types `pht-station pacs ...`."""

    def __init__(self, home: Path, pacs: Orthanc, port: int, said: pytest.CaptureFixture[str]) -> None:
        self.home, self.pacs, self.port, self._said = home, pacs, port, said

    def __call__(self, *words: object, code: ExitCode = ExitCode.OK) -> Any:
        self._said.readouterr()
        ended = run(app, ["pacs", *map(str, words), "--home", str(self.home), "--json"])
        said = self._said.readouterr()
        with warnings.catch_warnings():
            # A program ends after its command; here its connection is left to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        assert ended == code, said.err
        return json.loads(said.out) if said.out.strip() else json.loads(said.err)["error"]

    def instances(self, count: int) -> None:
        """Wait until intake holds so many."""
        from station.web.client import LocalApi

        api = LocalApi(self.home / "run" / "intake.sock", self.home / "run" / "intake.token")
        wait_until(lambda: api.get("/v1/status")["instances"] == count, "the batches")
        api._client.close()


@pytest.fixture
def operator(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Operator]:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        paths = init_intake(home)
        settings = example().model_copy(
            update={
                "receiver": receiver_settings(port, feeds=(FEED,)),
                "pacs": (
                    pacs_settings(pacs.dicom_port, attempts=2),
                    pacs_settings(free_port(), name="away", move_ae_title="OTHER"),
                ),
            }
        )
        (home / "station.toml").write_text(render(settings))
        with (tmp_path / "service.log").open("wb") as log:
            command = [sys.executable, "-m", "station.services", "intake", str(home)]
            service = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(paths.socket), "intake")
            yield Operator(home, pacs, port, capsys)
        finally:
            service.terminate()
            assert service.wait(DEADLINE_S) == 0


def test_a_retrieval_from_asking_to_reconciling(operator: Operator, tmp_path: Path) -> None:
    for number in range(11):
        operator.pacs.add(*study(number, 2))
    assert operator("echo", "main") == {"pacs": "main", "answers": True}
    assert operator("query", "main", "--from", "2020-09-17")["studies"] == 11
    accessions = tmp_path / "list.csv"
    accessions.write_text("accession\n" + "".join(f"ACC{number:05d}\n" for number in range(12)))
    report = operator("retrieve", "main", "--collection", COLLECTION, "--accessions", accessions)
    assert (report["state"], report["items"]) == ("finished", {"retrieved": 11, "missing": 1})
    operator.instances(22)
    assert operator("status")["retrievals"] == [report]
    assert [one["name"] for one in operator("status")["pacs"]] == ["main", "away"]
    operator.pacs.remove("instance", "1.2.826.0.1.7.3.1.1")
    compared = operator("reconcile", "main", "--collection", COLLECTION)
    assert (compared["state"], compared["removed"]) == ("removed", 1)
    for number in range(5):
        operator.pacs.remove("study", f"1.2.826.0.1.7.{number}.2")
    error = operator("reconcile", "main", "--collection", COLLECTION, code=ExitCode.REFUSED)
    assert error["gone"] == 9
    confirmed = operator("reconcile", "main", "--collection", COLLECTION, "--confirm", 9)
    assert confirmed["removed"] == 9
    operator.instances(12)


def test_by_query_without_waiting(operator: Operator) -> None:
    operator.pacs.add(*study(1, 2))
    days = ("--from", "2020-09-17", "--to", "2020-09-18")
    begun = operator("retrieve", "main", "--collection", COLLECTION, *days, "--modality", "dx", "--no-wait")
    wait_until(lambda: operator("status")["retrievals"][0]["state"] == "finished", "the retrieval")
    operator.instances(2)
    assert operator("resume", begun["job"])["state"] == "finished"


def test_what_a_modality_sends_belongs_to_its_feed(operator: Operator, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", [radiograph(1)])
    result = dcmtk("storescu", *storescu_arguments(operator.port, files, calling=FEED[0], called=FEED[1]))
    assert result.returncode == 0, result.stderr
    operator.instances(1)


REFUSED: list[tuple[tuple[str, ...], ExitCode]] = [
    (("echo", "other"), ExitCode.NOT_FOUND),
    (("echo", "away"), ExitCode.UNAVAILABLE),
    (("echo", "../x"), ExitCode.USAGE),
    (("resume", "20261122T000000-000000"), ExitCode.NOT_FOUND),
    (("query", "main"), ExitCode.USAGE),
    (("query", "main", "--from", "yesterday"), ExitCode.USAGE),
    (("query", "main", "--from", "2020-02-01", "--to", "2020-01-01"), ExitCode.USAGE),
    (("query", "main", "--from", "1990-01-01", "--to", "2020-01-01"), ExitCode.USAGE),
    (("retrieve", "main", "--collection", "other", "--from", "2020-09-17"), ExitCode.NOT_FOUND),
    (("reconcile", "main", "--collection", "other"), ExitCode.USAGE),
    (("reconcile", "away", "--collection", COLLECTION), ExitCode.UNAVAILABLE),
]


def test_what_cannot_be_done_is_said(operator: Operator) -> None:
    for words, code in REFUSED:
        operator(*words, code=code)


def test_a_list_that_is_none_is_refused_without_quoting_it(operator: Operator, tmp_path: Path) -> None:
    accessions = tmp_path / "list.txt"
    accessions.write_text("ACC1\nSECRET*\n")
    words = ("retrieve", "main", "--collection", COLLECTION, "--accessions", accessions)
    error = operator(*words, code=ExitCode.DATA)
    assert "line 2" in error["message"]
    assert "SECRET" not in json.dumps(error)
