"""Which dialect an engine speaks."""

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine.dialect import Dialect, Json
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.engine.podman import PodmanDialect


def dialect_of(version: Json) -> Dialect:
    """Return the dialect of an engine.

    Args:
        version: its ``GET /version``.

    Raises:
        RefusedError: it is no engine that we know how to hold a train with.
    """
    components = version.get("Components")
    names = {
        str(each.get("Name"))
        for each in (components if isinstance(components, list) else [])
        if isinstance(each, dict)
    }
    if "Engine" in names:
        return DockerDialect()
    if "Podman Engine" in names:
        return PodmanDialect()
    raise RefusedError(
        RefusalCode.ENGINE_UNFIT,
        "the container engine is none that trains can be held in",
        hint="Point engine.socket in station.toml at a Docker or Podman engine.",
    )
