"""Git repositories: the files of HEAD, each with the time of the last commit that changed it."""

from collections.abc import Iterator

import pygit2

from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.bounds import MAX_NAME_BYTES, Budget, LimitError
from opencoder_data.refinecode.ingest.git_open import RepositoryError, has_work_tree, is_repository, open_head
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, printable_text

_MAX_TREE = 64 << 20
_MAX_COMMIT = 16 << 20
_ERRORS = (pygit2.GitError, KeyError, ValueError, OSError)
Blobs = dict[bytes, tuple[int, pygit2.Oid]]


def check(path: str, root: str) -> None:
    """Raises RepositoryError where HEAD, its tree, or every one of the tree's files is not to be had."""
    with open_head(path, root) as (repository, head):
        files = [entry.id for entry in head.tree if entry.filemode not in (*_SPECIAL, pygit2.enums.FileMode.TREE)][:64]
        if files and not any(_present(repository, oid) for oid in files):
            raise RepositoryError("the files of HEAD are not in it (a partial clone): fetch or check them out")


_SPECIAL = (0o120000, 0o160000)


def _present(repository: pygit2.Repository, oid: pygit2.Oid) -> bool:
    try:
        repository.odb.read_header(oid)
    except _ERRORS:
        return False
    return True


def read_git(path: str, source: str, key: str, root: str, config: IngestConfig) -> Iterator[RawFile]:
    """Regular files of HEAD; links and submodules are rejected by name, what is missing or too large by itself."""
    budget = Budget(config)
    repo = source
    try:
        with open_head(path, root) as (repository, head):
            rejected: list[RawFile] = []
            blobs: Blobs = {}
            try:
                for name, item in _walk(repository, head.tree, budget, rejected):
                    blobs.setdefault(name, item)
            except LimitError as error:
                rejected.append(RawFile("", "", "", rule="archive_limit", detail=str(error), index=-1))
            times, complete = last_commit_times(repository, head, blobs, budget)
            for raw in rejected:
                raw.source, raw.repo = source, repo
                yield raw
            for name, (mode, oid) in sorted(blobs.items()):
                raw = RawFile(source, repo, printable_text(name), commit_time=times.get(name), time_source="commit",
                              key=(key, name.decode("utf-8", "surrogateescape")))  # fmt: skip
                if not complete and raw.commit_time is None:
                    raw.odd.append("commit_time")
                _content(repository, raw, mode, oid, budget)
                yield raw
    except LimitError as error:
        yield RawFile(source, repo, "", rule="archive_limit", detail=str(error), index=-1)
    except _ERRORS as error:
        yield RawFile(source, repo, "", rule="unreadable_repository", detail=one_line(error), index=-1)


def _content(repository: pygit2.Repository, raw: RawFile, mode: int, oid: pygit2.Oid, budget: Budget) -> None:
    if mode in _SPECIAL:
        raw.rule, raw.detail = ("symlink", "") if mode == 0o120000 else ("not_a_file", "submodule")
        return
    try:
        # The header first: `repository[oid]` unpacks the object, however large.
        _, raw.size = repository.odb.read_header(oid)
        if raw.size > budget.member:
            raw.rule, raw.detail = "size_limit", f"{raw.size} bytes > {budget.member}"
            return
        budget.unpacked(raw.size)
        blob = repository[oid]
        if not isinstance(blob, pygit2.Blob):
            raise ValueError("not a blob")
        raw.data = blob.data
    except LimitError:
        raise
    except (*_ERRORS, MemoryError) as error:
        raw.rule, raw.detail = "unreadable", one_line(error)


def _tree(repository: pygit2.Repository, oid: pygit2.Oid) -> pygit2.Tree:
    """A tree of bounded size. Raises ValueError and what libgit2 raises."""
    _, size = repository.odb.read_header(oid)
    if size > _MAX_TREE:
        raise ValueError(f"a directory of {size} bytes > {_MAX_TREE}")
    tree = repository[oid]
    if not isinstance(tree, pygit2.Tree):
        raise ValueError("not a directory")
    return tree


def _walk(
    repository: pygit2.Repository, root: pygit2.Tree, budget: Budget, rejected: list[RawFile]
) -> Iterator[tuple[bytes, tuple[int, pygit2.Oid]]]:
    """Files below a tree; directories that cannot be read go into `rejected`. Raises LimitError."""
    stack: list[tuple[bytes, pygit2.Oid]] = [(b"", root.id)]
    while stack:
        prefix, oid = stack.pop()
        shown = printable_text(prefix[:MAX_NAME_BYTES])
        try:
            if len(prefix) > MAX_NAME_BYTES:
                raise ValueError(f"a path of more than {MAX_NAME_BYTES} bytes")
            tree = _tree(repository, oid)
        except _ERRORS as error:
            budget.entry()
            rejected.append(RawFile("", "", shown, rule="unreadable", detail=one_line(error), index=-2 - len(rejected)))
            continue
        for entry in tree:
            name = prefix + (entry.raw_name or b"")
            budget.entry(1 + len(name) // 256)
            if entry.filemode == pygit2.enums.FileMode.TREE:
                stack.append((name + b"/", entry.id))
            else:
                yield name, (int(entry.filemode), entry.id)


def last_commit_times(
    repository: pygit2.Repository, head: pygit2.Commit, blobs: Blobs, budget: Budget
) -> tuple[dict[bytes, int], bool]:
    """(seconds since 1970 of the last commit on HEAD's history in which each path got its present content, all found).

    Walks back from HEAD comparing tree ids, so unchanged subtrees cost nothing, and stops when every path is settled.
    A merge settles a path only if it differs from all its parents, as `git log` has it. Where history is corrupt or too large
    the times found so far stand.
    """
    pending = set(blobs)
    times: dict[bytes, int] = {}
    steps = [0]
    try:
        walker = repository.walk(head.id, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME)
        for commit in walker:
            if not pending:
                break
            budget.check_time()
            changed: set[bytes] | None = None
            parents = commit.parents
            for parent in parents or [None]:
                old = parent.tree_id if parent else None
                paths = _changed(repository, commit.tree_id, old, budget, steps)
                changed = paths if changed is None else changed & paths
                if not changed:
                    break
            for name in (changed or set()) & pending:
                times[name] = int(commit.commit_time)
                pending.discard(name)
    except (*_ERRORS, MemoryError):
        return times, False
    return times, True


def _changed(
    repository: pygit2.Repository, new: pygit2.Oid, old: pygit2.Oid | None, budget: Budget, steps: list[int]
) -> set[bytes]:
    """Paths below the tree `new` that are absent from `old` or differ there. Raises LimitError."""
    found: set[bytes] = set()
    stack: list[tuple[bytes, pygit2.Oid, pygit2.Oid | None]] = [(b"", new, old)]
    while stack:
        prefix, new, old = stack.pop()
        before = {entry.raw_name: entry for entry in _tree(repository, old)} if old is not None else {}
        for entry in _tree(repository, new):
            other = before.get(entry.raw_name)
            if other is not None and other.id == entry.id and other.filemode == entry.filemode:
                continue
            name = prefix + (entry.raw_name or b"")
            if entry.filemode == pygit2.enums.FileMode.TREE:
                same = other is not None and other.filemode == pygit2.enums.FileMode.TREE
                stack.append((name + b"/", entry.id, other.id if same and other is not None else None))
            else:
                found.add(name)
                steps[0] += 1
                if len(found) > budget.config.max_archive_entries or len(name) > 2 * MAX_NAME_BYTES:
                    raise LimitError("a commit changes too many paths")
    return found


__all__ = ["RepositoryError", "check", "has_work_tree", "is_repository", "last_commit_times", "read_git"]
