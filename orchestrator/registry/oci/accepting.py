"""What a pushed manifest becomes: a bundle, under the same rules as any other; or another packing of one; or nothing.

1. Its tag is one that this train can have.
2. Its blobs are here, readable to who pushes, and as large as it says.
3. An image's layers are unpacked and held against its config's diff ids: what is registered is what would run.
4. The train is the one that the annotation carries, or the one that this image already belongs to.
5. `Bundles.put` decides; then the manifest is kept as it came, by the train's owner alone.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import select

from orchestrator.registry.access import BUNDLE_SCOPE, Access, Principal, add_grants, owner_scope
from orchestrator.registry.blobs import BlobStore
from orchestrator.registry.bundles import Bundles
from orchestrator.registry.oci.documents import EMPTY_DIGEST, Descriptor, Manifest, read_manifest
from orchestrator.registry.oci.faults import OciCode, OciError
from orchestrator.registry.oci.names import ImageTag, Tag, TrainTag, digest_named, is_digest, tag_named
from orchestrator.registry.oci.repositories import variant_tags
from orchestrator.registry.quota import Quotas, Share
from orchestrator.storage import BundleRow, Database, OciBlobRow, OciManifestRow
from policies.blobs import Blob, BlobFolder
from policies.bundle import MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import Digest, digest_of, load_yaml, parse_json
from policies.errors import DocumentError, StorageError, TrustError, UsageError
from policies.image_config import MAX_CONFIG_BYTES, diff_ids_of
from policies.layers import LayerRefusedError, unpacked
from policies.manifest import TrainManifest
from policies.wire.oci_trains import TRAIN_ANNOTATION

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was kept.

    Attributes:
        digest: of the manifest.
        subject: what it refers to, if anything.
    """

    digest: Digest
    subject: Digest | None


class Accepting:
    """Takes pushed manifests."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        bundles: Bundles,
        access: Access,
        store: BlobFolder,
        quotas: Quotas,
    ) -> None:
        self._database, self._blobs, self._bundles = database, blobs, bundles
        self._access, self._store, self._quotas = access, store, quotas

    def put(
        self, principal: Principal, repository: str, reference: str, media_type: str, body: bytes
    ) -> Accepted:
        """Take a manifest; the same one again changes nothing.

        Raises:
            OciError: why it is not taken.
        """
        digest = digest_of(body)
        if is_digest(reference) and digest_named(reference) != digest:
            raise OciError(OciCode.DIGEST_INVALID, "the manifest does not have the digest it is sent under")
        manifest = read_manifest(body, media_type)
        if not self._is_known(principal, repository, reference, digest):
            take = self._image if manifest.is_image else self._train_text
            train, config = take(principal, repository, reference, manifest)
            self._keep(principal, OciManifestRow(
                repository=repository,
                digest=digest,
                media_type=media_type,
                artifact_type="" if manifest.is_image else str(manifest.artifactType or ""),
                manifest_digest=train,
                config_digest=config,
                subject=None if manifest.subject is None else manifest.subject.digest,
                body=body,
                owner=principal.id,
                created=datetime.now(UTC),
                tagged=None if is_digest(reference) else datetime.now(UTC),
            ), manifest)  # fmt: skip
        return Accepted(digest, None if manifest.subject is None else manifest.subject.digest)

    def _is_known(self, principal: Principal, repository: str, reference: str, digest: Digest) -> bool:
        """Whether its owner sent this very manifest before; then a tag leads to it again."""
        with self._database.transaction() as session:
            row = session.get(OciManifestRow, (repository, digest))
            if row is None or row.owner != principal.id:
                return False
            if not is_digest(reference):
                train = self._bundles.manifest(row.manifest_digest)
                if row.config_digest is not None:
                    _check_tag(reference, train, row.config_digest)
                elif _pushed_tag(reference) != TrainTag(row.manifest_digest):
                    return False
                row.tagged = datetime.now(UTC)
            return True

    def _keep(self, principal: Principal, row: OciManifestRow, manifest: Manifest) -> None:
        packed = [layer.digest for layer in manifest.layers] if manifest.is_image else []
        with self._database.transaction() as session:
            owners = select(BundleRow.owner).where(BundleRow.manifest_digest == row.manifest_digest)
            if row.config_digest is not None:
                owners = owners.where(BundleRow.config_digest == row.config_digest)
            if principal.id not in session.scalars(owners).all():
                raise OciError(OciCode.DENIED, "this train is somebody else's")
            for blob in dict.fromkeys(packed):
                if session.get(OciBlobRow, (row.repository, blob)) is None:
                    session.add(OciBlobRow(repository=row.repository, digest=blob))
            add_grants(session, packed, BUNDLE_SCOPE)
            session.merge(row)

    def _image(
        self, principal: Principal, repository: str, reference: str, manifest: Manifest
    ) -> tuple[Digest, Digest | None]:
        config = manifest.config
        self._require(principal, [config, *manifest.layers])
        text, train = self._train(repository, manifest)
        _check_tag(reference, train, config.digest)
        if train.name != repository:
            raise OciError(
                OciCode.NAME_INVALID, f"the train is {train.name}: push it to the repository of its name"
            )
        layers = self._layers(principal, manifest)
        stored = self._store.put_bytes(text)
        self._access.grant(stored.digest, owner_scope(principal))
        index = BundleIndex(
            config=Blob(digest=config.digest, size=config.size), layers=layers, manifest=stored
        )
        try:
            self._bundles.put(principal, train.name, train.version, index.encode())
        except (UsageError, DocumentError, TrustError) as error:
            raise OciError(OciCode.MANIFEST_INVALID, f"{error.message}. {error.hint}".strip()) from error
        return stored.digest, config.digest

    def _train_text(
        self, principal: Principal, repository: str, reference: str, manifest: Manifest
    ) -> tuple[Digest, None]:
        text = manifest.layers[0]
        self._require(principal, [each for each in (manifest.config, text) if each.digest != EMPTY_DIGEST])
        if not is_digest(reference) and _pushed_tag(reference) != TrainTag(text.digest):
            raise OciError(OciCode.MANIFEST_INVALID, "the tag of a train.yaml is train-<hex of its digest>")
        with self._database.reading() as session:
            name = session.scalar(select(BundleRow.name).where(BundleRow.manifest_digest == text.digest))
        if name != repository:
            raise OciError(
                OciCode.MANIFEST_INVALID,
                "no image of this train is here yet: push that first (`pht-train push`)",
            )
        return text.digest, None

    def _train(self, repository: str, manifest: Manifest) -> tuple[bytes, TrainManifest]:
        """The train.yaml that an image belongs to."""
        annotated = manifest.annotations.get(TRAIN_ANNOTATION)
        if annotated is not None:
            text = annotated.encode("utf-8", "surrogatepass")
            try:
                return text, load_yaml(TrainManifest, text, what="train.yaml")
            except (DocumentError, UnicodeError) as error:
                raise OciError(
                    OciCode.MANIFEST_INVALID, f"the annotation {TRAIN_ANNOTATION} is no train.yaml"
                ) from error
        with self._database.reading() as session:
            known = session.scalars(
                select(BundleRow.manifest_digest)
                .where(BundleRow.name == repository, BundleRow.config_digest == manifest.config.digest)
                .order_by(BundleRow.created.desc())
            ).first()
        if known is None:
            raise OciError(
                OciCode.MANIFEST_INVALID,
                f"this image belongs to no train here, and has no annotation {TRAIN_ANNOTATION}: use `pht-train push`",
            )
        return self._read(known, MAX_MANIFEST_BYTES), self._bundles.manifest(known)

    def _layers(self, principal: Principal, manifest: Manifest) -> tuple[Blob, ...]:
        """The layers as a bundle has them, in the order of the config."""
        try:
            wanted = diff_ids_of(
                parse_json(self._read(manifest.config.digest, MAX_CONFIG_BYTES), what="image config")
            )
        except DocumentError as error:
            raise OciError(OciCode.MANIFEST_INVALID, error.message) from error
        if len(wanted) != len(manifest.layers):
            raise OciError(
                OciCode.MANIFEST_INVALID, "the manifest lists other layers than the image's config"
            )
        return tuple(
            self._layer(principal, layer, diff_id)
            for layer, diff_id in zip(manifest.layers, wanted, strict=True)
        )

    def _layer(self, principal: Principal, layer: Descriptor, diff_id: Digest) -> Blob:
        if layer.is_plain_layer:
            if layer.digest != diff_id:
                raise OciError(
                    OciCode.MANIFEST_INVALID, "a layer is not the one that the image's config names"
                )
            return Blob(digest=layer.digest, size=layer.size)
        if not layer.is_gzip_layer:
            raise OciError(
                OciCode.MANIFEST_INVALID,
                "a layer is packed in a form that is not read here: push it plain or with gzip",
            )
        share = self._quotas.begin(principal, self._blobs.size(diff_id) or 0, digest=diff_id)
        try:
            made = self._store.put(
                self._with_room(unpacked(self._chunks(layer.digest)), share),
                expect=diff_id,
                max_bytes=self._blobs.limits.blob_bytes,
            )
            # Who has the packed bytes has these too.
            self._access.grant(made.digest, owner_scope(principal))
        except (LayerRefusedError, TrustError, DocumentError) as error:
            raise OciError(
                OciCode.MANIFEST_INVALID, "a layer does not unpack to what the image's config names"
            ) from error
        finally:
            share.end()
        return made

    def _require(self, principal: Principal, blobs: list[Descriptor]) -> None:
        for blob in blobs:
            if self._blobs.size(blob.digest) is None or not self._access.may_read_blob(
                principal, blob.digest
            ):
                raise OciError(OciCode.MANIFEST_BLOB_UNKNOWN, f"{blob.digest} is not here: send it first")
            if self._blobs.size(blob.digest) != blob.size:
                raise OciError(OciCode.SIZE_INVALID, f"{blob.digest} has another size than the manifest says")

    def _read(self, digest: Digest, limit: int) -> bytes:
        try:
            return self._store.read_bytes(digest, max_bytes=limit)
        except TrustError as error:
            raise OciError(OciCode.MANIFEST_INVALID, f"{digest} is too large or damaged") from error

    def _with_room(self, pieces: Iterator[bytes], share: Share) -> Iterator[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            share.grow(size)
            if shutil.disk_usage(self._store.root).free - len(piece) < self._blobs.limits.spare_bytes:
                raise StorageError("the orchestrator's disk is too full for this image")
            yield piece

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        with self._store.open(digest) as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def _check_tag(reference: str, train: TrainManifest, config: Digest) -> None:
    if is_digest(reference) or reference in variant_tags(train, config):
        return
    if _pushed_tag(reference) != ImageTag(config):
        raise OciError(
            OciCode.MANIFEST_INVALID,
            f"this image's tag is {train.version}, or cfg-<hex of its config's digest>",
        )


def _pushed_tag(reference: str) -> Tag:
    try:
        return tag_named(reference)
    except OciError as error:
        raise OciError(OciCode.MANIFEST_INVALID, error.message) from error
