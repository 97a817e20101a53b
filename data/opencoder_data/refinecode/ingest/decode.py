"""Bytes to text: UTF-8, byte-order marks, legacy encodings by detection (`legacy`); binary content is rejected."""

from typing import NamedTuple

from opencoder_data.refinecode.ingest import legacy

_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class Decoded(NamedTuple):
    """`text` is None when the bytes were rejected; then `rule` and `detail` say why."""

    text: str | None
    encoding: str
    rule: str = ""
    detail: str = ""


def decode(data: bytes) -> Decoded:
    """Text of a source file.

    A UTF-8 byte-order mark is removed. Bytes with NUL that carry no UTF-16 or UTF-32 mark are binary, as Git has it.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError as error:
                return Decoded(None, encoding, "undecodable", f"{encoding} mark, then {error.reason}")
            if "\0" in text:
                return Decoded(None, encoding, "binary", "NUL characters")
            return Decoded(text, encoding)
    position = data.find(b"\0")
    if position >= 0:
        return Decoded(None, "binary", "binary", f"NUL byte at {position}")
    try:
        if data.startswith(b"\xef\xbb\xbf"):
            return Decoded(data[3:].decode("utf-8"), "utf-8-sig")
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError as error:
        first_bad = error.start
    return _legacy(data, first_bad)


def _legacy(data: bytes, first_bad: int) -> Decoded:
    control = sum(data.count(bytes([c])) for c in (*range(1, 9), *range(14, 27), *range(28, 32), 127))
    if control > max(4, len(data) // 200):
        return Decoded(None, "binary", "binary", f"{control} control bytes")
    # Bytes beyond ASCII that are UTF-8 after all: if as many characters are as are not, or, in an encoding of one byte, some
    # that chance does not explain, the file is corrupt or mixed UTF-8. A replacement character would go unseen into what is trained on, and
    # another encoding would change every character, so it is rejected.
    beyond = [c for c in data.decode("utf-8", "replace") if not c.isascii()]
    bad = beyond.count("\ufffd")
    meant = sum(c != "\ufffd" and (ord(c) >= 0x800 or legacy.usual(c)) for c in beyond)
    if meant >= bad:
        return Decoded(None, "utf-8", "undecodable", f"UTF-8, but not at byte {first_bad} and in {bad} places in all")
    encoding = legacy.detect(data)
    if encoding is not None and not legacy.is_wide(encoding) and meant > 0.05 * bad:
        return Decoded(None, "mixed", "undecodable", f"UTF-8 and {encoding} in one file; not UTF-8 at byte {first_bad}")
    if encoding is not None:
        try:
            return Decoded(data.decode(encoding), encoding)
        except UnicodeDecodeError:
            pass
    return Decoded(None, "unknown", "undecodable", f"no encoding fits; not UTF-8 at byte {first_bad}")
