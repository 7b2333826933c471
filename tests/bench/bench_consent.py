"""What consent costs with many patients: intake's look at the register, compute's take-up, and the question before a message.

    python tests/bench/bench_consent.py [PATIENTS]

One instance and three answered purposes per patient; everything real: the signed log, the database, the choice of cases.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catalogue_log import COLLECTION, Intake
from cohort_files import DEFINITION

from policies.policy import ConsentMode
from station.handover import ConsentContent, ConsentRecord, InstanceRecord, InstancesContent

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
PURPOSES = ("research-participants", "research-third-parties", "research-commercial")
PER_ENTRY = 5000


def pseudonym(number: int) -> str:
    """A pseudonym of the right form."""
    return "P" + "A" * 16 + "".join(DIGITS[number >> shift & 31] for shift in (15, 10, 5, 0))


def timed(what: str, act: Callable[[], object]) -> object:
    """Say how long something takes."""
    start = time.perf_counter()
    result = act()
    print(f"{what:58} {time.perf_counter() - start:9.4f} s")
    return result


def hand_in(intake: Intake, count: int) -> None:
    """One instance per patient."""
    for start in range(0, count, PER_ENTRY):
        records = tuple(
            InstanceRecord(
                file="sha256:" + f"{number:064x}", size_bytes=1, collection=COLLECTION, patient=pseudonym(number),
                study_uid=f"2.25.{number + 1}", series_uid=f"2.25.{number + 10**7}",
                sop_instance_uid=f"2.25.{number + 2 * 10**7}", sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1", modality="DX", body_part="CHEST", view_position="PA",
            )
            for number in range(start, min(start + PER_ENTRY, count))
        )  # fmt: skip
        intake.log.append(InstancesContent(instances=records), intake.operation(), now=NOW)


def consent(intake: Intake, count: int) -> None:
    """Everybody has answered everything."""
    records = tuple(
        ConsentRecord(patient=pseudonym(number), purpose=purpose, decision="consent", date="2026-01-01")
        for number in range(count)
        for purpose in PURPOSES
    )
    content = ConsentContent(consent_sequence=1, source_date=NOW, records=records)
    intake.log.append(content, intake.operation(), now=NOW)


def register(count: int) -> None:
    """Intake's side: read the hospital's file, resolve it for a day."""
    from station.intake.consent.register_file import read_register
    from station.intake.consent.resolution import Bearer, Standing, resolve

    rows = [f"{number},consent,{purpose},2026-01-01" for number in range(count) for purpose in PURPOSES]
    data = ("patient_id,decision,purpose,date\n" + "\n".join(rows)).encode()
    read = read_register(data)
    bearers = [Bearer(pseudonym(number), "", str(number)) for number in range(count)]
    timed(
        "intake: resolve",
        lambda: resolve(Standing.of(read.decisions, read.facts), bearers, date(2026, 11, 22)),
    )
    timed("intake: read the CSV", lambda: read_register(data))


def main() -> None:
    """Measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        intake = Intake(Path(folder) / "handover")
        hand_in(intake, count)
        catalogue = intake.catalogue(Path(folder) / "station.db")
        timed(f"compute: take up {count} instances", catalogue.sync)
        consent(intake, count)
        timed(f"compute: take up {count} patients' answers", catalogue.sync)

        def ask() -> object:
            return catalogue.consenting_patients(
                DEFINITION, {COLLECTION: ConsentMode.OPT_IN}, timedelta(days=7), NOW
            )

        found = timed("compute: who consents, the first time", ask)
        timed("compute: who consents, before the next message", ask)
        assert len(found) == count  # type: ignore[arg-type]
    if (Path(__file__).resolve().parents[2] / "station" / "intake" / "consent" / "resolution.py").exists():
        register(count)


if __name__ == "__main__":
    main()
