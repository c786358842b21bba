"""The few calls of the CUDA driver that a runtime needs, straight from the library that comes with the driver.

So running an engine takes no CUDA toolkit and no further package. Everything above this file is tested with a driver
whose device memory is the host's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from streampose.errors import ConfigError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # attributes of a device: its compute capability
NON_BLOCKING = 1  # a stream that does not wait for others
THREAD_LOCAL = 1  # only what this thread does is captured


class CudaError(RuntimeError):
    """A call of the driver failed."""


class Cuda:
    """The first GPU that this process may use (`CUDA_VISIBLE_DEVICES`), one stream on it, and memory.

    Args:
        driver: the library; None loads the one of this machine.

    Attributes:
        name: of the GPU.
        capability: (major, minor).
        driver_version: as CUDA counts, 12040 is 12.4.

    Raises:
        ConfigError: there is no NVIDIA driver, or no GPU.
    """

    def __init__(self, driver: Any = None):
        if driver is None:
            try:
                driver = ctypes.CDLL(LIBRARY)
            except OSError:
                raise ConfigError(
                    f"no NVIDIA driver ({LIBRARY} is not here); install that of the GPU, or choose another --runtime"
                ) from None
        self._driver = driver
        version, count = ctypes.c_int(), ctypes.c_int()
        try:
            self._call("cuInit", 0)
            self._call("cuDriverGetVersion", ctypes.byref(version))
            self._call("cuDeviceGetCount", ctypes.byref(count))
        except CudaError as error:
            raise ConfigError(f"the NVIDIA driver does not start ({error}); see `nvidia-smi`") from None
        if not count.value:
            raise ConfigError("no NVIDIA GPU that this process may use; see `nvidia-smi` and CUDA_VISIBLE_DEVICES")
        device, name, parts = ctypes.c_int(), ctypes.create_string_buffer(256), (ctypes.c_int(), ctypes.c_int())
        self._context, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDeviceGetName", name, 256, device)
        for part, attribute in zip(parts, (MAJOR, MINOR), strict=True):
            self._call("cuDeviceGetAttribute", ctypes.byref(part), attribute, device)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.use()
        self._call("cuStreamCreate", ctypes.byref(self.stream), NON_BLOCKING)
        self.name = name.value.decode(errors="replace")
        self.capability = parts[0].value, parts[1].value
        self.driver_version = version.value

    def use(self) -> None:
        """Make the GPU's context that of this thread; before anything else in a new thread."""
        self._call("cuCtxSetCurrent", self._context)

    def device_memory(self, size: int) -> int:
        """The address of so many bytes on the GPU, kept until the process ends or `free`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array in page-locked memory of the host, from and to which copies run by themselves."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(max(count, 1)), 0)
        assert address.value is not None
        buffer = (ctypes.c_uint8 * count).from_address(address.value)
        return np.frombuffer(buffer, dtype).reshape(shape)

    def free_pinned(self, array: np.ndarray) -> None:
        self._call("cuMemFreeHost", ctypes.c_void_p(array.ctypes.data))

    def upload(self, address: int, array: np.ndarray) -> None:
        """Begin to copy pinned memory to the GPU."""
        arguments = ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", *arguments, self.stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Begin to copy from the GPU into pinned memory."""
        arguments = ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", *arguments, self.stream)

    def wait(self) -> None:
        """Until all that was begun is done."""
        self._call("cuStreamSynchronize", self.stream)

    @contextmanager
    def _capturing(self) -> Iterator[ctypes.c_void_p]:
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self.stream, THREAD_LOCAL)
        try:
            yield graph
        finally:
            self._call("cuStreamEndCapture", self.stream, ctypes.byref(graph))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` begins as one CUDA graph, and return what begins it all with one call.

        Raises:
            CudaError: it cannot be recorded.
        """
        executable = ctypes.c_void_p()
        with self._capturing() as graph:
            work()
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)

        def launch() -> None:
            self._call("cuGraphLaunch", executable, self.stream)

        return launch

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            raise CudaError(f"{function}: {(text.value or b'unknown error').decode(errors='replace')} ({code})")
