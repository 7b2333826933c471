"""A handover log with real signatures, and a catalogue that reads it, for the catalogue tests."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.documents import digest_of
from station.catalogue import Catalogue
from station.handover import (
    Acquisition,
    ClinicalContent,
    ClinicalRow,
    ConsentContent,
    ConsentRecord,
    HandoverLog,
    InstanceRecord,
    InstancesContent,
    LabelRecord,
    LabelsContent,
    Merge,
    MergedContent,
    Removal,
    RemovedContent,
    instance_path,
)
from station.storage import open_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COLLECTION = "chest-radiographs"


def patient(number: int) -> str:
    """A pseudonym of the right form."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return "P" + "A" * 18 + digits[number // 32] + digits[number % 32]


@dataclass
class Intake:
    """What intake does, by hand."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    steps: int = 0
    consents: int = 0

    @property
    def log(self) -> HandoverLog:
        return HandoverLog(self.folder, self.key)

    def catalogue(self, database: Path) -> Catalogue:
        return Catalogue(open_database(database), self.folder, self.key.public_key())

    def operation(self) -> str:
        self.steps += 1
        return f"step-{self.steps}"

    def instances(
        self,
        *numbers: int,
        data: bytes = b"DICOM",
        acquisition: Acquisition | None = None,
        **changes: str,
    ) -> None:
        """Hand over one image per number, of the patient and study of that number."""
        digest = digest_of(data)
        path = instance_path(self.folder, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        records = []
        for number in numbers:
            values = {
                "collection": COLLECTION,
                "patient": patient(number),
                "study_uid": f"2.25.{number + 1}",
                "series_uid": f"2.25.{number + 1000}",
                "sop_instance_uid": f"2.25.{number + 2000}",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "modality": "DX",
                "body_part": "CHEST",
                "view_position": "PA",
            } | changes
            records.append(
                InstanceRecord(
                    file=digest, size_bytes=len(data), acquisition=acquisition or Acquisition(), **values
                )
            )
        self.log.append(InstancesContent(instances=tuple(records)), self.operation(), now=NOW)

    def clinical(
        self, *numbers: int, profile: str = "thorax-1@1", **values: str | float | bool | None
    ) -> None:
        """Hand over the same fields for each number's study; pneumonia is the number's parity unless told."""
        rows = tuple(
            ClinicalRow(
                patient=patient(number),
                study_uid=f"2.25.{number + 1}",
                values={"pneumonia": number % 2, "sex": "F"} | values,
            )
            for number in numbers
        )
        self.log.append(
            ClinicalContent(collection=COLLECTION, profile=profile, rows=rows), self.operation(), now=NOW
        )

    def consent(
        self,
        sequence: int | None = None,
        source: datetime = NOW,
        purpose: str = "research-participants",
        **answers: str,
    ) -> None:
        """Hand over a whole consent state: `p3="objection"` for patient 3."""
        self.consents = self.consents + 1 if sequence is None else sequence
        records = tuple(
            ConsentRecord(
                patient=patient(int(name[1:])),
                purpose=purpose,
                decision=answer,  # type: ignore[arg-type]
                date="2026-01-01",
            )
            for name, answer in answers.items()
        )
        self.log.append(
            ConsentContent(consent_sequence=self.consents, source_date=source, records=records),
            self.operation(),
            now=NOW,
        )

    def removed(self, *numbers: int, reason: str = "deleted", collection: str = COLLECTION) -> None:
        """Take back each number's image."""
        removals = tuple(
            Removal(collection=collection, sop_instance_uid=f"2.25.{number + 2000}", reason=reason)  # type: ignore[arg-type]
            for number in numbers
        )
        self.log.append(RemovedContent(removals=removals), self.operation(), now=NOW)

    def merged(self, number: int, into: int) -> None:
        """Say that two patients are one."""
        merge = Merge(patient=patient(number), into=patient(into))
        self.log.append(MergedContent(merges=(merge,)), self.operation(), now=NOW)

    def labels(self, *numbers: int, names: tuple[str, ...] = ("lung",), data: bytes = b"SEG") -> None:
        """Hand over a mask on each number's series."""
        records = tuple(
            LabelRecord(
                file=digest_of(data),
                size_bytes=len(data),
                format="dicom-seg",
                collection=COLLECTION,
                patient=patient(number),
                study_uid=f"2.25.{number + 1}",
                series_uid=f"2.25.{number + 1000}",
                names=names,
            )
            for number in numbers
        )
        self.log.append(LabelsContent(labels=records), self.operation(), now=NOW)
