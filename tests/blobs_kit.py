"""What lies in a folder of blobs."""

from policies.blobs import BlobFolder


def blobs(store: BlobFolder) -> set[str]:
    """The digests of all blobs, in hex."""
    folder = store.root / "sha256"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
