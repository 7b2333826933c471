"""A release as it is parked: everything that leaves, and what the record transaction needs when its run is no longer warm.

Pure, and bytes in canonical form, so that one digest vouches for all of it. Only `station.egress.guard` makes a release of it again.
"""

from base64 import b64encode
from typing import Annotated

from pydantic import Base64Bytes, Field, ValidationError

from policies.documents import Digest, StrictModel, canonical_json
from policies.errors import DocumentError
from policies.order import Stage
from policies.refusals import RefusalCode
from policies.wire.instructions import Key, Number
from station.egress.differencing.comparing import Verdict
from station.egress.differencing.storing import pack_content, pack_patients, unpack
from station.egress.release import Release


class LeftOut(StrictModel):
    """A declared output that a rule left out."""

    key: Annotated[str, Field(max_length=200)]
    code: RefusalCode


class UsedData(StrictModel):
    """What the cohort was frozen from (`station.catalogue.Standing`), to ask consent about when it is released.

    Attributes:
        patients: by the project's pseudonym.
        files: (patient, case, digest of the file).
    """

    patients: tuple[str, ...]
    files: tuple[tuple[str, str, str | None], ...]


class ParkedTold(StrictModel):
    """One table or metric as the guard against differences holds it (`station.egress.differencing.storing`)."""

    what: str
    measure: str
    minimum: int
    patients: Base64Bytes
    content: Base64Bytes


class ParkedBeside(StrictModel):
    """What was held against earlier releases, to be held against what is recorded while it waits.

    Attributes:
        seen: how far it was compared.
    """

    told: tuple[ParkedTold, ...]
    seen: int


class ParkedRelease(StrictModel):
    """A release, the stamp of its reply, and whose data it rests on.

    Attributes:
        attempt: of the message that it answers.
        compute_s: as the reply will say it.
        capacity_bits: what it could carry at most, as the guard says.
        used: what it was made from; None where it rests on no cohort.
        beside: None where it was not held against earlier releases, and is not to be.
    """

    order_digest: Digest
    round: int
    stage: Stage
    metrics: dict[Key, int | Number]
    tables: dict[Key, tuple[tuple[int | Number, ...], ...]]
    suppressed: tuple[LeftOut, ...]
    num_examples: int
    rules_digest: Digest
    attempt: int
    compute_s: float
    capacity_bits: int
    used: UsedData | None
    beside: ParkedBeside | None


def parked(release: Release, *, attempt: int, compute_s: float, used: UsedData | None) -> ParkedRelease:
    """Return a release as it is parked; its arrays lie beside it, by their digest."""
    return ParkedRelease(
        order_digest=release.order_digest,
        round=release.round,
        stage=release.stage,
        metrics=dict(release.metrics),
        tables=dict(release.tables),
        suppressed=tuple(LeftOut(key=item.key, code=item.code) for item in release.suppressed),
        num_examples=release.num_examples,
        rules_digest=release.rules_digest,
        attempt=attempt,
        compute_s=compute_s,
        capacity_bits=release.capacity_bits,
        used=used,
        beside=None if release.beside is None else _parked_beside(release.beside),
    )


def _parked_beside(verdict: Verdict) -> ParkedBeside:
    told = (
        ParkedTold(
            what=one.what,
            measure=one.measure,
            minimum=one.minimum,
            patients=b64encode(pack_patients(one)[1]),
            content=b64encode(pack_content(one)[1]),
        )
        for one in verdict.told
    )
    return ParkedBeside(told=tuple(told), seen=verdict.seen)


def beside_of(parked_release: ParkedRelease) -> Verdict | None:
    """Return what a parked release tells, as the guard against differences asks for it.

    Raises:
        StateError: it is not what was stored.
    """
    if parked_release.beside is None:
        return None
    told = (
        unpack((one.what, one.measure, one.minimum), one.patients, one.content)
        for one in parked_release.beside.told
    )
    return Verdict(tuple(told), {}, parked_release.beside.seen)


def encode_parked(document: ParkedRelease) -> bytes:
    """Return a parked release's bytes."""
    return canonical_json(document)


def decode_parked(data: bytes) -> ParkedRelease:
    """Read a parked release.

    Raises:
        DocumentError: it is not one.
    """
    try:
        # Pydantic's own JSON mode: it reads enumerations and tuples strictly; the bytes are ours, held to their digest.
        return ParkedRelease.model_validate_json(data)
    except ValidationError:
        raise DocumentError("the parked release is not one of this version") from None
