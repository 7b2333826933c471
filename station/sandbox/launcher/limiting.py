"""Sets the limits per process of a container that waits to be started, for an engine that does not (`Dialect.drops_limits`).

The container's processes inherit them from the one that waits. Who may set them on another user's process is the kernel's to say: the
owner of the user namespace that it lies in may, which a rootless engine's user is.
"""

import resource
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from policies.errors import RefusedError
from policies.refusals import RefusalCode

_RESOURCES: Final = {
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "nproc": resource.RLIMIT_NPROC,
}


def set_limits(pid: int, body: Mapping[str, JsonValue]) -> None:
    """Give a process the limits of a request, or its own where these are lower.

    Args:
        pid: the process that waits.
        body: the request for its container.

    Raises:
        RefusedError: this user may not.
    """
    host: Any = body["HostConfig"]
    try:
        for each in host["Ulimits"]:
            which = _RESOURCES[each["Name"]]
            hard = _lower(each["Hard"], resource.prlimit(pid, which)[1])
            resource.prlimit(pid, which, (_lower(each["Soft"], hard), hard))
    except (OSError, ValueError) as error:
        raise RefusedError(
            RefusalCode.ENGINE_UNFIT,
            "the engine sets no limits per process, and the launcher may not",
            hint="Run the launcher as the user to whom the rootless engine belongs.",
        ) from error


def _lower(asked: int, now: int) -> int:
    return asked if now == resource.RLIM_INFINITY else min(asked, now)
