"""How the C library allocates memory for tensors."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the system.

    Returns:
        Whether the C library has such a switch (glibc has).

    By default, glibc maps a large block at every allocation, and the kernel clears it page by page.
    Times with the default and with this switch, on one core (AMD, AVX-512): a training pass of
    small-resnet with 128 images takes 44.0 and 35.3 ms in fp32, 28.0 and 26.4 ms in bf16; a
    crafting pass in fp32 27.8 and 24.0 ms; a training pass of resnet18 in fp32 with 64 images 2.66
    and 2.21 s. Peak memory is the same within 3 %.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
