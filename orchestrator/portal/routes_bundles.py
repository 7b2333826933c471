"""Bundles: put by researchers, read by stations (which layers to fetch), researchers and the board (review)."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.portal.body import bounded_body
from orchestrator.portal.document import body_of
from orchestrator.registry.access import Role
from policies.bundle import MAX_INDEX_BYTES, BundleIndex
from policies.documents import Digest, Name, format_moment
from policies.manifest import TrainManifest

router = APIRouter(prefix="/bundles", tags=["bundles"])
_READERS = (Role.RESEARCHER, Role.STATION, Role.BOARD, Role.OPERATOR)

Version = Annotated[str, Path(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]


class BundleSummary(BaseModel):
    """A bundle in the list."""

    name: str
    version: str
    manifest_digest: str
    config_digest: str
    owner: str
    created: str


class BundleList(BaseModel):
    """Bundles of one manifest (one per image variant) or of one image (the newest first)."""

    bundles: list[BundleIndex]


@router.get("", summary="All bundles")
def list_bundles(asking: CallerOf, parts: ServicesOf) -> list[BundleSummary]:
    """List bundles."""
    require(asking, *_READERS)
    return [
        BundleSummary(
            name=view.name,
            version=view.version,
            manifest_digest=view.manifest_digest,
            config_digest=view.config_digest,
            owner=view.owner.partition(":")[2],
            created=format_moment(view.created),
        )
        for view in parts.bundles.all()
    ]


@router.put(
    "/{name}/{version}",
    summary="Say which blobs make up a train",
    status_code=201,
    openapi_extra=body_of("`policies.bundle.BundleIndex`"),
)
async def put_bundle(
    name: Annotated[Name, Path()], version: Version, request: Request, asking: CallerOf, parts: ServicesOf
) -> BundleIndex:
    """Accept a bundle whose blobs are all here."""
    principal = require(asking, Role.RESEARCHER)
    encoded = await bounded_body(request, MAX_INDEX_BYTES)
    await run_in_threadpool(parts.quotas.check, principal, len(encoded))
    return await run_in_threadpool(parts.bundles.put, principal, name, version, encoded)


@router.get("/by-image/{digest}", summary="Bundles that hold an image, by its config digest")
def by_image(digest: Digest, asking: CallerOf, parts: ServicesOf) -> BundleList:
    """Say which layers an image needs."""
    require(asking, *_READERS)
    return _decoded(parts.bundles.by_image(digest))


@router.get("/by-manifest/{digest}", summary="Bundles of a train, by its manifest's digest")
def by_manifest(digest: Digest, asking: CallerOf, parts: ServicesOf) -> BundleList:
    """Say which images a train has."""
    require(asking, *_READERS)
    return _decoded(parts.bundles.by_manifest(digest))


@router.get("/manifests/{digest}", summary="A train's manifest, read")
def manifest(digest: Digest, asking: CallerOf, parts: ServicesOf) -> TrainManifest:
    """Show a manifest; its bytes are the blob of the same digest."""
    require(asking, *_READERS)
    parts.bundles.by_manifest(digest)
    return parts.bundles.manifest(digest)


def _decoded(indexes: list[bytes]) -> BundleList:
    return BundleList(bundles=[BundleIndex.decode(encoded) for encoded in indexes])
