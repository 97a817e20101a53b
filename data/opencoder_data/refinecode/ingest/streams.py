"""Decompression as a stream: by the first bytes of the data, not its name; concatenated streams are one."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any

import zstandard

from opencoder_data.refinecode.ingest.bounds import PIECE, Budget

XZ_MEMORY = 256 << 20
"""Memory for one xz stream: its header may ask for 4 GiB; `xz -9` takes 65 MiB."""
ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What corrupt compressed data raises."""


def decompressed(handle: Any) -> Any:
    """Binary stream of what `handle` holds: gzip, bzip2, xz, zstd or plain."""
    plain = io.BufferedReader(handle) if not isinstance(handle, io.BufferedReader) else handle
    magic = plain.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(plain)
    if magic.startswith(b"BZh"):
        return bz2.open(plain)
    if magic.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(_Xz(plain), PIECE)
    if magic.startswith(b"\x28\xb5\x2f\xfd") or (magic[1:4] == b"\x2a\x4d\x18" and magic[:1] in b"PQRSTUVWXYZ[\\]^_"):
        reader = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
        return io.BufferedReader(reader, PIECE)  # pyright: ignore[reportArgumentType]
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
                self._rest = self._decoder.unused_data or self._handle.read(PIECE)
                # Streams may be padded with NUL.
                while self._rest and not self._rest.strip(b"\0"):
                    self._rest = self._handle.read(PIECE)
                self._rest = self._rest.lstrip(b"\0")
                if not self._rest:
                    return 0
                self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            elif self._decoder.needs_input and not self._rest:
                self._rest = self._handle.read(PIECE)
                if not self._rest:
                    raise EOFError("compressed data ends before the end of the stream")
            data = self._decoder.decompress(self._rest, len(buffer))
            self._rest = b""
            if data:
                buffer[: len(data)] = data
                return len(data)


class Counted:
    """A stream that charges a budget for all that passes; `position` in bytes."""

    def __init__(self, stream: Any, budget: Budget):
        self._stream, self._budget, self.position = stream, budget, 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only at the end. `count` must be small."""
        data = self._stream.read(count)
        self.position += len(data)
        self._budget.unpacked(len(data))
        return data

    def skip(self, count: int) -> int:
        """Pass over `count` bytes; how many were there."""
        left = count
        while left > 0 and (data := self.read(min(left, PIECE))):
            left -= len(data)
        return count - left
