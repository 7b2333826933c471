"""`labels.csv`: which file is the mask of which series, and what its values mean.

    file,patient_id,issuer,accession,series_instance_uid,names
    lung-0017.nii.gz,3748755,,A20086678,,left-lung right-lung

`issuer`, `accession` and `series_instance_uid` may be left out where they are not needed: the accession where the series is named,
the series where its study has but one in the collection. Names are separated by spaces and stand for the values 1, 2, ...
"""

import re
from dataclasses import dataclass

from station.intake.csv_reader import CsvError, read_csv

MAX_ROWS = 20_000
_COLUMNS = ("file", "patient_id", "names")
_OPTIONAL = ("issuer", "accession", "series_instance_uid")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.nii(?:\.gz)?")


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One row.

    Attributes:
        file: a name within the folder.
        names: in the order of the values, from 1.
    """

    line: int
    file: str
    patient_id: str
    issuer: str
    accession: str
    series_instance_uid: str
    names: tuple[str, ...]


def read_labels(data: bytes, *, file: str = "labels.csv") -> list[LabelLine]:
    """Read the table.

    Raises:
        CsvError: naming line and column.
    """
    rows = read_csv(data, _COLUMNS, file=file, optional=_OPTIONAL)
    if len(rows) > MAX_ROWS:
        raise CsvError(file, 1, None, f"has more than {MAX_ROWS} rows")
    found = []
    for row in rows:
        if not _FILE.fullmatch(row.required("file")):
            raise row.error("file", "is not a plain file name that ends in .nii or .nii.gz")
        if not row.values["accession"] and not row.values["series_instance_uid"]:
            raise row.error("accession", "is empty, and no series is named")
        found.append(
            LabelLine(
                line=row.line,
                file=row.values["file"],
                patient_id=row.required("patient_id")[:64],
                issuer=row.values["issuer"][:64],
                accession=row.values["accession"][:64],
                series_instance_uid=row.values["series_instance_uid"][:64],
                names=tuple(row.required("names").split()),
            )
        )
    return found
