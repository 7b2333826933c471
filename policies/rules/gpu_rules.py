"""May a train run with a GPU, must it, and does this hospital have one for it? Pure.

An order names one image, and every station runs that one: a station never takes another variant in its place. The `cuda` variant gets
a GPU where the policy grants one; where there is none it runs on the CPU if the train can and the policy says so. The `cpu` variant
never gets one, and neither does a `map` train: a device would have to be scrubbed between any two patients.
"""

from dataclasses import dataclass

from policies.manifest import Interface, TrainManifest
from policies.order import RunOrder
from policies.policy import Policy
from policies.refusals import Reason, RefusalCode


@dataclass(frozen=True, slots=True)
class GpuWish:
    """What a station leases for a run.

    Attributes:
        memory_mib: the least memory of the device.
        required: without a device the run does not start; else it then runs on the CPU.
    """

    memory_mib: int
    required: bool


def gpu_wish(order: RunOrder, manifest: TrainManifest, policy: Policy) -> GpuWish | None:
    """Return what is leased for a run; None where nothing is."""
    resources = manifest.resources
    for_gpus = order.image_config_digest == manifest.image_digest("cuda")
    if (
        resources.gpu == "none"
        or not policy.resources.gpu
        or not for_gpus
        or manifest.interface is Interface.MAP
    ):
        return None
    required = resources.gpu == "required" or not policy.resources.cpu_fallback
    return GpuWish(resources.gpu_memory_mib, required)


def gpu_document_reasons(order: RunOrder, manifest: TrainManifest, policy: Policy) -> list[Reason]:
    """Return why no hospital could run it: the train needs what its policy or its order does not give."""
    if manifest.resources.gpu != "required":
        return []
    found = []
    if manifest.interface is Interface.MAP:
        found.append(Reason(RefusalCode.HOSPITAL_RESOURCES, "needs a GPU; a map train is given none"))
    if not policy.resources.gpu:
        found.append(Reason(RefusalCode.HOSPITAL_RESOURCES, "needs a GPU; the policy grants none"))
    if order.image_config_digest != manifest.image_digest("cuda"):
        found.append(
            Reason(RefusalCode.HOSPITAL_RESOURCES, "needs a GPU; the order does not name its cuda image")
        )
    return found


def gpu_hospital_reasons(wish: GpuWish | None, memory_mib: tuple[int, ...] | None) -> list[Reason]:
    """Return why this hospital cannot run it.

    Args:
        wish: of the run.
        memory_mib: of each GPU that the hospital leases; None where nobody can say.
    """
    if wish is None or not wish.required:
        return []
    asked = f"needs a GPU with {wish.memory_mib} MiB" if wish.memory_mib else "needs a GPU"
    if memory_mib is None:
        return [
            Reason(RefusalCode.HOSPITAL_RESOURCES, f"{asked}; which this station has cannot be told just now")
        ]
    if not memory_mib:
        return [Reason(RefusalCode.HOSPITAL_RESOURCES, f"{asked}; this station has none to lease")]
    if max(memory_mib) < wish.memory_mib:
        return [Reason(RefusalCode.HOSPITAL_RESOURCES, f"{asked}; this station leases none so large")]
    return []
