"""What `pht-board witness` does after each timestamp: it asks the orchestrator where stations' records stand, and signs that."""

import logging
from datetime import UTC, datetime
from pathlib import Path

from policies.errors import NotFoundError, PhtError
from policies.signing import Signer
from policies.trust.fetch import ORCHESTRATOR_PATH, mirror_url

log = logging.getLogger(__name__)


def is_orchestrator(target: str | Path) -> bool:
    """Whether a mirror is an orchestrator's, which has stations' statements too; a plain web server or folder has none."""
    return isinstance(target, str) and mirror_url(target).endswith(ORCHESTRATOR_PATH)


def witness_stations(folder: Path, key: Signer, target: str, *, token: str | None, ca: Path) -> None:
    """Vouch for stations' records once; what fails is logged: the timestamp has gone out, and the next turn tries again."""
    from policies.trust.heads_witness import HeadsWitness  # noqa: PLC0415 - a program that signs once starts faster
    from policies.wire.registry_client import RegistryClient  # noqa: PLC0415

    address = mirror_url(target).removesuffix(ORCHESTRATOR_PATH)
    try:
        with RegistryClient(address, ca, token) as client:
            heads = HeadsWitness(folder, key).vouch_once(client, datetime.now(UTC))
    except NotFoundError:
        log.info("heads_not_offered")
    except PhtError as error:
        log.warning("heads_failed: %s", error.message)
    else:
        log.info("heads_vouched stations=%d forks=%d", len(heads.stations), len(heads.forks))
