"""The process that overwrites a device's memory, through the CUDA driver library alone. Imports nothing of ours.

``python -m station.sandbox.gpu.wiping UUID`` takes all memory of the device that it can get, writes a pattern, then zeros, reads
samples of both back, and prints how much it was. It sees that one device only, and checks that it is the one it was told.
"""

import ctypes
import json
import os
import sys
import uuid
from typing import Final

_LARGEST: Final = 1 << 30
_SMALLEST: Final = 64 << 10
_SAMPLE: Final = 4096
_PATTERN: Final = 0xA5
_OUT_OF_MEMORY: Final = 2


class CudaError(Exception):
    """A call of the driver library failed."""


class Cuda:
    """The few calls of ``libcuda`` that are needed; their names are those of the library's binary interface."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, name: str, *arguments: object) -> None:
        """Call a function.

        Raises:
            CudaError: it answered an error.
        """
        code = self.attempt(name, *arguments)
        if code != 0:
            raise CudaError(f"{name} answers {code}")

    def attempt(self, name: str, *arguments: object) -> int:
        """Call a function and return its code."""
        return int(getattr(self._library, name)(*arguments))

    def only_device(self) -> tuple[int, str]:
        """Return the one device that is visible, with its UUID.

        Raises:
            CudaError: there is another number of them.
        """
        count, device, name = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * 16)()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        if count.value != 1:
            raise CudaError(f"{count.value} devices are visible instead of one")
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        # The second version names a slice by its own UUID.
        self.call("cuDeviceGetUuid_v2", ctypes.byref(name), device)
        return device.value, str(uuid.UUID(bytes=bytes(name)))

    def use(self, device: int) -> None:
        """Work on a device from now on."""
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(device))
        self.call("cuCtxSetCurrent", context)

    def memory(self) -> int:
        """Return all memory of the device, in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value

    def take(self, size: int) -> int | None:
        """Return the address of fresh memory, or None where there is not so much in one piece."""
        address = ctypes.c_uint64()
        code = self.attempt("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        if code not in {0, _OUT_OF_MEMORY}:
            raise CudaError(f"cuMemAlloc_v2 answers {code}")
        return None if code else address.value

    def fill(self, address: int, size: int, value: int) -> None:
        """Write one byte's value everywhere, and read samples back.

        Raises:
            CudaError: it is not what was written.
        """
        self.call("cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(value), ctypes.c_size_t(size))
        self.call("cuCtxSynchronize")
        count = min(_SAMPLE, size)
        for place in (address, address + (size - count) // 2, address + size - count):
            sample = (ctypes.c_ubyte * count)()
            self.call("cuMemcpyDtoH_v2", sample, ctypes.c_uint64(place), ctypes.c_size_t(count))
            if bytes(sample) != bytes([value]) * count:
                raise CudaError("what was written cannot be read back")


def wipe(name: str) -> dict[str, int | str]:
    """Overwrite a device's memory; returns how many bytes it has and how many were reached, or a problem.

    Args:
        name: the device's UUID.
    """
    # Before the library is loaded: it reads this once.
    os.environ["CUDA_VISIBLE_DEVICES"] = name
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        cuda = Cuda()
        device, found = cuda.only_device()
        if found != name.partition("-")[2]:
            return {"problem": "the driver gave another device"}
        cuda.use(device)
        return {"total": cuda.memory(), "overwritten": _overwrite(cuda)}
    except OSError:
        return {"problem": "there is no libcuda.so.1"}
    except AttributeError:
        return {"problem": "libcuda.so.1 lacks a function: the driver is older than R470"}
    except CudaError as error:
        return {"problem": str(error)}


def _overwrite(cuda: Cuda) -> int:
    """Take and overwrite piece by piece, ever smaller, until nothing is left; what is taken goes with this process."""
    done, size = 0, _LARGEST
    while size >= _SMALLEST:
        address = cuda.take(size)
        if address is None:
            size //= 2
            continue
        cuda.fill(address, size, _PATTERN)
        cuda.fill(address, size, 0)
        done += size
    return done


if __name__ == "__main__":
    json.dump(wipe(sys.argv[1]), sys.stdout)
