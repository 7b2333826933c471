"""Who holds which device: one train a device at a time, never one that anybody else computes on, always scrubbed before.

Nothing is kept on disk. What is leased is what containers of ours are labelled with, and what this process promised to one that is
about to be made; so a launcher that starts again knows its leases as soon as it sees its containers. A device's memory is
overwritten when its train is gone and again before the next one gets it: what others left there in between is no train's to read.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.gpu import devices
from station.sandbox.gpu.model import (
    Device,
    Discovery,
    GpuNeed,
    GpuReport,
    GpuState,
    GpuStatus,
    GpuTerms,
    LeasedGpu,
)
from station.sandbox.gpu.nvml import Driver, Nvml
from station.sandbox.gpu.scrubbing import Scrubber, await_gone, find, scrub

LOG: Final = logging.getLogger("station.launcher")

Holders = Mapping[str, str]
"""The run that holds each device, by UUID, as the labels of containers say."""


@dataclass(slots=True)
class _Books:
    """What this process knows; read and written under its lock.

    Attributes:
        promised: run by device, from the lease until it is given back.
        scrubbing: devices that are being overwritten now.
        unclean: why a device could not be scrubbed, when that was tried last.
        broken: why the engine can hand out no device; empty while it can.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    promised: dict[str, str] = field(default_factory=dict)
    scrubbing: set[str] = field(default_factory=set)
    unclean: dict[str, str] = field(default_factory=dict)
    broken: str = ""


class Leases:
    """The leases of one launcher."""

    def __init__(self, terms: GpuTerms, *, driver: Driver | None = None, scrubber: Scrubber = scrub) -> None:
        """Lease nothing yet; nothing is asked of the driver.

        Args:
            terms: what the hospital allows.
            driver: says which devices there are; NVML without.
            scrubber: overwrites a device's memory.
        """
        self._terms = terms
        self._driver = driver or Nvml()
        self._scrubber = scrubber
        self._books = _Books()
        # One at a time at a device: its end and its next lease.
        self._cleaning: dict[str, threading.Lock] = {}

    def take(self, run_id: str, need: GpuNeed, holders: Holders) -> LeasedGpu:
        """Lease the smallest device that is large enough; it is clean then, and nobody computes on it.

        Args:
            run_id: the run, which holds none yet.
            need: of the train.
            holders: of the containers that are there.

        Raises:
            RefusedError: no device is large enough (HOSPITAL_RESOURCES), or none can be had now (RESOURCES_BUSY).
        """
        found = self._require_devices(need)
        with self._books.lock:
            held = {*holders.values(), *self._books.promised.values()}
        if run_id in held:
            raise RefusedError(RefusalCode.SANDBOX_ARGUMENT, f"the run {run_id} holds a GPU already")
        why = ""
        for device in found:
            if not self._promise(device.uuid, run_id, holders):
                why = why or "every GPU that is large enough is leased"
                continue
            problem = "the engine's check was cut short"
            try:
                problem = self._make_fit(device.uuid)
            finally:
                if problem:
                    self._forget(device.uuid, run_id)
            if not problem:
                LOG.info("gpu.leased", extra={"run": run_id, "gpu": device.uuid})
                return devices.leased(device)
            why = f"{device.uuid}: {problem}"
            LOG.warning("gpu.not_leased", extra={"gpu": device.uuid, "reason": problem})
        raise RefusedError(
            RefusalCode.RESOURCES_BUSY, why, hint="`pht-station gpus` says how each device is, and why."
        )

    def _require_devices(self, need: GpuNeed) -> list[Device]:
        """Return the offered devices that are large enough, the smallest first."""
        found = self._offered()
        large = sorted(
            (device for device in found.devices if device.memory_mib >= need.memory_mib),
            key=lambda device: (device.memory_mib, device.uuid),
        )
        if not large:
            told = found.problem or (
                f"no GPU here has {need.memory_mib} MiB" if found.devices else "this station leases no GPU"
            )
            raise RefusedError(
                RefusalCode.HOSPITAL_RESOURCES,
                told,
                hint="See [gpu] devices in station.toml and `pht-station gpus`.",
            )
        return large

    def _offered(self) -> Discovery:
        """Return the devices that the hospital allows and that can be leased at all."""
        if not self._terms.devices:
            return Discovery()
        with self._books.lock:
            broken = self._books.broken
        if broken:
            return Discovery(problem=broken)
        found = self._driver()
        kept = tuple(each for each in found.devices if self._terms.offers(each) and not each.problem)
        return found.model_copy(update={"devices": kept})

    def _promise(self, uuid: str, run_id: str, holders: Holders) -> bool:
        with self._books.lock:
            if uuid in self._books.promised or uuid in holders:
                return False
            self._books.promised[uuid] = run_id
            return True

    def _make_fit(self, uuid: str) -> str:
        """Return why a device that was promised cannot be had, or nothing; then it is clean and nobody is on it."""
        with self._cleaner(uuid):
            return self._occupied(uuid) or self._scrub(uuid) or self._occupied(uuid)

    def _occupied(self, uuid: str) -> str:
        found = self._driver()
        device = find(uuid, found.devices)
        if device is None:
            return found.problem or "the driver shows it no longer"
        if device.problem:
            return device.problem
        return "others compute on it" if device.processes else ""

    def _scrub(self, uuid: str) -> str:
        if not self._terms.scrub:
            return ""
        with self._books.lock:
            self._books.scrubbing.add(uuid)
        problem = "its scrubbing was cut short"
        try:
            problem = self._scrubber(uuid)
        finally:
            with self._books.lock:
                self._books.scrubbing.discard(uuid)
                if problem:
                    self._books.unclean[uuid] = problem
                else:
                    self._books.unclean.pop(uuid, None)
        return f"its memory could not be scrubbed: {problem}" if problem else ""

    def give_back(self, run_id: str) -> bool:
        """Take a run's device back; its memory is overwritten beside this, when its processes are gone.

        Returns:
            Whether it had one.
        """
        with self._books.lock:
            held = [uuid for uuid, run in self._books.promised.items() if run == run_id]
        for uuid in held:
            LOG.info("gpu.given_back", extra={"run": run_id, "gpu": uuid})
            self._clean_beside(uuid)
            self._forget(uuid, run_id)
        return bool(held)

    def left_by(self, uuid: str) -> None:
        """Have a device overwritten that a container of an earlier life had."""
        self._clean_beside(uuid)

    def _clean_beside(self, uuid: str) -> None:
        if not self._terms.scrub:
            return
        lock = self._cleaner(uuid)
        # Taken here, so that whoever is next at this device waits for its end.
        lock.acquire()

        def clean() -> None:
            try:
                problem = await_gone(uuid, self._driver)
                if problem:
                    with self._books.lock:
                        self._books.unclean[uuid] = problem
                else:
                    problem = self._scrub(uuid)
                if problem:
                    LOG.warning("gpu.not_scrubbed", extra={"gpu": uuid, "reason": problem})
            finally:
                lock.release()

        threading.Thread(target=clean, name=f"scrub-{uuid[-4:]}", daemon=True).start()

    def _cleaner(self, uuid: str) -> threading.Lock:
        with self._books.lock:
            return self._cleaning.setdefault(uuid, threading.Lock())

    def _forget(self, uuid: str, run_id: str) -> None:
        with self._books.lock:
            if self._books.promised.get(uuid) == run_id:
                del self._books.promised[uuid]

    def engine_cannot(self, why: str) -> None:
        """Lease nothing from now on: the engine can hand out no device."""
        with self._books.lock:
            self._books.broken = why

    def report(self, holders: Holders) -> GpuReport:
        """Say how every device is."""
        found = self._driver()
        with self._books.lock:
            broken, promised = self._books.broken, {**holders, **self._books.promised}
            scrubbing, unclean = set(self._books.scrubbing), dict(self._books.unclean)
        statuses = []
        for device in found.devices:
            state, reason = self._state(device, promised, scrubbing, unclean)
            statuses.append(
                GpuStatus(
                    uuid=device.uuid, name=device.name, memory_mib=device.memory_mib, state=state,
                    run_id=promised.get(device.uuid, ""), reason=reason,
                )
            )  # fmt: skip
        return GpuReport(
            driver=found.driver,
            problem=broken or found.problem,
            devices=tuple(statuses),
            exceptions=devices.exceptions(),
        )

    def _state(
        self, device: Device, promised: Holders, scrubbing: set[str], unclean: Mapping[str, str]
    ) -> tuple[GpuState, str]:
        if not self._terms.offers(device):
            return "not-offered", "not one of [gpu] devices in station.toml"
        if device.problem:
            return "unfit", device.problem
        if device.uuid in scrubbing:
            return "scrubbing", ""
        if device.uuid in promised:
            return "leased", ""
        if device.uuid in unclean:
            return (
                "unclean",
                f"its memory could not be scrubbed: {unclean[device.uuid]}; tried again before its next lease",
            )
        if device.processes:
            return "in-use-by-others", f"processes {', '.join(map(str, device.processes[:8]))} are on it"
        return "free", "" if self._terms.scrub else "its memory is not scrubbed: [gpu] scrub is off"
