"""The usage list: whose data were used in which study, by pseudonym, signed by the station's compute side.

Compute knows the studies and no patient, intake knows the patients and no study. The list crosses by the operator's hand,
as a file: no service of compute's can reach intake (I9). Source of the duty: Dutch Civil Code (WGBO) art. 7:458 paragraph 3: a
note in the patient's file of what was given to research without their consent; GDPR art. 15 for the patient who asks.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from policies.documents import (
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    Text,
    canonical_json,
    load_json,
    parse_json,
)
from policies.errors import StateError, TrustError
from station.handover import PatientPseudonym

MAX_USAGE_BYTES = 64 << 20
_PAYLOAD_TYPE = "application/vnd.pht.usage-list+json;version=1"


class Usage(StrictModel):
    """One cohort that a container was started on.

    Attributes:
        cohort: digest of the frozen cohort.
        first_use, last_use: when a container first started on it, and the last message it was given.
        patients: everybody in it.
    """

    policy_id: Name
    policy_version: Annotated[int, Field(ge=1)]
    title: Text
    requester: Text
    purpose: Name
    order: Digest
    cohort: Digest
    first_use: Moment
    last_use: Moment
    patients: Sequence[PatientPseudonym]


class UsageList(StrictModel):
    """Every use a station has on record."""

    schema_version: Literal[1] = 1
    station: Name
    written_at: Moment
    uses: Sequence[Usage]


def sign_usage_list(usage: UsageList, key: Ed25519PrivateKey) -> bytes:
    """Return the list as a signed envelope (DSSE).

    Raises:
        StateError: it is over the size that intake reads.
    """
    envelope = Envelope(canonical_json(usage), _PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key())))
    data = canonical_json(envelope.to_dict())
    if len(data) > MAX_USAGE_BYTES:
        raise StateError(
            f"the usage list is over {MAX_USAGE_BYTES} bytes", hint="Name one policy to list with --policy."
        )
    return data


def read_usage_list(data: bytes, key: Ed25519PublicKey) -> UsageList:
    """Read a list whose signature holds.

    Raises:
        TrustError: it is not signed by the station.
        DocumentError: it is no usage list.
    """
    value = parse_json(data, what="usage list", max_bytes=MAX_USAGE_BYTES)
    try:
        envelope = Envelope.from_dict(value)
        envelope.verify([SSlibKey.from_crypto(key)], 1)
    except (VerificationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unsigned() from error
    if envelope.payload_type != _PAYLOAD_TYPE:
        raise _unsigned()
    return load_json(UsageList, envelope.payload, what="usage list", max_bytes=MAX_USAGE_BYTES)


def load_card_key(card: Path) -> Ed25519PublicKey:
    """Return the identity key that a station's card names.

    Raises:
        TrustError: it names none.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(
            bytes.fromhex(json.loads(card.read_bytes())["identity_key"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrustError(
            f"{card.name}: names no identity key", hint="Intake reads the station's card.json in its folder."
        ) from error


def _unsigned() -> TrustError:
    return TrustError(
        "usage list: is not signed by this station",
        hint="Take it as `pht-station usage export` of this station wrote it.",
    )
