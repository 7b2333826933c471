"""How one kind of engine is asked for a container, and how its answers are read. Engines differ here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from station.sandbox.gpu.model import LeasedGpu
from station.sandbox.image.rewriting import RewrittenImage
from station.sandbox.spec import ContainerSpec

Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the launcher adds to a request for a container; nobody else chooses any of it.

    Attributes:
        image_id: our rewritten image, as this engine names it.
        uid: the fresh user, also its group.
        labels: by which orphans are found.
        runtime: the OCI runtime; ``None`` for the one that this kind of engine has by default.
        gpu: the leased device; ``None`` for none.
        selinux: the label, as options of the engine's.
    """

    image_id: str
    uid: int
    labels: Mapping[str, str]
    runtime: str | None = None
    gpu: LeasedGpu | None = None
    selinux: tuple[str, ...] = ()


class Dialect(Protocol):
    """One kind of engine."""

    @property
    def name(self) -> str:
        """Its name, for the operator."""
        ...

    @property
    def own_api(self) -> str | None:
        """Where the engine answers in its own words beside Docker's; ``None`` where it has no others."""
        ...

    def unfit(self, info: Json, runtime: str | None) -> tuple[str, ...]:
        """Return what the engine cannot enforce, by name; empty when it is fit.

        Args:
            info: its ``GET /info``, with what `own_api` answers under ``own``. A key that is missing counts as "cannot".
            runtime: the OCI runtime that the hospital chose.
        """
        ...

    def uids(self, info: Json) -> range:
        """Return the users, as a container sees them, that fresh ones are drawn from."""
        ...

    def drops_limits(self, info: Json) -> bool:
        """Whether the engine leaves out the limits per process that it is asked for; the launcher then sets them before the start."""
        ...

    def out_of_memory(self, state: Json) -> bool:
        """Whether a container hit its memory limit, by the ``State`` of the engine's inspection."""
        ...

    def image_id(self, image: RewrittenImage, info: Json) -> str:
        """Return the id under which the engine must show an image that it was given."""
        ...

    def may_skip_layers(self, info: Json) -> bool:
        """Whether an archive may leave out layers that the engine has."""
        ...

    def create_body(self, spec: ContainerSpec, terms: Terms) -> dict[str, JsonValue]:
        """Return the whole request for a container; what is not in it is not asked for."""
        ...

    def differences(self, asked: Json, inspected: Json) -> tuple[str, ...]:
        """Return the restrictions that the engine did not take over as asked.

        Args:
            asked: what `create_body` returned.
            inspected: the engine's ``GET /containers/<id>/json`` of it, with what `own_api` answers under ``own``.
        """
        ...
