"""Map trains of a run: how many containers side by side, and by whose limits."""

import math
from typing import Final

from policies.manifest import Resources
from policies.policy import ResourceGrant
from station.admission.gatekeeper import Admitted
from station.cohorts import FrozenCohort, PatientFolders
from station.cohorts.roster import Roster
from station.sandbox.mapping import Containers, MapSession, MapTerms
from station.sandbox.spec import ContainerSpec
from station.settings import CeilingSettings, StationSettings

MOST_AT_ONCE: Final = 16


def map_session(
    containers: Containers,
    spec: ContainerSpec,
    admitted: Admitted,
    cohort: tuple[FrozenCohort, Roster],
    settings: StationSettings,
) -> MapSession:
    """Return a prepared map train; no container of it runs before its first message.

    Args:
        containers: where they are started.
        spec: of each, but for its name and folders.
        admitted: the order, the train and its policy.
        cohort: frozen for it, and who is in it.
        settings: the hospital's.

    Raises:
        StateError: the cohort's documents cannot be read.
    """
    policy = admitted.verified.in_force.policy
    share = min(policy.runs.failed_patients_share, settings.hospital.failed_patients_share)
    together = at_once(admitted.manifest.resources, policy.resources, settings.ceilings)
    # As many as a cell of its own would have to count.
    declared = (item.minimum_cell_count for item in admitted.manifest.outputs.aggregates)
    fewest = max(policy.release.minimum_cell_count, *declared)
    terms = MapTerms(spec, admitted.manifest, cohort[1], together, share, fewest)
    return MapSession(containers, PatientFolders(cohort[0]), terms)


def at_once(asked: Resources, granted: ResourceGrant, ceilings: CeilingSettings) -> int:
    """Return how many containers may run side by side.

    What a map train asks for is for one container; what policy and hospital grant is for the train, so for all together.
    """
    rooms = (
        min(granted.memory_mib, ceilings.memory_mib) // asked.memory_mib,
        math.floor(min(granted.cpus, ceilings.cpus) / asked.cpus + 1e-9),
        ceilings.pids // asked.pids,
        ceilings.scratch_mib // asked.scratch_mib,
    )
    return max(1, min(*rooms, MOST_AT_ONCE))
