"""A PACS that lies, is busy, cuts its answers short or says nothing: pynetdicom's own provider, told what to answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pacs_kit import free_port, wait_until
from pacs_station import (
    COLLECTION,
    DeskKit,
    desk_kit,
    pacs_settings,
    radiograph,
    receiver_settings,
    write_files,
)
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.events import Event

from station.intake.sources.sop_classes import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION
from station.settings.dicom import ReceiverSettings

DX = "1.2.840.10008.5.1.4.1.1.1.1"
Answer = tuple[int, Dataset | None]


def listed(number: int, **more: object) -> Dataset:
    """One study as a PACS lists it at any level."""
    made = Dataset()
    made.StudyInstanceUID, made.SeriesInstanceUID = f"1.2.826.0.1.7.{number}.2", f"1.2.826.0.1.7.{number}.3"
    made.AccessionNumber, made.StudyDate, made.Modality = f"ACC{number:05d}", "20200917", "DX"
    made.SOPInstanceUID = f"1.2.826.0.1.7.{number}.1"
    made.NumberOfSeriesRelatedInstances = 1
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


@dataclass
class Liar:
    """Answers each query and each C-GET with what is next on its list, the last one for ever."""

    finds: dict[str, list[list[Answer]]] = field(default_factory=dict)
    gets: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def find(self, event: Event) -> Iterator[Answer]:
        level = str(event.identifier.QueryRetrieveLevel)
        self.asked.append(level)
        script = self.finds.get(level, [[]])
        yield from script.pop(0) if len(script) > 1 else script[0]

    def get(self, event: Event) -> Iterator[Any]:
        self.asked.append("GET")
        status = self.gets.pop(0) if len(self.gets) > 1 else self.gets[0]
        if self.silent.is_set():
            event.assoc.abort()
        if status:
            # No sub-operations: pynetdicom answers with success.
            yield 0
            return
        yield 1
        uid = str(event.identifier.StudyInstanceUID)
        yield 0xFF00, self.image(int(uid.split(".")[-2]))

    @staticmethod
    def image(number: int) -> Dataset:
        from io import BytesIO

        from pydicom import dcmread

        made: Dataset = dcmread(BytesIO(radiograph(number)))
        return made


@contextmanager
def lying(liar: Liar) -> Iterator[Liar]:
    entity = AE(ae_title="ORTHANC")
    for uid in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET):
        entity.add_supported_context(uid)
    entity.add_supported_context(DX, scu_role=True, scp_role=True)
    liar.port = free_port()
    handlers: list[Any] = [(evt.EVT_C_FIND, liar.find), (evt.EVT_C_GET, liar.get)]
    server = entity.start_server(("127.0.0.1", liar.port), block=False, evt_handlers=handlers)
    try:
        yield liar
    finally:
        if server is not None:
            server.shutdown()


def kit_of(home: Path, liar: Liar, **changes: Any) -> Any:
    settings = pacs_settings(
        liar.port, method="c-get", **{"backoff_s": 0.05, "backoff_longest_s": 0.1, **changes}
    )
    return desk_kit(home, ReceiverSettings(), settings)


def retrieve(kit: DeskKit, *numbers: int) -> Any:
    lines = "\n".join(f"ACC{number:05d}" for number in numbers).encode()
    return kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, lines).job)


def whole(*answers: Dataset) -> list[Answer]:
    return [*((0xFF00, answer) for answer in answers)]


def test_a_pacs_that_answers_with_all_it_has_gives_what_was_asked(home: Path) -> None:
    everything = whole(*(listed(number) for number in range(50)))
    liar = Liar({"STUDY": [everything], "SERIES": [everything], "IMAGE": [everything]}, gets=[0])
    with lying(liar), kit_of(home, liar) as kit:
        report = retrieve(kit, 7)
        assert (report.items, report.expected, report.received) == ({"retrieved": 1}, 1, 1)
        assert liar.asked == ["STUDY", "SERIES", "GET"]


def test_one_that_is_busy_is_asked_again_after_a_pause(home: Path) -> None:
    busy: list[Answer] = [(0xA700, None)]
    liar = Liar({"STUDY": [busy, busy, whole(listed(1))], "SERIES": [busy, whole(listed(1))]}, gets=[0])
    with lying(liar), kit_of(home, liar) as kit:
        assert retrieve(kit, 1).items == {"retrieved": 1}
        assert liar.asked == ["STUDY", "STUDY", "STUDY", "SERIES", "STUDY", "SERIES", "GET"]


def test_an_answer_goes_to_who_asked_and_to_no_other_thread(home: Path) -> None:
    liar = Liar({"STUDY": [whole(listed(1))]}, gets=[0])
    with lying(liar), kit_of(home, liar) as kit, kit.desk._client("main").asking() as asking:
        messages = asking._association.dimse
        answer = C_FIND()
        messages.msg_queue.put((1, answer))
        # What the association's own thread does each millisecond, and what the one that asked does.
        assert messages.get_msg(block=False) == (None, None)
        assert messages.get_msg(block=True) == (1, answer)


def test_success_without_instances_is_none(home: Path) -> None:
    liar = Liar({"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1))], "IMAGE": [[]]}, gets=[0xFFFF])
    with lying(liar), kit_of(home, liar) as kit:
        report = retrieve(kit, 1)
        assert (report.items, report.expected, report.received) == ({"incomplete": 1}, 1, 0)
        assert liar.asked.count("GET") == 2, "once more, and no more than that"


def test_one_that_stays_busy_costs_the_item_and_says_why(home: Path) -> None:
    liar = Liar({"STUDY": [[(0xA700, None)]]}, gets=[0])
    with lying(liar), kit_of(home, liar, attempts=3) as kit:
        report = retrieve(kit, 1)
        assert (report.items, report.reasons) == ({"failed": 1}, {"out-of-resources": 1})
        assert len(liar.asked) == 3


def test_an_answer_that_is_cut_short_is_none(home: Path) -> None:
    cut: list[Answer] = [*whole(listed(1)), (0xC001, None)]
    liar = Liar({"STUDY": [cut]}, gets=[0])
    with lying(liar), kit_of(home, liar, attempts=1) as kit:
        report = retrieve(kit, 1)
        assert (report.items, report.reasons) == ({"failed": 1}, {"unable-to-process": 1})


def test_uids_that_are_none_are_not_believed(home: Path) -> None:
    odd = Dataset()
    odd.AccessionNumber, odd.StudyDescription = "ACC00001", "no UID at all"
    liar = Liar({"STUDY": [whole(odd)]}, gets=[0])
    with lying(liar), kit_of(home, liar, attempts=1) as kit:
        report = retrieve(kit, 1)
        assert (report.items, report.reasons) == ({"failed": 1}, {"answer-unusable": 1})


def test_one_that_offers_no_get_stops_the_retrieval(home: Path, tmp_path: Path) -> None:
    liar = Liar({"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1))]}, gets=[0])
    port = free_port()
    with lying(liar):
        settings = pacs_settings(
            liar.port, method="c-move", attempts=2, backoff_s=0.05, backoff_longest_s=0.1
        )
        with desk_kit(home, receiver_settings(port), settings) as kit:
            report = retrieve(kit, 1)
            assert (report.state.value, report.reason) == ("stopped", "service-not-offered")
            assert report.items.get("failed", 0) == 0


def test_a_lost_association_is_made_again(home: Path) -> None:
    liar = Liar({"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1))]}, gets=[0])
    liar.silent.set()
    with lying(liar), kit_of(home, liar, attempts=50) as kit:
        job = kit.desk.retrieve_accessions("main", COLLECTION, b"ACC00001").job
        wait_until(lambda: liar.asked.count("GET") >= 2, "two attempts")
        liar.silent.clear()
        assert kit.finished(job).items == {"retrieved": 1}


@pytest.mark.parametrize(
    "finds",
    [
        # Fewer instances than the series says; a study without series; a series without instances; a failure at the end.
        {"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1, NumberOfSeriesRelatedInstances=9))],
         "IMAGE": [whole(listed(1, SOPInstanceUID="1.2.3.4"))]},
        {"STUDY": [whole(listed(1))], "SERIES": [[]], "IMAGE": [[]]},
        {"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1))], "IMAGE": [[]]},
        {"STUDY": [whole(listed(1))], "SERIES": [whole(listed(1))], "IMAGE": [[(0xC000, None)]]},
        {"STUDY": [[(0xA700, None)]]},
        # It found nothing once, and does the second time.
        {"STUDY": [[], whole(listed(1))], "SERIES": [whole(listed(1))], "IMAGE": [whole(listed(1))]},
    ],
)  # fmt: skip
def test_no_answer_of_this_kind_removes_anything(
    home: Path, tmp_path: Path, finds: dict[str, list[list[Answer]]]
) -> None:
    liar = Liar(finds, gets=[0])
    with lying(liar), kit_of(home, liar) as kit:
        write_files(tmp_path / "files", [radiograph(1)])
        assert kit.intake.import_folder(tmp_path / "files", COLLECTION).accepted == 1
        # However many the operator confirms.
        kit.desk.reconcile("main", COLLECTION, 1000)
        wait_until(lambda: state(kit) != "running", "the comparison")
        latest = kit.desk.reconciled("main")
        assert latest is not None
        assert latest.removed == 0
        assert kit.intake.status().instances == 1


def state(kit: DeskKit) -> str:
    latest = kit.desk.reconciled("main")
    return "" if latest is None else latest.state.value
