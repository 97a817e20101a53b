"""Bytes to text by the encoding that the source declares, as in The Stack v2."""

import codecs

from opencoder_data.refinecode.ingest.decode import Decoded

# Their text is ASCII bytes with escapes: it would pass for UTF-8.
_SEVEN_BITS = ("iso2022", "hz", "utf-7")


def decode_declared(data: bytes, name: str) -> Decoded | None:
    """Text in the encoding `name`, a codec of Python; None where the bytes say otherwise and detection must decide.

    Valid UTF-8 with a letter beyond ASCII is UTF-8 whatever is declared; bytes that do not fit the declaration contradict it.
    """
    wide = name.startswith(("utf-16", "utf-32"))
    if not wide and b"\0" in data:
        return None
    if not wide and not name.startswith(_SEVEN_BITS):
        try:
            data.decode("utf-8")
            return None
        except UnicodeDecodeError:
            pass
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    try:
        text = data.decode(name)
    except (UnicodeError, ValueError):
        return None
    if "\0" in text:
        return Decoded(None, name, "binary", "NUL characters")
    return Decoded(text, name)
