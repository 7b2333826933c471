"""The station's two hash chains, audit and egress, as its operator and an auditor use them."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from policies.errors import StateError, TrustError
from policies.refusals import Permitted
from station.audit.chain import Chain, ChainBreak, ChainHead
from station.audit.export import export, verify_export
from station.audit.heads import sign_head
from station.audit.log import AUDIT_CHAIN
from station.egress.records.ledger import LEDGER_CHAIN
from station.storage.database import Database
from station.web.views import ChainView

ChainName = Literal["audit", "egress"]

CHAINS: dict[ChainName, Chain] = {"audit": AUDIT_CHAIN, "egress": LEDGER_CHAIN}


@dataclass(frozen=True, slots=True)
class Chains:
    """Verifies and exports; the head of an export is signed with the station's identity key."""

    station: str
    database: Database
    identity: Ed25519PrivateKey
    clock: Callable[[], datetime]
    work: Path

    def verify(self, name: ChainName) -> Permitted[ChainHead] | ChainBreak:
        """Check a chain from its first entry."""
        with self.database.read() as session:
            return CHAINS[name].verify(session)

    def export(self, name: ChainName) -> bytes:
        """Return a chain as JSON lines that end in a signed head."""

        def sign(head: ChainHead) -> bytes:
            return sign_head(self.station, name, head, self.identity, self.clock())

        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            out = Path(folder) / f"{name}.jsonl"
            export(self.database, out, sign, CHAINS[name])
            return out.read_bytes()


def verify_file(path: Path, card: Path, name: ChainName) -> Permitted[ChainHead] | ChainBreak:
    """Check an exported chain against the identity key on a station's card.

    Raises:
        TrustError: the card names no key, or the head is not signed by it.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(json.loads(card.read_bytes())["identity_key"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrustError(
            f"{card.name}: names no identity key", hint="Give the station's card.json."
        ) from error
    return verify_export(path, key, None, name)


def chain_view(chain: ChainName, result: Permitted[ChainHead] | ChainBreak) -> ChainView:
    """Return a chain verdict as the operator sees it."""
    if isinstance(result, Permitted):
        return ChainView(chain=chain, intact=True, entries=result.value.seq, head=result.value.digest)
    return ChainView(
        chain=chain, intact=False, entries=0, head="", broken_at=result.seq, problem=result.problem
    )


def load_identity(path: Path) -> Ed25519PrivateKey:
    """Read the station's identity key.

    Raises:
        StateError: it cannot be read, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise StateError("identity key: others may read the file", hint="chmod 0600 the key file.")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise StateError("identity key: cannot be read", hint="Restore it from a backup.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError("identity key: is not an Ed25519 key")
    return key
