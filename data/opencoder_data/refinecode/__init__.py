"""RefineCode: from raw files to weighted, filtered, explained source text. Run `python -m opencoder_data.refinecode`."""

import os
import stat
import tempfile

from opencoder_data import address_space


def _writable(directory: str) -> bool:
    """Whether files can be made in a directory, or the directory itself in the nearest one above that exists."""
    while not os.path.lexists(directory) and os.path.dirname(directory) != directory:
        directory = os.path.dirname(directory)
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _give_numba_a_cache() -> None:
    """numba keeps compiled kernels beside their source or in the user's cache, and fails at import where neither can be
    written: then they go into a directory of this user below the temporary one."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.environ.get("NUMBA_CACHE_DIR") or _writable(os.path.dirname(__file__)) or _writable(cache):
        return
    own = os.path.join(tempfile.gettempdir(), f"opencoder-numba-{os.getuid()}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    info = os.lstat(own)
    # Compiled code is loaded from it: nobody else may write there.
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        own = tempfile.mkdtemp(prefix="opencoder-numba-")
    os.environ["NUMBA_CACHE_DIR"] = own


address_space.fit()
_give_numba_a_cache()
