"""The 64-bit hash mixing that shingles, sketches and band keys share.

numba caches a kernel by the file that it is in: after a change here remove the caches (`__pycache__/*.nb?`) of this package.
"""

import numpy as np
from numba import njit

MIX1, MIX2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
S33, S32, S29 = np.uint64(33), np.uint64(32), np.uint64(29)


@njit(inline="always")
def mix(h):
    """Finalizer of a 64-bit hash, uint64 to uint64."""
    h ^= h >> S33
    h *= MIX1
    h ^= h >> S33
    h *= MIX2
    return h ^ (h >> S33)
