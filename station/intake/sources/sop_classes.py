"""What the station's application entities negotiate: lists, from which the conformance statement's tables are made too."""

from collections.abc import Iterable, Sequence
from typing import Final

from pydicom.uid import UID
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role

IMPLEMENTATION_CLASS_UID: Final = "2.25.39105470666204279461635793638608291435"
IMPLEMENTATION_VERSION: Final = "PHT_STATION_1"

VERIFICATION: Final = UID("1.2.840.10008.1.1")
STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_ROOT_MOVE: Final = UID("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_ROOT_GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")

KEY_OBJECT_SELECTION: Final = UID("1.2.840.10008.5.1.4.1.1.88.59")
"""Taken for the rejection notes of IHE IOCM only."""

UNCOMPRESSED: Final = (
    UID("1.2.840.10008.1.2.1"),  # Explicit VR Little Endian
    UID("1.2.840.10008.1.2"),  # Implicit VR Little Endian, the default of DICOM
)
COMPRESSED: Final = (
    UID("1.2.840.10008.1.2.4.70"),  # JPEG Lossless, first-order prediction
    UID("1.2.840.10008.1.2.4.57"),  # JPEG Lossless
    UID("1.2.840.10008.1.2.4.80"),  # JPEG-LS lossless
    UID("1.2.840.10008.1.2.4.81"),  # JPEG-LS near-lossless
    UID("1.2.840.10008.1.2.4.90"),  # JPEG 2000 lossless
    UID("1.2.840.10008.1.2.4.91"),  # JPEG 2000
    UID("1.2.840.10008.1.2.4.50"),  # JPEG baseline
    UID("1.2.840.10008.1.2.4.51"),  # JPEG extended
    UID("1.2.840.10008.1.2.5"),  # RLE lossless
)
STORED_SYNTAXES: Final = (*UNCOMPRESSED, *COMPRESSED)
"""Instances are kept in the one they came in. Deflated is not among them: a small message could grow without bound."""

_MOST_CONTEXTS = 128


def receiver_contexts(sop_classes: Iterable[str]) -> list[PresentationContext]:
    """Return what the receiver accepts as an SCP: verification, images, rejection notes."""
    contexts = [build_context(VERIFICATION, list(UNCOMPRESSED))]
    contexts += [build_context(UID(uid), list(STORED_SYNTAXES)) for uid in sop_classes]
    contexts.append(build_context(KEY_OBJECT_SELECTION, list(UNCOMPRESSED)))
    return contexts


def query_contexts() -> list[PresentationContext]:
    """Return what is proposed to query and move."""
    uids = (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_MOVE)
    return [build_context(uid, list(UNCOMPRESSED)) for uid in uids]


def get_contexts(
    sop_classes: Sequence[str],
) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    """Return what is proposed to retrieve by C-GET, with the storage SCP roles.

    Each image class has a context per transfer syntax, as far as 128 go, so that the PACS can send what it has as it is.
    """
    contexts = [
        build_context(uid, list(UNCOMPRESSED)) for uid in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET)
    ]
    contexts += [build_context(UID(uid), list(UNCOMPRESSED)) for uid in sop_classes]
    for syntax in COMPRESSED:
        contexts += [build_context(UID(uid), [syntax]) for uid in sop_classes]
    roles = [build_role(UID(uid), scp_role=True) for uid in sop_classes]
    return contexts[:_MOST_CONTEXTS], roles
