"""The next batches are made in a thread while the current one trains."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Prefetcher:
    """Calls `make(step)` for start, start + 1, ... in a thread and hands the results out in that order.

    An error in the thread is raised by the `next` that would have returned the batch.
    """

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, *, depth: int = 2, pin: bool = False):
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(depth)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, start, stop, pin), daemon=True)
        self._thread.start()

    def next(self) -> Batch:
        """The next batch; waits for it."""
        batch = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def close(self) -> None:
        """End the thread and drop what was made ahead."""
        self._ended.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _work(self, make: Callable[[int], Batch], start: int, stop: int, pin: bool) -> None:
        try:
            for step in range(start, stop):
                batch = make(step)
                self._put({name: tensor.pin_memory() for name, tensor in batch.items()} if pin else batch)
                if self._ended.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._ended.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch; asynchronous from pinned memory."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
