"""Decompression as a stream: by the first bytes of the data, not its name; concatenated streams are one."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any

import zstandard

_PIECE = 1 << 18
XZ_MEMORY = 256 << 20
"""Memory for one xz stream: its header may ask for 4 GiB; `xz -9` takes 65 MiB."""
ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What corrupt compressed data raises."""


def decompressed(handle: Any) -> Any:
    """Binary stream of what `handle` holds: gzip, bzip2, xz, zstd or plain (then a buffered `handle`)."""
    plain = io.BufferedReader(handle) if not isinstance(handle, io.BufferedReader) else handle
    magic = plain.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(plain)
    if magic.startswith(b"BZh"):
        return bz2.open(plain)
    if magic.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(_Xz(plain), _PIECE)
    if magic.startswith(b"\x28\xb5\x2f\xfd") or (magic[1:4] == b"\x2a\x4d\x18" and magic[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return io.BufferedReader(_Zstd(plain), _PIECE)
    return plain


class _Xz(io.RawIOBase):
    """`lzma.open` with a bound on memory."""

    def __init__(self, handle: Any):
        self._handle = handle
        self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decoder.eof:
                self._rest = self._decoder.unused_data or self._handle.read(_PIECE)
                # Streams may be padded with NUL.
                while self._rest and not self._rest.strip(b"\0"):
                    self._rest = self._handle.read(_PIECE)
                self._rest = self._rest.lstrip(b"\0")
                if not self._rest:
                    return 0
                self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            elif self._decoder.needs_input and not self._rest:
                self._rest = self._handle.read(_PIECE)
                if not self._rest:
                    raise EOFError("compressed data ends before the end of the stream")
            data = self._decoder.decompress(self._rest, len(buffer))
            self._rest = b""
            if data:
                buffer[: len(data)] = data
                return len(data)


class _Zstd(io.RawIOBase):
    """All frames of a zstd stream. The library's reader takes data that ends in the middle of a frame for whole: here it is an
    EOFError."""

    def __init__(self, handle: Any):
        self._frames = _Frames(handle)
        reader = zstandard.ZstdDecompressor().stream_reader(self._frames, read_across_frames=True)  # pyright: ignore[reportArgumentType]
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._reader.readinto(buffer)
        if not count and not self._frames.whole:
            raise EOFError("compressed data ends before the end of the stream")
        return count


class _Frames:
    """Passes zstd data on and follows its structure (RFC 8878, section 3.1): magic, header, blocks, checksum."""

    def __init__(self, handle: Any):
        self._handle = handle
        self._head = b""  # of what is looked at next
        self._skip = 0  # bytes until then
        self._in_frame = self._checksum = False

    @property
    def whole(self) -> bool:
        """Whether the data so far ends with a frame."""
        return not (self._in_frame or self._head or self._skip)

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - at)
                self._skip, at = self._skip - passed, at + passed
                continue
            need = 3 if self._in_frame else 5 if self._head[1:4] != b"\x2a\x4d\x18" else 8
            taken = data[at : at + max(need - len(self._head), 1)]
            self._head, at = self._head + taken, at + len(taken)
            if self._in_frame and len(self._head) == 3:
                self._block(int.from_bytes(self._head, "little"))
            elif not self._in_frame and len(self._head) == 8:
                self._skip, self._head = int.from_bytes(self._head[4:], "little"), b""  # a frame to be skipped
            elif not self._in_frame and len(self._head) == 5 and self._head[1:4] != b"\x2a\x4d\x18":
                self._frame(self._head[4])

    def _frame(self, descriptor: int) -> None:
        """The rest of a frame's header, by its first byte."""
        single, content = descriptor >> 5 & 1, descriptor >> 6
        self._checksum = bool(descriptor >> 2 & 1)
        self._skip = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[content]
        self._in_frame, self._head = True, b""

    def _block(self, header: int) -> None:
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        self._skip = 1 if kind == 1 else size  # one byte that is repeated, or as many as there are
        if last:
            self._skip += 4 * self._checksum
            self._in_frame = False
        self._head = b""
