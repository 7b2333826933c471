"""Says between processes that a message was pushed for a node, so that who would ask the SuperLink need not.

Each question to the SuperLink takes its database's one write lock, also where the answer is that there is nothing (flwr
1.41.0: `get_message_ins` updates, `get_run_status` cleans up first). What pushes messages rings here; the front asks the
SuperLink for a station only when its bell rang, or now and then all the same: a ring is a hint, and a lost one delays.

A file per node in one folder; each ring makes it a byte longer, so that no two moments look alike.
"""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_ANY = "any"


@dataclass(frozen=True, slots=True)
class Doorbells:
    """The bells in a folder; any process of the orchestrator's may ring and look."""

    folder: Path

    def ring(self, node_ids: Iterable[int]) -> None:
        """Say that messages wait for these nodes. Never fails: the front asks in any case, only later."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for name in [*map(str, node_ids), _ANY]:
                descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    os.write(descriptor, b".")
                finally:
                    os.close(descriptor)
        except OSError as error:
            log.warning("doorbell_silent", extra={"reason": error.strerror})

    def rings(self, node_id: int) -> int:
        """How often the bell of a node rang."""
        return self._size(str(node_id))

    def all_rings(self) -> int:
        """How often any bell rang: who waits for several looks at this one."""
        return self._size(_ANY)

    def _size(self, name: str) -> int:
        with suppress(OSError):
            return (self.folder / name).stat().st_size
        return 0
