"""Does one thing to an intake and is killed at a given call: `python tests/intake_killed.py HOME SOURCE ACTION STEP NTH MOMENT`.

The kill is the kernel's (SIGKILL), in the process that does the work; workers and foreman die with it or by themselves.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from intake_kit import uid
from killed_at import kill_at

from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.quarantine import Review
from station.intake.settings import IntakeSettings
from station.pseudonymisation.pixels.settings import PixelSettings

SETTINGS = IntakeSettings(workers=2, pixels=PixelSettings(inspect="off"))
REVIEW = Review("steward", "looked at it")
MERGES = b"old_issuer,old_id,new_issuer,new_id\nAmstelrijk,3748755,Amstelrijk,9252896\n"


def ingest(intake: Intake, source: Path) -> None:
    for name in intake.recover():
        intake.process_batch(name)
    if not intake.batches():
        intake.import_folder(source, "cxr")


def remove(intake: Intake, _source: Path) -> None:
    intake.flush()
    intake.remove_instances([uid(1), uid(2)], "rejected")


def release(intake: Intake, _source: Path) -> None:
    intake.flush()
    for file in intake.quarantine.files():
        intake.quarantine.release(file.id, REVIEW)
    intake.quarantine.tidy()


def merge(intake: Intake, _source: Path) -> None:
    intake.flush()
    intake.merges.import_merges(MERGES)


ACTIONS: dict[str, Callable[[Intake, Path], None]] = {
    "ingest": ingest,
    "remove": remove,
    "release": release,
    "merge": merge,
}


def main() -> None:
    home, source, action, step, nth, moment = sys.argv[1:]
    kill_at(step, int(nth), moment)
    with Intake(IntakePaths(Path(home)), SETTINGS) as intake:
        ACTIONS[action](intake, Path(source))


if __name__ == "__main__":
    main()
