"""A researcher's request for the trivial train of `orchestrator_site`, signed or as an earlier version left it."""

import secrets
from datetime import UTC, datetime
from pathlib import Path

import yaml
from orchestrator_site import MANIFEST

from orchestrator.services import Services
from orchestrator.storage import RequestRow, RequestStepRow
from policies.documents import digest_of
from policies.signing import Signer, generate_key, load_signer
from policies.train_request import sign_request


def request_yaml(key: str, **changes: object) -> bytes:
    document = {
        "schema_version": 1,
        "train": {"name": "trivial", "version": "1.0.0", "manifest_digest": digest_of(MANIFEST)},
        "purpose": {"code": "method-development", "statement": "To see whether it works.", "benefit": "All."},
        "requester": {
            "organisation": "A Hospital",
            "contact": "A Person",
            "requester_class": "participant",
            "country": "NL",
            "key": key,
        },
        "collections": ["thorax"],
        "stations": ["amstel", "berkel", "dommel"],
    }
    return yaml.safe_dump(document | changes).encode()


def request_signed(signer: Signer, sender: str = "alice", **changes: object) -> bytes:
    return sign_request(request_yaml(signer.public_hex, **changes), sender, signer)


def new_signer(folder: Path, name: str = "another") -> Signer:
    if not (folder / f"{name}.pem").exists():
        generate_key(folder / f"{name}.pem")
    return load_signer(folder / f"{name}.pem")


def left_unsigned(services: Services, owner: str, key: str) -> str:
    """A request as an earlier version took it in, with nobody's signature; returns its id."""
    text, now, made = request_yaml(key), datetime.now(UTC), secrets.token_hex(16)
    with services.database.transaction() as session:
        row = RequestRow(
            id=made, owner=f"researcher:{owner}", document=text, envelope=None, signed=False,
            document_digest=digest_of(text), train="trivial", version="1.0.0", manifest_digest=digest_of(MANIFEST),
            requester_key=key, state="submitted", policy_id=None, policy_version=None, submitted=now, changed=now,
        )  # fmt: skip
        session.add(row)
        session.flush()
        step = RequestStepRow(
            request=made, number=1, moment=now, who=row.owner, before="", after="submitted", code="", text=""
        )
        session.add(step)
    services.requests.follow(at_once=True)
    return made
