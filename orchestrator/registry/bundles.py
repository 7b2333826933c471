"""Bundles: which blobs make up a packed train, found by manifest digest or by image config digest.

Reads a bundle's index and manifest, runs nothing of it. Invariants: a bundle is accepted only when every blob it names
is here and was readable to its sender, so an index opens no blob of somebody else; what a (name, version) of a train
is never changes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from orchestrator.registry.access import BUNDLE_SCOPE, Principal, add_grants, unreadable
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.blobs import BlobStore
from orchestrator.storage import BundleRow, Database
from policies.bundle import MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import Digest, digest_of, load_yaml
from policies.errors import NotFoundError, TrustError, UsageError
from policies.manifest import TrainManifest


@dataclass(frozen=True, slots=True)
class BundleView:
    """A bundle as lists show it."""

    name: str
    version: str
    manifest_digest: Digest
    config_digest: Digest
    owner: str
    created: datetime


class Bundles:
    """The bundles of all researchers."""

    def __init__(self, database: Database, blobs: BlobStore, audit: Audit | None = None) -> None:
        self._database, self._blobs = database, blobs
        self._audit = audit or Audit(database)

    def put(self, principal: Principal, name: str, version: str, encoded: bytes) -> BundleIndex:
        """Accept a bundle; the same one again changes nothing.

        Raises:
            DocumentError: the index or the manifest is not one.
            UsageError: a blob is missing (the hint names it), or the name and version are another train's already.
        """
        index = BundleIndex.decode(encoded)
        sizes = {blob.digest: blob.size for blob in index.blobs()}
        with self._database.transaction() as session:
            missing = [digest for digest, size in sizes.items() if self._blobs.size(digest) != size]
            missing += unreadable(session, principal, sizes)
            if missing:
                raise UsageError(
                    f"{len(missing)} blobs of the bundle are not here yet", hint=f"Send {missing[0]}."
                )
            manifest = self.manifest(index.manifest.digest)
            _check_identity(session, manifest, index, name, version)
            key = (index.manifest.digest, index.config.digest)
            if session.get(BundleRow, key) is None:
                session.add(
                    BundleRow(
                        manifest_digest=index.manifest.digest,
                        config_digest=index.config.digest,
                        name=name,
                        version=version,
                        index_json=index.encode(),
                        owner=principal.id,
                        created=datetime.now(UTC),
                    )
                )
                about = f"{name} {version} {index.manifest.digest}"
                self._audit.append_in(
                    session, AuditEvent(action=Action.BUNDLE_ACCEPTED, who=principal.id, about=about)
                )
            add_grants(session, sizes, BUNDLE_SCOPE)
        return index

    def manifest(self, digest: Digest) -> TrainManifest:
        """Read a train's manifest from its blob.

        Raises:
            NotFoundError: the blob is not here.
            DocumentError: it is no manifest.
        """
        path = self._blobs.path(digest)
        if path is None:
            raise NotFoundError("there is no such manifest here")
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if digest_of(data) != digest:
            raise TrustError(
                "the manifest's blob is damaged", hint="Restore it from a backup, or send it again."
            )
        return load_yaml(TrainManifest, data, what="train.yaml")

    def by_manifest(self, digest: Digest) -> list[bytes]:
        """Return the encoded indexes of the train with this manifest: one per image variant.

        Raises:
            NotFoundError: there is none.
        """
        return self._find(BundleRow.manifest_digest == digest, "manifest")

    def by_image(self, digest: Digest) -> list[bytes]:
        """Return the encoded indexes of the bundles with this image, the newest first.

        Raises:
            NotFoundError: there is none.
        """
        return self._find(BundleRow.config_digest == digest, "image")

    def all(self) -> list[BundleView]:
        """All bundles, by name and age."""
        with self._database.reading() as session:
            rows = session.scalars(select(BundleRow).order_by(BundleRow.name, BundleRow.created)).all()
        return [
            BundleView(row.name, row.version, row.manifest_digest, row.config_digest, row.owner, row.created)
            for row in rows
        ]

    def _find(self, condition: ColumnElement[bool], what: str) -> list[bytes]:
        with self._database.reading() as session:
            rows = session.scalars(
                select(BundleRow).where(condition).order_by(BundleRow.created.desc())
            ).all()
        if not rows:
            raise NotFoundError(f"there is no bundle with this {what}")
        return [row.index_json for row in rows]


def _check_identity(
    session: Session, manifest: TrainManifest, index: BundleIndex, name: str, version: str
) -> None:
    if (manifest.name, manifest.version) != (name, version):
        raise UsageError(f"the manifest is of {manifest.name} {manifest.version}, not of {name} {version}")
    if index.config.digest not in {image.config_digest for image in manifest.images}:
        raise UsageError(
            "the image is not one that the manifest names", hint="Pack it again with `pht-train pack`."
        )
    taken = session.scalar(
        select(BundleRow).where(
            BundleRow.name == name,
            BundleRow.version == version,
            BundleRow.manifest_digest != index.manifest.digest,
        )
    )
    if taken is not None:
        raise UsageError(
            f"{name} {version} is here already, with another manifest", hint="Raise the version."
        )
