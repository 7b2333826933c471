"""What a board's repository lists, and publishing the next state of it.

A folder holds the repository exactly as a static mirror serves it (``metadata/``, ``targets/``, consistent snapshots),
and two more that no mirror gets: ``draft/`` (`policies.trust.root`) and ``staged/`` (what the next publication adds).
Makes no timestamp: that is the freshness witness's (`policies.trust.witness`).

Invariants: a file under a published name never changes; the snapshot is written last, so a crash leaves the state
before or the state after.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from policies.errors import NotFoundError, TrustError
from policies.files import exclusive_lock, write_atomically
from policies.signing import Signer
from policies.trust.listing import hashed, next_listing
from policies.trust.metadata import read_metadata, sign_metadata, versions, whole_seconds
from policies.trust.root import BoardRoot

TARGETS_LIFETIME = timedelta(days=90)
SNAPSHOT_LIFETIME = timedelta(days=90)
"""As long as the targets': both are the secretary's, made in one go; the timestamp is what bounds freshness."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What a publication did.

    Attributes:
        version: of the targets metadata.
        added: target paths that were not listed before, or changed.
        removed: target paths that are listed no longer.
        changed: False where there was nothing to publish.
    """

    version: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: bool


class Publications:
    """The published states of one board's repository in a folder, and what waits for the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.root = BoardRoot(folder)
        self._staged = folder / "staged"

    def _stage(self, path: str, data: bytes) -> None:
        write_atomically(self._staged / path, data)

    def staged(self) -> dict[str, bytes]:
        """Return what the next publication adds, by target path."""
        return {
            str(path.relative_to(self._staged)): path.read_bytes()
            for path in sorted(self._staged.rglob("*.json"))
            if not path.name.startswith(".")
        }

    def listed(self) -> dict[str, bytes]:
        """Return what is published, by target path."""
        if not versions(self.metadata, Snapshot.type):
            return {}
        return {
            path: (self.targets / hashed(path, info)).read_bytes()
            for path, info in self.targets_metadata().targets.items()
        }

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        Raises:
            NotFoundError: nothing was published yet.
        """
        found = versions(self.metadata, Snapshot.type)
        if not found:
            raise NotFoundError("nothing is published yet", hint="Run `pht-board publish`.")
        return read_metadata(self.metadata / f"{found[-1]}.snapshot.json", Snapshot)

    def targets_metadata(self) -> Targets:
        """Return the targets metadata that the newest snapshot names."""
        version = self.snapshot().meta["targets.json"].version
        return read_metadata(self.metadata / f"{version}.targets.json", Targets)

    def timestamp(self) -> Timestamp | None:
        """Return the witness's newest word, or None before its first."""
        path = self.metadata / "timestamp.json"
        return read_metadata(path, Timestamp) if path.exists() else None

    def publish(self, secretary: Signer, *, now: datetime, renew: bool = False) -> Publication:
        """Put what is staged into force, once the witness has vouched for it.

        1. Target files, under names that hold their digest.
        2. Targets metadata that lists them, 3. the snapshot that names it: the step that counts.
        4. The staging area is emptied; done again after a crash, nothing changes.

        Args:
            secretary: holds the key of targets and snapshot.
            now: the present.
            renew: publish even where nothing changed, for a new lifetime.

        Raises:
            TrustError: the root is not in force, or the key is not the secretary's.
        """
        with exclusive_lock(self.folder / ".lock"):
            root = self.root.in_force()
            if secretary.crypto_signer.public_key.keyid not in root.roles[Targets.type].keyids:
                raise TrustError(
                    "this key is not the secretary's", hint="The root names the key that may publish."
                )
            before = self.listed()
            after = next_listing(before, self.staged())
            first = not versions(self.metadata, Snapshot.type)
            if before == after and not (first or renew or self._needs_renewal(root, now)):
                self._empty_staging()
                return Publication(self.targets_metadata().version, (), (), changed=False)
            version = self._write_listing(after, secretary, now)
            self._empty_staging()
            added = tuple(sorted(path for path, data in after.items() if before.get(path) != data))
            return Publication(version, added, tuple(sorted(before.keys() - after.keys())), changed=True)

    def _needs_renewal(self, root: Root, now: datetime) -> bool:
        """Say whether half of a lifetime is over, or another secretary signed."""
        snapshot = Metadata[Snapshot].from_file(
            str(self.metadata / f"{self.snapshot().version}.snapshot.json")
        )
        try:
            root.verify_delegate(Snapshot.type, snapshot.signed_bytes, snapshot.signatures)
        except RepositoryError:
            return True
        return min(snapshot.signed.expires, self.targets_metadata().expires) - now < SNAPSHOT_LIFETIME / 2

    def _write_listing(self, listing: dict[str, bytes], secretary: Signer, now: datetime) -> int:
        moment = whole_seconds(now)
        infos = {path: TargetFile.from_data(path, data, ["sha256"]) for path, data in listing.items()}
        # 1
        for path, info in infos.items():
            place = self.targets / hashed(path, info)
            if not place.exists():
                write_atomically(place, listing[path])
        # 2
        version = max((0, *versions(self.metadata, Targets.type))) + 1
        targets = Metadata(Targets(version=version, expires=moment + TARGETS_LIFETIME, targets=infos))
        sign_metadata(targets, secretary)
        data = targets.to_bytes()
        write_atomically(self.metadata / f"{version}.targets.json", data)
        # 3
        number = max((0, *versions(self.metadata, Snapshot.type))) + 1
        meta = {"targets.json": MetaFile.from_data(version, data, ["sha256"])}
        snapshot = Metadata(Snapshot(version=number, expires=moment + SNAPSHOT_LIFETIME, meta=meta))
        sign_metadata(snapshot, secretary)
        write_atomically(self.metadata / f"{number}.snapshot.json", snapshot.to_bytes())
        return version

    def _empty_staging(self) -> None:
        for path in self.staged():
            (self._staged / path).unlink(missing_ok=True)
