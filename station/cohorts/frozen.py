"""A frozen cohort on disk: what it is, whether it is still what it was, and how it is wiped.

    <out_root>/<name>/data/         what a container sees, read-only: files 0444, folders 0555
    <out_root>/<name>/receipt.json  the station's own: digest, and which project pseudonyms are in which split

A cohort's digest is over the path, size and SHA-256 of every file under ``data``. Nothing changes after the freeze.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Digest, Sequence, StrictModel, canonical_json, digest_of, load_json
from policies.errors import DocumentError, StateError, StorageError
from policies.splits import Split
from station.cohorts.unusable import Unusable

DATA = "data"
RECEIPT = "receipt.json"
TEMPORARY_PREFIX = ".making-"
_WIPED_PREFIX = ".wiping-"
_MAX_RECEIPT_BYTES = 64 << 20


class Receipt(StrictModel):
    """What the station keeps about a frozen cohort; never mounted."""

    schema_version: Literal[1] = 1
    digest: Digest
    patients: dict[Split, Sequence[str]]
    images: dict[Split, Annotated[int, Field(ge=0)]]
    most_images_of_one: dict[Split, Annotated[int, Field(ge=0)]]
    left_out: dict[Unusable, Annotated[int, Field(ge=1)]]


@dataclass(frozen=True, slots=True)
class FrozenCohort:
    """A cohort that was written whole.

    Attributes:
        path: the folder to mount as /train/data.
        digest: over everything in it.
        patients_by_split: project pseudonyms per split; a split that is not laid out is there, and empty.
        images_by_split: exact counts, for the station alone; round them (`rounded`) before they leave.
        most_images_of_one: the most images that one patient has, per split: what a cell of images must reach to be sure
            of its patients.
        left_out: how many cases were left out, by reason.
    """

    path: Path
    digest: str
    patients_by_split: Mapping[Split, frozenset[str]]
    images_by_split: Mapping[Split, int]
    most_images_of_one: Mapping[Split, int]
    left_out: Mapping[Unusable, int]

    @property
    def patients(self) -> frozenset[str]:
        """All patients in it, by project pseudonym."""
        return frozenset().union(*self.patients_by_split.values())

    def verify(self) -> None:
        """Hash everything again.

        Raises:
            StateError: a file was changed, added or removed since the freeze.
        """
        if digest_folder(self.path) != self.digest:
            raise StateError(
                "cohort: its files are not those that were frozen", hint="Freeze the cohort again."
            )


def load(path: Path) -> FrozenCohort:
    """Return the frozen cohort whose data folder is `path`, from its receipt; does not hash it (see `verify`).

    Raises:
        StateError: there is no such cohort, or its receipt is damaged.
    """
    try:
        receipt = load_json(
            Receipt, (path.parent / RECEIPT).read_bytes(), what="cohort receipt", max_bytes=_MAX_RECEIPT_BYTES
        )
    except (OSError, DocumentError) as error:
        raise StateError("cohort: its receipt cannot be read", hint="Freeze the cohort again.") from error
    if not path.is_dir():
        raise StateError("cohort: its data folder is gone", hint="Freeze the cohort again.")
    return FrozenCohort(
        path=path,
        digest=receipt.digest,
        patients_by_split={split: frozenset(receipt.patients.get(split, ())) for split in Split},
        images_by_split={split: receipt.images.get(split, 0) for split in Split},
        most_images_of_one={split: receipt.most_images_of_one.get(split, 0) for split in Split},
        left_out=receipt.left_out,
    )


def digest_folder(folder: Path) -> str:
    """Return the digest over the relative path, size and SHA-256 of every file under `folder`.

    Raises:
        StateError: something in it is neither a plain file nor a folder, or cannot be read.
    """
    entries: list[tuple[str, int, str]] = []
    try:
        for current, folders, files in os.walk(folder, onerror=_raise):
            for name in (*folders, *files):
                path = Path(current, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise StateError("cohort: holds something that is neither a file nor a folder")
            for name in files:
                path = Path(current, name)
                with path.open("rb") as file:
                    hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
                entries.append((path.relative_to(folder).as_posix(), path.stat().st_size, hexadecimal))
    except OSError as error:
        raise StateError(f"cohort: cannot be read ({error.strerror})") from error
    return digest_of(canonical_json(sorted(entries)))


def wipe(cohort: FrozenCohort | Path) -> None:
    """Delete a cohort; wiping what is gone already is no error.

    The folder is renamed first, so that a cohort is whole or not there, even when this is interrupted. Bytes are
    unlinked, not overwritten: on flash and copying file systems that would promise what it does not do; keep
    cohorts on an encrypted volume.

    Raises:
        StorageError: it cannot be deleted.
    """
    folder = (cohort.path if isinstance(cohort, FrozenCohort) else cohort).parent
    try:
        if not folder.name.startswith((_WIPED_PREFIX, TEMPORARY_PREFIX)):
            marked = folder.with_name(_WIPED_PREFIX + folder.name)
            folder.rename(marked)
            folder = marked
        remove_tree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"a cohort cannot be wiped ({error.strerror})") from error


def sweep(out_root: Path, keep: Iterable[Path]) -> int:
    """Wipe every cohort, and every half-made or half-wiped one, that nobody owns; for the start after a crash.

    Args:
        out_root: the folder given to `freeze`.
        keep: data folders (`FrozenCohort.path`) that are in use.

    Returns:
        How many were wiped.
    """
    kept = {path.parent.name for path in keep}
    if not out_root.is_dir():
        return 0
    found = [folder for folder in sorted(out_root.iterdir()) if folder.is_dir() and folder.name not in kept]
    for folder in found:
        wipe(folder / DATA)
    return len(found)


def remove_tree(folder: Path) -> None:
    """Delete a tree whose folders are read-only."""
    for current, _, _ in os.walk(folder):
        Path(current).chmod(0o700)
    shutil.rmtree(folder)


def _raise(error: OSError) -> None:
    raise error
