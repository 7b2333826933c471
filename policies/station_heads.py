"""Where every station's records stood, as the board's witness saw it: one document over all stations, signed by the witness.

Pure: bytes and values in, values out. Invariant: the document is read only with the witness's signature. How the witness comes
to it, and what it remembers, is in `policies.trust.heads_witness`.
"""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import (
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    canonical_json,
    load_canonical_json,
)
from policies.signing import Signer, sign_envelope, verify_envelope
from policies.station_statement import ChainEnd, Positive, Restoration, StatedEntry

HEADS_PAYLOAD_TYPE = "application/vnd.pht.station-heads+json"
MAX_HEADS_BYTES = 4 * 1024 * 1024
MAX_REMEMBERED = 1000


class WitnessedStation(StatedEntry):
    """The newest statement of one station that the witness has seen, with its chain ends."""

    audit: ChainEnd
    egress: ChainEnd
    seen: Moment


class WitnessedFork(StrictModel):
    """Two statements of one station that exclude each other; the witness keeps both.

    Attributes:
        code: `STATEMENT_FORK` or `STATEMENT_ROLLBACK`.
        standing, offered: their digests.
    """

    station: Name
    epoch: Positive
    sequence: Positive
    code: Annotated[str, Field(pattern=r"^STATEMENT_[A-Z]{1,20}$")]
    standing: Digest
    offered: Digest
    seen: Moment


class WitnessedRestoration(StrictModel):
    """A station was restored, and said so."""

    station: Name
    epoch: Positive
    restored: Restoration
    seen: Moment


class StationHeads(StrictModel):
    """The witness's document: where every station's records stood, what forked, and what was restored."""

    schema_version: Literal[1] = 1
    board: Name
    time: Moment
    stations: Sequence[WitnessedStation] = Field(default=(), max_length=10_000)
    forks: Sequence[WitnessedFork] = Field(default=(), max_length=MAX_REMEMBERED)
    restorations: Sequence[WitnessedRestoration] = Field(default=(), max_length=MAX_REMEMBERED)

    def find(self, station: str) -> WitnessedStation | None:
        """Return what was witnessed of a station."""
        return next((entry for entry in self.stations if entry.station == station), None)


def sign_heads(heads: StationHeads, witness: Signer) -> bytes:
    """Return the DSSE envelope of the witness's document."""
    return sign_envelope(canonical_json(heads), HEADS_PAYLOAD_TYPE, witness)


def open_heads(envelope: bytes, witness_keys: frozenset[str]) -> StationHeads:
    """Read the witness's document.

    Args:
        envelope: untrusted bytes.
        witness_keys: hex, of the timestamp role in the verified root.

    Raises:
        TrustError: not signed by one of them.
        DocumentError: signed, but not the document.
    """
    verified = verify_envelope(envelope, HEADS_PAYLOAD_TYPE, witness_keys, 1)
    return load_canonical_json(
        StationHeads, verified.payload, what="station heads", max_bytes=MAX_HEADS_BYTES
    )
