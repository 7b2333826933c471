"""How much runs at once: a run has one place, of the hospital's ceilings for one train; the containers of one series share theirs.

So do a run's container and one beside it, which scores what the first was trained to.

A `map` train starts a container per patient, several side by side. Together they stay within what one train may use here, in
memory, processors, processes and scratch, so they never cost the hospital more than a train of one container.
"""

from collections.abc import Collection, Mapping
from typing import Final

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.spec import ContainerSpec, LauncherSettings


class Room:
    """Which containers were let in, and what they were given. Its caller sees to it that one asks at a time.

    Args:
        settings: the ceilings.
    """

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings: Final = settings
        self._specs: Final[dict[str, ContainerSpec]] = {}
        self._starting: Final[set[str]] = set()
        self._given_up: Final[set[str]] = set()

    def inside(self) -> Mapping[str, ContainerSpec]:
        """Return what was let in and has not left."""
        return dict(self._specs)

    def is_starting(self, run_id: str) -> bool:
        """Whether it was let in and the engine may not know of it yet."""
        return run_id in self._starting

    def enter(
        self,
        spec: ContainerSpec,
        existing: Collection[str],
        running: Collection[str],
        known: Mapping[str, ContainerSpec],
    ) -> None:
        """Take a container in; it counts from now on, whether it runs yet or not.

        Args:
            spec: to be started.
            existing: the runs that the engine has containers of.
            running: those whose containers run.
            known: what was inside before the engine was asked.

        Raises:
            RefusedError: it is there already, or there is no room for it.
        """
        if spec.run_id in existing or spec.run_id in self._starting:
            raise RefusedError(RefusalCode.SANDBOX_ARGUMENT, f"the run {spec.run_id} has a container already")
        inside = {run: known.get(run) or self._specs.get(run) for run in (*running, *self._starting)}
        place = _place(spec.run_id, spec)
        sharing = [each for run, each in inside.items() if _place(run, each) == place]
        together = [each for each in sharing if each is not None]
        if len(together) < len(sharing):
            raise RefusedError(
                RefusalCode.RESOURCES_BUSY, "what the run's other container may use is not known"
            )
        if together:
            self._require_share([*together, spec])
        elif (
            places := len({_place(run, each) for run, each in inside.items()})
        ) >= self._settings.max_containers:
            raise RefusedError(
                RefusalCode.RESOURCES_BUSY, f"{places} trains run; this station allows no more at once"
            )
        self._specs[spec.run_id] = spec
        self._starting.add(spec.run_id)
        self._given_up.discard(spec.run_id)

    def started(self, run_id: str) -> None:
        """From now on the engine says whether it runs."""
        self._starting.discard(run_id)

    def give_up(self, run_id: str) -> None:
        """Nobody needs this container any more; what it was given still counts for as long as it runs."""
        self._given_up.add(run_id)

    def is_needed(self, run_id: str) -> bool:
        """Whether it was let in, and not given up since."""
        return run_id in self._specs and run_id not in self._given_up

    def leave(self, run_id: str) -> None:
        """Forget a container."""
        self._given_up.discard(run_id)
        self._starting.discard(run_id)
        self._specs.pop(run_id, None)

    def has_come_back(self, run_id: str, known: ContainerSpec | None) -> bool:
        """Whether another container of the run was let in since `known` was what is inside."""
        now = self._specs.get(run_id)
        return now is not None and now is not known

    def _require_share(self, together: list[ContainerSpec]) -> None:
        settings = self._settings
        beyond = [
            name
            for name, asked, ceiling in (
                ("memory", sum(each.memory_bytes for each in together), settings.max_memory_bytes),
                ("cpus", sum(each.cpus for each in together), settings.max_cpus + 1e-9),
                ("pids", sum(each.pids for each in together), settings.max_pids),
                ("scratch", sum(each.scratch_bytes for each in together), settings.max_scratch_bytes),
            )
            if asked > ceiling
        ]
        if beyond:
            raise RefusedError(
                RefusalCode.RESOURCES_BUSY,
                f"the containers of one train may not use more together: {', '.join(beyond)}",
            )


def _place(run_id: str, spec: ContainerSpec | None) -> str:
    # A series is told from a run of the same name.
    if spec is not None and spec.series is not None:
        return f"series {spec.series}"
    return run_id if spec is None or spec.beside is None else spec.beside
