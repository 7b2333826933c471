"""The board's repository as it was at a moment: TUF's client workflow over the files of a pack.

Trusts the root that the reader brings and nothing of the pack. Expiry is judged at the moment of the run; what is expired
by now was valid then, and is told as that.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from policies.charter import REGISTER_TARGET, Charter, policy_target
from policies.errors import TrustError
from policies.purposes import PURPOSES_TARGET
from policies.trust.revocations import REVOKED_TARGET
from policies.trust.verification import charter_of

_ROOT: Final = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_ROLES: Final = frozenset({"timestamp.json", "snapshot.json", "targets.json"})


@dataclass(frozen=True, slots=True)
class RepositoryThen:
    """A verified state of the repository.

    Attributes:
        charter: who decided then.
        versions: of root, timestamp, snapshot and targets.
        expires: the first moment at which any of them is stale.
        targets: what is listed: the length and SHA-256 of each target, by path.
        roots: the bytes of each verified root, by version, from the reader's own on.
    """

    charter: Charter
    versions: Mapping[str, int]
    expires: datetime
    targets: Mapping[str, tuple[int, str]]
    roots: Mapping[int, bytes]

    def holds(self, path: str, data: bytes, digest: str) -> bool:
        """Return whether these bytes are the listed target of that path."""
        return self.targets.get(path) == (len(data), digest.removeprefix("sha256:"))

    def roots_of(self, files: Mapping[str, bytes]) -> tuple[str | None, tuple[str, ...]]:
        """Hold a pack's roots against the verified ones.

        Returns:
            The first file that is neither such a root nor other metadata; roots older than the reader's, which nothing
            vouches for.
        """
        older = []
        for name in sorted(files.keys() - _ROLES):
            match = _ROOT.fullmatch(name)
            if match and int(match[1]) < min(self.roots):
                older.append(name)
            elif match is None or files[name] != self.roots.get(int(match[1])):
                return name, tuple(older)
        return None, tuple(older)


class _PackFetcher(FetcherInterface):
    """Serves a pack's metadata, by the names that a repository gives it."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        stored = (
            name if name.endswith(".root.json") else name.rpartition(".json")[0].rpartition(".")[2] + ".json"
        )
        if stored not in self._files:
            raise DownloadHTTPError("the pack holds no such file", 404)
        yield self._files[stored]


def verify_repository(root: bytes, files: Mapping[str, bytes], at: datetime) -> RepositoryThen:
    """Run TUF's client workflow (specification 5) over a pack's metadata.

    Args:
        root: the root that the reader trusts.
        files: the pack's ``<version>.root.json``, ``timestamp.json``, ``snapshot.json`` and ``targets.json``.
        at: the moment that expiry is judged by.

    Raises:
        TrustError: something does not verify; says what.
    """
    with tempfile.TemporaryDirectory(prefix="pht-evidence-") as scratch:
        try:
            updater = Updater(
                scratch, "https://pack.invalid/metadata/", fetcher=_PackFetcher(files), bootstrap=root
            )
            # python-tuf takes the time from the system; what counts here is the time of the run (pinned to tuf 7.0.1).
            updater._trusted_set.reference_time = at.astimezone(UTC)  # noqa: SLF001
            updater.refresh()
        except RepositoryError as error:
            raise TrustError(f"the repository's metadata does not verify: {error}") from error
        except DownloadHTTPError as error:
            raise TrustError("the repository's metadata is not complete") from error
        history = (Path(scratch) / "root_history").glob("*.root.json")
        verified = {int(path.name.split(".")[0]): path.read_bytes() for path in history}
    last = Metadata[Root].from_bytes(verified[max(verified)]).signed
    targets = Metadata[Targets].from_bytes(files["targets.json"]).signed
    snapshot = Metadata[Snapshot].from_bytes(files["snapshot.json"]).signed
    timestamp = Metadata[Timestamp].from_bytes(files["timestamp.json"]).signed
    roles = {role.type: role for role in (last, timestamp, snapshot, targets)}
    return RepositoryThen(
        charter=charter_of(last),
        versions={name: role.version for name, role in roles.items()},
        expires=min(signed.expires for signed in roles.values()),
        targets={
            path: (info.length, info.hashes.get("sha256", "")) for path, info in targets.targets.items()
        },
        roots=verified,
    )


def belongs_to_run(path: str, policy: tuple[str, int]) -> bool:
    """Return whether a target of the repository belongs into the evidence of a run under a policy."""
    documents = {policy_target(*policy), REGISTER_TARGET, PURPOSES_TARGET, REVOKED_TARGET}
    return path in documents or path.startswith(f"opinions/{policy[0]}/{policy[1]}/")
