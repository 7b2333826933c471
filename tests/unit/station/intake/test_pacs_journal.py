"""The journal of a retrieval: durable line by line, cut off anywhere, private; and who gives up when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import NotFoundError, PhtError, StorageError
from station.intake.sources.agenda import Agenda, Outcome
from station.intake.sources.journal import (
    ItemState,
    JobItem,
    JobState,
    Journal,
    Progress,
    forget_old,
    journals,
    new_card,
)
from station.intake.sources.pacs_faults import PacsFault
from station.settings.dicom import PacsSettings

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def begun(root: Path, count: int = 3) -> Journal:
    items = [JobItem(accession=f"ACC{number}") for number in range(count)]
    return Journal.create(root, new_card(NOW, "main", "cxr", items, modalities=("DX",), body_part=""))


def settings(**changes: object) -> PacsSettings:
    return PacsSettings.model_validate(
        {
            "name": "main",
            "host": "pacs",
            "ae_title": "P",
            "calling_ae_title": "S",
            "tls": "none",
            "attempts": 3,
        }
        | changes
    )


def test_what_was_recorded_is_there_again(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.record(1, Progress(state=ItemState.RETRIEVED, expected=4, received=4))
    journal.record(2, Progress(state=ItemState.MISSING, reason="not-found"))
    journal.say(JobState.STOPPED, "unreachable")
    again = Journal.open(tmp_path, journal.card.job)
    assert again.progress == journal.progress
    assert (again.state, again.reason) == (JobState.STOPPED, "unreachable")
    assert again.open_items() == [0]
    assert again.report() == journal.report()
    assert again.report().items == {"pending": 1, "retrieved": 1, "missing": 1}


def test_cut_off_anywhere_it_is_what_it_was_before_the_last_line(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    file = tmp_path / journal.card.job / "journal.jsonl"
    for number in range(3):
        journal.record(number, Progress(state=ItemState.RETRIEVED, expected=number, received=number))
    whole = file.read_bytes()
    ends = [0, *(place + 1 for place, byte in enumerate(whole) if byte == 0x0A)]
    for cut in (*range(0, len(whole), 5), *ends):
        file.write_bytes(whole[:cut])
        again = Journal.open(tmp_path, journal.card.job)
        lines = sum(end <= cut for end in ends) - 1
        assert [one.state.final for one in again.progress] == [number < lines for number in range(3)]
        # It goes on with whole lines.
        again.say(JobState.RUNNING)
        assert Journal.open(tmp_path, journal.card.job).progress == again.progress


@given(st.binary(max_size=200))
def test_a_damaged_one_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("retrievals")
    journal = begun(root)
    (root / journal.card.job / "journal.jsonl").write_bytes(data + b"\n")
    try:
        Journal.open(root, journal.card.job)
    except PhtError:
        # Passed over at a start, and said so.
        assert journals(root) == []
    else:
        assert len(journals(root)) == 1


def test_it_is_intakes_alone(tmp_path: Path) -> None:
    journal = begun(tmp_path / "retrievals")
    journal.write_details()
    folder = tmp_path / "retrievals" / journal.card.job
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    with pytest.raises(NotFoundError):
        Journal.open(tmp_path / "retrievals", "../keys")


def test_what_is_over_goes_after_its_term(tmp_path: Path) -> None:
    over, under_way = begun(tmp_path), begun(tmp_path)
    over.say(JobState.FINISHED)
    over.write_details()
    assert forget_old(tmp_path, NOW) == 0
    assert forget_old(tmp_path, NOW + timedelta(seconds=1)) == 1
    assert [journal.card.job for journal in journals(tmp_path)] == [under_way.card.job]
    assert [path.name for path in tmp_path.iterdir()] == [under_way.card.job]


def test_a_spreadsheet_runs_nothing_of_the_details(tmp_path: Path) -> None:
    card = new_card(NOW, "main", "cxr", [JobItem(accession="=1+1")], modalities=(), body_part="")
    journal = Journal.create(tmp_path, card)
    journal.write_details()
    assert "\n'=1+1," in (tmp_path / card.job / "report.csv").read_text().replace("\r", "")


def test_a_fault_of_an_item_is_tried_again_last_and_given_up(tmp_path: Path) -> None:
    journal = begun(tmp_path, 2)
    agenda = Agenda(journal, settings())
    order = []
    for _ in range(4):
        number = agenda.next()
        assert number is not None
        order.append(number)
        if number == 0:
            pause = agenda.failed(number, PacsFault.FAILED)
            assert pause is None or pause > 0
        else:
            agenda.done(number, Outcome(ItemState.RETRIEVED, 1, 1, ""))
    assert order == [0, 1, 0, 0]
    assert agenda.next() is None
    assert journal.progress[0] == Progress(state=ItemState.FAILED, reason="unable-to-process", attempts=3)


def test_a_fault_of_all_costs_no_item_and_stops_in_the_end(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    agenda = Agenda(journal, settings())
    for attempt in range(3):
        assert agenda.next() == 0
        assert (agenda.failed(0, PacsFault.UNREACHABLE) is None) == (attempt == 2)
    assert agenda.next() is None
    assert (journal.state, journal.reason) == (JobState.STOPPED, "unreachable")
    assert journal.open_items() == [0, 1, 2]


def test_a_success_in_between_starts_the_count_anew(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    agenda = Agenda(journal, settings(attempts=2))
    assert agenda.next() == 0
    agenda.failed(0, PacsFault.UNREACHABLE)
    assert agenda.next() == 0
    agenda.done(0, Outcome(ItemState.RETRIEVED, 1, 1, ""))
    assert agenda.next() == 1
    assert agenda.failed(1, PacsFault.UNREACHABLE) is not None
    assert journal.state is JobState.RUNNING


def test_what_comes_short_is_asked_for_once_more(tmp_path: Path) -> None:
    journal = begun(tmp_path, 1)
    agenda = Agenda(journal, settings())
    for _ in range(2):
        assert agenda.next() == 0
        agenda.done(0, Outcome(ItemState.INCOMPLETE, 3, 2, "incomplete"))
    assert agenda.next() is None
    assert journal.progress[0].state is ItemState.INCOMPLETE


def test_what_cannot_be_written_down_is_not_gone_on_with(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    agenda = Agenda(journal, settings())
    (tmp_path / journal.card.job / "journal.jsonl").unlink()
    assert agenda.next() == 0
    agenda.done(0, Outcome(ItemState.RETRIEVED, 1, 1, ""))
    assert agenda.next() is None
    with pytest.raises(StorageError):
        agenda.raise_fault()
