"""What questions to a large catalogue cost: made-up rows of 10^5 patients with 1.2 million images, straight into its tables.

    python tests/bench/bench_catalogue.py [PATIENTS]

A fifth of the patients have two CT series of ten slices, the others two studies of five radiographs each; every study has a
clinical row, every tenth series a mask. Times are processor seconds of one core.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from station.audit.log import system_clock
from station.catalogue.published import PublishedCounts
from station.catalogue.query import CatalogueQuery, ClinicalCondition, Range, count
from station.catalogue.series_counts import recount
from station.catalogue.tables import Clinical, Instance, Label
from station.settings.outside import CountsSettings
from station.storage import Database, open_database

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
THIN = Range(maximum=2.5)
PNEUMONIA = ClinicalCondition(field="pneumonia", value=1)
GROWN = ClinicalCondition(field="age_years", operator=">=", value=40)
QUESTIONS: dict[str, dict[str, Any]] = {
    "everything": {},
    "CT": {"modality": ("CT",)},
    "thin CT": {"modality": ("CT",), "slice_thickness_mm": THIN},
    "pneumonia": {"clinical": (PNEUMONIA,)},
    "thin CT, pneumonia, 40 or older": {
        "modality": ("CT",), "slice_thickness_mm": THIN, "clinical": (PNEUMONIA, GROWN),
    },
    "with a mask": {"has_mask": True},
    "without a mask": {"has_mask": False},
    "one maker, one year": {"manufacturer": ("Siemens",), "year": Range(minimum=2019, maximum=2019)},
}  # fmt: skip


def uid(chance: random.Random) -> str:
    return f"2.25.{chance.getrandbits(124)}"


def study(chance: random.Random, patient: str, *, ct: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """Rows of one made-up study: instances, its clinical row, masks."""
    collection, study_uid = ("chest-ct" if ct else "chest-radiographs"), uid(chance)
    images, masks = [], []
    shared = {
        "collection": collection, "size_bytes": 500_000, "patient": patient, "study_uid": study_uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "CT" if ct else chance.choice(("DX", "CR")), "body_part": "CHEST", "view_position": "" if ct else "PA",
        "manufacturer": chance.choice(("Siemens", "Philips", "GE")), "model": "M", "kernel": "Br40d" if ct else "",
        "slice_thickness_mm": chance.choice((0.75, 1.0, 2.5, 5.0)) if ct else None, "rows": 512, "columns": 512,
        "study_year": chance.randint(2010, 2025), "image_type": "ORIGINAL\\PRIMARY", "pixels": "inspected",
    }  # fmt: skip
    for size in (10,) if ct else (3, 2):
        series = uid(chance)
        if chance.random() < 0.1:
            masks.append(
                {
                    "collection": collection, "series_uid": series, "names": "lung", "file": "sha256:" + "0" * 64,
                    "size_bytes": 1, "format": "nifti", "patient": patient, "study_uid": study_uid,
                }
            )  # fmt: skip
        images += [
            shared
            | {
                "series_uid": series,
                "sop_instance_uid": uid(chance),
                "file": f"sha256:{chance.getrandbits(256):064x}",
            }
            for _ in range(size)
        ]
    fields = {
        "pneumonia": chance.randint(0, 1),
        "sex": chance.choice("FM"),
        "age_years": chance.randint(18, 90),
    }
    row = {
        "collection": collection,
        "profile": "thorax-1@1",
        "patient": patient,
        "study_uid": study_uid,
        "fields": fields,
    }
    return images, [row], masks


def fill(database: Database, patients: int) -> int:
    """Make the rows; returns how many images."""
    chance, total = random.Random(1), 0
    waiting: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for number in range(patients):
        patient = "P" + "".join(chance.choices(DIGITS, k=20))
        for _ in range(2):
            for kind, rows in zip(waiting, study(chance, patient, ct=number % 5 == 0), strict=True):
                kind.extend(rows)
        if len(waiting[0]) > 20_000 or number == patients - 1:
            total += len(waiting[0])
            with database.write() as session:
                for table, rows in zip((Instance, Clinical, Label), waiting, strict=True):
                    if rows:
                        session.execute(insert(table), rows)
            waiting = ([], [], [])
    with database.write() as session:
        found = session.execute(select(Instance.collection, Instance.series_uid).distinct()).all()
        recount(session, [(collection, series) for collection, series in found])
    return total


def main() -> None:
    patients = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "station.db")
        print(f"{fill(database, patients)} images of {patients} patients")
        for name, question in QUESTIONS.items():
            start = time.process_time()
            with database.read() as session:
                found = sum(one.patients for one in count(session, CatalogueQuery(**question)))
            print(f"{name:36} {time.process_time() - start:6.2f} s  {found} patients")
        start = time.process_time()
        PublishedCounts(database, CountsSettings(), ("chest-ct", "chest-radiographs")).table(system_clock())
        print(f"{'the table that is told outside':36} {time.process_time() - start:6.2f} s")
        database.close()


if __name__ == "__main__":
    main()
