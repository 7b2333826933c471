"""Where the SuperLink is, which of its tasks is ours, and what it may answer instead."""

from dataclasses import dataclass
from pathlib import Path

from policies.errors import NetworkError, PhtError


class SuperLinkDownError(NetworkError):
    """The SuperLink does not answer now; it may in a moment."""


class SuperLinkRefusedError(PhtError):
    """The SuperLink understood and said no."""


class LeaseLostError(SuperLinkRefusedError):
    """The task's token is not valid any more: its lease ran out, or the run was stopped."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the SuperLink listens, and the CA file its certificate comes from."""

    host: str
    port: int
    ca_path: Path

    @property
    def url(self) -> str:
        """The base address."""
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A ServerApp task that this worker claimed."""

    task_id: int
    run_id: int
    token: str
