"""The mapping of old identifiers to new ones, in the scoring convention of MIDI-B: CSV files ``id_old,id_new``.

This is what pseudonymisation keeps apart from its output: it is written on a switch of its own, outside the output, for
its owner alone, and audited before it stands.
"""

import csv
import os
from io import StringIO
from pathlib import Path

from policies.documents import digest_of
from policies.errors import UsageError
from station.storage.files import storage_fault, write_atomically

PATIENTS = "patient_id_mapping.csv"
UIDS = "uid_mapping.csv"


def prepare(folder: Path, *others: Path) -> None:
    """Make the folder for the mapping, 0700.

    Args:
        folder: where the operator wants it.
        others: folders it may not lie in, nor they in it.

    Raises:
        UsageError: it lies in one of them, or others may read it.
        StorageError: it cannot be made.
    """
    for other in others:
        if within(folder, other) or within(other, folder):
            raise UsageError(
                "the mapping may not lie with the images", hint="Name a folder outside source and output."
            )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise storage_fault(error, "the mapping's folder") from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise UsageError("the mapping's folder is not yours alone", hint="chmod 0700 it, or name a new one.")


def within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies in it, links resolved."""
    return path.resolve().is_relative_to(folder.resolve())


def rendered(pairs: dict[str, str]) -> bytes:
    """Return a mapping as CSV, in the order of the old identifiers."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id_old", "id_new"))
    writer.writerows(sorted(pairs.items()))
    return text.getvalue().encode("utf-8", "surrogateescape")


def digests(patients: bytes, uids: bytes) -> dict[str, str]:
    """Return what the audit says of the two files."""
    return {"patients": digest_of(patients), "uids": digest_of(uids)}


def write(folder: Path, patients: bytes, uids: bytes) -> None:
    """Write both files, 0600.

    Raises:
        StorageError: they cannot be written.
    """
    write_atomically(folder / PATIENTS, patients, 0o600)
    write_atomically(folder / UIDS, uids, 0o600)
