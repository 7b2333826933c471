"""The launcher's half of a lease: which containers hold which device, what the engine can hand out, and what becomes of a no."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from policies.errors import PhtError, RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine import hardening
from station.sandbox.engine.api import NoDeviceDriverError
from station.sandbox.gpu.devices import cannot_give
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import GpuReport, LeasedGpu
from station.sandbox.spec import ContainerSpec

LOG: Final = logging.getLogger("station.launcher")

Containers = Iterable[Mapping[str, Any]]
_OVER: Final = frozenset({"exited", "dead"})
_NONE_NOW: Final = frozenset({RefusalCode.HOSPITAL_RESOURCES.value, RefusalCode.RESOURCES_BUSY.value})


class GpuDesk:
    """Leases devices to containers."""

    def __init__(self, leases: Leases, runtime: str | None) -> None:
        """Lease nothing yet.

        Args:
            leases: of this station.
            runtime: the OCI runtime that the hospital chose.
        """
        self._leases = leases
        self._runtime = runtime

    def lease(self, spec: ContainerSpec, engine: str, containers: Containers) -> LeasedGpu | None:
        """Return the device that a container gets; None where it needs none, or runs without.

        Args:
            spec: of the container.
            engine: the dialect's name.
            containers: of this station, as the engine lists them.

        Raises:
            RefusedError: it cannot do without, and there is none.
        """
        if spec.gpu is None:
            return None
        try:
            self._require_giving(engine)
            return self._leases.take(spec.run_id, spec.gpu, self._holders(containers))
        except RefusedError as error:
            if spec.gpu.required or error.code not in _NONE_NOW:
                raise
            LOG.warning("gpu.without", extra={"run": spec.run_id, "reason": error.message})
            return None

    def _require_giving(self, engine: str) -> None:
        if why := cannot_give(engine, self._runtime):
            raise RefusedError(RefusalCode.HOSPITAL_RESOURCES, why)

    def may_do_without(self, spec: ContainerSpec, error: PhtError) -> bool:
        """Whether a container that the engine did not start with its device is started without one.

        An engine that can hand out none is not asked again. One that brought in more than the device is, and its container is gone: what
        comes in with a device may differ from one to the next.
        """
        if not isinstance(error, RefusedError) or error.code != RefusalCode.ENGINE_UNFIT.value:
            return False
        if isinstance(error, NoDeviceDriverError):
            self._leases.engine_cannot(error.message)
        without = spec.gpu is not None and not spec.gpu.required
        if without:
            LOG.warning("gpu.without", extra={"run": spec.run_id, "reason": error.message})
        return without

    def give_back(self, run_id: str) -> None:
        """Take a run's device back, where it has one."""
        self._leases.give_back(run_id)

    def orphaned(self, containers: Containers) -> None:
        """Take back what removed containers held, also those of an earlier life."""
        for each in containers:
            run_id, uuid = hardening.run_of(each), hardening.gpu_of(each)
            if uuid and not self._leases.give_back(run_id):
                self._leases.left_by(uuid)

    def report(self, engine: str, containers: Containers) -> GpuReport:
        """Say how every device is."""
        report = self._leases.report(self._holders(containers))
        why = cannot_give(engine, self._runtime)
        return report.model_copy(update={"problem": why}) if why and report.devices else report

    def _holders(self, containers: Containers) -> dict[str, str]:
        """Return the run that holds each device; what ended by itself gives back."""
        holders = {}
        for each in containers:
            run_id, uuid = hardening.run_of(each), hardening.gpu_of(each)
            if uuid and each.get("State") in _OVER:
                self._leases.give_back(run_id)
            elif uuid:
                holders[uuid] = run_id
        return holders
