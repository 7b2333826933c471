"""Why a request of the distribution API is not answered: the specification's own codes, each with its status.

OCI Distribution Specification 1.1, "Error Codes".
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from policies.errors import UsageError


class OciCode(StrEnum):
    """The specification's codes that are used here."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"


STATUS: Final = MappingProxyType(
    {
        OciCode.BLOB_UNKNOWN: 404,
        OciCode.BLOB_UPLOAD_INVALID: 400,
        OciCode.BLOB_UPLOAD_UNKNOWN: 404,
        OciCode.DIGEST_INVALID: 400,
        OciCode.MANIFEST_BLOB_UNKNOWN: 404,
        OciCode.MANIFEST_INVALID: 400,
        OciCode.MANIFEST_UNKNOWN: 404,
        OciCode.NAME_INVALID: 400,
        OciCode.NAME_UNKNOWN: 404,
        OciCode.SIZE_INVALID: 400,
        OciCode.UNAUTHORIZED: 401,
        OciCode.DENIED: 403,
        OciCode.UNSUPPORTED: 405,
        OciCode.TOOMANYREQUESTS: 429,
    }
)


class OciError(UsageError):
    """The request cannot be answered; `code` says why, in the specification's words."""

    def __init__(self, code: OciCode, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS[code]
