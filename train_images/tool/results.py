"""Fetches the result of a finished run, and holds its files to the digests in its provenance statement."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.documents import digest_of_file
from policies.errors import NotFoundError, TrustError, WireError
from policies.wire.registry_client import RegistryClient

PROVENANCE: Final = "provenance.json"


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file of a result."""

    name: str
    size: int
    digest: str


def fetch_result(registry: RegistryClient, digest: str, out: Path) -> tuple[ResultFile, ...]:
    """Fetch every file of a run's result.

    Args:
        registry: an open connection.
        digest: the order's.
        out: a folder; made when missing.

    Raises:
        NotFoundError: the run has no result (yet).
        WireError: its provenance statement is none.
        TrustError: a file is not the one that the provenance names.
    """
    status = registry.get_run(digest)
    if PROVENANCE not in status.result:
        raise NotFoundError(
            f"the run has no result: it is {status.progress.state}",
            hint="" if status.progress.is_over else "Wait for it: pht-train watch.",
        )
    paths = registry.download_result(digest, out)
    subjects = _subjects(out / PROVENANCE)
    files = tuple(ResultFile(path.name, path.stat().st_size, digest_of_file(path)) for path in paths)
    for file in files:
        if file.name != PROVENANCE and subjects.get(file.name) != file.digest:
            raise TrustError(
                f"{file.name} is not the file that {PROVENANCE} names", hint="Fetch the result again."
            )
    return files


def _subjects(path: Path) -> dict[str, str]:
    try:
        statement = json.loads(path.read_bytes())
        return {each["name"]: f"sha256:{each['digest']['sha256']}" for each in statement["subject"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WireError(f"{PROVENANCE} is no provenance statement") from error
