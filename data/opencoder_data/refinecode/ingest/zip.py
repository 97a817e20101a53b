"""zip by its central directory, read piece by piece: one bad name, member or size does not cost the others.

`zipfile` of the standard library holds the whole directory as objects and rejects an archive for one name.
"""

import bz2
import lzma
import struct
import zlib
from array import array
from bisect import bisect_right
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

from opencoder_data.refinecode.ingest.bounds import PIECE, Budget

_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_ENCRYPTED, _UTF8 = 0x1, 0x800
_LZMA_MEMORY = 256 << 20


class ZipError(ValueError):
    """The archive, or one member, cannot be read."""


@dataclass(slots=True)
class ZipEntry:
    """One entry of the central directory; `name` may hold surrogate escapes."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    date: tuple[int, ...]
    crc: int
    packed: int
    size: int
    offset: int
    external: int

    @property
    def is_link(self) -> bool:
        return (self.external >> 28) == 0o12

    def seconds(self) -> int | None:
        """Seconds since 1970; None where the date is not set or is none."""
        if self.date <= (1980, 1, 1, 0, 0, 0) or not 1 <= self.date[1] <= 12 or not 1 <= self.date[2] <= 31:
            return None
        return timegm((*self.date, 0, 0, 0))


class Zip:
    """Entries and members of an archive in a seekable file. Raises ZipError when it has no readable end record."""

    def __init__(self, handle: Any, budget: Budget):
        self._handle, self._budget = handle, budget
        self._handle.seek(0, 2)
        self.file_size = handle.tell()
        self._find_directory()
        offsets = array("Q", (e.offset for e in self.entries()))
        self._bounds = array("Q", sorted(offsets))
        budget.entries = 0

    def _at(self, offset: int, count: int) -> bytes:
        self._handle.seek(offset)
        return self._handle.read(count)

    def _find_directory(self) -> None:
        tail_at = max(0, self.file_size - _END.size - 65_535)
        tail = self._at(tail_at, _END.size + 65_535)
        found = tail.rfind(b"PK\5\6")
        while found >= 0 and found + _END.size > len(tail):
            found = tail.rfind(b"PK\5\6", 0, found)
        if found < 0:
            raise ZipError("no end record: not a zip archive, or cut off")
        _, disk, start_disk, _, self.count, self.size, offset, _ = _END.unpack_from(tail, found)
        at = tail_at + found
        if 0xFFFF in (self.count, disk) or 0xFFFFFFFF in (self.size, offset):
            at, disk, offset = self._zip64(at, disk, offset)
        if disk or start_disk not in (0, 0xFFFF):
            raise ZipError("one of several volumes of an archive")
        self.start = at - self.size
        # Data may stand before the archive; offsets then count from the archive's own beginning.
        self.before = self.start - offset
        if self.start < 0 or self.before < 0:
            raise ZipError("the end record points behind the end of the file")

    def _zip64(self, at: int, disk: int, offset: int) -> tuple[int, int, int]:
        locator = self._at(at - _LOCATOR.size, _LOCATOR.size) if at >= _LOCATOR.size else b""
        if locator[:4] != b"PK\6\7":
            return at, disk if disk != 0xFFFF else 0, offset
        where = at - _LOCATOR.size - _END64.size
        data = self._at(where, _END64.size) if where >= 0 else b""
        if data[:4] != b"PK\6\6":
            raise ZipError("corrupt zip64 end record")
        _, _, _, _, disk, _, _, self.count, self.size, offset = _END64.unpack(data)
        return where, disk, offset

    def entries(self) -> Iterator[ZipEntry]:
        """The central directory in its order. Raises ZipError where it is corrupt."""
        position, end = self.start, self.start + self.size
        buffer = b""
        while position < end or buffer:
            self._budget.entry()
            if len(buffer) < _ENTRY.size + 3 * 0xFFFF and position < end:
                piece = self._at(position, min(PIECE, end - position))
                position += len(piece)
                buffer += piece
            if len(buffer) < _ENTRY.size or buffer[:4] != b"PK\1\2":
                raise ZipError("corrupt central directory")
            fields = _ENTRY.unpack_from(buffer)
            name_end = _ENTRY.size + fields[10]
            extra_end = name_end + fields[11]
            name, extra = buffer[_ENTRY.size : name_end], buffer[name_end:extra_end]
            buffer = buffer[extra_end + fields[12] :]
            yield self._entry(fields, name, extra)

    def _entry(self, fields: tuple[Any, ...], name: bytes, extra: bytes) -> ZipEntry:
        flags, method, clock, day, crc, packed, size = fields[3:10]
        offset, text = fields[16], _name(name, flags)
        while len(extra) >= 4:
            kind, length = struct.unpack_from("<HH", extra)
            data, extra = extra[4 : 4 + length], extra[4 + length :]
            if kind == 1:
                wide = iter(struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]))
                size = next(wide, size) if size == 0xFFFFFFFF else size
                packed = next(wide, packed) if packed == 0xFFFFFFFF else packed
                offset = next(wide, offset) if offset == 0xFFFFFFFF else offset
            elif kind == 0x7075 and data[:1] == b"\1" and data[1:5] == zlib.crc32(name).to_bytes(4, "little"):
                text = data[5:].decode("utf-8", "surrogateescape") or text
        date = ((day >> 9) + 1980, (day >> 5) & 15, day & 31, clock >> 11, (clock >> 5) & 63, (clock & 31) * 2)
        # A name ends at NUL.
        return ZipEntry(text.split("\0", 1)[0], name, flags, method, date, crc, packed, size, offset, fields[15])

    def read(self, entry: ZipEntry) -> bytes:
        """The member's content, at most one byte more than the limit. Raises ZipError and what decompression raises."""
        if entry.flags & _ENCRYPTED:
            raise ZipError("encrypted")
        at = self.before + entry.offset
        header = self._at(at, _LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
            raise ZipError(f"no member at byte {at}")
        fields = _LOCAL.unpack(header)
        start = at + _LOCAL.size + fields[9] + fields[10]
        if self._at(at + _LOCAL.size, fields[9]) != entry.raw_name:
            raise ZipError("its own header has another name")
        if start + entry.packed > self._next(entry.offset):
            raise ZipError("overlaps the next member")
        self._handle.seek(start)
        limit = self._budget.member
        data = bytearray()
        for piece in self._unpacked(entry):
            self._budget.unpacked(len(piece))
            data += piece
            if len(data) > limit:
                return bytes(data[: limit + 1])
        if zlib.crc32(data) != entry.crc:
            raise ZipError("wrong checksum")
        return bytes(data)

    def _next(self, offset: int) -> int:
        """Where the next member begins, or the directory; `offset` itself when two entries share it."""
        after = bisect_right(self._bounds, offset)
        if after >= 2 and self._bounds[after - 2] == offset:
            return self.before + offset
        return self.before + self._bounds[after] if after < len(self._bounds) else self.start

    def _unpacked(self, entry: ZipEntry) -> Iterator[bytes]:
        left = entry.packed
        if entry.method == 93:
            # Its `decompressobj` knows no bound on what one call gives.
            reader = zstandard.ZstdDecompressor().stream_reader(_Slice(self._handle, left))  # pyright: ignore[reportArgumentType]
            while data := reader.read(PIECE):
                yield data
            return
        decoder = None if entry.method == 0 else self._decoder(entry)
        while left > 0:
            packed = self._handle.read(min(left, 1 << 16))
            if not packed:
                raise EOFError("the archive ends within it")
            left -= len(packed)
            if decoder is None:
                yield packed
                continue
            data = decoder(packed, PIECE)
            while data:
                yield data
                data = decoder(b"", PIECE)

    def _decoder(self, entry: ZipEntry) -> Any:
        """`decode(packed, limit) -> bytes`, called with b"" until nothing comes."""
        if entry.method == 8:
            inflate = zlib.decompressobj(-15)
            return lambda packed, limit: inflate.decompress(inflate.unconsumed_tail + packed, limit)
        if entry.method == 12:
            bunzip = bz2.BZ2Decompressor()
            return lambda packed, limit: b"" if bunzip.eof else bunzip.decompress(packed, limit)
        if entry.method == 14:
            return _lzma_decoder()
        if entry.method == 95:
            unxz = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
            return lambda packed, limit: b"" if unxz.eof else unxz.decompress(packed, limit)
        raise ZipError(f"compression method {entry.method}")


class _Slice:
    """The next `left` bytes of a file."""

    def __init__(self, handle: Any, left: int):
        self._handle, self._left = handle, left

    def read(self, count: int = -1) -> bytes:
        data = self._handle.read(min(self._left, count if count >= 0 else self._left, 1 << 16))
        self._left -= len(data)
        return data


def _lzma_decoder() -> Any:
    state: dict[str, Any] = {"head": b"", "decoder": None}

    def decode(packed: bytes, limit: int) -> bytes:
        if state["decoder"] is None:
            state["head"] += packed
            head = state["head"]
            if len(head) < 9:
                return b""
            length = int.from_bytes(head[2:4], "little")
            byte, dictionary = head[4], int.from_bytes(head[5:9], "little")
            if length != 5 or dictionary > _LZMA_MEMORY:
                raise ZipError(f"LZMA dictionary of {dictionary} bytes")
            lc, rest = byte % 9, byte // 9
            filters = [
                {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": rest % 5, "pb": rest // 5}
            ]
            state["decoder"] = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
            packed = head[9:]
        decoder = state["decoder"]
        return b"" if decoder.eof else decoder.decompress(packed, limit)

    return decode


def _name(name: bytes, flags: int) -> str:
    if flags & _UTF8:
        return name.decode("utf-8", "surrogateescape")
    return name.decode("cp437")
