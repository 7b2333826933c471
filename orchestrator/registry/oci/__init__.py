"""The OCI distribution API over bundles, blobs and grants: what is served, and what may be pushed."""
