"""The orchestrator's bundles as a source of images. Requests are signed with the node's key."""

import ssl
import time
from pathlib import Path
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from policies.bundle import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError, NetworkError, NotFoundError, WireError
from policies.wire.http import EMPTY_DIGEST, sign_request
from policies.wire.instructions import Blob
from policies.wire.proxies import Proxy
from policies.wire.steady import steady_client
from station.agent.blobs import BlobClient
from station.images.sources import MAX_CONFIG, SourcedImage, SourcedLayer, layers_of_config

_MAX_BUNDLES: Final = 16


class OrchestratorBundles:
    """Implements `station.images.sources.ImageSource`.

    Args:
        url: the orchestrator's address.
        ca: the authority behind its certificate.
        key: the node's key.
        blobs: moves blobs by digest.
        work: a folder for the small files on their way.
        proxy: a CONNECT proxy to go through.
    """

    name = "orchestrator"

    def __init__(
        self,
        url: str,
        ca: Path,
        key: ec.EllipticCurvePrivateKey,
        blobs: BlobClient,
        work: Path,
        proxy: Proxy | None = None,
    ) -> None:
        self._key = key
        self._blobs = blobs
        self._work = work
        trusted = ssl.create_default_context(cafile=str(ca))
        self._client = steady_client(trusted, read_s=30.0, connect_s=10.0, proxy=proxy, base_url=url)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return a train's manifest, verified."""
        # One image can stand in several bundles, each with a manifest of its own.
        named = [i for i in self._indexes(image_config_digest) if i.manifest.digest == manifest_digest]
        if not named:
            raise NotFoundError("the orchestrator has another manifest for this image than the policy names")
        return self._small(named[0].manifest.digest, named[0].manifest.size, MAX_MANIFEST_BYTES)

    def find(self, image_config_digest: str) -> SourcedImage:
        """Say what makes an image: the config says which layers, an index only tells their sizes."""
        found = self._indexes(image_config_digest)
        config = self._small(image_config_digest, found[0].config.size, MAX_CONFIG)
        wanted = layers_of_config(config, image_config_digest)
        for index in found:
            if tuple(each.digest for each in index.layers) == wanted:
                layers = tuple(SourcedLayer(each.digest, each.digest, each.size) for each in index.layers)
                return SourcedImage(config, layers)
        raise WireError("the orchestrator's bundles list other layers than the image's config names")

    def download(self, layer: SourcedLayer, path: Path) -> int:
        """Bring a layer's bytes into a file; resumable, hashed and renamed by the blob client."""
        self._blobs.fetch(Blob(digest=layer.digest, size=layer.size), path)
        return layer.size

    def _small(self, digest: str, size: int, limit: int) -> bytes:
        self._work.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._work / digest.removeprefix("sha256:")
        try:
            self._blobs.fetch(Blob(digest=digest, size=size), path)
            with path.open("rb") as file:
                data = file.read(limit + 1)
        finally:
            path.unlink(missing_ok=True)
        if digest_of(data) != digest:
            raise WireError("a blob's bytes are not what its digest says")
        return data

    def _indexes(self, image_config_digest: str) -> list[BundleIndex]:
        """Ask which blobs make the bundles of an image: one per manifest that names it."""
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


def _bounded(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > limit:
            raise NetworkError("the orchestrator's answer is too large")
    return bytes(data)
