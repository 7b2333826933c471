"""What the distribution API serves: each train's repository, from its bundles and from the manifests that were pushed.

Reads only. Invariants: a repository holds the blobs of its own train and nothing of another's, whoever asks; a manifest that was
pushed is served as the bytes that came; that of a bundle which came another way is written anew, always the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.registry.access import Access, Principal, Role, owner_scope
from orchestrator.registry.blobs import BlobStore
from orchestrator.registry.bundles import Bundles
from orchestrator.registry.oci.documents import (
    EMPTY_DIGEST,
    Stored,
    image_of,
    read_manifest,
    referrer,
    referrers_of,
    train_of,
)
from orchestrator.registry.oci.faults import OciCode, OciError
from orchestrator.registry.oci.names import ImageTag, Tag, TrainTag, VersionTag, is_digest, tag_named
from orchestrator.storage import BlobGrant, BundleRow, Database, OciBlobRow, OciManifestRow
from policies.bundle import MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import Digest, digest_of
from policies.errors import TrustError
from policies.manifest import TrainManifest
from policies.wire.oci_trains import EMPTY_JSON, image_tag, train_tag


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob of a repository: a file, or its few bytes."""

    size: int
    path: Path | None
    data: bytes = b""


class Repositories:
    """The trains as repositories."""

    def __init__(self, database: Database, blobs: BlobStore, bundles: Bundles, access: Access) -> None:
        self._database, self._blobs, self._bundles, self._access = database, blobs, bundles, access

    def names(self, last: str = "", limit: int | None = None) -> list[str]:
        """Return the repositories after `last`, in order. Every party that may pull sees every train."""
        query = (
            select(BundleRow.name)
            .where(BundleRow.name > last)
            .distinct()
            .order_by(BundleRow.name)
            .limit(limit)
        )
        with self._database.reading() as session:
            return list(session.scalars(query).all())

    def tags(self, name: str) -> list[str]:
        """Return all tags of a repository, in order.

        Raises:
            OciError: there is no such repository.
        """
        with self._database.reading() as session:
            rows = _bundles(session, name)
            return sorted({tag for row in rows for tag in self._tags_of(row)})

    def manifest(self, name: str, reference: str) -> Stored:
        """Return a manifest by its tag or its digest.

        Raises:
            OciError: there is none.
        """
        with self._database.reading() as session:
            rows = _bundles(session, name)
            if is_digest(reference):
                return self._by_digest(session, name, rows, reference)
            return self._by_tag(session, name, rows, tag_named(reference))

    def blob(self, name: str, digest: Digest, principal: Principal) -> FoundBlob:
        """Return a blob of a repository, or one that the asking party sent itself.

        Raises:
            OciError: the repository has no such blob for them.
        """
        with self._database.reading() as session:
            held = digest in self._named(session, name) or _sent_by(session, principal, digest)
        if digest == EMPTY_DIGEST:
            return FoundBlob(len(EMPTY_JSON), None, EMPTY_JSON)
        path = self._blobs.path(digest) if held else None
        if path is None:
            raise OciError(OciCode.BLOB_UNKNOWN, "this repository has no such blob for you")
        return FoundBlob(path.stat().st_size, path)

    def may_mount(self, digest: Digest, source: str, principal: Principal) -> bool:
        """Whether a blob of another repository needs not be sent again: the caller may read it there already."""
        if self._blobs.path(digest) is None or not self._access.may_read_blob(principal, digest):
            return False
        with self._database.reading() as session:
            return digest in self._named(session, source) or _sent_by(session, principal, digest)

    def referrers(self, name: str, digest: Digest, artifact_type: str | None) -> bytes:
        """Return the index of what refers to a manifest; an empty one where nothing does."""
        with self._database.reading() as session:
            query = select(OciManifestRow).where(
                OciManifestRow.repository == name, OciManifestRow.subject == digest
            )
            rows = session.scalars(query.order_by(OciManifestRow.digest)).all()
        entries = []
        for row in rows:
            stored = Stored(row.media_type, row.body)
            manifest = read_manifest(row.body, row.media_type)
            kind = manifest.artifactType or manifest.config.mediaType
            if artifact_type in {None, kind}:
                entries.append(referrer(stored, kind, manifest.annotations))
        return referrers_of(entries)

    def _tags_of(self, row: BundleRow) -> Iterable[str]:
        manifest = self._bundles.manifest(row.manifest_digest)
        yield image_tag(row.config_digest)
        yield train_tag(row.manifest_digest)
        for variant, config in _variants(manifest):
            if config == row.config_digest:
                yield f"{row.version}-{variant}" if variant else row.version

    def _by_tag(self, session: Session, name: str, rows: Sequence[BundleRow], tag: Tag) -> Stored:
        match tag:
            case TrainTag(digest):
                found = [row for row in rows if row.manifest_digest == digest]
                if found:
                    return train_of(BundleIndex.decode(found[0].index_json))
            case ImageTag(digest):
                # The newest train with this image.
                if found := [row for row in rows if row.config_digest == digest]:
                    return self._image(session, name, found[-1])
            case VersionTag(version, variant):
                for row in rows:
                    if row.version == version and (variant, row.config_digest) in _variants(
                        self._bundles.manifest(row.manifest_digest)
                    ):
                        return self._image(session, name, row)
        raise OciError(OciCode.MANIFEST_UNKNOWN, "this repository has no such tag")

    def _by_digest(self, session: Session, name: str, rows: Sequence[BundleRow], digest: str) -> Stored:
        pushed = session.get(OciManifestRow, (name, digest))
        if pushed is not None:
            return Stored(pushed.media_type, pushed.body)
        for row in rows:
            for stored in (self._written(row), train_of(BundleIndex.decode(row.index_json))):
                if stored.digest == digest:
                    return stored
        raise OciError(OciCode.MANIFEST_UNKNOWN, "this repository has no such manifest")

    def _image(self, session: Session, name: str, row: BundleRow) -> Stored:
        """The image as its owner pushed it last; where they did not push it, as it is written here."""
        pushed = session.scalars(
            select(OciManifestRow)
            .where(
                OciManifestRow.repository == name,
                OciManifestRow.config_digest == row.config_digest,
                OciManifestRow.manifest_digest == row.manifest_digest,
                OciManifestRow.tagged.is_not(None),
            )
            .order_by(OciManifestRow.tagged.desc(), OciManifestRow.digest)
        ).first()
        return self._written(row) if pushed is None else Stored(pushed.media_type, pushed.body)

    def _written(self, row: BundleRow) -> Stored:
        path = self._blobs.path(row.manifest_digest)
        text = b"" if path is None else path.read_bytes()[: MAX_MANIFEST_BYTES + 1]
        if digest_of(text) != row.manifest_digest:
            raise TrustError("the train.yaml of a bundle is damaged", hint="Restore it from a backup.")
        return image_of(BundleIndex.decode(row.index_json), row.name, row.version, text)

    def _named(self, session: Session, name: str) -> set[Digest]:
        """Every blob that a repository's manifests name."""
        indexes = session.scalars(select(BundleRow.index_json).where(BundleRow.name == name)).all()
        digests = {blob.digest for encoded in indexes for blob in BundleIndex.decode(encoded).blobs()}
        packed = session.scalars(select(OciBlobRow.digest).where(OciBlobRow.repository == name)).all()
        return digests | set(packed) | ({EMPTY_DIGEST} if digests else set())


def variant_tags(manifest: TrainManifest, config_digest: Digest) -> set[str]:
    """Return the tags by version that lead to one image of a train."""
    return {
        f"{manifest.version}-{variant}" if variant else manifest.version
        for variant, config in _variants(manifest)
        if config == config_digest
    }


def _variants(manifest: TrainManifest) -> list[tuple[str | None, Digest]]:
    """Which image each tag by version means; the version alone means the one for a CPU, or the only one."""
    images = sorted(manifest.images, key=lambda image: image.variant)
    if not images:
        return []
    plain: list[tuple[str | None, Digest]] = [(None, images[0].config_digest)]
    return plain + [(image.variant, image.config_digest) for image in images]


def _bundles(session: Session, name: str) -> Sequence[BundleRow]:
    rows = session.scalars(
        select(BundleRow).where(BundleRow.name == name).order_by(BundleRow.created, BundleRow.config_digest)
    ).all()
    if not rows:
        raise OciError(OciCode.NAME_UNKNOWN, "there is no train of this name")
    return rows


def _sent_by(session: Session, principal: Principal, digest: Digest) -> bool:
    if principal.role is not Role.RESEARCHER:
        return False
    return session.get(BlobGrant, (digest, owner_scope(principal))) is not None
