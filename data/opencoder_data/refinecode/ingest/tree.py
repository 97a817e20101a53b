"""Files of a directory, local or by URL. Symbolic links are listed and never followed."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, path_key, printable_path


def read_files(
    root: str, entries: Sequence[Sequence[str]], source: str, key: str, config: IngestConfig
) -> Iterator[RawFile]:
    """`entries` are (path under root, rule decided while planning or ""); local paths may hold surrogate escapes."""
    fs, base = storage.filesystem(root)
    local = "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))
    name = printable_path(os.path.basename(base.rstrip("/")) or base)
    inside = os.path.realpath(base).rstrip("/") + "/" if local else ""
    repo_depth, max_file_bytes = config.repo_depth, config.max_file_bytes
    for relative, rule in entries:
        shown = printable_path(relative)
        pieces = shown.split("/")
        repo = "/".join(pieces[:repo_depth]) if 0 < repo_depth < len(pieces) else name
        raw = RawFile(source, repo, shown, key=(key, path_key(relative)))
        try:
            if local:
                raw.size, raw.data, raw.rule, raw.detail = _read_local(
                    os.path.join(base, relative), inside, rule, max_file_bytes
                )
            else:
                raw.size, raw.data, raw.rule, raw.detail = _read_remote(
                    fs, storage.join(base, relative), rule, max_file_bytes
                )
        except (OSError, ValueError) as error:
            raw.rule, raw.detail = "unreadable", one_line(error)
        yield raw


def _read_local(path: str, inside: str, rule: str, limit: int) -> tuple[int, bytes | None, str, str]:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return 0, None, "symlink", printable_path(os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return 0, None, "unreadable", "the directory cannot be listed"
    if not stat.S_ISREG(info.st_mode):
        return 0, None, "not_a_file", stat.filemode(info.st_mode)
    if rule:
        return info.st_size, None, rule, "by name"
    if info.st_size > limit:
        return info.st_size, None, "size_limit", f"{info.st_size} bytes > {limit}"
    # O_NOFOLLOW, O_NONBLOCK: a file swapped for a link or a pipe since lstat is not followed, not waited for.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 0, None, "symlink", ""
        raise
    with open(handle, "rb") as file:
        if not os.readlink(f"/proc/self/fd/{handle}").startswith(inside):
            return 0, None, "symlink", "outside the input"  # a directory on the way was swapped for a link
        data = file.read(limit + 1)
    if len(data) > limit:
        return len(data), None, "size_limit", f"more than {limit} bytes"
    return len(data), data, "", ""


def _read_remote(fs, path: str, rule: str, limit: int) -> tuple[int, bytes | None, str, str]:
    size = int(fs.size(path) or 0)
    if rule:
        return size, None, rule, "by name"
    if size > limit:
        return size, None, "size_limit", f"{size} bytes > {limit}"
    with fs.open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        return len(data), None, "size_limit", f"more than {limit} bytes"
    return len(data), data, "", ""
