"""Compressed streams: all of the data, or an error, wherever they are cut."""

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from opencoder_data.compressed import ERRORS, decompressed


def zstd_of(data, frame_bytes=None, **parameters):
    compressor = zstandard.ZstdCompressor(**parameters)
    size = frame_bytes or len(data) or 1
    return b"".join(compressor.compress(data[i : i + size]) for i in range(0, max(len(data), 1), size))


def streamed(data, **parameters):
    """Without the size of the content in its header."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(**parameters).stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


def texts():
    rng = random.Random(0)
    noise = rng.randbytes(70_000)
    words = b" ".join(rng.choices([b"alpha", b"beta", b"gamma", b"delta"], k=60_000))
    return [b"", b"x", words, noise, b"\0" * 1_000_000, words + noise + b"\0" * 200_000]


@pytest.mark.parametrize("data", texts(), ids=["empty", "one byte", "words", "noise", "zeros", "mixed"])
@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zstd_of,
        streamed,
        lambda d: zstd_of(d, write_checksum=True, level=19),
        lambda d: zstd_of(d, 10_000, write_content_size=False),
        lambda d: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd_of(d) + b"\x5f\x2a\x4d\x18\0\0\0\0",
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "streamed", "checksum", "frames", "skippable"],
)
def test_whole_streams_give_their_data_and_cut_ones_an_error(compress, data):
    packed = compress(data)
    assert decompressed(io.BytesIO(packed)).read() == data
    rng = random.Random(len(packed))
    places = {len(packed) - 1, 7, *(rng.randrange(7, len(packed)) for _ in range(20))}
    lengths = boundaries(packed)
    for place in places - lengths:
        with pytest.raises(ERRORS):
            decompressed(io.BytesIO(packed[:place])).read()
    for place in lengths:
        assert data.startswith(decompressed(io.BytesIO(packed[:place])).read())


def boundaries(packed):
    """Ends of the zstd frames inside a stream, by the library that decompresses one frame at a time."""
    found, at = set(), 0
    while packed[at : at + 4] == b"\x28\xb5\x2f\xfd" or packed[at + 1 : at + 4] == b"\x2a\x4d\x18":
        if packed[at + 1 : at + 4] == b"\x2a\x4d\x18":
            at += 8 + int.from_bytes(packed[at + 4 : at + 8], "little")
        else:
            frame = zstandard.ZstdDecompressor().decompressobj()
            frame.decompress(packed[at:])
            at = len(packed) - len(frame.unused_data)
        if at < len(packed):
            found.add(at)
    return found


def test_small_reads_and_data_beyond_are_told_apart():
    """Read in odd pieces; what is not compressed passes as it is."""
    data = texts()[-1]
    stream = decompressed(io.BytesIO(zstd_of(data, 50_000)))
    pieces = iter(lambda: stream.read(977), b"")
    assert b"".join(pieces) == data
    plain = io.BufferedReader(io.BytesIO(b"plain"))
    assert decompressed(plain) is plain
