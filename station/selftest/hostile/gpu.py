"""What a train tries with a GPU: leave a mark in all of its memory, find an earlier train's, find another device."""

import ctypes

from .attempts import Attempts

MARK = 0x5A
_CHUNK = 64 << 20
_LEAST = 2 << 20
_SAMPLE = 1 << 20
_ROUNDS = 100_000


class CudaError(Exception):
    """A call of the driver's library failed, or there is none."""


class Cuda:
    """The few calls of ``libcuda`` that an attack needs."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise CudaError("libcuda.so.1 cannot be loaded") from None
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, name: str, *arguments: object) -> None:
        """Call a function; raises where it answers an error."""
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(f"{name} answers {code}")

    def devices(self) -> int:
        """Return how many devices there are."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def use_first(self) -> None:
        """Work on the first device."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def take_all(self) -> list[tuple[int, int]]:
        """Take all memory that can be had: addresses and sizes."""
        taken: list[tuple[int, int]] = []
        size = _CHUNK
        while size >= _LEAST and len(taken) < _ROUNDS:
            address = ctypes.c_uint64()
            if self._library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)) == 0:
                taken.append((address.value, size))
            else:
                size //= 2
        return taken

    def fill(self, address: int, size: int, value: int) -> None:
        """Write one byte's value everywhere."""
        self.call("cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(value), ctypes.c_size_t(size))
        self.call("cuCtxSynchronize")

    def read(self, address: int, size: int) -> bytes:
        """Copy memory to the host."""
        copy = ctypes.create_string_buffer(size)
        self.call("cuMemcpyDtoH_v2", copy, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return copy.raw


def gpu_mark(attempts: Attempts, _given: dict[str, object]) -> None:
    """Write over all of the device's memory, for the next train to find."""
    tried = "leave a mark in the GPU's memory"
    try:
        cuda = Cuda()
        cuda.use_first()
        taken = cuda.take_all()
        for address, size in taken:
            cuda.fill(address, size, MARK)
    except CudaError as error:
        attempts.got(tried, f"nothing could be looked into: {error}")
        return
    mib = sum(size for _, size in taken) >> 20
    attempts.want(tried, held=mib == 0, by="no memory was to be had", what=f"{mib} MiB are marked")


def gpu_residue(attempts: Attempts, _given: dict[str, object]) -> None:
    """Take all of the device's memory and look for what others left: any byte that is not zero."""
    tried = "read what an earlier train left in the GPU's memory"
    try:
        cuda = Cuda()
        cuda.use_first()
        looked, left, marked = 0, 0, 0
        for address, size in cuda.take_all():
            for place in {address, address + size // 2, address + size - min(_SAMPLE, size)}:
                sample = cuda.read(place, min(_SAMPLE, size // 2))
                looked += len(sample)
                left += len(sample) - sample.count(0)
                marked += sample.count(MARK)
    except CudaError as error:
        attempts.got(tried, f"nothing could be looked into: {error}")
        return
    attempts.want(
        tried,
        held=looked > 0 and left == 0,
        by=f"only zeros in {looked >> 20} MiB of samples of all its memory",
        what=f"{left} bytes of others, {marked} of them the mark, in {looked >> 20} MiB of samples",
    )


def gpu_others(attempts: Attempts, _given: dict[str, object]) -> None:
    """Look for a second device."""
    tried = "use a GPU that is not leased to it"
    try:
        count = Cuda().devices()
    except CudaError as error:
        attempts.got(tried, f"nothing could be looked into: {error}")
        return
    attempts.want(tried, held=count == 1, by="one device is all there is", what=f"{count} devices are there")
