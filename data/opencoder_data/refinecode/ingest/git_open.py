"""Opens a Git repository without trusting it: nothing outside the input is read, nothing that its configuration names is done.

Git follows `.git` files, links, `commondir`, `objects/info/alternates`, `include.path` and `core.worktree` to any place. Here
libgit2 sees a repository of our own making in a temporary directory, with the input's object directories as its only data; HEAD
and references are read here, and configuration, hooks, index and work tree not at all.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pygit2

from opencoder_data.refinecode.ingest.git_loose import LooseObjects

_SMALL = 1 << 20
_PACKED_REFS = 256 << 20
_ID = re.compile(rb"[0-9a-f]{40}")
_FORMAT = re.compile(rb"(?im)^\s*objectformat\s*=\s*\"?([a-z0-9]+)")


class RepositoryError(ValueError):
    """A repository that cannot be read; the message says why."""


def is_repository(path: str) -> bool:
    """A work tree with .git, or a bare repository."""
    try:
        os.lstat(os.path.join(path, ".git"))
        return True
    except OSError:
        pass
    return all(os.path.exists(os.path.join(path, name)) for name in ("HEAD", "objects", "refs"))


def has_work_tree(path: str) -> bool:
    """Whether there are files to read beside the repository's own."""
    return os.path.lexists(os.path.join(path, ".git"))


@contextmanager
def open_head(path: str, root: str) -> Iterator[tuple[pygit2.Repository, pygit2.Commit]]:
    """The repository at `path` and the commit of its HEAD; `root` is the input, outside which nothing is read.

    Raises RepositoryError.
    """
    directory = _directory(path)
    objects = _object_directories(directory, os.path.realpath(root))
    _check_format(directory)
    head, name = _head(directory)
    _no_user_configuration()
    with tempfile.TemporaryDirectory(prefix="refinecode-git-") as own:
        for below in ("objects", "refs"):
            os.mkdir(os.path.join(own, below))
        _write(os.path.join(own, "config"), b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        _write(os.path.join(own, "HEAD"), head + b"\n")
        shallow = _read(os.path.join(directory, "shallow"), _PACKED_REFS)
        if shallow is not None:
            _write(os.path.join(own, "shallow"), b"".join(found + b"\n" for found in _ID.findall(shallow)))
        try:
            repository = pygit2.Repository(own)
            database = pygit2.Odb()
            for place in objects:
                database.add_backend(pygit2.OdbBackendPack(place), 2)
                database.add_backend(LooseObjects(place), 1)
            repository.set_odb(database)
            commit = repository[pygit2.Oid(hex=head.decode())].peel(pygit2.Commit)
            _ = commit.tree
        except (pygit2.GitError, KeyError, ValueError, OSError) as error:
            what = "is not in the repository" if isinstance(error, KeyError) else f"cannot be read ({error})"
            raise RepositoryError(f"the commit {head.decode()} of {name} {what}") from None
        try:
            yield repository, commit
        finally:
            repository.free()


@cache
def _no_user_configuration() -> None:
    """libgit2 looks for configuration of the user and the system: it has no say in what is read."""
    levels = pygit2.enums.ConfigLevel
    for level in (levels.GLOBAL, levels.XDG, levels.SYSTEM, levels.PROGRAMDATA):
        pygit2.option(pygit2.enums.Option.SET_SEARCH_PATH, level, "/nonexistent")


def _directory(path: str) -> str:
    """The repository's own directory: `path` itself or `path/.git`."""
    inner = os.path.join(path, ".git")
    try:
        mode = os.lstat(inner).st_mode
    except OSError:
        return path
    if stat.S_ISDIR(mode):
        return inner
    what = "a link" if stat.S_ISLNK(mode) else "a file"
    raise RepositoryError(f".git is {what} that names another place (a worktree or submodule), which is not read")


def _read(path: str, limit: int) -> bytes | None:
    """Content of a regular file that is not a link, or None. Raises RepositoryError when it is anything else, or larger."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RepositoryError(f"{os.path.basename(path)}: {error.strerror}; links are not followed") from None
    with open(handle, "rb") as file:
        info = os.fstat(handle)
        if stat.S_ISDIR(info.st_mode):
            return None
        if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
            raise RepositoryError(f"{os.path.basename(path)} is not a regular file of at most {limit} bytes")
        return file.read(limit)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _check_format(directory: str) -> None:
    config = _read(os.path.join(directory, "config"), _SMALL) or b""
    found = _FORMAT.search(config)
    if found and found[1].lower() != b"sha1":
        raise RepositoryError(f"its objects are named by {found[1].decode()}, not by SHA-1, which is not supported")


def _head(directory: str) -> tuple[bytes, str]:
    """(commit id in hex, the reference it comes from)."""
    name = b"HEAD"
    for _ in range(6):
        data = _read(os.path.join(os.fsencode(directory), name).decode("utf-8", "surrogateescape"), _SMALL)
        if data is None:
            data = _packed(directory, name)
        if data is None:
            break
        data = data.strip()
        if data.startswith(b"ref:"):
            name = data[4:].strip()
            pieces = name.split(b"/")
            if not name.startswith(b"refs/") or b"\0" in name or any(p in (b"", b".", b"..") for p in pieces):
                raise RepositoryError(f"HEAD names {name[:200].decode('utf-8', 'replace')!r}, which is not a reference")
            _check_no_links(directory, pieces[:-1])
        elif _ID.fullmatch(data):
            return data, name.decode("utf-8", "replace")
        elif re.fullmatch(rb"[0-9a-f]{64}", data):
            raise RepositoryError("its objects are named by SHA-256, not by SHA-1, which is not supported")
        else:
            raise RepositoryError(f"{name.decode('utf-8', 'replace')} holds no commit id")
    raise RepositoryError(f"HEAD names {name.decode('utf-8', 'replace')}, which does not exist{_others(directory)}")


def _others(directory: str) -> str:
    """What HEAD could name instead."""
    heads: list[str] = []
    top = os.path.join(directory, "refs", "heads")
    for where, _, names in os.walk(top):
        heads += [os.path.relpath(os.path.join(where, name), directory) for name in names]
    lines = (_read(os.path.join(directory, "packed-refs"), _PACKED_REFS) or b"").splitlines()
    heads += [line[41:].decode("utf-8", "replace") for line in lines if line[41:52] == b"refs/heads/"]
    if not heads:
        return " (nothing is committed)"
    return f"; it has {', '.join(sorted(set(heads))[:5])}: git symbolic-ref HEAD {min(heads)}"


def _check_no_links(directory: str, pieces: list[bytes]) -> None:
    place = os.fsencode(directory)
    for piece in pieces:
        place = os.path.join(place, piece)
        if os.path.islink(place):
            raise RepositoryError("its references lie behind a link, which is not followed")


def _packed(directory: str, name: bytes) -> bytes | None:
    for line in (_read(os.path.join(directory, "packed-refs"), _PACKED_REFS) or b"").splitlines():
        if line[41:] == name and line[40:41] == b" ":
            return line[:40]
    return None


def _object_directories(directory: str, root: str) -> list[str]:
    """The object directory and its alternates, all inside `root` and free of links."""
    if os.path.lexists(os.path.join(directory, "commondir")):
        raise RepositoryError("it is a worktree of another repository, which is not read")
    found: list[str] = []
    todo = [os.path.join(directory, "objects")]
    while todo:
        place = todo.pop(0)
        real = os.path.realpath(place)
        if not (real + "/").startswith(root.rstrip("/") + "/"):
            raise RepositoryError("its objects are outside the input (alternates or a link), where nothing is read")
        if real in found:
            continue
        found.append(real)
        if len(found) > 20:
            raise RepositoryError("more than 20 alternates")
        _check_regular(real)
        for line in (_read(os.path.join(real, "info", "alternates"), _SMALL) or b"").splitlines():
            if line and not line.startswith(b"#"):
                todo.append(os.path.join(real, os.fsdecode(line)))
    return found


def _check_regular(objects: str) -> None:
    """Nothing but directories and regular files, two levels deep, as Git makes them."""
    try:
        if os.path.islink(objects):
            raise RepositoryError("its objects lie behind a link, which is not followed")
        with os.scandir(objects) as outer:
            for entry in outer:
                if entry.is_symlink():
                    raise RepositoryError(f"objects/{entry.name} is a link, which is not followed")
                if not entry.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(entry.path) as inner:
                    for file in inner:
                        if file.is_symlink() or not (file.is_file() or file.is_dir()):
                            raise RepositoryError(
                                f"objects/{entry.name}/{file.name} is a link or a device, which is not read"
                            )
    except FileNotFoundError:
        raise RepositoryError("it has no objects") from None
    except OSError as error:
        raise RepositoryError(f"its objects cannot be read ({error.strerror})") from None
