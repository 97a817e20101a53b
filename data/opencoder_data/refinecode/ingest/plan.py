"""Cuts the input into partitions, once, in sorted order; a resumed run reads the same plan."""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import IngestConfig, LayoutConfig
from opencoder_data.refinecode.ingest import archives, git, table_files
from opencoder_data.refinecode.ingest.raw_file import one_line, path_key, printable_text
from opencoder_data.refinecode.languages import name_verdict

# A file costs at least this much in a partition's size, so that a million empty files make several partitions.
_FILE_COST = 2_000

Unit = dict[str, Any]
"""One reader call. kind: files (root, entries), archive, git, parquet (groups, start), arrow, jsonl, bad (rule, detail). `key`
names the place in the input, `source` the same as printable text."""


def plan(inputs: tuple[str, ...], config: IngestConfig, layout: LayoutConfig, skip_names: bool) -> Iterator[list[Unit]]:
    """Partitions, each a list of units of about `partition_mb` together.

    Raises ValueError when an input is missing, holds nothing, or is a repository that cannot be read.
    """
    limit = layout.partition_mb * 1e6
    pending: list[Unit] = []
    weight = 0.0
    found = False
    keys = [path_key(os.path.basename(url.rstrip("/")) or url) for url in inputs]
    names = [printable_text(key) for key in keys]
    own = _own_ids(inputs, config)
    for url, key, name in zip(inputs, keys, names, strict=True):
        # Sources are part of a file's identity: two inputs of the same name go by their whole path.
        key = key if names.count(name) == 1 else path_key(url)
        for unit, cost in _units(url, key, config, limit, skip_names):
            found = True
            if pending and weight + cost > limit:
                yield pending
                pending, weight = [], 0.0
            if unit["kind"] == "parquet" and own:
                unit["own"] = True
            unit["source"] = printable_text(unit["key"])
            pending.append(unit)
            weight += cost
    if not found:
        raise ValueError(f"nothing to read in {', '.join(inputs)}")
    yield pending


def _own_ids(inputs: tuple[str, ...], config: IngestConfig) -> bool:
    """Whether all inputs are documents of this pipeline with ids that may stay: they differ over all inputs."""
    found: list[str] = []
    for url in inputs:
        fs, path = storage.filesystem(url)
        if fs.isfile(path):
            tables, rejected = [url], []
        elif config.kind in ("auto", "parquet") and fs.isdir(path):
            tables, rejected = _tables(fs, path, config)
        else:
            return False
        if rejected or not tables or not all(t.lower().endswith(table_files.PARQUET_SUFFIXES) for t in tables):
            return False
        found += [t if fs.isfile(path) or isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(t) for t in tables]
    return table_files.own_ids(found)


def _units(url: str, key: str, config: IngestConfig, limit: float, skip_names: bool) -> Iterator[tuple[Unit, float]]:
    fs, path = storage.filesystem(url)
    local = isinstance(fs, LocalFileSystem)
    if not fs.exists(path):
        raise ValueError(f"input {url} does not exist")
    kind = config.kind
    if fs.isfile(path):
        kind = _kind_of(path) if kind == "auto" else kind
        if archives.is_rejected_archive(path) and kind == "tree":
            raise ValueError(
                f"input {url} is an archive of a format that is not read: unpack it, or pack it as tar or zip"
            )
        if kind == "tree":
            raise ValueError(f"input {url} is a file of no known kind; give a directory, an archive, Parquet or JSONL")
        yield from _single(url, kind, key, int(fs.size(path) or 0), limit)
        return
    if local and not os.path.isdir(path):
        raise ValueError(f"input {url} is neither a file nor a directory")
    if kind == "git" or (kind == "auto" and local and config.git and git.is_repository(path)):
        if not local:
            raise ValueError(f"{url}: git repositories are read from local disks only")
        try:
            git.check(path, path)
            yield {"kind": "git", "url": path, "key": key, "root": path}, limit / 4
            return
        except git.RepositoryError as error:
            if kind == "git" or not git.has_work_tree(path):
                raise ValueError(f"input {url}: the git repository cannot be read: {error}") from None
            files = list(_tree(fs, path, url if not local else path, key, config, limit, skip_names))
            if not files:
                raise ValueError(
                    f"input {url}: the git repository cannot be read: {error}; its work tree holds no files either"
                ) from None
            yield _bad(key, "unreadable_repository", f"{error}; its work tree is read instead"), _FILE_COST
            yield from files
            return
    if kind in ("auto", "parquet", "arrow", "jsonl"):
        tables, rejected = _tables(fs, path, config)
        if tables or rejected:
            for table, rule in sorted([*((t, "") for t in tables), *rejected]):
                relative = storage.join(key, path_key(os.path.relpath(table, path)))
                if rule:
                    yield _bad(relative, rule, "a link that leads out of the input, or no regular file"), _FILE_COST
                    continue
                yield from _single(fs.unstrip_protocol(table) if not local else table, _kind_of(table), relative,
                                   int(fs.size(table) or 0), limit)  # fmt: skip
            return
        if kind != "auto":
            raise ValueError(f"no {kind} file in {url}")
    yield from _tree(fs, path, url if not local else path, key, config, limit, skip_names)


def _bad(key: str, rule: str, detail: str, path: str = "") -> Unit:
    return {"kind": "bad", "key": key, "rule": rule, "detail": detail, "path": path}


def _tables(fs: Any, path: str, config: IngestConfig) -> tuple[list[str], list[tuple[str, str]]]:
    """(table files, those rejected with their rule) of a directory; none when it is not a directory of tables.

    By itself (kind `auto`) a directory is one when it holds table files and nothing else worth reading, as a published corpus.
    """
    suffixes = {
        "parquet": table_files.PARQUET_SUFFIXES,
        "arrow": table_files.ARROW_SUFFIXES,
        "jsonl": table_files.JSONL_SUFFIXES,
    }.get(config.kind, table_files.SUFFIXES)
    local = isinstance(fs, LocalFileSystem)
    root = os.path.realpath(path).rstrip("/") + "/" if local else ""
    found: list[str] = []
    rejected: list[tuple[str, str]] = []
    for directory, _, names in os.walk(path) if local else fs.walk(path):
        for name in names:
            if name.startswith((".", "_")):
                continue
            if not name.lower().endswith(suffixes):
                if config.kind == "auto" and name.lower() not in (
                    "readme.md",
                    "license",
                    "dataset_info.json",
                    "state.json",
                ):
                    return [], []
                continue
            full = os.path.join(directory, name)
            if local and not os.path.realpath(full).startswith(root):
                rejected.append((full, "symlink"))
            elif local and not os.path.isfile(full):
                rejected.append((full, "not_a_file"))
            else:
                found.append(full)
    return sorted(found), rejected


def _kind_of(path: str) -> str:
    lower = path.lower()
    for kind, suffixes in (
        ("parquet", table_files.PARQUET_SUFFIXES), ("arrow", table_files.ARROW_SUFFIXES), ("jsonl", table_files.JSONL_SUFFIXES),
    ):  # fmt: skip
        if lower.endswith(suffixes):
            return kind
    return "archive" if archives.is_archive(lower) else "tree"


def _single(url: str, kind: str, key: str, size: int, limit: float) -> Iterator[tuple[Unit, float]]:
    if kind == "parquet":
        try:
            groups = table_files.row_groups(url)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            yield _bad(key, "unreadable_table", one_line(error)), _FILE_COST
            return
        start = first = 0
        rows = weight = 0
        for number, (count, group_bytes) in enumerate(groups):
            rows, weight = rows + count, weight + group_bytes
            if weight >= limit or number == len(groups) - 1:
                unit = {"kind": "parquet", "url": url, "key": key, "groups": [first, number + 1], "start": start}
                yield unit, weight
                first, start, rows, weight = number + 1, start + rows, 0, 0
    elif kind in ("jsonl", "archive", "arrow"):
        # Compressed input: four times its size is a fair guess of the text inside.
        yield {"kind": kind, "url": url, "key": key}, size * 4
    else:
        raise ValueError(f"ingest.kind={kind} does not fit the file {url}")


def _tree(
    fs: Any, base: str, root: str, key: str, config: IngestConfig, limit: float, skip_names: bool
) -> Iterator[tuple[Unit, float]]:
    entries: list[list[str]] = []
    weight = 0.0

    def files() -> Unit:
        return {"kind": "files", "root": root, "key": key, "entries": entries}

    walk = _walk_local(base, config) if isinstance(fs, LocalFileSystem) else _walk_remote(fs, base, config)
    for relative, size, kind, detail in walk:
        below = storage.join(key, path_key(relative))
        if kind == "bad":
            yield _bad(below, "unreadable_repository", detail), _FILE_COST
            continue
        if kind not in ("file", "other"):
            unit = {"kind": kind, "url": storage.join(root, relative), "key": below}
            if kind == "git":
                unit["root"] = base
            yield unit, (size * 4 if kind == "archive" else limit / 4)
            continue
        rule = ""
        if kind == "file" and config.archives and archives.is_rejected_archive(relative):
            rule = "unsupported_archive"
        elif kind == "file" and skip_names:
            rule = name_verdict(relative.rsplit("/", 1)[-1])
        cost = min(size, config.max_file_bytes) + _FILE_COST if not rule else _FILE_COST / 10
        if entries and weight + cost > limit:
            yield files(), weight
            entries, weight = [], 0.0
        entries.append([relative, rule])
        weight += cost
    if entries:
        yield files(), weight


def _walk_local(base: str, config: IngestConfig) -> Iterator[tuple[str, int, str, str]]:
    """(path under base, size, kind, detail) in sorted order; kind is file, other (link, device, unreadable), archive, git or
    bad: a repository that cannot be read, whose work tree follows."""
    stack = [""]
    while stack:
        directory = stack.pop()
        try:
            with os.scandir(os.path.join(base, directory)) as scan:
                listed = sorted(scan, key=lambda e: e.name)
        except OSError:
            yield directory, 0, "other", ""
            continue
        below = []
        for entry in listed:
            relative = os.path.join(directory, entry.name)
            try:
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    yield relative, 0, "other", ""
                elif entry.is_dir():
                    if entry.name in config.skip_dirs:
                        continue
                    if not (config.git and config.kind == "auto" and git.is_repository(entry.path)):
                        below.append(relative)
                        continue
                    try:
                        git.check(entry.path, base)
                        yield relative, 0, "git", ""
                    except git.RepositoryError as error:
                        work_tree = git.has_work_tree(entry.path)
                        yield relative, 0, "bad", f"{error}; its work tree is read instead" if work_tree else str(error)
                        if work_tree:
                            below.append(relative)
                elif config.archives and archives.is_archive(entry.name):
                    yield relative, entry.stat(follow_symlinks=False).st_size, "archive", ""
                else:
                    yield relative, entry.stat(follow_symlinks=False).st_size, "file", ""
            except OSError:
                yield relative, 0, "other", ""
        stack.extend(reversed(below))


def _walk_remote(fs: Any, base: str, config: IngestConfig) -> Iterator[tuple[str, int, str, str]]:
    for path, info in sorted(fs.find(base, detail=True).items()):
        relative = os.path.relpath(path, base)
        if any(piece in config.skip_dirs for piece in relative.split("/")[:-1]):
            continue
        kind = "archive" if config.archives and archives.is_archive(relative) else "file"
        yield relative, int(info.get("size") or 0), kind, ""
