"""Which attack a download shows: one refusal code for each way in which a mirror, or who holds a key, can lie.

python-tuf has refused already when this is asked; it says why in classes of exception that several attacks share. Here
the bytes that came are looked at once more, under the roots that were verified: who signed them, over what, and which
version they bear. Invariant: nothing is permitted here, whatever is found; an unclear case is `TRUST_UNVERIFIED`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface

from policies.errors import TrustError
from policies.refusals import Reason, RefusalCode

_ROLES = (Root.type, Timestamp.type, Snapshot.type, Targets.type)
_LARGEST_METADATA_BYTES = 1 << 20
_EXPIRED = {
    Root.type: RefusalCode.TRUST_ROOT_EXPIRED,
    Timestamp.type: RefusalCode.TRUST_EXPIRED,
    Snapshot.type: RefusalCode.TRUST_TARGETS_EXPIRED,
    Targets.type: RefusalCode.TRUST_TARGETS_EXPIRED,
}


class UntrustedMirrorError(TrustError):
    """What a mirror serves does not verify.

    Attributes:
        reason: which lie it is, as a refusal.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Download:
    """The last thing that was asked of a mirror.

    Attributes:
        role: whose metadata, or empty for a target.
        version: the one its name holds; None for the timestamp.
        data: what came, as far as metadata may be long.
    """

    role: str
    version: int | None
    data: bytes


class WatchedFetcher(FetcherInterface):
    """Passes everything through, and remembers the last download for `diagnose`."""

    def __init__(self, fetcher: FetcherInterface) -> None:
        self._fetcher = fetcher
        self.last = Download("", None, b"")

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = Download("", None, b"")
        return self._fetcher.fetch(url)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Download metadata; python-tuf takes targets by `download_file`."""
        *version, role = url.rpartition("/")[2].removesuffix(".json").split(".")
        number = int(version[0]) if version and version[0].isdigit() else None
        self.last = Download(role, number, b"")
        # A longer file than named is read to the ceiling all the same: it may be another version, well signed.
        data = self._fetcher.download_bytes(url, max(max_length, _LARGEST_METADATA_BYTES))
        self.last = Download(role, number, data)
        if len(data) > max_length:
            raise DownloadLengthMismatchError("longer than the signed length")
        return data


def diagnose(
    error: RepositoryError | DownloadLengthMismatchError, download: Download, roots: Sequence[Root]
) -> Reason:
    """Return the refusal that an error of python-tuf's client workflow stands for.

    Args:
        error: what python-tuf raised.
        download: what it had asked for last.
        roots: the verified roots, oldest first; the last one is in force.
    """
    if isinstance(error, ExpiredMetadataError):
        role = _expired_role(error)
        return Reason(_EXPIRED[role], f"the {role} metadata has expired")
    if download.role not in _ROLES:
        changed = isinstance(error, LengthOrHashMismatchError | DownloadLengthMismatchError)
        return Reason(
            RefusalCode.TRUST_CHANGED if changed else RefusalCode.TRUST_UNVERIFIED,
            "a target of the repository",
        )
    return _of_metadata(error, download, roots)


def _expired_role(error: ExpiredMetadataError) -> str:
    # python-tuf names the role in its text only; whatever it says of none of the others is of the root or the timestamp.
    text = str(error)
    return next((role for role in (Root.type, Snapshot.type, Targets.type) if role in text), Timestamp.type)


def _of_metadata(
    error: RepositoryError | DownloadLengthMismatchError, download: Download, roots: Sequence[Root]
) -> Reason:
    role = download.role
    try:
        metadata = Metadata.from_bytes(download.data)
    except (DeserializationError, RepositoryError):
        too_long = isinstance(error, DownloadLengthMismatchError) and not download.data
        code = RefusalCode.TRUST_UNVERIFIED if too_long else RefusalCode.TRUST_CHANGED
        return Reason(code, f"the {role} metadata cannot be read")
    if metadata.signed.type != role:
        return Reason(RefusalCode.TRUST_MIXED, f"other metadata under the name of the {role} metadata")
    if role == Root.type and metadata.signed.version != roots[-1].version + 1:
        return Reason(
            RefusalCode.TRUST_ROOT_SKIPPED,
            f"root {metadata.signed.version} is offered where root {roots[-1].version + 1} follows",
        )
    if (found := _signatures(metadata, role, roots)) is not None:
        return found
    # From here on it is signed by whom the root in force names.
    if isinstance(error, LengthOrHashMismatchError | DownloadLengthMismatchError):
        if download.version is not None and metadata.signed.version != download.version:
            return Reason(RefusalCode.TRUST_MIXED, f"the {role} metadata is of another state than the rest")
        return Reason(RefusalCode.TRUST_CHANGED, f"the {role} metadata is not the one that is named")
    if isinstance(error, BadVersionNumberError):
        return Reason(RefusalCode.TRUST_ROLLBACK, f"older {role} metadata than was seen before")
    if isinstance(error, UnsignedMetadataError):
        return Reason(
            RefusalCode.TRUST_SIGNATURES_TOO_FEW, "the new root lacks signatures of its own members"
        )
    return Reason(RefusalCode.TRUST_UNVERIFIED, f"the {role} metadata does not verify")


def _signatures(metadata: Metadata, role: str, roots: Sequence[Root]) -> Reason | None:  # type: ignore[type-arg]
    """Return what is wrong with the signatures on metadata, or None."""
    named = roots[-1].get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if named.verified:
        return None
    current = _keys(roots[-1], role)
    former = [key for root in roots[:-1] for key in _keys(root, role) if key not in current]
    if any(_holds(metadata, key) for key in former):
        return Reason(RefusalCode.TRUST_KEY_RETIRED, f"the {role} metadata is signed with a key of before")
    if named.signed:
        return Reason(
            RefusalCode.TRUST_SIGNATURES_TOO_FEW,
            f"the {role} metadata holds {len(named.signed)} of the {named.threshold} signatures it takes",
        )
    if any(key.keyid in metadata.signatures for key in current) or any(
        _holds(metadata, key) for key in current
    ):
        return Reason(RefusalCode.TRUST_CHANGED, f"the {role} metadata is not what was signed")
    return Reason(
        RefusalCode.TRUST_UNVERIFIED, f"the {role} metadata is signed by nobody whom the root names"
    )


def _keys(root: Root, role: str) -> list[Key]:
    return [root.keys[keyid] for keyid in root.roles[role].keyids]


def _holds(metadata: Metadata, key: Key) -> bool:  # type: ignore[type-arg]
    """Say whether some signature on the metadata is this key's, under whichever key id."""
    for signature in metadata.signatures.values():
        try:
            key.verify_signature(Signature(key.keyid, signature.signature), metadata.signed_bytes)
        except (UnverifiedSignatureError, VerificationError, ValueError):
            continue
        return True
    return False
