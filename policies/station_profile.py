"""A station's profile: the hospital's rules and rounded counts, so that others can ask "would this run there?".

`pht-station profile export` writes one, signed with the station's identity key. Its counts are the hospital's fixed table and
nothing finer; what it says of the engine is what decides whether a train fits.
"""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Moment, Name, Sequence, StrictModel, load_json
from policies.manifest import Modality
from policies.policy import ConsentMode, Country, PurposeCode, RequesterClass
from policies.rules.admission import Marking
from policies.signing import verify_envelope

PAYLOAD_TYPE = "application/vnd.pht.station-profile+json"
MAX_PROFILE_BYTES = 1 << 20

Rounded = Annotated[int, Field(ge=0, multiple_of=10)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._+/()~:-]{0,64}$")]


class CollectionCounts(StrictModel):
    """What is told of one collection; 0 also where there are too few to say."""

    patients: Rounded
    studies: Rounded
    images: dict[Modality, Rounded]


class CollectionProfile(StrictModel):
    """One collection: to whom it is offered, and about how much there is."""

    name: Name
    marking: Marking
    consent_mode: ConsentMode
    requester_classes: Sequence[RequesterClass]
    purposes: Sequence[PurposeCode]
    countries: Sequence[Country]
    counts: CollectionCounts


class Ceilings(StrictModel):
    """The most one train may use."""

    memory_mib: Annotated[int, Field(ge=1)]
    cpus: Annotated[float, Field(gt=0)]
    pids: Annotated[int, Field(ge=1)]
    scratch_mib: Annotated[int, Field(ge=1)]
    message_timeout_s: Annotated[int, Field(ge=1)]
    runs_at_once: Annotated[int, Field(ge=1)]


class EngineFacts(StrictModel):
    """The container engine; `unfit` names the limits that it cannot enforce, and then no train runs."""

    name: Word
    version: Word
    architecture: Word
    unfit: Sequence[Word] = ()


class StationProfile(StrictModel):
    """What a station tells about itself.

    Attributes:
        made: when it was written.
        quiet_hours: pairs of clock times in `timezone` between which no train starts.
        minimum_k: the k-anonymity that a cohort must have; None where the hospital asks for none.
        engine: None where it did not answer.
        gpu_memory_mib: of each GPU that it leases; None where it did not say.
    """

    schema_version: Literal[1] = 1
    station: Name
    made: Moment
    collections: Sequence[CollectionProfile]
    ceilings: Ceilings
    operator_approval: Literal["always", "training", "never"]
    consent_max_age_days: Annotated[int, Field(ge=1)]
    failed_messages: Annotated[int, Field(ge=1)]
    quiet_hours: Sequence[Annotated[Sequence[str], Field(min_length=2, max_length=2)]] = ()
    timezone: Annotated[str, Field(max_length=64)]
    minimum_k: Annotated[int, Field(ge=2)] | None = None
    engine: EngineFacts | None = None
    gpu_memory_mib: Sequence[Annotated[int, Field(ge=0)]] | None = None


def open_profile(envelope: bytes, identity_key: str) -> StationProfile:
    """Read a profile that a station signed.

    Args:
        envelope: untrusted bytes.
        identity_key: the station's, hex, as the board's register names it.

    Raises:
        TrustError: not signed by that key.
        DocumentError: signed, but not a profile.
    """
    verified = verify_envelope(envelope, PAYLOAD_TYPE, [identity_key], 1)
    return load_json(StationProfile, verified.payload, what="station profile", max_bytes=MAX_PROFILE_BYTES)
