"""Brings a train's bundle from the orchestrator into the station's own layer store: only what is missing, by digest.

Nothing of it is run or unpacked here. What is stored was hashed while it was written; the launcher hashes it again.
"""

import os
import ssl
import threading
import time
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from policies.bundle import MAX_CONFIG_BYTES, MAX_INDEX_BYTES, BlobFolder, BundleIndex, diff_ids_of
from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError, NetworkError, NotFoundError, TrustError, WireError
from policies.wire.http import EMPTY_DIGEST, sign_request
from policies.wire.instructions import Blob
from station.agent.blobs import BlobClient

_MAX_MANIFEST_BYTES = 1 << 20
_MAX_BUNDLES = 16


class Bundles:
    """The station's copies of bundles.

    Args:
        url: the orchestrator's address.
        ca: the authority behind its certificate.
        key: the node's key, which signs the requests.
        blobs: moves blobs by digest.
        store: where they are kept; the launcher reads it.
        proxy: a CONNECT proxy to go through.
    """

    def __init__(
        self,
        url: str,
        ca: Path,
        key: ec.EllipticCurvePrivateKey,
        blobs: BlobClient,
        store: BlobFolder,
        proxy: str | None = None,
    ) -> None:
        self._key = key
        self._blobs = blobs
        self._store = store
        self._lock = threading.Lock()
        self._client = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(ca)),
            timeout=httpx.Timeout(30.0, connect=10.0),
            follow_redirects=False,
            trust_env=False,
            proxy=proxy,
        )

    def indexes(self, image_config_digest: str) -> list[BundleIndex]:
        """Ask which blobs make the bundles of an image: one per manifest that names it.

        Raises:
            NotFoundError: the orchestrator has no such bundle.
            NetworkError: it does not answer, or answers nonsense.
        """
        target = f"/api/v1/bundles/by-image/{image_config_digest}"
        headers = sign_request(self._key, "GET", target, EMPTY_DIGEST, now=time.time())
        try:
            with self._client.stream("GET", target, headers=headers) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise NotFoundError("the orchestrator has no bundle of this image")
                if response.status_code != httpx.codes.OK:
                    raise NetworkError(f"the orchestrator answered {response.status_code}")
                data = _bounded(response, _MAX_BUNDLES * MAX_INDEX_BYTES)
        except httpx.TransportError as error:
            raise NetworkError("the orchestrator does not answer") from error
        try:
            listed = parse_json(data, what="bundles", max_bytes=_MAX_BUNDLES * MAX_INDEX_BYTES)["bundles"]
            found = [BundleIndex.decode(canonical_json(each)) for each in listed]
        except (DocumentError, KeyError, TypeError) as error:
            raise NetworkError("the orchestrator's bundle index is not one") from error
        if not found:
            raise NotFoundError("the orchestrator has no bundle of this image")
        if any(index.config.digest != image_config_digest for index in found):
            raise NetworkError("the orchestrator answered with another image's bundle")
        return found

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return the manifest's bytes, verified against its digest.

        Raises:
            NotFoundError: the orchestrator has no such bundle, or another manifest for it.
            NetworkError: it does not answer.
        """
        if not self._store.has(manifest_digest):
            # One image can stand in several bundles, each with a manifest of its own.
            named = [i for i in self.indexes(image_config_digest) if i.manifest.digest == manifest_digest]
            if not named:
                raise NotFoundError(
                    "the orchestrator has another manifest for this image than the policy names"
                )
            with self._lock:
                self._bring(manifest_digest, named[0].manifest.size)
        data = self._store.read_bytes(manifest_digest, max_bytes=_MAX_MANIFEST_BYTES)
        if digest_of(data) != manifest_digest:
            raise TrustError("the stored manifest is not what its digest says")
        return data

    def fetch(self, image_config_digest: str) -> int:
        """Bring an image's config and layers; returns how many bytes had to move.

        Raises:
            NotFoundError, NetworkError: as above.
            WireError: bytes that are not what their digest says.
            StorageError: the disk.
        """
        with self._lock:
            found = self.indexes(image_config_digest)
            moved = self._bring(image_config_digest, found[0].config.size)
            wanted = self._layers_of(image_config_digest)
            # The config says which layers make the image; an index only tells their sizes.
            layers = next(
                (i.layers for i in found if tuple(each.digest for each in i.layers) == wanted), None
            )
            if layers is None:
                raise WireError("the orchestrator's bundles list other layers than the image's config names")
            return moved + sum(self._bring(layer.digest, layer.size) for layer in layers)

    def _layers_of(self, image_config_digest: str) -> tuple[str, ...]:
        try:
            config = parse_json(
                self._store.read_bytes(image_config_digest, max_bytes=MAX_CONFIG_BYTES), what="image config"
            )
            return diff_ids_of(config)
        except DocumentError as error:
            raise WireError("the image's config names no layers") from error

    def _bring(self, digest: str, size: int) -> int:
        if self._store.has(digest):
            return 0
        place = self._store.path(digest)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # Resumable, hashed and renamed by the blob client, so nothing is written twice; synced before it counts.
        self._blobs.fetch(Blob(digest=digest, size=size), place)
        with place.open("rb") as file:
            os.fsync(file.fileno())
        return size


def _bounded(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > limit:
            raise NetworkError("the orchestrator's answer is too large")
    return bytes(data)
