"""Loose objects of a Git repository, read here: libgit2 never returns from one that is cut off, and unpacks one of any size."""

import os
import zlib

import pygit2

_TYPES = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}
_MAX_BYTES = 1 << 30


class LooseObjects(pygit2.OdbBackend):
    """The objects below `directory`, a directory `objects`, as a backend of an object database."""

    def __init__(self, directory: str):
        super().__init__()
        self._directory = directory

    def _path(self, oid: pygit2.Oid) -> str:
        name = str(oid)
        return os.path.join(self._directory, name[:2], name[2:])

    def _open(self, oid: pygit2.Oid) -> tuple[int, int, bytes, "zlib._Decompress", int]:
        """(type, size, content so far, decompressor, file); KeyError where there is none."""
        try:
            handle = os.open(self._path(oid), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise KeyError(str(oid)) from None
        try:
            inflate = zlib.decompressobj()
            head, separator, rest = inflate.decompress(os.read(handle, 4096), 64).partition(b"\0")
            kind, _, size = head.partition(b" ")
            if not separator or kind not in _TYPES or not size.isdigit():
                raise ValueError("not a loose object")
            return _TYPES[kind], int(size), rest, inflate, handle
        except (zlib.error, ValueError, OSError) as error:
            os.close(handle)
            raise ValueError(f"object {oid} is corrupt: {error}") from None

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        """(type, size in bytes)."""
        kind, size, _, _, handle = self._open(oid)
        os.close(handle)
        return kind, size

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        """(type, content). Raises ValueError where it is corrupt or larger than 1 GiB."""
        kind, size, rest, inflate, handle = self._open(oid)
        with open(handle, "rb") as file:
            if size > _MAX_BYTES:
                raise ValueError(f"object {oid} has {size} bytes")
            data = bytearray(rest)
            try:
                packed = inflate.unconsumed_tail
                while len(data) <= size and not inflate.eof:
                    packed = packed or file.read(1 << 16)
                    piece = inflate.decompress(packed, size + 1 - len(data))
                    if not piece and not packed:
                        break
                    data += piece
                    packed = inflate.unconsumed_tail
            except zlib.error as error:
                raise ValueError(f"object {oid} is corrupt: {error}") from None
        if len(data) != size:
            raise ValueError(f"object {oid} is corrupt: {len(data)} of {size} bytes")
        return kind, bytes(data)

    def read_prefix_cb(self, oid: pygit2.Oid) -> tuple[int, bytes, pygit2.Oid]:
        """As `read_cb`; ids are always whole here."""
        whole = pygit2.Oid(hex=str(oid))
        return (*self.read_cb(whole), whole)

    def exists_prefix_cb(self, oid: pygit2.Oid) -> pygit2.Oid:
        """The same id. Raises KeyError."""
        if not self.exists_cb(oid):
            raise KeyError(str(oid))
        return pygit2.Oid(hex=str(oid))

    def exists_cb(self, oid: pygit2.Oid) -> bool:
        return os.path.isfile(self._path(oid))

    def refresh_cb(self) -> None:
        """Nothing is cached."""
