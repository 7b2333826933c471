"""The use cases of the distribution API, put together from the orchestrator's services."""

from dataclasses import dataclass

from orchestrator.registry.oci.accepting import Accepting
from orchestrator.registry.oci.repositories import Repositories
from orchestrator.registry.oci.uploads import UploadSessions
from orchestrator.services import Services
from policies.blobs import BlobFolder


@dataclass(frozen=True, slots=True)
class OciParts:
    """What the distribution API calls."""

    services: Services
    repositories: Repositories
    uploads: UploadSessions
    accepting: Accepting


def oci_parts(services: Services) -> OciParts:
    """Put them together."""
    database, blobs, bundles, access = services.database, services.blobs, services.bundles, services.access
    return OciParts(
        services=services,
        repositories=Repositories(database, blobs, bundles, access),
        uploads=UploadSessions(services.home.blobs, blobs.limits),
        accepting=Accepting(
            database, blobs, bundles, access, BlobFolder(services.home.blobs), services.quotas
        ),
    )
