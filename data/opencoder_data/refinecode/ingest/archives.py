"""tar (plain, gz, bz2, xz, zst) and zip archives, member by member; nothing is unpacked to disk, no link is followed."""

import time
from collections.abc import Iterator
from typing import Any

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.bounds import Budget, LimitError
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, printable_text
from opencoder_data.refinecode.ingest.streams import ERRORS, Counted, decompressed
from opencoder_data.refinecode.ingest.tar import TarMember, members
from opencoder_data.refinecode.ingest.zip import Zip, ZipEntry

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".crate")
ZIP_SUFFIXES = (".zip", ".whl", ".egg", ".jar")
SUFFIXES = TAR_SUFFIXES + ZIP_SUFFIXES
REFUSED_SUFFIXES = (".7z", ".rar", ".cab", ".lzh", ".arj", ".ace", ".cpio", ".iso", ".deb", ".rpm", ".tar.lz", ".tlz", ".tar.lz4",
                    ".tar.br", ".tar.z")  # fmt: skip
"""Archives of formats that are not read: rejected by name."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def is_rejected_archive(name: str) -> bool:
    return name.lower().endswith(REFUSED_SUFFIXES)


def read_archive(url: str, source: str, key: str, config: IngestConfig) -> Iterator[RawFile]:
    """Members as files; a broken archive ends with a rejection that names it, after the members read so far."""
    try:
        budget = Budget(config, packed=storage.size(url))
        if url.lower().endswith(ZIP_SUFFIXES):
            with storage.open_read(url) as handle:
                yield from _zip(handle, budget, source, key)
        else:
            yield from _tar(url, budget, source, key)
    except LimitError as error:
        yield RawFile(source, source, "", rule="archive_limit", detail=str(error), index=-1, key=(key, ""))
    except (*ERRORS, RuntimeError) as error:
        yield RawFile(source, source, "", rule="unreadable_archive", detail=one_line(error), index=-1, key=(key, ""))


def _time(raw: RawFile, when: float | None) -> None:
    """Sets the time stamp of an archive where it can be one: set, and not more than a year ahead."""
    if when is not None and 0 < when < time.time() + 86_400 * 366:
        raw.commit_time, raw.time_source = int(when), "archive"


def _tar(url: str, budget: Budget, source: str, key: str) -> Iterator[RawFile]:
    links: dict[str, list[RawFile]] = {}
    failed: Exception | None = None
    try:
        with storage.open_read(url) as handle:
            for index, member in enumerate(members(Counted(decompressed(handle), budget), budget)):
                raw = _raw(member, source, key, index)
                if member.link is not None:
                    links.setdefault(member.link, []).append(raw)
                else:
                    yield raw
    except (*ERRORS, RuntimeError) as error:
        failed = error
    if links:
        # A second pass for the content of what hard links name; corruption met there was met before.
        again = Budget(budget.config, budget.packed)
        try:
            with storage.open_read(url) as handle:
                for member in members(Counted(decompressed(handle), again), again, links):
                    for raw in links.pop(member.name, ()):
                        again.unpacked(member.size)
                        raw.size, raw.data, raw.rule, raw.detail = member.size, member.data, member.rule, member.detail
                        yield raw
        except (*ERRORS, RuntimeError) as error:
            failed = failed or error
    for target, raws in links.items():
        for raw in raws:
            raw.rule, raw.detail = (
                "not_a_file",
                f"hard link to {printable_text(target)}, which the archive does not hold",
            )
            yield raw
    if failed is not None:
        raise failed


def _raw(member: TarMember, source: str, key: str, index: int) -> RawFile:
    raw = RawFile(source, source, printable_text(member.name), member.size, member.data, None, member.rule, member.detail,
                  index, odd=member.odd, key=(key, member.name))  # fmt: skip
    _time(raw, member.mtime)
    return raw


def _zip(handle: Any, budget: Budget, source: str, key: str) -> Iterator[RawFile]:
    archive = Zip(handle, budget)
    if archive.before:
        handle.seek(0)
        if handle.read(4) == b"PK\3\4":
            detail = f"{archive.before} bytes before the archive's first member are not read: another archive?"
            yield RawFile(source, source, "", rule="unreadable_archive", detail=detail, index=-2, key=(key, ""))
    for index, entry in enumerate(archive.entries()):
        if not entry.name.endswith("/"):
            raw = RawFile(source, source, printable_text(entry.name), index=index, key=(key, entry.name))
            yield _zip_member(archive, entry, budget, raw)


def _zip_member(archive: Zip, entry: ZipEntry, budget: Budget, raw: RawFile) -> RawFile:
    _time(raw, entry.seconds())
    if entry.is_link:
        raw.rule = "symlink"
        return raw
    # A corrupt member does not stop the rest: zip keeps an index. Never more than the limit is unpacked (bombs).
    try:
        data = archive.read(entry)
    except LimitError:
        raise
    except (*ERRORS, RuntimeError, MemoryError) as error:
        raw.rule, raw.detail = "unreadable_member", one_line(error)
        return raw
    raw.size = len(data)
    if len(data) > budget.member or entry.size > budget.member:
        raw.rule, raw.detail = "size_limit", f"declares {entry.size} bytes, limit {budget.member}"
    else:
        raw.data = data
    return raw
