"""Let the stages of a pipeline overlap: each iterates in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()
_POLL_SECONDS = 0.1


@contextmanager
def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Iterator[Item]]:
    """Iterate over `items` in another thread.

    An exception in that thread is raised here, after the items before it. Leaving the block stops the thread and waits
    for it, also when not all items were taken.

    Args:
        depth: how many items may wait; memory stays bounded by it.
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put((item, None)):
                    break
            else:
                put((_END, None))
        except BaseException as error:  # handed over to the thread that reads
            put((_END, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def take() -> Iterator[Item]:
        while True:
            try:
                item, error = waiting.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if stopped.is_set():  # the stage after this one is told to stop while it waits
                    return
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=work, name="streampose-read-ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()
