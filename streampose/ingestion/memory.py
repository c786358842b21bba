"""Keep the process as small at the end of a long video as at its beginning."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
MMAP_BYTES = 1 << 19


def keep_memory_flat() -> None:
    """Have pictures that are freed given back at once; most effective before other libraries start their threads.

    Left alone, glibc keeps what each thread has freed for that thread, and begins to keep ever larger blocks: a video
    ten times as long then took up to three times the memory. Other systems' allocators are left as they are.
    """
    share_memory_among_threads()
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def share_memory_among_threads() -> None:
    """Have what one thread has freed used by all, so that a process that runs for days does not grow."""
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return what is free to the system; see `keep_memory_flat`."""
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of glibc; None elsewhere (musl has neither, other systems have other allocators)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
