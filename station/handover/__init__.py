"""The handover: the one way by which data leaves intake for compute (invariant I9).

Intake appends entries to a log of signed, sequenced, hash-linked files; compute verifies and reads them. Nothing
flows back, so this module knows neither intake's database nor the catalogue. It holds no identified value: an
entry names patients, studies and files by pseudonym and digest only.

    <home>/handover/handover.pub                     Ed25519 public key, PEM
    <home>/handover/instances/<aa>/<sha256>.dcm      pseudonymised files, named by their content
    <home>/handover/labels/<aa>/<sha256>             masks, named by their content
    <home>/handover/log/<8-digit sequence>.json      DSSE envelopes (securesystemslib) over canonical JSON

Invariants: sequences start at 1 and have no gap; every entry carries the digest of the file before it; a file that
verified once never changes; an entry appended twice under one operation is written once (invariant I8).
"""

from station.handover.entries import (
    MAX_INSTANCE_BYTES,
    Acquisition,
    ClinicalContent,
    ClinicalRow,
    Code,
    ConsentContent,
    ConsentRecord,
    Content,
    Day,
    HandoverEntry,
    InstanceRecord,
    InstancesContent,
    LabelRecord,
    LabelsContent,
    Merge,
    MergedContent,
    PatientPseudonym,
    RemappedUid,
    Removal,
    RemovedContent,
    Term,
    WellKnownUid,
)
from station.handover.files import (
    HandoverError,
    instance_path,
    label_path,
    load_public_key,
    make_folder,
    read_instance,
)
from station.handover.log import GENESIS, MAX_ENTRY_BYTES, HandoverLog, VerifiedEntry, read_handover

__all__ = [
    "GENESIS",
    "MAX_ENTRY_BYTES",
    "MAX_INSTANCE_BYTES",
    "Acquisition",
    "ClinicalContent",
    "ClinicalRow",
    "Code",
    "ConsentContent",
    "ConsentRecord",
    "Content",
    "Day",
    "HandoverEntry",
    "HandoverError",
    "HandoverLog",
    "InstanceRecord",
    "InstancesContent",
    "LabelRecord",
    "LabelsContent",
    "Merge",
    "MergedContent",
    "PatientPseudonym",
    "RemappedUid",
    "Removal",
    "RemovedContent",
    "Term",
    "VerifiedEntry",
    "WellKnownUid",
    "instance_path",
    "label_path",
    "load_public_key",
    "make_folder",
    "read_handover",
    "read_instance",
]
