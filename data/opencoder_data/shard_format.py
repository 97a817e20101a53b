"""The token shards: the one thing that data pipeline and trainer share. Needs numpy and xxhash.

A shard directory holds `manifest.json` and `shard-00000.bin`, `shard-00001.bin`, ...: little-endian uint32 records
[num_records, T + 1] without header, so that record i is a slice of a memory map (random reads at a gigatoken a second).
Records are cut from the concatenated documents with stride T: neighbours share one token, every token is a target once.

Bit 31 of a token: it starts a document. Bit 30: it is not a target (padding, prompts). Bits 0-29: its id.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import xxhash

FORMAT_VERSION = 1
DOCUMENT_START = np.uint32(1 << 31)
NOT_A_TARGET = np.uint32(1 << 30)
TOKEN_ID = np.uint32((1 << 30) - 1)
MANIFEST = "manifest.json"
VERIFY_MODES = ("full", "size", "always")
_READ_BYTES = 8 << 20
_MAX_MAPS = 256


@dataclass(frozen=True)
class Shard:
    """One file: records in it, its size in bytes and its xxh3-64 checksum (hex)."""

    file: str
    num_records: int
    num_bytes: int
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """What a shard directory holds.

    num_tokens counts the documents' tokens (end-of-text included, padding not), text_bytes their UTF-8 size; language
    is empty for a mixture.
    """

    seq_len: int
    vocab_size: int
    tokenizer_hash: str
    num_records: int
    num_tokens: int
    num_documents: int
    text_bytes: int
    source: str
    language: str = ""
    shards: tuple[Shard, ...] = field(default=())
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """Changes with any byte of any shard, with the tokenizer, and with the order of the records."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Writes manifest.json: last, synced and by rename, so that a directory with a manifest is complete."""
        text = json.dumps(asdict(self) | {"fingerprint": self.fingerprint}, indent=1, ensure_ascii=False)
        write_atomically(Path(directory) / MANIFEST, text.encode() + b"\n")


class ShardWriter:
    """Packs documents into records of T + 1 tokens and writes them; a context manager.

    Files appear under their names only when complete, the manifest last: a killed writer leaves no directory that reads.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        seq_len: int,
        vocab_size: int,
        tokenizer_hash: str,
        pad_id: int,
        source: str = "",
        language: str = "",
        records_per_shard: int = 65_536,
    ):
        if vocab_size > int(TOKEN_ID):
            raise ValueError(f"vocab_size={vocab_size} does not fit the 30 bits of a token id")
        if not 0 <= pad_id < vocab_size:
            raise ValueError(f"pad_id={pad_id} is outside the vocabulary of {vocab_size}")
        self.directory = Path(directory)
        if (self.directory / MANIFEST).exists():
            raise ValueError(
                f"{self.directory}: holds a finished shard set already; choose another directory or remove it"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.glob("*.part"):
            left.unlink()
        self.seq_len, self.vocab_size, self.tokenizer_hash = seq_len, vocab_size, tokenizer_hash
        self.pad_id, self.source, self.language = pad_id, source, language
        self.records_per_shard = records_per_shard
        self._tail: list[np.ndarray] = []
        self._tail_len = 0
        self._shards: list[Shard] = []
        self._file = None
        self._in_shard = 0
        self._num_documents = self._num_tokens = self._text_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind, value, trace) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Removes what was written."""
        written = [self.directory / shard.file for shard in self._shards]
        if self._file is not None:
            written.append(Path(self._file.name))
            with contextlib.suppress(OSError):  # a full disk fails again when the buffer is flushed
                self._file.close()
        for path in written:
            path.unlink(missing_ok=True)

    def add(self, ids: np.ndarray, *, text_bytes: int, targets: np.ndarray | None = None) -> None:
        """Appends a document.

        Args:
          ids: integers [n], the end-of-document token included, in [0, vocab_size).
          text_bytes: UTF-8 size of its text.
          targets: bool [n], False where no loss is wanted (a prompt); default all True.
        """
        ids = np.asarray(ids)
        if ids.size == 0:
            return
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"token ids {ids.min()}..{ids.max()} are outside the vocabulary of {self.vocab_size}")
        marked = ids.astype(np.uint32)
        if targets is not None:
            marked[~targets] |= NOT_A_TARGET
        marked[0] |= DOCUMENT_START
        self._num_documents += 1
        self._num_tokens += ids.size
        self._text_bytes += text_bytes
        self._tail.append(marked)
        self._tail_len += marked.size
        if self._tail_len > max(self.seq_len, 1 << 20):
            self._flush()

    def _flush(self) -> None:
        """Writes every whole record that the tail holds, keeping the token shared with the next one."""
        stream = np.concatenate(self._tail) if self._tail else np.empty(0, np.uint32)
        T = self.seq_len
        count = max(0, (stream.size - 1) // T)
        if count:
            windows = np.lib.stride_tricks.sliding_window_view(stream[: count * T + 1], T + 1)[::T]
            self._write(windows)
        stream = stream[count * T :]
        self._tail, self._tail_len = [stream], stream.size

    def _write(self, records: np.ndarray) -> None:
        while len(records):
            if self._file is None:
                self._file = open(self.directory / f"shard-{len(self._shards):05d}.bin.part", "wb")  # noqa: SIM115
                self._hash, self._in_shard = xxhash.xxh3_64(), 0
            take = records[: self.records_per_shard - self._in_shard]
            raw = np.ascontiguousarray(take, dtype="<u4").tobytes()
            self._file.write(raw)
            self._hash.update(raw)
            self._in_shard += len(take)
            records = records[len(take) :]
            if self._in_shard == self.records_per_shard:
                self._finish_shard()

    def _finish_shard(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        part = Path(self._file.name)
        self._file.close()
        self._file = None
        final = part.with_suffix("")
        part.rename(final)
        self._shards.append(Shard(final.name, self._in_shard, final.stat().st_size, self._hash.hexdigest()))

    def close(self) -> Manifest:
        """Pads the last record (padding is not a target and a document of its own), writes the manifest, returns it."""
        self._flush()
        if self._tail_len > 1 or (self._tail_len == 1 and not self._shards and self._file is None):
            stream = self._tail[0]
            padded = np.full(self.seq_len + 1, np.uint32(self.pad_id) | NOT_A_TARGET, np.uint32)
            padded[stream.size :][:1] |= DOCUMENT_START
            padded[: stream.size] = stream
            self._write(padded[None])
        if self._file is not None:
            self._finish_shard()
        manifest = Manifest(
            seq_len=self.seq_len,
            vocab_size=self.vocab_size,
            tokenizer_hash=self.tokenizer_hash,
            num_records=sum(s.num_records for s in self._shards),
            num_tokens=self._num_tokens,
            num_documents=self._num_documents,
            text_bytes=self._text_bytes,
            source=self.source,
            language=self.language,
            shards=tuple(self._shards),
        )
        manifest.write(self.directory)
        return manifest


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Raises ValueError, naming the file, when there is no manifest or it is of another version or shape."""
    path = Path(directory) / MANIFEST
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path}: format version {fields.get('format_version')}, this program reads {FORMAT_VERSION}"
            )
        stated = fields.pop("fingerprint")
        fields["shards"] = tuple(Shard(**s) for s in fields["shards"])
        manifest = Manifest(**fields)
    except FileNotFoundError:
        why = "holds no finished shard set" if Path(directory).is_dir() else "no such directory"
        raise ValueError(f"{directory}: {why} (no {MANIFEST}); make it with `python -m opencoder_data.pack`") from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a shard manifest ({error}); pack the corpus again") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if stated != manifest.fingerprint:
        raise ValueError(f"{path}: corrupt or edited, its fingerprint does not fit; copy it or pack the corpus again")
    return manifest


def verify(directory: str | os.PathLike[str], manifest: Manifest, *, mode: str = "full") -> None:
    """Compares the files with the manifest.

    Args:
      mode: "size" compares lengths. "full" also compares checksums and token ids with the vocabulary, in parallel; files
        found good before, whose size, modification time and inode have not changed since, are not read again. "always"
        reads every file.

    Raises: ValueError naming the first file that is missing, cut short or changed or holds a token id beyond the
    manifest's vocabulary, or for an unknown mode.
    """
    if mode not in VERIFY_MODES:
        raise ValueError(f"verify={mode!r}: choose one of {', '.join(VERIFY_MODES)}")
    directory = Path(directory)
    for shard in manifest.shards:
        path = directory / shard.file
        if not path.exists():
            raise ValueError(f"{path}: missing; the manifest lists it. Pack the corpus again")
        size = path.stat().st_size
        if size != shard.num_bytes or size != shard.num_records * (manifest.seq_len + 1) * 4:
            raise ValueError(
                f"{path}: {size} bytes, the manifest says {shard.num_bytes}: cut short or changed. Copy or pack it again"
            )
    if mode == "size":
        return
    known = _KnownGood(directory, manifest.vocab_size)
    unread = [shard for shard in manifest.shards if mode == "always" or shard not in known]
    with ThreadPoolExecutor() as pool:
        for shard, (found, largest) in zip(
            unread, pool.map(lambda s: _checksum(directory / s.file), unread), strict=True
        ):
            if found != shard.xxh3:
                raise ValueError(
                    f"{directory / shard.file}: checksum {found}, the manifest says {shard.xxh3}: corrupt. "
                    "Copy or pack it again"
                )
            if largest >= manifest.vocab_size:
                raise ValueError(
                    f"{directory / shard.file}: holds token id {largest}, the manifest's vocabulary ends at "
                    f"{manifest.vocab_size - 1}: made with another tokenizer. Pack the corpus again"
                )
            known.add(shard)
    if unread:
        known.save()


class _KnownGood:
    """Shards of one directory whose checksum was right and whose ids were in the vocabulary, by size, modification time and
    inode; kept in the user's cache."""

    def __init__(self, directory: Path, vocab_size: int):
        self._directory, self._vocab_size = directory.resolve(), vocab_size
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(str(self._directory).encode()).hexdigest()[:16]
        self._path = cache / "opencoder" / "verified-shards" / f"{name}.json"
        self._entries: dict[str, list] = {}
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            self._entries = entries if isinstance(entries, dict) else {}

    def _stamp(self, shard: Shard) -> list:
        stat = (self._directory / shard.file).stat()
        return [shard.xxh3, stat.st_size, stat.st_mtime_ns, stat.st_ino, self._vocab_size]

    def __contains__(self, shard: Shard) -> bool:
        return self._entries.get(shard.file) == self._stamp(shard)

    def add(self, shard: Shard) -> None:
        self._entries[shard.file] = self._stamp(shard)

    def save(self) -> None:
        with contextlib.suppress(OSError):  # without it the next start reads the files again, no more
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self._entries).encode())


def _checksum(path: Path) -> tuple[str, int]:
    """(xxh3-64 in hex, largest token id) of a file of records."""
    digest, largest = xxhash.xxh3_64(), 0
    try:
        with path.open("rb", buffering=0) as file:
            block = bytearray(_READ_BYTES)
            ids = np.empty(_READ_BYTES // 4, np.uint32)
            while size := _fill(file, block):
                digest.update(memoryview(block)[:size])
                count = size // 4
                np.bitwise_and(np.frombuffer(block, "<u4", count), TOKEN_ID, out=ids[:count])
                largest = max(largest, int(ids[:count].max(initial=0)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return digest.hexdigest(), largest


def _fill(file: io.FileIO, block: bytearray) -> int:
    """Reads until the block is full or the file ends: a short read in between would cut a token in two."""
    size = 0
    while size < len(block) and (count := file.readinto(memoryview(block)[size:])):
        size += count
    return size


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it into place."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class ShardReader:
    """Random access to the records of a shard directory through memory maps."""

    def __init__(self, directory: str | os.PathLike[str], *, check: str = "full"):
        """check: full, size or always, see `verify`. Raises: ValueError as `read_manifest` and `verify` do."""
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        verify(directory, self.manifest, mode=check)
        self._ends = list(itertools.accumulate(s.num_records for s in self.manifest.shards))
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.manifest.num_records

    def __getitem__(self, index: int) -> np.ndarray:
        """Record `index`, uint32 [T + 1]: a view of the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.directory}")
        shard = bisect.bisect_right(self._ends, index)
        records = self._maps.get(shard)
        if records is None:
            records = self._map(shard)
        return records[index - (self._ends[shard - 1] if shard else 0)]

    def _map(self, shard: int) -> np.ndarray:
        """Maps a shard when it is read; keeps a bounded number, as each map holds an open file."""
        info = self.manifest.shards[shard]
        shape = (info.num_records, self.manifest.seq_len + 1)
        # A plain view: slicing np.memmap itself runs Python code each time.
        records = np.memmap(self.directory / info.file, "<u4", "r", shape=shape).view(np.ndarray)
        if len(self._maps) >= _MAX_MAPS:
            self._maps.pop(next(iter(self._maps)), None)
        self._maps[shard] = records
        return records

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": {}}

    def __repr__(self) -> str:
        return f"ShardReader({self.manifest.fingerprint})"

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))


# Arrays of a training batch, as `to_batch` makes them.
BATCH_FIELDS = ("tokens", "targets", "positions", "segment_ids", "loss_mask")


def to_batch(records: np.ndarray) -> dict[str, np.ndarray]:
    """Records uint32 [B, T+1] -> tokens, targets, positions, segment_ids int32 [B, T] and loss_mask bool [B, T].

    Segments count from 1 in each record; positions restart with each document. A target counts unless bit 30 is set or
    it starts a document (nothing in the document before foretells it).
    """
    ids = (records & TOKEN_ID).view(np.int32)
    num_rows, seq_len = records.shape[0], records.shape[1] - 1
    starts = records[:, :-1] >= DOCUMENT_START
    starts[:, 0] = True
    # Segments are few: repeating their numbers costs a fraction of running sums over every token.
    first = np.flatnonzero(starts)
    lengths = np.diff(first, append=num_rows * seq_len)
    segments_per_row = np.bincount(first // seq_len, minlength=num_rows)
    before = np.cumsum(segments_per_row) - segments_per_row
    numbers = np.arange(1, len(first) + 1) - np.repeat(before, segments_per_row)
    segment_ids = np.repeat(numbers.astype(np.int32), lengths).reshape(num_rows, seq_len)
    positions = np.arange(num_rows * seq_len, dtype=np.int32)
    positions -= np.repeat(first.astype(np.int32), lengths)
    positions = positions.reshape(num_rows, seq_len)
    return {
        "tokens": ids[:, :-1],
        "targets": ids[:, 1:],
        "positions": positions,
        "segment_ids": segment_ids,
        "loss_mask": records[:, 1:] < NOT_A_TARGET,
    }
