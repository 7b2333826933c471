"""The process that asks NVML which devices there are, and prints it as JSON. Imports nothing of ours; leaves nothing behind.

``python -m station.sandbox.gpu.looking`` prints a `station.sandbox.gpu.model.Discovery`. No library of the driver is no fault: an
empty one. Whatever else NVML answers becomes a stated problem, of the driver or of one device.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import pynvml

_MAX_DEVICES: Final = 64
_MAX_PROCESSES: Final = 1024
_MIB: Final = 1 << 20

Json = dict[str, Any]
_T = TypeVar("_T")


def look() -> Json:
    """Return what NVML says."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return {}
    except pynvml.NVMLError as error:
        return {"problem": f"the NVIDIA driver does not start: {_said(error)}"}
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        count = pynvml.nvmlDeviceGetCount()
        if count > _MAX_DEVICES:
            return {"driver": driver, "problem": f"more than {_MAX_DEVICES} GPUs"}
        devices = [device for index in range(count) for device in _gpu(index)]
    except pynvml.NVMLError as error:
        return {"problem": f"the NVIDIA driver does not answer: {_said(error)}"}
    return {"driver": driver, "devices": devices}


def _gpu(index: int) -> Iterator[Json]:
    """Yield a GPU, or its slices where it is cut in slices."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid, minor = _text(pynvml.nvmlDeviceGetUUID(handle)), pynvml.nvmlDeviceGetMinorNumber(handle)
    mode = _or_none(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    current, pending = mode or (0, 0)
    if current != pending:
        yield _device(handle, minor) | {"problem": "its MIG mode is about to change"}
    elif current == pynvml.NVML_DEVICE_MIG_ENABLE:
        slices = [_slice(each, uuid, minor) for each in _slices(handle)]
        owners = [each["instance"] for each in slices]
        for each in slices:
            if owners.count(each["instance"]) > 1:
                each["problem"] = "it shares its memory with another slice"
            yield each
    else:
        yield _device(handle, minor)


def _slices(handle: Any) -> Iterator[Any]:  # noqa: ANN401 - NVML's handles have no types
    for index in range(min(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle), _MAX_DEVICES)):
        try:
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except pynvml.NVMLError_NotFound:
            continue


def _slice(handle: Any, parent: str, minor: int) -> Json:  # noqa: ANN401
    instance = pynvml.nvmlDeviceGetGpuInstanceId(handle)
    return _device(handle, minor) | {"parent": parent, "instance": instance}


def _device(handle: Any, minor: int) -> Json:  # noqa: ANN401
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    found = {
        "uuid": _text(pynvml.nvmlDeviceGetUUID(handle)),
        "name": _text(pynvml.nvmlDeviceGetName(handle))[:96],
        "minor": minor,
        "memory_mib": memory.total // _MIB,
        "free_mib": memory.free // _MIB,
    }
    try:
        return found | {"processes": _processes(handle)}
    except pynvml.NVMLError as error:
        # Who is on it cannot be known, so nobody gets it.
        return found | {"problem": f"its processes cannot be listed: {_said(error)}"}


def _processes(handle: Any) -> list[int]:  # noqa: ANN401
    computing = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    # Cards without a display, and slices, know no such processes.
    drawing = _or_none(lambda: pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)) or []
    return sorted({each.pid for each in [*computing, *drawing]})[:_MAX_PROCESSES]


def _or_none(call: Callable[[], _T]) -> _T | None:
    try:
        return call()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        return None


def _said(error: pynvml.NVMLError) -> str:
    return f"{type(error).__name__.removeprefix('NVMLError_')} ({error.value})"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    json.dump(look(), sys.stdout)
