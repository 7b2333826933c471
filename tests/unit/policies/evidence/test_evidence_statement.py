"""The statement: about what it says, small enough for the longest run, and closed to anything else."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policies.documents import canonical_json, digest_of
from policies.errors import DocumentError, TrustError
from policies.evidence.statement import (
    MAX_RELEASES,
    MAX_STATEMENT_BYTES,
    MAX_STATEMENT_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    RunFact,
    RunStatement,
)
from policies.signing import generate_key, load_signer, sign_envelope, verify_envelope

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DIGEST = digest_of(b"x")


def run(releases: int = 1, **changes: object) -> RunFact:
    """A run with so many releases, each as long to say as can be."""
    head = {"seq": 10**15, "digest": DIGEST}
    fields: dict[str, Any] = {
        "station": "amstel", "order": {"digest": DIGEST, "order_id": "5" * 32}, "manifest_digest": DIGEST,
        "policy": {"id": "p" * 64, "version": 10**8, "digest": DIGEST}, "image_config_digest": DIGEST,
        "stages": ("train", "evaluate"), "rounds": 10_000, "state": "finished", "first_seen": NOW, "finished": NOW,
        "as_of": NOW, "refusals": {"TRAIN_CRASHED": 3}, "privacy_spent": {}, "audit": head,
        "repository": {"root_version": 1, "timestamp_version": 1, "snapshot_version": 1, "targets_version": 1,
                       "admitted_at": NOW},
        "egress": {"first": 1, "entries": 1, "head": head}, "files": {"train.yaml": DIGEST},
        "releases": tuple(
            {
                "round": 10_000, "stage": "evaluate", "reply_digest": DIGEST, "reply_bytes": 10**12, "arrays_digest": DIGEST,
                "arrays_bytes": 10**12, "rules_digest": DIGEST, "examples": 10**9, "ledger_seq": 10**15, "recorded": NOW,
            }
            for _ in range(releases)
        ),
    }  # fmt: skip
    return RunFact.model_validate(fields | changes)


def test_the_longest_run_there_can_be_has_a_statement_that_is_read(tmp_path: Path) -> None:
    said = RunStatement.about(run(MAX_RELEASES)).encode()
    assert len(said) < MAX_STATEMENT_BYTES
    generate_key(tmp_path / "identity.pem")
    signer = load_signer(tmp_path / "identity.pem")
    envelope = sign_envelope(said, PAYLOAD_TYPE, signer)
    limit = MAX_STATEMENT_ENVELOPE_BYTES
    found = verify_envelope(envelope, PAYLOAD_TYPE, [signer.public_hex], 1, max_bytes=limit)
    assert len(RunStatement.decode(found.payload).predicate.releases) == MAX_RELEASES
    with pytest.raises(TrustError):
        # Other documents keep their own, lower limit.
        verify_envelope(envelope, PAYLOAD_TYPE, [signer.public_hex], 1)


def test_it_is_about_what_it_says_and_nothing_else() -> None:
    document = json.loads(RunStatement.about(run(2)).encode())
    assert RunStatement.decode(canonical_json(document)).encode() == canonical_json(document)
    for wrong in (
        document | {"subject": document["subject"][:-1]},
        document | {"_type": "https://in-toto.io/Statement/v0.1"},
        document | {"predicateType": "https://slsa.dev/provenance/v1"},
        document | {"patient": "123"},
        document | {"predicate": document["predicate"] | {"patients": ["123"]}},
        document | {"predicate": document["predicate"] | {"files": {"../../etc/passwd": DIGEST}}},
        document | {"predicate": document["predicate"] | {"privacy_spent": {"mechanism": "trust us"}}},
    ):
        with pytest.raises(DocumentError):
            RunStatement.decode(canonical_json(wrong))
