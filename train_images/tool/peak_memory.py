"""The most memory that a container has used, from the kernel's own count where this machine shows it.

Cached files count too, so it is an upper bound. Where there is nothing to read there is no number.
"""

import subprocess
from pathlib import Path
from typing import Final

from station.sandbox.engine.hardening import LABEL_RUN

_CGROUPS: Final = Path("/sys/fs/cgroup")
_FILES: Final = (
    "memory/docker/{id}/memory.max_usage_in_bytes",
    "memory/system.slice/docker-{id}.scope/memory.max_usage_in_bytes",
    "docker/{id}/memory.peak",
    "system.slice/docker-{id}.scope/memory.peak",
)


def peak_memory_bytes(run_id: str, engine: Path) -> int | None:
    """Return the peak of a run's container while it is there, or None."""
    command = ["docker", "--host", f"unix://{engine}", "ps", "--quiet", "--no-trunc"]
    command += ["--filter", f"label={LABEL_RUN}={run_id}"]
    try:
        found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    container = found.stdout.strip()
    if not container.isalnum():
        return None
    for form in _FILES:
        try:
            return int((_CGROUPS / form.format(id=container)).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None
