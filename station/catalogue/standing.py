"""What a run may use, patient by patient and file by file: to see whether what it was given may still be used (I7)."""

from collections.abc import Iterable
from dataclasses import dataclass

from station.cohorts import CaseSource


@dataclass(frozen=True, slots=True)
class Standing:
    """Patients, and their files.

    Attributes:
        patients: by project pseudonym.
        files: (patient, case, digest of the file). A patient who was merged, an instance that was removed and one that was
            pseudonymised again stand under another entry, or under none.
    """

    patients: frozenset[str]
    files: frozenset[tuple[str, str, str | None]]

    @classmethod
    def of(cls, cases: Iterable[CaseSource], patients: frozenset[str] | None = None) -> "Standing":
        """Return what these cases are made of.

        Args:
            cases: as the catalogue chose them.
            patients: only of these; of all where not given.
        """
        kept = [case for case in cases if patients is None or case.patient in patients]
        return cls(
            frozenset(case.patient for case in kept),
            frozenset((case.patient, case.case, file.digest) for case in kept for file in case.files),
        )

    def covers(self, used: "Standing") -> bool:
        """Tell whether all that was used may still be used; what came since does not matter."""
        return used.patients <= self.patients and used.files <= self.files

    def lost(self, used: "Standing") -> frozenset[str]:
        """Return the patients of whom something that was used may be used no longer."""
        return (used.patients - self.patients) | {patient for patient, _, _ in used.files - self.files}
