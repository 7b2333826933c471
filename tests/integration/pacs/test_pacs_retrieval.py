"""Query/retrieve against a real Orthanc: C-MOVE and C-GET, missing accessions, a PACS that dies, manners, and kills."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pacs_kit import Certificates, Orthanc, free_port, wait_until
from pacs_station import (
    COLLECTION,
    IN_THE_MIDDLE,
    MOVE_AET,
    STATION_AET,
    DeskKit,
    IntakeProcess,
    desk_kit,
    handed_over,
    pacs_settings,
    radiograph,
    receiver_settings,
    study,
)

from policies.errors import NotFoundError, UsageError
from station.intake.csv_reader import CsvError
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.intake.sources.queries import StudyCriteria
from station.settings.dicom import PacsSettings, ReceiverSettings

Serve = Callable[..., IntakeProcess]
METHODS = ("c-move", "c-get")


def accessions(*numbers: int) -> bytes:
    return "\n".join(f"ACC{number:05d}" for number in numbers).encode()


def network(pacs: Orthanc, port: int, method: str = "c-move", **changes: object) -> list[PacsSettings]:
    return [pacs_settings(pacs.dicom_port, method=method, **changes)]


def closed_receiver() -> ReceiverSettings:
    return ReceiverSettings()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_missing_accession_costs_that_one(home: Path, tmp_path: Path, method: str) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        for number in (1, 2, 4):
            pacs.add(*study(number, 3))
        receiver = receiver_settings(port) if method == "c-move" else closed_receiver()
        with desk_kit(home, receiver, *network(pacs, port, method)) as kit:
            begun = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1, 2, 3, 4))
            report = kit.finished(begun.job)
            assert (report.state.value, report.items) == ("finished", {"retrieved": 3, "missing": 1})
            assert (report.reasons, report.expected, report.received) == ({"not-found": 1}, 9, 9)
        with desk_kit(home, receiver, *network(pacs, port, method)) as kit:
            for name in kit.intake.recover():
                kit.intake.process_batch(name)
            assert kit.intake.status().instances == 9
            details = kit.paths.root / "retrievals" / begun.job / "report.csv"
            assert "ACC00003,,missing,,0,not-found" in details.read_text()
            assert details.stat().st_mode & 0o077 == 0
            assert details.parent.stat().st_mode & 0o077 == 0
    assert len(set(handed_over(kit.paths))) == 9


def test_again_is_idempotent(home: Path, tmp_path: Path, method: str) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 4))
        with desk_kit(home, receiver_settings(port), *network(pacs, port, method)) as kit:
            for _ in range(2):
                job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
                assert kit.finished(job).received == 4
                wait_until(lambda: bool(kit.accepted), "the batch")
                kit.process()
            assert kit.intake.status().instances == 4
            assert len(handed_over(kit.paths)) == 4


def test_both_sides_with_tls(
    home: Path, tmp_path: Path, certificates: dict[str, Certificates], method: str
) -> None:
    port = free_port()
    ours, theirs = certificates["station"], certificates["pacs"]
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}, tls=theirs) as pacs:
        pacs.add(*study(1, 3))
        settings = pacs_settings(pacs.dicom_port, ours, method=method)
        with desk_kit(home, receiver_settings(port, ours), settings) as kit:
            kit.desk.echo("main")
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            assert kit.finished(job).received == 3
        stranger = pacs_settings(pacs.dicom_port, certificates["stranger"], method=method)
        with desk_kit(home, receiver_settings(port, ours), stranger) as kit, pytest.raises(PacsError):
            kit.desk.echo("main")


def test_a_pacs_that_dies_in_the_middle_is_gone_on_with(home: Path, tmp_path: Path, method: str) -> None:
    port, count = free_port(), 30
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        for number in range(count):
            pacs.add(*study(number, 2))
        # At a pace at which it is in the middle for as long as it takes to kill it.
        settings = network(pacs, port, method, attempts=100, studies_per_minute=IN_THE_MIDDLE)
        with desk_kit(home, receiver_settings(port), *settings) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(*range(count))).job
            wait_until(lambda: kit.desk.retrieval(job).items.get("retrieved", 0) >= 5, "the first five")
            pacs.kill()
            seen = kit.desk.retrieval(job)
            assert seen.items.get("retrieved", 0) < count, "it was not killed in the middle"
            assert seen.state.value == "running"
            pacs.start()
            report = kit.finished(job)
            assert (report.state.value, report.items) == ("finished", {"retrieved": count})
            assert report.received == 2 * count


def test_a_pacs_that_stays_away_stops_the_retrieval_and_costs_no_item(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 2))
        with desk_kit(home, receiver_settings(port), *network(pacs, port, attempts=3)) as kit:
            pacs.kill()
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1, 2)).job
            report = kit.finished(job)
            assert (report.state.value, report.reason) == ("stopped", "unreachable")
            assert report.items == {"pending": 2}
            pacs.start()
            kit.desk.resume(job)
            assert kit.finished(job).items == {"retrieved": 1, "missing": 1}


def test_killed_in_the_middle_intake_goes_on_where_it_was(serve: Serve, tmp_path: Path, method: str) -> None:
    port, count = free_port(), 40
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        for number in range(count):
            pacs.add(*study(number, 2))
        service = serve(
            receiver_settings(port), *network(pacs, port, method, studies_per_minute=IN_THE_MIDDLE)
        )
        job = service.retrieve([f"ACC{number:05d}" for number in range(count)])["job"]
        wait_until(lambda: service.retrieval(job)["items"].get("retrieved", 0) >= 5, "the first five")
        service.kill()
        service.start()
        done = service.retrieval(job)["items"].get("retrieved", 0)
        report = service.finished(job)
        assert report["items"] == {"retrieved": count}
        assert done >= 5
        wait_until(lambda: service.instances() == 2 * count, "the batches")
        assert service.stop() == 0
    found = handed_over(service.paths)
    assert len(found) == len(set(found)) == 2 * count
    log = service.log.read_text()
    assert not [value for value in ("Testpatient", "ACC00001", "1.2.826.0.1.7", "ORTHANC") if value in log]


def test_a_destination_the_pacs_does_not_know_stops_the_retrieval(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port}) as pacs:
        pacs.add(*study(1, 1))
        with desk_kit(home, receiver_settings(port), *network(pacs, port, attempts=2)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            report = kit.finished(job)
            assert report.state.value == "stopped" or report.items == {"failed": 1}
            assert report.received == 0


def test_an_ae_title_the_pacs_does_not_know_is_not_answered(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        Orthanc(tmp_path / "pacs", {MOVE_AET: port}) as pacs,
        desk_kit(home, receiver_settings(port), *network(pacs, port)) as kit,
    ):
        with pytest.raises(PacsError) as caught:
            kit.desk.query("main", StudyCriteria(date(2020, 9, 17), date(2020, 9, 17), ("DX",)))
        # This PACS hangs up instead of saying why.
        assert caught.value.fault in {PacsFault.REJECTED, PacsFault.LOST}


def test_only_the_wanted_series_come(home: Path, tmp_path: Path, method: str) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(radiograph(1))
        pacs.add(radiograph(1, SOPInstanceUID="1.2.3.9", SeriesInstanceUID="1.2.3.8", Modality="SR"))
        pacs.add(radiograph(2, Modality="SR"))
        with desk_kit(home, receiver_settings(port), *network(pacs, port, method)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1, 2)).job
            report = kit.finished(job)
            assert report.items == {"retrieved": 1, "missing": 1}
            assert (report.expected, report.received) == (1, 1)
            assert report.reasons == {"no-wanted-series": 1}


def test_what_the_pacs_cannot_send_is_said(home: Path, tmp_path: Path, method: str) -> None:
    port = free_port()
    # Without its cache, a file that is gone from its storage is one that it cannot send.
    options = {"MaximumStorageCacheSize": 0}
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}, options=options) as pacs:
        pacs.add(*study(1, 3))
        lost = pacs.client.get("/instances").json()[0]
        details = pacs.client.get(f"/instances/{lost}/attachments/dicom/info").json()
        (file,) = (tmp_path / "pacs" / "storage").rglob(details["Uuid"])
        file.unlink()
        with desk_kit(home, receiver_settings(port), *network(pacs, port, method, attempts=2)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            report = kit.finished(job)
            assert (report.items, report.reasons) == ({"incomplete": 1}, {"incomplete": 1})
            assert (report.expected, report.received) == (3, 2)


def test_instances_of_other_kinds_keep_the_rest_of_their_series_from_nobody(
    home: Path, tmp_path: Path, method: str
) -> None:
    port = free_port()
    secondary_capture = "1.2.840.10008.5.1.4.1.1.7"
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 3), radiograph(1, SOPInstanceUID="1.2.3.9", SOPClassUID=secondary_capture))
        with desk_kit(home, receiver_settings(port), *network(pacs, port, method)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            report = kit.finished(job)
            assert (report.items, report.reasons) == ({"retrieved": 1}, {"other-kinds-left": 1})
            assert (report.expected, report.received) == (3, 3)


def test_by_query(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 2))
        pacs.add(radiograph(2, StudyDate="20200918", BodyPartExamined="KNEE"))
        pacs.add(radiograph(3, StudyDate="20200930"), radiograph(4, Modality="SR"))
        days = (date(2020, 9, 17), date(2020, 9, 18))
        with desk_kit(home, receiver_settings(port), *network(pacs, port)) as kit:
            assert kit.desk.query("main", StudyCriteria(*days, ("DX", "CT"))) == 2
            assert kit.desk.query("main", StudyCriteria(*days, ("CT",))) == 0
            chest = StudyCriteria(*days, ("DX",), "CHEST")
            report = kit.finished(kit.desk.retrieve_studies("main", COLLECTION, chest).job)
            assert (report.items, report.received) == ({"retrieved": 1, "missing": 1}, 2)
            with pytest.raises(NotFoundError):
                kit.desk.retrieve_studies("main", COLLECTION, StudyCriteria(*days, ("CT",)))


def test_outside_its_hours_the_pacs_is_left_alone(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 1))
        # An hour that began twelve hours ago.
        from datetime import UTC, datetime, timedelta

        start = datetime.now(UTC) - timedelta(hours=12)
        hours = ((f"{start:%H:%M}", f"{start + timedelta(hours=1):%H:%M}"),)
        with desk_kit(home, receiver_settings(port), *network(pacs, port, hours=hours)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            with pytest.raises(UsageError, match="at this hour"):
                kit.desk.query("main", StudyCriteria(date(2020, 9, 17), date(2020, 9, 17), ("DX",)))
            kit.desk.echo("main")
            assert kit.desk.retrieval(job).items == {"pending": 1}
            assert not kit.desk.pacs()[0].open_now
        with desk_kit(home, receiver_settings(port), *network(pacs, port)) as kit:
            assert kit.finished(job).items == {"retrieved": 1}


def test_cancelled_it_stays_where_it_is_until_it_is_resumed(home: Path, tmp_path: Path) -> None:
    port, count = free_port(), 200
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        pacs.add(*study(1, 1))
        with desk_kit(home, receiver_settings(port), *network(pacs, port)) as kit:
            job = kit.desk.retrieve_accessions("main", COLLECTION, accessions(*range(count))).job
            kit.desk.cancel(job)
            assert kit.desk.retrieval(job).state.value == "cancelled"
            other = kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job
            assert kit.finished(other).items == {"retrieved": 1}
            assert kit.desk.retrieval(job).state.value == "cancelled"
            kit.desk.resume(job)
            assert kit.finished(job).items == {"retrieved": 1, "missing": count - 1}


def test_what_was_not_asked_for_is_not_taken(home: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port, "PHT-CXR": port}) as pacs,
        desk_kit(home, receiver_settings(port), *network(pacs, port)) as kit,
    ):
        pacs.add(radiograph(1))
        assert pushed(pacs) is False
        assert not kit.accepted


def pushed(pacs: Orthanc) -> bool:
    """Have the PACS push all it has to our C-MOVE destination; whether it could."""
    studies = pacs.client.get("/studies").json()
    return pacs.client.post(f"/modalities/{MOVE_AET}/store", json=studies).is_success


def test_lists_that_are_none_are_refused_by_line(kit: DeskKit) -> None:
    for data, line in ((b"ACC1\n*\n", 2), (b"ACC1\nACC\\2", 2), (b"accession\nA?", 2), (b"A" * 17, 1)):
        with pytest.raises(CsvError) as caught:
            kit.desk.retrieve_accessions("main", COLLECTION, data)
        assert caught.value.line == line
    with pytest.raises(UsageError):
        kit.desk.retrieve_accessions("main", "other", b"ACC1")
    with pytest.raises(NotFoundError):
        kit.desk.retrieve_accessions("other", COLLECTION, b"ACC1")
    assert kit.desk.retrievals() == []


@pytest.fixture
def kit(home: Path) -> "object":
    with desk_kit(home, ReceiverSettings(), pacs_settings(free_port(), method="c-get")) as made:
        yield made
