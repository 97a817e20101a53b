"""Cuts the input into partitions, once, in sorted order; a resumed run reads the same plan."""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import IngestConfig, LayoutConfig
from opencoder_data.refinecode.ingest import archives, git, table_files
from opencoder_data.refinecode.ingest.raw_file import one_line, printable_path
from opencoder_data.refinecode.languages import name_verdict

# A file costs at least this much in a partition's size, so that a million empty files make several partitions.
_FILE_COST = 2_000

Unit = dict[str, Any]
"""One reader call. kind: files (root, entries), archive, git, parquet (groups, start), jsonl, bad (rule, detail)."""


def plan(inputs: tuple[str, ...], config: IngestConfig, layout: LayoutConfig, skip_names: bool) -> Iterator[list[Unit]]:
    """Partitions, each a list of units of about `partition_mb` together.

    Raises ValueError when an input is missing or holds nothing.
    """
    limit = layout.partition_mb * 1e6
    pending: list[Unit] = []
    weight = 0.0
    found = False
    names = [printable_path(os.path.basename(url.rstrip("/")) or url) for url in inputs]
    for url, name in zip(inputs, names, strict=True):
        # Sources are part of a file's identity: two inputs of the same name go by their whole path.
        source = name if names.count(name) == 1 else printable_path(url)
        for unit, cost in _units(url, source, config, limit, skip_names):
            found = True
            if pending and weight + cost > limit:
                yield pending
                pending, weight = [], 0.0
            pending.append(unit)
            weight += cost
    if not found:
        raise ValueError(f"nothing to read in {', '.join(inputs)}")
    yield pending


def _units(url: str, source: str, config: IngestConfig, limit: float, skip_names: bool) -> Iterator[tuple[Unit, float]]:
    fs, path = storage.filesystem(url)
    local = isinstance(fs, LocalFileSystem)
    if not fs.exists(path):
        raise ValueError(f"input {url} does not exist")
    kind = config.kind
    if fs.isfile(path):
        if kind == "auto":
            kind = _kind_of(path)
        if kind == "tree":
            raise ValueError(f"input {url} is a file of no known kind; give a folder, an archive, Parquet or JSONL")
        yield from _single(url, kind, source, int(fs.size(path) or 0), limit)
        return
    if kind == "git" or (kind == "auto" and local and config.git and git.is_repository(path)):
        if not local:
            raise ValueError(f"{url}: git repositories are read from local disks only")
        yield {"kind": "git", "url": path, "source": source}, limit / 4
        return
    if kind in ("auto", "parquet", "jsonl"):
        suffixes = table_files.PARQUET_SUFFIXES + table_files.JSONL_SUFFIXES
        if kind == "parquet":
            suffixes = table_files.PARQUET_SUFFIXES
        if kind == "jsonl":
            suffixes = table_files.JSONL_SUFFIXES
        files = []
        if config.kind != "auto" or _only_tables(fs, path):
            files = sorted(p for p in fs.find(path) if not os.path.basename(p).startswith((".", "_")))
        tables = [p for p in files if p.lower().endswith(suffixes)]
        if tables:
            for table in tables:
                relative = storage.join(source, printable_path(os.path.relpath(table, path)))
                yield from _single(fs.unstrip_protocol(table) if not local else table, _kind_of(table), relative,
                                   int(fs.size(table) or 0), limit)  # fmt: skip
            return
        if kind != "auto":
            raise ValueError(f"no {kind} file in {url}")
    yield from _tree(fs, path, url if not local else path, source, config, limit, skip_names)


def _only_tables(fs: Any, path: str) -> bool:
    """The folder holds table files and nothing else worth reading (the shape of a published corpus)."""
    suffixes = table_files.PARQUET_SUFFIXES + table_files.JSONL_SUFFIXES
    seen = False
    for _, _, names in fs.walk(path):
        for name in names:
            if name.startswith((".", "_")) or name.lower() in ("readme.md", "license", "dataset_info.json"):
                continue
            if not name.lower().endswith(suffixes):
                return False
            seen = True
    return seen


def _kind_of(path: str) -> str:
    lower = path.lower()
    if lower.endswith(table_files.PARQUET_SUFFIXES):
        return "parquet"
    if lower.endswith(table_files.JSONL_SUFFIXES):
        return "jsonl"
    return "archive" if archives.is_archive(lower) else "tree"


def _single(url: str, kind: str, source: str, size: int, limit: float) -> Iterator[tuple[Unit, float]]:
    if kind == "parquet":
        try:
            groups = table_files.row_groups(url)
        except (pa.ArrowException, OSError, ValueError) as error:
            yield {"kind": "bad", "source": source, "rule": "unreadable_table", "detail": one_line(error)}, _FILE_COST
            return
        start = first = 0
        rows = weight = 0
        for number, (count, group_bytes) in enumerate(groups):
            rows, weight = rows + count, weight + group_bytes
            if weight >= limit or number == len(groups) - 1:
                unit = {"kind": "parquet", "url": url, "source": source, "groups": [first, number + 1], "start": start}
                yield unit, weight
                first, start, rows, weight = number + 1, start + rows, 0, 0
    elif kind in ("jsonl", "archive"):
        # Compressed input: four times its size is a fair guess of the text inside.
        yield {"kind": kind, "url": url, "source": source}, size * 4
    else:
        raise ValueError(f"ingest.kind={kind} does not fit the file {url}")


def _tree(
    fs: Any, base: str, root: str, source: str, config: IngestConfig, limit: float, skip_names: bool
) -> Iterator[tuple[Unit, float]]:
    entries: list[list[str]] = []
    weight = 0.0

    def files() -> Unit:
        return {"kind": "files", "root": root, "source": source, "entries": entries}

    walk = _walk_local(base, config) if isinstance(fs, LocalFileSystem) else _walk_remote(fs, base, config)
    for relative, size, kind in walk:
        if kind != "file" and kind != "other":
            unit = {
                "kind": kind,
                "url": storage.join(root, relative),
                "source": storage.join(source, printable_path(relative)),
            }
            yield unit, (size * 4 if kind == "archive" else limit / 4)
            continue
        rule = name_verdict(relative.rsplit("/", 1)[-1]) if skip_names and kind == "file" else ""
        cost = min(size, config.max_file_bytes) + _FILE_COST if not rule else _FILE_COST / 10
        if entries and weight + cost > limit:
            yield files(), weight
            entries, weight = [], 0.0
        entries.append([relative, rule])
        weight += cost
    if entries:
        yield files(), weight


def _walk_local(base: str, config: IngestConfig) -> Iterator[tuple[str, int, str]]:
    """(path under base, size, kind) in sorted order; kind is file, other (link, device, unreadable), archive or git."""
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(os.path.join(base, folder)) as scan:
                listed = sorted(scan, key=lambda e: e.name)
        except OSError:
            yield folder, 0, "other"
            continue
        below = []
        for entry in listed:
            relative = os.path.join(folder, entry.name)
            try:
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    yield relative, 0, "other"
                elif entry.is_dir():
                    if entry.name in config.skip_dirs:
                        continue
                    if config.git and config.kind == "auto" and git.is_repository(entry.path):
                        yield relative, 0, "git"
                    else:
                        below.append(relative)
                elif config.archives and archives.is_archive(entry.name):
                    yield relative, entry.stat(follow_symlinks=False).st_size, "archive"
                else:
                    yield relative, entry.stat(follow_symlinks=False).st_size, "file"
            except OSError:
                yield relative, 0, "other"
        stack.extend(reversed(below))


def _walk_remote(fs: Any, base: str, config: IngestConfig) -> Iterator[tuple[str, int, str]]:
    for path, info in sorted(fs.find(base, detail=True).items()):
        relative = os.path.relpath(path, base)
        if any(piece in config.skip_dirs for piece in relative.split("/")[:-1]):
            continue
        kind = "archive" if config.archives and archives.is_archive(relative) else "file"
        yield relative, int(info.get("size") or 0), kind
