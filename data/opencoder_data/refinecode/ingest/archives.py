"""tar (plain, gz, bz2, xz, zst) and zip archives, streamed member by member."""

import lzma
import tarfile
import time
import zipfile
import zlib
from calendar import timegm
from collections.abc import Iterator
from typing import Any

import zstandard

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, printable_path

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".crate")
ZIP_SUFFIXES = (".zip", ".whl", ".egg", ".jar")
SUFFIXES = TAR_SUFFIXES + ZIP_SUFFIXES


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_archive(url: str, source: str, repo: str, max_file_bytes: int) -> Iterator[RawFile]:
    """Members as files; a broken archive ends with a refusal that names it, after the members read so far."""
    index = 0
    try:
        with storage.open_read(url) as handle:
            members = (
                _zip(handle, max_file_bytes)
                if url.lower().endswith(ZIP_SUFFIXES)
                else _tar(handle, url, max_file_bytes)
            )
            for path, size, mtime, data, rule, detail in members:
                yield RawFile(
                    source, repo, path, size=size, data=data, rule=rule, detail=detail, index=index,
                    commit_time=mtime, time_source="archive" if mtime is not None else None,
                )  # fmt: skip
                index += 1
    except (tarfile.TarError, zipfile.BadZipFile, zstandard.ZstdError, EOFError, OSError, ValueError, RuntimeError,
            NotImplementedError, zlib.error, lzma.LZMAError) as error:  # fmt: skip
        yield RawFile(source, repo, "", rule="unreadable_archive", detail=one_line(error), index=-1)


Member = tuple[str, int, int | None, bytes | None, str, str]
"""(path, bytes found, time, content, rule, detail). What a header declares is not counted: it may name 64 GiB in a small file."""


def _seconds(when: float) -> int | None:
    """A time stamp of an archive, or None where it cannot be one: not set, or more than a year ahead."""
    return int(when) if 0 < when < time.time() + 86_400 * 366 else None


def _pass_over(archive: tarfile.TarFile) -> int:
    """Reads to the next header, or to the end where none can follow; returns the bytes found.

    tarfile itself asks for everything that is declared, piece by piece, also behind the end of the file.
    """
    stream: Any = archive.fileobj
    found = 0
    while stream.pos < archive.offset:
        try:
            data = stream.read(min(tarfile.RECORDSIZE, archive.offset - stream.pos))
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
            break
        if not data:
            break
        found += len(data)
    return found


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The archive's members; EOFError where one ends before its declared size."""
    while member := archive.next():
        yield member
        stream: Any = archive.fileobj
        _pass_over(archive)
        if stream.pos < archive.offset:
            raise EOFError(
                f"{printable_path(member.name)} ends {archive.offset - stream.pos} bytes before its declared size"
            )


def _tar(handle: Any, url: str, limit: int) -> Iterator[Member]:
    stream: Any = handle
    if url.lower().endswith((".tar.zst", ".tzst")):
        stream = zstandard.ZstdDecompressor().stream_reader(handle)
    with tarfile.open(fileobj=stream, mode="r|" if stream is not handle else "r|*") as archive:
        for member in _members(archive):
            path, mtime = printable_path(member.name), _seconds(member.mtime)
            if member.isdir():
                continue
            if not member.isfile():
                kind = "symlink" if member.issym() or member.islnk() else "not_a_file"
                yield path, 0, mtime, None, kind, printable_path(member.linkname or "")
            elif member.size > limit:
                found = _pass_over(archive)
                yield (
                    path,
                    min(found, member.size),
                    mtime,
                    None,
                    "size_limit",
                    f"declares {member.size} bytes > {limit}",
                )
            else:
                content = archive.extractfile(member)
                assert content is not None
                data = content.read()
                if len(data) != member.size:
                    raise EOFError(f"{path} ends after {len(data)} of {member.size} bytes")
                yield path, member.size, mtime, data, "", ""


def _zip(handle: Any, limit: int) -> Iterator[Member]:
    with zipfile.ZipFile(handle) as archive:
        for info in archive.infolist():
            path = printable_path(info.filename)
            try:
                mtime = _seconds(timegm((*info.date_time, 0, 0, 0))) if info.date_time > (1980, 1, 1, 0, 0, 0) else None
            except ValueError:  # month 0
                mtime = None
            if info.is_dir():
                continue
            if (info.external_attr >> 28) == 0o12:
                yield path, 0, mtime, None, "symlink", ""
                continue
            # A damaged member does not stop the rest: zip keeps an index. Never more than the limit is unpacked (bombs).
            try:
                with archive.open(info) as member:
                    data = member.read(limit + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError,
                    ValueError) as error:  # fmt: skip
                yield path, 0, mtime, None, "unreadable_member", one_line(error)
                continue
            if len(data) > limit or info.file_size > limit:
                yield path, len(data), mtime, None, "size_limit", f"declares {info.file_size} bytes, limit {limit}"
            else:
                yield path, len(data), mtime, data, "", ""
