"""`labels.csv`: which file is whose mask."""

import pytest

from station.intake.clinical.labels.table import LabelLine, read_labels
from station.intake.csv_reader import CsvError

HEADER = b"file,patient_id,accession,series_instance_uid,names\n"


def test_a_row_names_a_file_a_patient_a_series_and_what_the_values_mean() -> None:
    (row,) = read_labels(HEADER + b"lung-0017.nii.gz,3748755,A1,1.2.3,left-lung right-lung\n")
    assert row == LabelLine(2, "lung-0017.nii.gz", "3748755", "", "A1", "1.2.3", ("left-lung", "right-lung"))


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"../1.nii,1,A,,lung", "file"),
        (b"/etc/passwd.nii,1,A,,lung", "file"),
        (b"a/b.nii,1,A,,lung", "file"),
        (b".nii,1,A,,lung", "file"),
        (b"1.nii.zip,1,A,,lung", "file"),
        (b"=1.nii,1,A,,lung", "file"),
        (b"1.nii,,A,,lung", "patient_id"),
        (b"1.nii,1,,,lung", "accession"),
        (b"1.nii,1,A,,", "names"),
    ],
)
def test_a_row_that_is_wrong_refuses_the_table(row: bytes, column: str) -> None:
    with pytest.raises(CsvError) as caught:
        read_labels(HEADER + b"0.nii,1,A,,lung\n" + row + b"\n")
    assert (caught.value.line, caught.value.column) == (3, column)
