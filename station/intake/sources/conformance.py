"""Writes the tables of the DICOM conformance statement from the lists that the code itself uses.

    python -m station.intake.sources.conformance

A test holds that CONFORMANCE.md is what this writes.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel
from pydicom.uid import UID

from station.intake.settings import IntakeSettings
from station.intake.sources.network import TLS_CIPHERS
from station.intake.sources.pacs_faults import PacsFault, fault_of_status
from station.intake.sources.reception import StoreStatus
from station.intake.sources.rejections import REJECTION_TITLES
from station.intake.sources.sop_classes import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    KEY_OBJECT_SELECTION,
    STORED_SYNTAXES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    UNCOMPRESSED,
    VERIFICATION,
    get_contexts,
)
from station.settings.dicom import PacsSettings, ReceiverSettings

STATEMENT = Path(__file__).with_name("CONFORMANCE.md")
_TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_MEANINGS = {
    StoreStatus.SUCCESS: "The instance is on disk, durably; or the rejection note was carried out.",
    StoreStatus.OUT_OF_RESOURCES: "Too little disk, or the station cannot take it now. Send it again later.",
    StoreStatus.DOES_NOT_MATCH: "The data set is not the instance, or not of the SOP Class, that the message names; or it "
    "came to a C-MOVE destination without having been asked for.",
    StoreStatus.CANNOT_UNDERSTAND: "The data set cannot be read, or is a Key Object Selection that is no rejection note.",
}
_FAULTS = (
    PacsFault.UNREACHABLE,
    PacsFault.REJECTED,
    PacsFault.LOST,
    PacsFault.NOT_OFFERED,
    PacsFault.BUSY,
    PacsFault.DESTINATION_UNKNOWN,
    PacsFault.REFUSED,
    PacsFault.FAILED,
    PacsFault.ANSWER_UNUSABLE,
    PacsFault.TOO_MANY_ANSWERS,
)
_QUERY_STATUSES = (0xA700, 0xA701, 0xA702, 0xA801, 0xA900, 0xC000)


def tables() -> dict[str, str]:
    """Return every table of the statement, by its name."""
    images = [UID(uid) for uid in IntakeSettings().sop_classes]
    contexts, roles = get_contexts([*images])
    return {
        "implementation": _table(
            ("item", "value"),
            [
                ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
                ("Implementation Version Name", IMPLEMENTATION_VERSION),
                ("TLS cipher suites for TLS 1.2 (OpenSSL's names)", f"`{TLS_CIPHERS}`"),
            ],
        ),
        "overview": _table(
            ("SOP Class", "UID", "as user (SCU)", "as provider (SCP)"),
            [
                (VERIFICATION.name, VERIFICATION, "yes", "yes"),
                *((uid.name, uid, "no", "yes, and with C-GET") for uid in images),
                (KEY_OBJECT_SELECTION.name, KEY_OBJECT_SELECTION, "no", "yes, rejection notes only"),
                *((uid.name, uid, "yes", "no") for uid in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET)),
            ],
        ),
        "storage-syntaxes": _syntaxes(STORED_SYNTAXES),
        "other-syntaxes": _syntaxes(UNCOMPRESSED),
        "get-contexts": _table(
            ("presentation contexts proposed for C-GET", "count"),
            [("all", len(contexts)), ("with the storage SCP role", len(contexts) - 3), ("role selections", len(roles))],
        ),
        "store-status": _table(
            ("status", "name", "when"),
            [(f"{status:04X}", status.name, _MEANINGS[status]) for status in StoreStatus],
        ),
        "query-status": _table(
            ("status", "what we make of it"),
            [("0000", "success"), ("FF00, FF01", "pending"), ("B000 (move, get)", "some failed: what is missing is asked for by UID")]
            + [(f"{status:04X}", f"`{fault_of_status(status).value}`") for status in _QUERY_STATUSES],
        ),
        "faults": _table(
            ("code", "costs"),
            [
                (f"`{fault.value}`", "no item; the retrieval stops after as many in a row as `attempts`" if fault.concerns_all
                 else "an attempt of the item")
                for fault in _FAULTS
            ],
        ),
        "rejections": _table(("code (DCM)", "title"), sorted(REJECTION_TITLES.items())),
        "receiver-settings": _settings(ReceiverSettings),
        "pacs-settings": _settings(PacsSettings),
    }  # fmt: skip


def render(statement: str) -> str:
    """Return a statement with its tables as they are now.

    Raises:
        KeyError: the statement has a table that is none of ours.
    """
    made = tables()
    return _TABLE.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", statement)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _syntaxes(uids: Iterable[UID]) -> str:
    return _table(("transfer syntax", "UID"), [(uid.name, uid) for uid in uids])


def _settings(model: type[BaseModel]) -> str:
    rows = []
    for name, info in model.model_fields.items():
        default = "must be given" if info.is_required() else f"`{info.default}`"
        rows.append((f"`{name}`", default, (info.description or "").replace("|", "\\|")))
    return _table(("key", "default", "meaning"), rows)


if __name__ == "__main__":
    STATEMENT.write_text(render(STATEMENT.read_text(encoding="utf-8")), encoding="utf-8")
