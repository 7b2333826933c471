"""Where the SuperLink of this home listens now: chosen by the supervisor at each start, read by the others."""

from orchestrator.settings import Home
from policies.errors import UnavailableError
from policies.files import write_atomically

_FILE = "superlink.port"


def write_superlink_port(home: Home, port: int) -> None:
    """Say where the SuperLink listens."""
    write_atomically(home.run / _FILE, f"{port}\n".encode())


def read_superlink_port(home: Home) -> int:
    """Return where the SuperLink listens.

    Raises:
        UnavailableError: it was never started.
    """
    try:
        return int((home.run / _FILE).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise UnavailableError("the SuperLink does not run", hint="Run `pht-orchestrator serve`.") from error
