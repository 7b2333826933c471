"""The OCI distribution API under /v2/: parses, calls one use case, renders; errors in the specification's shape."""

from orchestrator.portal.oci.app import create_oci

__all__ = ["create_oci"]
