"""Sends a bundle to an OCI registry, so that stations can fetch it there: only the blobs that the registry does not have.

What a station looks for: the image under the tag ``cfg-<hex of its config's digest>``, and the train's manifest (train.yaml) in the
image manifest's annotation, or as a blob of the same repository. A registry keeps only what a manifest names, so train.yaml gets one
of its own under ``train-<hex>``. An orchestrator is such a registry as well: there the image is a bundle from then on.
Layers are packed with gzip, always to the same bytes, so that a base is sent once; one that packs so well that stations would take it
for a bomb goes as it is. Distribution specification 1.1, "Push".
"""

import ssl
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx

from policies.bundle import MAX_MANIFEST_BYTES
from policies.documents import canonical_json, digest_of, digest_of_file, parse_json
from policies.errors import DocumentError, NetworkError, TrustError, UsageError
from policies.image_config import MAX_CONFIG_BYTES
from policies.layers import LayerRefusedError, unpacked
from policies.wire.oci_auth import MAX_TOKEN, Challenge, Credentials, read_token
from policies.wire.oci_trains import (
    EMPTY_JSON,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_LAYER,
    OCI_MANIFEST,
    TRAIN_TYPE,
    image_tag,
    train_annotation,
    train_tag,
)
from train_images.tool.folders import PackedTrain

Progress = Callable[[str], None]

_CHUNK: Final = 1 << 20
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was sent.

    Attributes:
        tag: under which stations find the image.
        moved_bytes: of what the registry did not have, as it was sent.
        moved_blobs: how many blobs that were.
    """

    tag: str
    moved_bytes: int
    moved_blobs: int


class RegistryPush:
    """One repository of one registry.

    Args:
        url: the registry's address, https.
        repository: the repository.
        ca: the authority behind its certificate; without it, this machine's own authorities.
        credentials: who we are there.
    """

    def __init__(
        self, url: str, repository: str, *, ca: Path | None = None, credentials: Credentials | None = None
    ) -> None:
        if urlsplit(url).scheme != "https":
            raise UsageError("a registry is reached by https only", hint="Give its address as https://host.")
        self._base = url.rstrip("/") + f"/v2/{repository}/"
        self._repository = repository
        self._credentials = credentials
        self._authorization: str | None = None
        self._moved: list[int] = []
        self._client = httpx.Client(
            verify=ssl.create_default_context(cafile=None if ca is None else str(ca)),
            timeout=httpx.Timeout(120.0, connect=10.0),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def push(self, train: PackedTrain, progress: Progress) -> Pushed:
        """Send what is missing of a bundle, then the two manifests that name it.

        Raises:
            NetworkError: the registry does not answer, or does not take it.
            NotFoundError, TrustError: a blob is not in the bundle's folder, or has changed.
        """
        config, text = train.index.config, train.index.manifest
        layers = [self._layer(train, blob.digest, progress) for blob in train.index.layers]
        # Both are small.
        self._bytes(train.store.read_bytes(config.digest, max_bytes=MAX_CONFIG_BYTES))
        written = train.store.read_bytes(text.digest, max_bytes=MAX_MANIFEST_BYTES)
        self._bytes(written)
        self._bytes(EMPTY_JSON)
        tag = image_tag(config.digest)
        described = {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size}
        annotations = {
            "org.opencontainers.image.title": train.manifest.name,
            "org.opencontainers.image.version": train.manifest.version,
            **train_annotation(written),
        }
        self._manifest(tag, described, layers, annotations=annotations)
        self._manifest(
            train_tag(text.digest),
            {"mediaType": OCI_EMPTY, "digest": digest_of(EMPTY_JSON), "size": len(EMPTY_JSON)},
            [{"mediaType": TRAIN_TYPE, "digest": text.digest, "size": text.size}],
            artifactType=TRAIN_TYPE,
        )  # fmt: skip
        return Pushed(tag, sum(self._moved), len(self._moved))

    def _layer(self, train: PackedTrain, digest: str, progress: Progress) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="pht-push-") as made:
            packed = Path(made) / "layer"
            train.store.rehash(digest)
            with train.store.open(digest) as source, packed.open("wb") as out:
                packer = zlib.compressobj(_LEVEL, wbits=31)
                while chunk := source.read(_CHUNK):
                    out.write(packer.compress(chunk))
                out.write(packer.flush())
            sent, packing = (packed, "+gzip") if _is_taken(packed) else (train.store.path(digest), "")
            moved, size = digest_of_file(sent), sent.stat().st_size
            if not self._has(moved):
                progress(f"sending {digest[:19]} ({size / 1e6:.1f} MB)")
                self._send(moved, size, lambda: _chunks(sent))
        return {"mediaType": OCI_LAYER + packing, "digest": moved, "size": size}

    def _bytes(self, data: bytes) -> None:
        if not self._has(digest_of(data)):
            self._send(digest_of(data), len(data), lambda: iter((data,)))

    def _has(self, digest: str) -> bool:
        status = self._ask("HEAD", f"{self._base}blobs/{digest}").status_code
        if status not in {200, 404}:
            raise _refused(status)
        return status == httpx.codes.OK

    def _send(self, digest: str, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        begun = self._ask("POST", f"{self._base}blobs/uploads/")
        if begun.status_code != httpx.codes.ACCEPTED:
            raise _refused(begun.status_code)
        place = urljoin(self._base, str(begun.headers.get("location", "")))
        if urlsplit(place)[:2] != urlsplit(self._base)[:2]:
            raise TrustError("the registry sends us to another host")
        url = str(httpx.URL(place).copy_merge_params({"digest": digest}))
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        done = self._ask("PUT", url, headers, chunks)
        if done.status_code != httpx.codes.CREATED:
            raise _refused(done.status_code)
        self._moved.append(size)

    def _manifest(
        self, tag: str, config: dict[str, Any], layers: list[dict[str, Any]], **more: object
    ) -> None:
        media = OCI_MANIFEST
        document = {"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers, **more}
        data = canonical_json(document)
        done = self._ask(
            "PUT", f"{self._base}manifests/{tag}", {"content-type": media}, lambda: iter((data,))
        )
        if done.status_code != httpx.codes.CREATED:
            raise _refused(done.status_code)

    def _ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        chunks: Callable[[], Iterator[bytes]] | None = None,
    ) -> httpx.Response:
        """Ask, and once more when the registry wants to know who asks."""
        answer = self._once(method, url, headers or {}, chunks)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._authorize(Challenge.read(str(answer.headers.get("www-authenticate", ""))))
            answer = self._once(method, url, headers or {}, chunks)
        return answer

    def _once(
        self, method: str, url: str, headers: dict[str, str], chunks: Callable[[], Iterator[bytes]] | None
    ) -> httpx.Response:
        sent = dict(headers)
        if self._authorization is not None:
            sent["authorization"] = self._authorization
        content = None if chunks is None else chunks()
        try:
            with self._client.stream(method, url, headers=sent, content=content) as answer:
                # What it says beside its status is not read.
                return answer
        except httpx.TransportError as error:
            raise NetworkError("the registry does not answer") from error

    def _authorize(self, challenge: Challenge) -> None:
        credentials = self._credentials
        if credentials is None:
            raise NetworkError("the registry wants to know who asks", hint="Give --credentials-file.")
        if challenge.scheme == "basic":
            self._authorization = credentials.basic
        elif challenge.scheme == "bearer":
            token = credentials.secret if not credentials.user else self._token(challenge, credentials)
            self._authorization = f"Bearer {token}"
        else:
            raise NetworkError("the registry asks for a form of login that is not known here")

    def _token(self, challenge: Challenge, credentials: Credentials) -> str:
        realm = challenge.parameters.get("realm", "")
        if urlsplit(realm)[:2] != urlsplit(self._base)[:2]:
            raise NetworkError(
                "the registry's token service is at another host",
                hint="Get a token there, and give a file with the token alone.",
            )
        query = {"scope": f"repository:{self._repository}:pull,push"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        data = bytearray()
        try:
            with self._client.stream(
                "GET", realm, params=query, headers={"authorization": credentials.basic}
            ) as answer:
                for chunk in answer.iter_bytes(4096):
                    data += chunk
                    if len(data) > MAX_TOKEN:
                        raise NetworkError("the token service's answer is too large")
        except httpx.TransportError as error:
            raise NetworkError("the registry's token service does not answer") from error
        try:
            return read_token(parse_json(bytes(data), what="token", max_bytes=MAX_TOKEN))
        except DocumentError as error:
            raise NetworkError("the registry's token service answered no token") from error


def _is_taken(packed: Path) -> bool:
    """Whether a station unpacks a layer that is packed so: a file of zeros is beyond the ratio that it allows."""
    try:
        for _ in unpacked(_chunks(packed)):
            pass
    except LayerRefusedError:
        return False
    return True


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _refused(status: int) -> NetworkError:
    return NetworkError(
        f"the registry does not take it ({status})",
        hint="Look at the address, the repository and what your credentials may do there.",
    )
