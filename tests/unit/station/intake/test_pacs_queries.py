"""What is asked of a PACS never matches more than was meant, and an answer counts only if it is what was asked."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from policies.errors import DataError, PhtError, UsageError
from station.intake.csv_reader import CsvError
from station.intake.sources import queries
from station.intake.sources.pacs_faults import PacsError
from station.intake.sources.queries import StudyCriteria, accession_list


def answer(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    "data",
    [
        b"ACC1\nACC2\n",
        b"\xef\xbb\xbfACC1\r\nACC2",
        b"accession\nACC1\nACC2\nACC1\n",
        b'patient,Accession,x\n1,ACC1,\n2,"ACC2",y\n\n',
        b"accession;x\nACC1;1\nACC2;2\n",
    ],
)
def test_lists_that_are_read(data: bytes) -> None:
    assert accession_list(data) == ("ACC1", "ACC2")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"A*", 1),
        (b"ACC1\nAC?", 2),
        (b"ACC1\n\nA\\B", 3),
        (b"patient,x\n1,2", 1),
        (b"\xff", 1),
        (b"x" * 17, 1),
    ],
)
def test_lists_that_are_refused(data: bytes, line: int) -> None:
    with pytest.raises(CsvError) as caught:
        accession_list(data)
    assert caught.value.line == line


@given(st.binary(max_size=300))
def test_no_list_holds_what_a_pacs_takes_for_a_wildcard(data: bytes) -> None:
    try:
        found = accession_list(data)
    except DataError:
        return
    for accession in found:
        assert 1 <= len(accession) <= 16
        assert not set(accession) & set("*?\\\n\r\t")
        assert queries.studies_by_accession(accession).AccessionNumber == accession


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(DataError):
        accession_list(b"\n \n")


def test_a_pacs_that_ignores_the_key_is_not_believed() -> None:
    answers = [
        answer(StudyInstanceUID="1.2.3", AccessionNumber="ACC1 ", StudyDate="20200917"),
        answer(StudyInstanceUID="1.2.4", AccessionNumber="ACC2", StudyDate="20200918"),
        answer(StudyInstanceUID="1.2.5"),
        answer(StudyInstanceUID="1.2.3", AccessionNumber="ACC1", StudyDate="20200917"),
    ]
    assert [study.study_uid for study in queries.read_studies(answers, accession="ACC1")] == ["1.2.3"]
    assert [study.study_uid for study in queries.read_studies(answers, day=date(2020, 9, 18))] == ["1.2.4"]


def test_series_and_instances_of_others_are_passed_over() -> None:
    series = [
        answer(
            StudyInstanceUID="1.2",
            SeriesInstanceUID="1.2.1",
            Modality="CT",
            NumberOfSeriesRelatedInstances="3",
        ),
        answer(StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1", Modality="CT"),
        answer(SeriesInstanceUID="1.2.2", Modality="DX"),
    ]
    found = queries.read_series(series, "1.2")
    assert [(one.series_uid, one.modality, one.instances) for one in found] == [
        ("1.2.1", "CT", 3), ("1.2.2", "DX", None),
    ]  # fmt: skip
    instances = [
        answer(SeriesInstanceUID="1.2.1", SOPInstanceUID="1.2.1.1", SOPClassUID="1.2.840"),
        answer(SeriesInstanceUID="9.9.1", SOPInstanceUID="9.9.1.1"),
    ]
    assert queries.read_instances(instances, "1.2.1") == {"1.2.1.1": "1.2.840"}


@pytest.mark.parametrize("uid", ["", "1", "abc", "1.2\\1.3", "1." + "2" * 70, "1.2.3/../x"])
def test_an_answer_without_a_uid_is_unusable(uid: str) -> None:
    # As it is decoded: pydicom looks at nothing of it.
    raw = Dataset()
    raw[0x0020000D] = DataElement(0x0020000D, "UI", uid, validation_mode=config.IGNORE)
    with pytest.raises(PacsError):
        queries.read_studies([raw])


def test_an_answer_of_the_wrong_kind_is_unusable() -> None:
    odd = Dataset()
    odd.add_new(0x0020000D, "SQ", Sequence([Dataset()]))
    with pytest.raises(PhtError):
        queries.read_studies([odd])


@pytest.mark.parametrize(
    ("first", "last", "modalities", "body_part"),
    [
        (date(2020, 1, 2), date(2020, 1, 1), ("CT",), ""),
        (date(2020, 1, 1), date(2020, 1, 1), (), ""),
        (date(2020, 1, 1), date(2020, 1, 1), ("CT*",), ""),
        (date(2020, 1, 1), date(2020, 1, 1), ("CT",), "CH?ST"),
    ],
)
def test_criteria_that_are_refused(
    first: date, last: date, modalities: tuple[str, ...], body_part: str
) -> None:
    with pytest.raises(UsageError):
        StudyCriteria(first, last, modalities, body_part)
