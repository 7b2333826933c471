"""What permitted a run, kept at the moment it was admitted: the board's repository moves on, and a pack tells of then.

One file per order below the trust folder, written before anything of the train is fetched and never again. It holds what the
board published and the train's manifest, and nothing of the hospital.
"""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from policies.charter import policy_target
from policies.documents import Moment, StrictModel, canonical_json
from policies.errors import NotFoundError, StateError
from policies.evidence.repository import belongs_to_run
from policies.trust.state import VerifiedState
from station.storage.files import storage_fault, write_atomically

_FOLDER = "runs"
_MODE = 0o700


class KeptTerms(StrictModel):
    """What a run was admitted under.

    Attributes:
        admitted_at: the station's clock then.
        root: the pinned root.
        roots: the roots after it, by version.
        metadata: timestamp, snapshot and targets, by role.
        targets: the policy with its opinions, the register, the purposes, what was withdrawn; by path.
        manifest: the train's, as it was verified.
    """

    schema_version: Literal[1] = 1
    admitted_at: Moment
    root: str
    roots: dict[int, str] = Field(default_factory=dict)
    metadata: dict[str, str]
    targets: dict[str, str]
    manifest: str


def keep_terms(
    trust: Path, order_digest: str, policy: tuple[str, int], manifest: bytes, now: datetime
) -> None:
    """Keep what an order is admitted under; what was kept of it before stands.

    Args:
        trust: the station's trust folder.
        order_digest: which order.
        policy: id and version of the policy in force.
        manifest: the train's manifest, verified.
        now: the station's clock.

    Raises:
        StateError: the last verified state does not hold the policy.
        StorageError: it cannot be made durable; the run must not go on.
    """
    path = _place(trust, order_digest)
    if path.exists():
        return
    try:
        root = (trust / "root.json").read_text("utf-8")
        state = VerifiedState.model_validate_json((trust / "verified.json").read_bytes())
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise StateError("the last verified state of the policies cannot be read") from error
    targets = {name: text for name, text in state.targets.items() if belongs_to_run(name, policy)}
    if policy_target(*policy) not in targets:
        raise StateError("the last verified state of the policies does not hold the run's policy")
    terms = KeptTerms(
        admitted_at=now,
        root=root,
        roots=state.roots,
        metadata=state.metadata,
        targets=targets,
        manifest=manifest.decode("utf-8"),
    )
    try:
        path.parent.mkdir(mode=_MODE, exist_ok=True)
    except OSError as error:
        raise storage_fault(error, path.parent.name) from error
    write_atomically(path, canonical_json(terms))


def kept_terms(trust: Path, order_digest: str) -> KeptTerms:
    """Return what an order was admitted under.

    Raises:
        NotFoundError: it was never admitted here.
        StateError: the file is damaged.
    """
    try:
        return KeptTerms.model_validate_json(_place(trust, order_digest).read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(
            "there is no evidence of this order: it was never admitted here",
            hint="`pht-station runs` lists the orders; a refused one leaves its code in the audit.",
        ) from error
    except (OSError, ValidationError) as error:
        raise StateError(
            "what was kept of this order cannot be read", hint="Restore the trust folder from a backup."
        ) from error


def _place(trust: Path, order_digest: str) -> Path:
    return trust / _FOLDER / f"{order_digest.removeprefix('sha256:')}.json"
