"""Run a bundle as a TensorRT engine on an NVIDIA GPU.

The engine reads its crops out of the frame by itself, so that one upload of the frame and the boxes is all that goes to
the GPU, and the keypoints are all that come back. Upload, network and download are recorded once for each size of frame
and batch as a CUDA graph, which takes one call to start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from streampose.console import logger
from streampose.errors import BundleError
from streampose.runtime.bundle import Bundle
from streampose.runtime.cuda import Cuda, CudaError
from streampose.runtime.engine import (
    LARGEST_FRAME,
    MAX_BATCH,
    MEND,
    PRECISIONS,
    SMALLEST_FRAME,
    EngineFile,
    Machine,
    build_engine,
    load_library,
    prepare_graph,
)
from streampose.runtime.parity import PARITY_PX, difference_px, parity_crops

__all__ = ["PRECISIONS", "TensorRtRuntime"]
MAX_SLOTS = 12  # sizes of frame and batch that are kept ready


class TensorRtRuntime:
    """A bundle's graph as a TensorRT engine; see `runtime.predictor.load_predictor`.

    Args:
        library, driver: TensorRT and the CUDA driver; None for those of this machine.

    Attributes:
        parity_px: {"median", "p95", "max"} difference to ONNX Runtime on the CPU, measured when the engine was built.

    Raises:
        ConfigError: no TensorRT, no driver or no GPU.
        BundleError: the engine cannot be built, or answers otherwise than the graph does.
    """

    name = "tensorrt"

    def __init__(self, bundle: Bundle, precision: str, threads: int, *, library: Any = None, driver: Any = None):
        self._library = library or load_library()
        self._cuda = Cuda(driver)
        self._bundle, self._size, self._joints = bundle, bundle.input_size, bundle.skeleton.num_joints
        self._lock = threading.Lock()
        self._slots: dict[tuple[tuple[int, ...], int], _Slot] = {}
        self._runtime = self._library.Runtime(self._library.Logger(self._library.Logger.ERROR))
        version = str(self._library.__version__)
        machine = Machine(
            self._library.__name__, version, self._cuda.name, self._cuda.capability, self._cuda.driver_version
        )
        file = EngineFile(bundle, precision, machine)
        kept = file.read()
        if kept is not None and self._open(kept[0]):
            self.parity_px = kept[1]
            return
        if kept is not None:
            logger.warning(f"{file.path}: this TensorRT cannot read it; built again")
            file.remove()
        logger.info(
            f"{bundle.path}: building an engine for {machine.gpu} ({machine.library} {version}); kept for later"
        )
        engine = build_engine(self._library, prepare_graph(bundle, precision), bundle.input_size)
        if not self._open(engine):
            raise BundleError(f"{bundle.path}: {machine.library} cannot read the engine that it built; {MEND}")
        self.parity_px = self._check(precision, threads)
        file.write(engine, self.parity_px)

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        S = self._size
        parts = []
        for start in range(0, len(crops), MAX_BATCH):
            part = crops[start : start + MAX_BATCH]
            tops = np.arange(len(part), dtype=np.float32)[:, None] * S
            boxes = np.concatenate([0 * tops, tops, 0 * tops + S, tops + S], 1)
            parts.append(self._run(part.reshape(-1, S, 3), boxes))  # a tower of crops is a frame, too
        keypoints, confidence = zip(*parts, strict=True)
        return np.concatenate(keypoints), np.concatenate(confidence)

    def run_frame(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Crop, resize and infer on the GPU: (H, W, 3) uint8, (B, 4) float32 -> as `run`.

        Returns:
            None where the frame is smaller or larger than the engine was built for.
        """
        size = image.shape[:2]
        if not all(low <= side <= high for low, side, high in zip(SMALLEST_FRAME, size, LARGEST_FRAME, strict=True)):
            return None
        parts = [self._run(image, boxes[start : start + MAX_BATCH]) for start in range(0, len(boxes), MAX_BATCH)]
        keypoints, confidence = zip(*parts, strict=True)
        return np.concatenate(keypoints), np.concatenate(confidence)

    def _run(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        B = len(boxes)
        with self._lock:
            self._cuda.use()
            slot = self._slot(image.shape, 1 << (B - 1).bit_length())
            np.copyto(slot.frame, image)
            slot.boxes[:B], slot.boxes[B:] = boxes, boxes[-1]
            slot.launch()
            self._cuda.wait()
            return slot.keypoints[:B].copy(), slot.confidence[:B].copy()

    def _open(self, engine: bytes) -> bool:
        """Load an engine; False where the library cannot read it."""
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            return False
        self._scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = self._cuda.device_memory(max(self._scratch_bytes, 1))  # shared: one thing runs at a time
        return True

    def _check(self, precision: str, threads: int) -> dict[str, float]:
        """Compare a new engine with the graph in ONNX Runtime, which `export` has compared with eager PyTorch."""
        from streampose.runtime.onnx import OnnxRuntime

        crops = parity_crops(self._size)
        expected = OnnxRuntime(self._bundle, "f32", threads, providers=["CPUExecutionProvider"]).run(crops)[0]
        parity = difference_px(self.run(crops)[0], expected)
        told = f"median {parity['median']:.3f} px, 95 % within {parity['p95']:.3f} px"
        if not parity["median"] < PARITY_PX[precision]:
            raise BundleError(
                f"{self._bundle.path}: the {precision} engine differs from the graph ({told}; a median below "
                f"{PARITY_PX[precision]} px is accepted); {MEND}"
            )
        logger.info(f"{self._bundle.path}: tensorrt {precision} answers as the graph does ({told})")
        return parity

    def _slot(self, shape: tuple[int, ...], batch: int) -> _Slot:
        """What is kept ready for this size of frame and batch."""
        key = (shape, batch)
        if key in self._slots:
            self._slots[key] = self._slots.pop(key)  # the one used last is the last to go
            return self._slots[key]
        if len(self._slots) >= MAX_SLOTS:
            self._slots.pop(next(iter(self._slots))).free(self._cuda)
        slot = _Slot(
            self._context(),
            frame=self._cuda.pinned(shape, np.uint8),
            boxes=self._cuda.pinned((batch, 4), np.float32),
            keypoints=self._cuda.pinned((batch, self._joints, 3), np.float32),
            confidence=self._cuda.pinned((batch, self._joints), np.float32),
        )
        slot.prepare(self._cuda, profile=0 if batch == 1 else 1)
        self._slots[key] = slot
        return slot

    def _context(self) -> Any:
        """A context without memory of its own: a recorded graph holds for the one context that it was recorded from."""
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(self._engine, "create_runtime_config"):  # TensorRT for RTX compiles kernels when shapes are known
            settings = self._engine.create_runtime_config()
            settings.set_execution_context_allocation_strategy(strategy)
            kinds = self._library.DynamicShapesKernelSpecializationStrategy
            settings.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER
            context = self._engine.create_execution_context(settings)
        else:
            context = self._engine.create_execution_context(strategy)
        context.set_device_memory(self._scratch, self._scratch_bytes)
        return context


@dataclass
class _Slot:
    """Buffers for one size of frame and batch, on both sides, and how to start the engine on them.

    Attributes:
        frame, boxes, keypoints, confidence: pinned memory of the host.
        launch: begins upload, network and download.
    """

    context: Any
    frame: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    launch: Callable[[], None] = lambda: None

    def prepare(self, cuda: Cuda, profile: int) -> None:
        """Give the context its shapes and addresses, run it once, and record that as a graph where it can be."""
        arrays = {name: getattr(self, name) for name in ("frame", "boxes", "keypoints", "confidence")}
        self._addresses = {name: cuda.device_memory(array.nbytes) for name, array in arrays.items()}
        self.frame[:], self.boxes[:] = 0, (0, 0, *self.frame.shape[1::-1])
        if not self.context.set_optimization_profile_async(profile, cuda.stream.value or 0):
            raise BundleError(f"the engine has no profile {profile}; remove it from the cache of engines")
        for name in ("frame", "boxes"):
            if not self.context.set_input_shape(name, arrays[name].shape):
                raise BundleError(f"the engine does not accept {name} of shape {arrays[name].shape}; {MEND}")
        for name, address in self._addresses.items():
            self.context.set_tensor_address(name, address)

        def work() -> None:
            cuda.upload(self._addresses["frame"], self.frame)
            cuda.upload(self._addresses["boxes"], self.boxes)
            if not self.context.execute_async_v3(cuda.stream.value or 0):
                raise CudaError("TensorRT cannot start the engine; see its messages above")
            cuda.download(self.keypoints, self._addresses["keypoints"])
            cuda.download(self.confidence, self._addresses["confidence"])

        work()  # the first run sets up what must not be recorded
        cuda.wait()
        try:
            self.launch = cuda.capture(work)
        except CudaError as error:
            logger.warning(
                f"tensorrt: no CUDA graph for frames of {self.frame.shape[:2]} ({error}); started step by step"
            )
            self.launch = work

    def free(self, cuda: Cuda) -> None:
        for address in self._addresses.values():
            cuda.free(address)
        for array in (self.frame, self.boxes, self.keypoints, self.confidence):
            cuda.free_pinned(array)
