"""Steps 5 to 7: the order, the station's word on the run, and the ledger."""

from datetime import UTC

from policies.charter import REGISTER_TARGET, RegisteredStation
from policies.documents import digest_of, load_yaml
from policies.errors import DocumentError, TrustError
from policies.evidence.admission import PublishedThen, check_admission
from policies.evidence.archive import LEDGER, ORDER, POLICY, STATEMENT, TARGETS, TRAIN, PackDamageError
from policies.evidence.chain import check_ledger
from policies.evidence.reading import Reading
from policies.evidence.statement import MAX_STATEMENT_ENVELOPE_BYTES, PAYLOAD_TYPE, RunFact, RunStatement
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE as ORDER_PAYLOAD_TYPE
from policies.order import RunOrder
from policies.refusals import Refused
from policies.rules.order_rules import manifest_reasons, order_reasons, verified_order
from policies.signing import unsafe_payload, verify_envelope


def check_order(reading: Reading) -> str:
    """Step 5: the order is signed by the policy's requester and within it, and the rules of admission permit it.

    Raises:
        PackDamageError: it does not hold.
    """
    if reading.policy is None or reading.register is None:
        raise PackDamageError(POLICY, "was not verified")
    policy, claim = reading.policy.policy, reading.claim
    envelope = reading.pack.read(ORDER)
    verified = verified_order(envelope, policy)
    if isinstance(verified, Refused):
        raise PackDamageError(ORDER, f"{verified.code}: {verified.reasons[0].detail}")
    order = verified.value
    digest = digest_of(unsafe_payload(envelope, ORDER_PAYLOAD_TYPE))
    train = reading.pack.read(TRAIN)
    if digest_of(train) != policy.manifest_digest:
        raise PackDamageError(TRAIN, "is not the train that the policy names")
    try:
        manifest = load_yaml(TrainManifest, train, what=TRAIN)
    except DocumentError as error:
        raise PackDamageError(TRAIN, error.message) from error
    reasons = order_reasons(order, policy, reading.policy.digest, claim.repository.admitted_at)
    reasons += manifest_reasons(order, manifest, policy)
    if reasons:
        raise PackDamageError(ORDER, f"{reasons[0].code}: {reasons[0].detail}")
    _same_order(claim, order, digest)
    published = PublishedThen(reading.register, reading.purposes, reading.withdrawn)
    check_admission(order, policy, claim.station, published, claim.repository.admitted_at)
    return f"{digest[:19]}..., signed by the requester of the policy and within it"


def _same_order(claim: RunFact, order: RunOrder, digest: str) -> None:
    told = (
        claim.order.digest, claim.order.order_id, claim.policy.id, claim.policy.version, claim.manifest_digest,
        claim.image_config_digest, claim.stages, claim.rounds,
    )  # fmt: skip
    is_ = (
        digest, order.order_id, order.policy_id, order.policy_version, order.manifest_digest,
        order.image_config_digest, order.stages, order.rounds,
    )  # fmt: skip
    if told != is_:
        raise PackDamageError(STATEMENT, "tells of another order than the one in the pack")
    if claim.station not in order.stations:
        raise PackDamageError(ORDER, "does not name the station")


def check_statement(reading: Reading) -> str:
    """Step 6: the station that the register names signed the statement, and it tells of nothing beyond order and policy.

    Raises:
        PackDamageError: it does not hold.
    """
    if reading.register is None or reading.policy is None:
        raise PackDamageError(TARGETS + REGISTER_TARGET, "was not verified")
    station = reading.register.find(reading.claim.station)
    if station is None:
        raise PackDamageError(STATEMENT, "is of a station that the register does not name")
    data = reading.pack.read(STATEMENT)
    try:
        said = verify_envelope(
            data, PAYLOAD_TYPE, [station.identity_key], 1, max_bytes=MAX_STATEMENT_ENVELOPE_BYTES
        )
    except TrustError as error:
        raise PackDamageError(STATEMENT, "is not signed with the station's identity key") from error
    if RunStatement.decode(said.payload).encode() != said.payload:
        raise PackDamageError(STATEMENT, "is not written in the one form there is")
    _within_terms(reading, station)
    return f"signed by {station.organisation} ({station.name})"


def _within_terms(reading: Reading, station: RegisteredStation) -> None:
    if reading.policy is None:
        raise PackDamageError(POLICY, "was not verified")
    policy, claim = reading.policy.policy, reading.claim
    if len(claim.releases) > min(policy.runs.releases, claim.rounds * len(claim.stages)):
        raise PackDamageError(STATEMENT, "tells of more releases than order and policy grant")
    for release in claim.releases:
        which = f"the release of round {release.round}, stage {release.stage},"
        if release.stage not in claim.stages or release.round > claim.rounds:
            raise PackDamageError(STATEMENT, f"{which} is none that the order asks for")
        if release.recorded < claim.repository.admitted_at:
            raise PackDamageError(STATEMENT, f"{which} was made before the run was admitted")
        if not policy.valid_from <= release.recorded < policy.valid_until:
            raise PackDamageError(STATEMENT, f"{which} was made outside the policy's validity")
        if release.recorded.astimezone(UTC).date() > station.agreement.expires:
            raise PackDamageError(STATEMENT, f"{which} was made after the hospital's agreement ended")


def check_entries(reading: Reading) -> str:
    """Step 7: the run's entries stand at their places in the chain that ends in the signed head.

    Raises:
        PackDamageError: it does not hold.
    """
    try:
        return check_ledger(reading.pack, reading.claim)
    except PackDamageError as error:
        raise PackDamageError(error.where, error.problem) from error
    except DocumentError as error:
        raise PackDamageError(LEDGER, error.message) from error
