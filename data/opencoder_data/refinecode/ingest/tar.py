"""tar as a stream of members: POSIX, pax, GNU; concatenated archives; every header bounded before it is read.

`tarfile` of the standard library reads name and attribute headers of any size into memory, ends in silence at a corrupt header
and at the end of the first of several archives, so only its parser of the 512-byte header is used.
"""

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from opencoder_data.refinecode.ingest.bounds import MAX_HEADER_BYTES, Budget
from opencoder_data.refinecode.ingest.raw_file import printable_text
from opencoder_data.refinecode.ingest.streams import ERRORS, Counted

_BLOCK = 512
_EXTENSIONS = {
    tarfile.GNUTYPE_LONGNAME: "name", tarfile.GNUTYPE_LONGLINK: "name of the link", tarfile.XHDTYPE: "pax header",
    tarfile.SOLARIS_XHDTYPE: "pax header", tarfile.XGLTYPE: "global pax header",
}  # fmt: skip
_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
_KINDS = {
    tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device", tarfile.FIFOTYPE: "fifo",
    b"M": "rest of a file that begins in another volume", b"V": "volume label", b"D": "list of a directory",
}  # fmt: skip


@dataclass(slots=True)
class TarMember:
    """One member. One of `data`, `rule` and `link` is set; `link` names the target of a hard link."""

    name: str
    mtime: float | None = None
    size: int = 0
    data: bytes | None = None
    rule: str = ""
    detail: str = ""
    link: str | None = None
    odd: list[str] = field(default_factory=list)


class TarError(ValueError):
    """The archive cannot be read on from here."""


def members(stream: Counted, budget: Budget, only: Collection[str] | None = None) -> Iterator[TarMember]:
    """Members but directories, of all archives in the stream one after another; `only`: the regular files of these names.

    Raises TarError where the archive is corrupt or ends too early, LimitError, and what decompression raises.
    """
    reader = _Reader(stream, budget, only)
    while (block := reader.next_header()) is not None:
        yield from reader.member(*block)


class _Reader:
    def __init__(self, stream: Counted, budget: Budget, only: Collection[str] | None):
        self.stream, self.budget, self.only = stream, budget, only
        self.everywhere: dict[str, str] = {}  # of global pax headers
        self.pax: dict[str, str] = {}
        self.odd: list[str] = []

    def next_header(self) -> tuple[tarfile.TarInfo, bytes] | None:
        """The next header; None at the end. Blocks of NUL end an archive, after which another one may follow."""
        ended = False
        while True:
            at = self.stream.position
            try:
                block = self.stream.read(_BLOCK)
            except ERRORS as error:
                if ended:
                    raise TarError(f"data behind the end of the archive: {error}") from None
                raise
            if not block:
                if at == 0:
                    raise TarError("empty file")
                return None
            if not block.strip(b"\0"):
                ended, self.everywhere, self.pax = True, {}, {}
                continue
            self.budget.entry()
            what = "data behind the end of the archive" if ended else "corrupt header" if at else "not a tar archive"
            if len(block) < _BLOCK:
                raise TarError(f"{what}: {len(block)} bytes at byte {at} are not a header")
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                raise TarError(f"{what} at byte {at}: {error}") from None
            if info.size < 0:
                raise TarError(f"{what} at byte {at}: negative size")
            return info, block

    def member(self, info: tarfile.TarInfo, block: bytes) -> Iterator[TarMember]:
        if info.type in _EXTENSIONS:
            yield from self._extension(info)
            return
        pax, odd = {**self.everywhere, **self.pax}, self.odd
        self.pax, self.odd = {}, []
        name = pax.get("GNU.sparse.name") or pax.get("path") or info.name
        member = TarMember(name.rstrip("/"), info.mtime, odd=odd)
        link = pax.get("linkpath", info.linkname)
        size = _integer(pax["size"]) if "size" in pax else info.size
        if size is None:
            raise TarError(f"{_shown(name)} declares the size {pax['size'][:40]!r}")
        try:
            member.mtime = float(pax.get("mtime", info.mtime))
        except ValueError:
            member.mtime, odd = None, [*odd, "commit_time"]
        if info.type == tarfile.DIRTYPE:
            return
        if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            if info.type == tarfile.LNKTYPE:
                member.link = link.rstrip("/")
            else:
                member.rule, member.detail = "symlink", printable_text(link)
            if self.only is None:
                yield member
        elif info.isreg():
            real = size
            if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
                real, size = self._sparse(info, block, size, pax)
            yield from self._regular(member, size, real)
        else:
            member.rule, member.detail = "not_a_file", _KINDS.get(info.type, printable_text(link))
            if self.only is None:
                yield member
            if info.type not in _NO_DATA:
                self._over(size, 0, name)

    def _regular(self, member: TarMember, size: int, real: int) -> Iterator[TarMember]:
        """`size` bytes are stored of a file of `real` bytes; fewer when it is sparse."""
        found = 0
        if self.only is not None and member.name not in self.only:
            pass
        elif real > self.budget.member or size > self.budget.member:
            found = self.stream.skip(size)
            member.size, member.rule = min(found, size), "size_limit"
            member.detail = f"declares {real} bytes > {self.budget.member}"
            yield member
        elif size != real:
            found = self.stream.skip(size)
            member.size, member.rule, member.detail = found, "binary", "a sparse file: NUL bytes in its holes"
            yield member
        else:
            member.data = self.stream.read(size)
            found = member.size = len(member.data)
            if found == size:
                yield member
        self._over(size, found, member.name)

    def _over(self, size: int, found: int, name: str) -> None:
        """Pass over what is left of a member after `found` bytes; only padding may be missing at the end."""
        found += self.stream.skip(size - found)
        if found < size:
            raise TarError(f"{_shown(name)} ends {size - found} bytes before its declared size")
        self.stream.skip(-size % _BLOCK)

    def _extension(self, info: tarfile.TarInfo) -> Iterator[TarMember]:
        """A header that describes the next member, or all that follow."""
        what = _EXTENSIONS[info.type]
        if info.size > MAX_HEADER_BYTES:
            if self.only is None:
                detail = f"{what} of {info.size} bytes > {MAX_HEADER_BYTES}; the next member goes without"
                yield TarMember(info.name, rule="size_limit", detail=detail)
            self._over(info.size, 0, info.name)
            return
        data = self.stream.read(info.size)
        self._over(info.size, len(data), info.name)
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            key = "path" if info.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            self.pax.setdefault(key, data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
            return
        records = self.everywhere if info.type == tarfile.XGLTYPE else self.pax
        if not _pax_records(data, records):
            self.odd = [*self.odd, "pax header"]

    def _sparse(self, info: tarfile.TarInfo, block: bytes, size: int, pax: dict[str, str]) -> tuple[int, int]:
        """(bytes of the file, bytes stored after the map) of a GNU sparse member."""
        if info.type == tarfile.GNUTYPE_SPARSE:
            more = block[482]
            while more:
                self.budget.entry()
                piece = self.stream.read(_BLOCK)
                if len(piece) < _BLOCK:
                    raise TarError(f"{_shown(info.name)}: the map of a sparse file is cut off")
                more = piece[504]
            try:
                return _octal(block[483:495]), size
            except ValueError:
                raise TarError(f"{_shown(info.name)}: corrupt header of a sparse file") from None
        real = _integer(pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size", "")))
        if real is None:
            raise TarError(f"{_shown(info.name)}: a sparse file without its size")
        if pax.get("GNU.sparse.major") == "1":  # the map precedes the data: a count, then two numbers for each piece
            read = lines = 0
            wanted = None
            first = b""
            while wanted is None or lines < wanted:
                piece = self.stream.read(_BLOCK)
                read += len(piece)
                first = first + piece if wanted is None else first
                lines += piece.count(b"\n")
                if wanted is None and b"\n" in first:
                    count = _integer(first.split(b"\n", 1)[0].decode("latin-1"))
                    wanted = None if count is None else 1 + 2 * count
                if len(piece) < _BLOCK or read > min(size, MAX_HEADER_BYTES) or (wanted is None and b"\n" in first):
                    raise TarError(f"{_shown(info.name)}: corrupt map of a sparse file")
            size -= read
        return real, size


def _shown(name: str) -> str:
    return printable_text(name)[:200]


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _octal(data: bytes) -> int:
    """A number of a header: octal text, or big-endian binary marked by the highest bit."""
    if data[0] & 0x80:
        return int.from_bytes(data, "big") & ((1 << (8 * len(data) - 1)) - 1)
    return int(data.split(b"\0", 1)[0].strip() or b"0", 8)


def _pax_records(data: bytes, into: dict[str, str]) -> bool:
    """Records `LENGTH KEY=VALUE\\n`; False when the rest cannot be read."""
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 20)
        digits = data[position : max(space, position)]
        end = position + int(digits) if digits.isdigit() else 0
        if space < 0 or end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n":
            return False
        key, separator, value = data[space + 1 : end - 1].partition(b"=")
        if not separator:
            return False
        into[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    return True
