"""Signed chain heads: what a station gives to others so that its own records can be held against it later.

A head names the chain, the number of entries and the digest of the last, signed with the station's identity key
(Ed25519, in the board's register) as a DSSE envelope. A log that was cut off, rewritten or restored from an old backup does
not reach a head that was signed before.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from policies.documents import Digest, Moment, Name, StrictModel, canonical_json, load_json, parse_json
from policies.errors import DocumentError, TrustError
from station.audit.chain import ChainHead

HEAD_PAYLOAD_TYPE = "application/vnd.pht.chain-head+json"
MAX_HEAD_BYTES = 16 * 1024

ChainName = Literal["audit", "egress"]


class SignedHead(StrictModel):
    """What a station signs about one of its chains."""

    schema_version: Literal[1] = 1
    station: Name
    chain: ChainName
    seq: Annotated[int, Field(ge=0)]
    digest: Digest
    signed: Moment

    @property
    def head(self) -> ChainHead:
        """The chain's end as it was signed."""
        return ChainHead(self.seq, self.digest)


def sign_head(
    station: str, chain: ChainName, head: ChainHead, key: Ed25519PrivateKey, now: datetime
) -> bytes:
    """Return the DSSE envelope of a head, as canonical JSON."""
    document = SignedHead(station=station, chain=chain, seq=head.seq, digest=head.digest, signed=now)
    envelope = Envelope(canonical_json(document), HEAD_PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key())))
    return canonical_json(envelope.to_dict())


def open_head(data: bytes, key: Ed25519PublicKey) -> SignedHead:
    """Verify a signed head.

    Raises:
        TrustError: it is not one, or not signed by this key.
    """
    try:
        value = parse_json(data, what="chain head", max_bytes=MAX_HEAD_BYTES)
        if not isinstance(value, Mapping):
            raise TrustError("chain head: is not an envelope")
        envelope = Envelope.from_dict(dict(value))
        envelope.verify([SSlibKey.from_crypto(key)], 1)
        if envelope.payload_type != HEAD_PAYLOAD_TYPE:
            raise TrustError("chain head: the envelope holds something else")
        return load_json(SignedHead, envelope.payload, what="chain head")
    except (DocumentError, VerificationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrustError("chain head: the signature does not verify") from error
