"""Encodes a corpus and packs it into token shards: `python -m opencoder_data.pack --input ... --tokenizer ... --output ...`

Every unit of input (see `documents`) becomes shard files of its own in `OUTPUT/.work`, made by one process and complete
once its `done.json` stands; at the end the files are renamed into place and the manifests written. A killed run goes on
where it was when started again; the result depends on input, tokenizer and options alone, byte for byte.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from opencoder_data import command
from opencoder_data.documents import Columns, Corpus, Document, Skipped, Unit, open_corpus
from opencoder_data.shard_format import Manifest, Shard, ShardWriter, read_manifest, write_atomically
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.fast import FastEncoder

_WORK = ".work"
_DONE = "done.json"
_SUMMARY = "pack.json"
_BATCH_CHARS = 1 << 20
_SAMPLE_CHARS = 1 << 20
_STOPPED = "stopped by Ctrl-C; the same command goes on with the units that are missing"


@dataclass(frozen=True)
class PackOptions:
    """What decides about the bytes of the result, besides the input and the tokenizer."""

    seq_len: int = 4_096
    source: str = ""
    # One shard directory per language instead of one for all.
    by_language: bool = False
    # Share of the documents, chosen by a hash of their text, that goes to holdout/LANGUAGE, the rest to train.
    holdout: float = 0.0
    # Text per unit, so per shard file.
    unit_mb: int = 64


@dataclass(frozen=True)
class _Job:
    corpus: Corpus
    tokenizer: str
    engine: str
    options: PackOptions
    work: str


def pack(
    inputs: Sequence[str | os.PathLike[str]],
    tokenizer_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: PackOptions | None = None,
    *,
    format: str = "auto",
    columns: Columns | None = None,
    num_workers: int = 0,
    engine: str = "auto",
    progress: bool = True,
) -> dict[str, Manifest]:
    """Packs `inputs` into shard directories under `output`; returns their manifests by directory (`.` for `output` itself).

    Args:
        num_workers: processes; 0: one per core. Without effect on the result.
        engine: encoder, see `FastEncoder`; without effect on the result.

    Raises: ValueError for input that is missing or does not read, or an output directory begun with other input.
    """
    options = options or PackOptions()
    if options.seq_len < 1 or not 0 <= options.holdout < 1 or options.unit_mb < 1:
        raise ValueError(f"seq_len and unit_mb must be positive and holdout in [0, 1), got {options}")
    tokenizer = Tokenizer(tokenizer_path)
    corpus = open_corpus(inputs, format=format, columns=columns, unit_bytes=options.unit_mb << 20)
    output = Path(output)
    identity = _identity(corpus, tokenizer, options)
    if finished := _finished(output, identity):
        return finished
    work = output / _WORK
    encoder = FastEncoder(tokenizer, _sample(corpus), engine)
    _begin(output, work, identity)
    job = _Job(corpus, os.fspath(tokenizer.path), encoder.engine, options, str(work))
    pending = [i for i in range(len(corpus.units)) if not (_unit_directory(work, i) / _DONE).exists()]
    num_workers = min(num_workers or os.cpu_count() or 1, max(len(pending), 1))
    options_of_bar = {"unit": "B", "unit_scale": True, "desc": "packing", "disable": not progress}
    with command.progress(corpus.num_bytes, **options_of_bar) as bar:
        bar.set_postfix_str(f"{encoder.engine}, {num_workers} processes")
        bar.update(corpus.num_bytes - sum(corpus.units[i].num_bytes for i in pending))
        for done in _run(job, encoder, pending, num_workers):
            bar.update(corpus.units[done].num_bytes)
    manifests, skipped = _assemble(output, work, len(corpus.units), options, tokenizer)
    if not manifests:
        shutil.rmtree(work)
        raise ValueError(f"{', '.join(map(str, inputs))}: holds no document with text")
    summary = {
        "identity": identity,
        "options": dataclasses.asdict(options),
        "tokenizer_hash": tokenizer.hash,
        "directories": sorted(manifests),
        "skipped": skipped,
    }
    write_atomically(output / _SUMMARY, json.dumps(summary, indent=1).encode() + b"\n")
    shutil.rmtree(work)
    return manifests


def _identity(corpus: Corpus, tokenizer: Tokenizer, options: PackOptions) -> str:
    what = [
        corpus.format,
        dataclasses.asdict(corpus.columns),
        corpus.files,
        tokenizer.hash,
        dataclasses.asdict(options),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _finished(output: Path, identity: str) -> dict[str, Manifest] | None:
    with contextlib.suppress(FileNotFoundError):
        summary = json.loads((output / _SUMMARY).read_text())
        if summary["identity"] != identity:
            raise ValueError(
                f"{output}: holds shards of other input, tokenizer or options; remove it or choose another"
            )
        shutil.rmtree(output / _WORK, ignore_errors=True)  # of a run that was stopped while it removed it
        return {directory: read_manifest(output / directory) for directory in summary["directories"]}
    return None


def _begin(output: Path, work: Path, identity: str) -> None:
    if work.is_dir():
        begun = (work / "identity").read_text() if (work / "identity").exists() else identity
        if begun != identity:
            if any(work.glob(f"*/{_DONE}")):
                raise ValueError(
                    f"{output}: begun with other input, tokenizer or options; remove {work} or choose another directory"
                )
            shutil.rmtree(work)
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output}: not empty; choose another directory")
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(work / "identity", identity.encode())


def _sample(corpus: Corpus) -> list[str]:
    """Texts from units all over the corpus."""
    texts: list[str] = []
    chosen = corpus.units[:: max(1, len(corpus.units) // 8)]
    for unit in chosen:
        space = _SAMPLE_CHARS // len(chosen)
        for document in corpus.read(unit):
            texts.append(document.text[:space])
            space -= len(document.text)
            if space <= 0:
                break
    return texts


def _run(job: _Job, encoder: FastEncoder, pending: Sequence[int], num_workers: int) -> Iterator[int]:
    """Encodes the pending units; yields the number of each when it is complete."""
    if num_workers == 1:
        for number in pending:
            _encode_unit(job, encoder, number)
            yield number
        return
    # Not fork: the parent may hold threads of the encoder, of Arrow or of its caller.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, (job,)) as pool:
        try:
            with command.starting_workers():
                futures = [pool.submit(_encode_in_worker, number) for number in pending]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                "a packing process died (out of memory?); run the same command again with fewer --num_workers to go on"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            command.kill_workers()  # what they had begun is encoded anew
            raise


_worker: tuple[_Job, FastEncoder] | None = None


def _start_worker(job: _Job) -> None:
    global _worker
    command.start_worker()
    _worker = job, FastEncoder(Tokenizer(job.tokenizer), engine=job.engine)


def _encode_in_worker(number: int) -> int:
    assert _worker is not None
    _encode_unit(*_worker, number)
    return number


def _unit_directory(work: str | Path, number: int) -> Path:
    return Path(work) / f"unit-{number:06d}"


def _encode_unit(job: _Job, encoder: FastEncoder, number: int) -> None:
    """Writes the shards of one unit and, last, its done.json; on failure nothing of it stays."""
    directory = _unit_directory(job.work, number)
    shutil.rmtree(directory, ignore_errors=True)
    tokenizer = encoder.tokenizer
    skipped = Skipped()
    writers: dict[str, ShardWriter] = {}
    try:
        with contextlib.ExitStack() as stack:
            for batch in _batches(job.corpus, job.corpus.units[number], skipped):
                encoded = encoder.encode_batch([document.text for document in batch])
                for document, ids in zip(batch, encoded, strict=True):
                    route, language = _route(document, job.options)
                    if route not in writers:
                        writers[route] = stack.enter_context(
                            ShardWriter(
                                directory / route,
                                seq_len=job.options.seq_len,
                                vocab_size=tokenizer.vocab_size,
                                tokenizer_hash=tokenizer.hash,
                                pad_id=tokenizer.pad_id,
                                source=job.options.source,
                                language=language,
                                records_per_shard=sys.maxsize,
                            )
                        )
                    ids = np.append(ids, np.uint32(tokenizer.endoftext_id))
                    writers[route].add(ids, text_bytes=len(document.text.encode()))
        directory.mkdir(parents=True, exist_ok=True)
        done = {"routes": sorted(writers), "skipped": skipped.counts}
        write_atomically(directory / _DONE, json.dumps(done).encode())
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _batches(corpus: Corpus, unit: Unit, skipped: Skipped) -> Iterator[list[Document]]:
    batch: list[Document] = []
    chars = 0
    for document in corpus.read(unit, skipped):
        batch.append(document)
        chars += len(document.text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _route(document: Document, options: PackOptions) -> tuple[str, str]:
    """Directory below the output for a document, and the language to name in its manifest."""
    held_out = options.holdout and xxhash.xxh3_64_intdigest(document.text.encode()) < options.holdout * 2**64
    if options.by_language or held_out:
        name = re.sub(r"[^\w.+#-]", "_", document.language).strip(".") or "unknown"
        return f"holdout/{name}" if held_out else f"train/{name}" if options.holdout else name, document.language
    return "train" if options.holdout else ".", ""


def _assemble(
    output: Path, work: Path, num_units: int, options: PackOptions, tokenizer: Tokenizer
) -> tuple[dict[str, Manifest], dict[str, int]]:
    """Renames the units' shards into place, in order, and writes the manifests; may be killed and repeated."""
    parts: dict[str, list[tuple[Path, Manifest]]] = {}
    skipped: dict[str, int] = {}
    for number in range(num_units):
        directory = _unit_directory(work, number)
        done = json.loads((directory / _DONE).read_text())
        for route in done["routes"]:
            parts.setdefault(route, []).append((directory / route, read_manifest(directory / route)))
        for reason, count in done["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    manifests = {}
    for route, unit_manifests in sorted(parts.items()):
        target = output / route
        target.mkdir(parents=True, exist_ok=True)
        shards: list[Shard] = []
        for directory, manifest in unit_manifests:
            for shard in manifest.shards:
                name = f"shard-{len(shards):05d}.bin"
                # Already gone: an earlier attempt was stopped after this rename.
                with contextlib.suppress(FileNotFoundError):
                    (directory / shard.file).rename(target / name)
                shards.append(dataclasses.replace(shard, file=name))
        each = [manifest for _, manifest in unit_manifests]
        manifests[route] = Manifest(
            seq_len=options.seq_len,
            vocab_size=tokenizer.vocab_size,
            tokenizer_hash=tokenizer.hash,
            num_records=sum(m.num_records for m in each),
            num_tokens=sum(m.num_tokens for m in each),
            num_documents=sum(m.num_documents for m in each),
            text_bytes=sum(m.text_bytes for m in each),
            source=options.source,
            language=each[0].language,
            shards=tuple(shards),
        )
        manifests[route].write(target)
    return manifests, skipped


def main(arguments: Sequence[str] | None = None) -> int:
    return command.run(lambda: _main(arguments), stopped=_STOPPED)


def _main(arguments: Sequence[str] | None) -> int:
    parser = command.Parser(prog="python -m opencoder_data.pack", description=__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="Parquet, JSON lines, or directories of text files")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.model or its directory")
    parser.add_argument("--output", required=True, help="directory for the shards")
    parser.add_argument("--seq_len", type=int, default=PackOptions.seq_len, help="T; records hold T+1 tokens")
    parser.add_argument("--source", default="", help="name of the source, kept in the manifest")
    parser.add_argument("--by_language", action="store_true", help="one shard directory per language")
    parser.add_argument("--holdout", type=float, default=0.0, help="share of documents for holdout/LANGUAGE")
    parser.add_argument("--unit_mb", type=int, default=PackOptions.unit_mb, help="MiB of text per shard file")
    parser.add_argument("--format", default="auto", help="auto, parquet, jsonl or files")
    parser.add_argument("--text_column", default="", help="default: content, else text")
    parser.add_argument("--language_column", default=Columns.language)
    parser.add_argument("--path_column", default=Columns.path)
    parser.add_argument("--num_workers", type=int, default=0, help="processes (0: one per core)")
    parser.add_argument("--engine", default="auto", help="auto, gigatoken or sentencepiece")
    args = parser.parse_args(arguments)
    options = PackOptions(args.seq_len, args.source, args.by_language, args.holdout, args.unit_mb)
    columns = Columns(args.text_column, args.language_column, args.path_column)
    manifests = pack(
        args.input,
        args.tokenizer,
        args.output,
        options,
        format=args.format,
        columns=columns,
        num_workers=args.num_workers,
        engine=args.engine,
    )
    for route, m in sorted(manifests.items()):
        size = sum(shard.num_bytes for shard in m.shards)
        print(
            f"{Path(args.output, route)}: {m.num_documents:,} documents, {m.text_bytes:,} bytes, {m.num_tokens:,} tokens, "
            f"{m.num_records:,} records in {len(m.shards)} shards ({size:,} bytes)"
        )
    for reason, count in json.loads((Path(args.output) / _SUMMARY).read_text())["skipped"].items():
        print(f"left out {count} documents: {reason}")
    return 0


if __name__ == "__main__":
    command.end(main())
