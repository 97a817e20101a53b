"""Git repositories: the files of HEAD, each with the time of the last commit that changed it."""

import os
from collections.abc import Iterator

import pygit2

from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, printable_path


def is_repository(path: str) -> bool:
    """A work tree with .git, or a bare repository."""
    if os.path.exists(os.path.join(path, ".git")):
        return True
    return all(os.path.exists(os.path.join(path, name)) for name in ("HEAD", "objects", "refs"))


def read_git(path: str, source: str, repo: str, max_file_bytes: int) -> Iterator[RawFile]:
    """Regular files of HEAD; links and submodules are refused by name, a broken repository as a whole."""
    try:
        repository = pygit2.Repository(path)
        head = repository.head.peel(pygit2.Commit)
        blobs = dict(_walk(repository, head.tree, b""))
        times = last_commit_times(repository, head, blobs)
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        yield RawFile(source, repo, "", rule="unreadable_repository", detail=one_line(error), index=-1)
        return
    for name, (mode, oid) in sorted(blobs.items()):
        raw = RawFile(source, repo, printable_path(name), commit_time=times.get(name), time_source="commit")
        if mode == 0o120000:
            raw.rule = "symlink"
        elif mode == 0o160000:
            raw.rule, raw.detail = "not_a_file", "submodule"
        else:
            try:
                blob = repository[oid]
                assert isinstance(blob, pygit2.Blob)
                raw.size = blob.size
                if raw.size > max_file_bytes:
                    raw.rule, raw.detail = "size_limit", f"{raw.size} bytes > {max_file_bytes}"
                else:
                    raw.data = blob.data
            except (pygit2.GitError, KeyError, ValueError) as error:
                raw.rule, raw.detail = "unreadable", one_line(error)
        yield raw


def _walk(
    repository: pygit2.Repository, tree: pygit2.Tree, prefix: bytes
) -> Iterator[tuple[bytes, tuple[int, pygit2.Oid]]]:
    for entry in tree:
        name = prefix + (entry.raw_name or b"")
        if entry.filemode == pygit2.enums.FileMode.TREE:
            child = repository[entry.id]
            assert isinstance(child, pygit2.Tree)
            yield from _walk(repository, child, name + b"/")
        else:
            yield name, (int(entry.filemode), entry.id)


def last_commit_times(
    repository: pygit2.Repository, head: pygit2.Commit, blobs: dict[bytes, tuple[int, pygit2.Oid]]
) -> dict[bytes, int]:
    """Seconds since 1970 of the last commit on HEAD's history in which each path got its present content.

    Walks back from HEAD comparing tree ids, so unchanged subtrees cost nothing, and stops when every path is settled.
    A merge settles a path only if it differs from all its parents, as `git log` has it.
    """
    pending = set(blobs)
    times: dict[bytes, int] = {}
    walker = repository.walk(head.id, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME)
    for commit in walker:
        if not pending:
            break
        changed: set[bytes] | None = None
        parents = commit.parents
        for parent in parents or [None]:
            paths = set(_changed(repository, commit.tree, parent.tree if parent else None, b""))
            changed = paths if changed is None else changed & paths
            if not changed:
                break
        for name in (changed or set()) & pending:
            times[name] = int(commit.commit_time)
            pending.discard(name)
    return times


def _changed(
    repository: pygit2.Repository, new: pygit2.Tree, old: pygit2.Tree | None, prefix: bytes
) -> Iterator[bytes]:
    """Paths of `new` that are absent from `old` or differ there."""
    before = {entry.raw_name: entry for entry in old} if old is not None else {}
    for entry in new:
        other = before.get(entry.raw_name)
        if other is not None and other.id == entry.id and other.filemode == entry.filemode:
            continue
        name = prefix + (entry.raw_name or b"")
        if entry.filemode == pygit2.enums.FileMode.TREE:
            subtree = repository[entry.id]
            old_subtree = None
            if other is not None and other.filemode == pygit2.enums.FileMode.TREE:
                old_subtree = repository[other.id]
            assert isinstance(subtree, pygit2.Tree)
            yield from _changed(repository, subtree, old_subtree, name + b"/")  # pyright: ignore[reportArgumentType]
        else:
            yield name
