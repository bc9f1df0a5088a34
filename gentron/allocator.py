"""Keep freed memory in the process: glibc gives large blocks back to the system at once, and on a CPU half
of the time of a small network's step can go into page faults."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to serve blocks below 1 GiB from the heap and not to trim it; False where there is none.

    For the whole process and until its end; the peak of the memory used stays what it was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # glibc caps the threshold of mmap at 32 MiB
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_M_MMAP_THRESHOLD, 32 << 20))
