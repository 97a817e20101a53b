"""Encoding speed on one core: the fast encoder against SentencePiece, same words, same ids, alternating.

    python scripts/benchmarks/bench_encode.py --input DIRECTORY [--tokenizer PATH] [--vocab_size 96640] [--mb 20]

Without `--input` the code of this Python (standard library and installed packages) is read; without `--tokenizer` one is
trained on it. SentencePiece appears twice: as the reference tokenizer runs it, on the words of the split, and given
whole documents without the split (other ids, no Python between words): its own best speed. The fast encoder is timed on
texts it has not seen ("first pass": a fresh encoder for each round) and again ("second pass": its word cache is warm).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from opencoder_data.documents import open_corpus
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.fast import FastEncoder
from opencoder_data.tokenizer.train import train

CODE = (
    ".py",
    ".pyi",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".hpp",
    ".js",
    ".ts",
    ".css",
    ".html",
    ".md",
    ".rst",
    ".sh",
    ".java",
    ".go",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="*", default=[sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")])
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--vocab_size", type=int, default=96_640)
    parser.add_argument("--mb", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    texts = read(args.input)
    print(f"corpus: {len(texts)} files, {size(texts):.1f} MB")
    with tempfile.TemporaryDirectory() as directory:
        path = args.tokenizer or train(texts, args.vocab_size, directory, progress=False)
        tokenizer = Tokenizer(path)
    sample = take(texts, args.mb)
    print(f"{tokenizer.vocab_size} tokens; timed on {len(sample)} files, {size(sample):.1f} MB, one core")

    reference = tokenizer.encode_batch(sample)
    different = sum(
        not np.array_equal(a, b) for a, b in zip(reference, FastEncoder(tokenizer).encode_batch(sample), strict=True)
    )
    print(f"documents whose ids differ from SentencePiece's: {different} of {len(sample)}")
    num_tokens = sum(map(len, reference))

    whole: Any = tokenizer._sentencepiece
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        fresh = FastEncoder(tokenizer)
        runs: dict[str, Callable[[], object]] = {
            f"{fresh.engine}, first pass": lambda fresh=fresh: in_batches(fresh, sample),
            "SentencePiece on words": lambda: tokenizer.encode_batch(sample),
            f"{fresh.engine}, second pass": lambda fresh=fresh: in_batches(fresh, sample),
            "SentencePiece on whole documents": lambda: [whole.encode(text) for text in sample],
        }
        for name, run in runs.items():
            start = time.process_time()
            run()
            rates.setdefault(name, []).append(size(sample) / (time.process_time() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        tokens = rate / size(sample) * num_tokens / 1e6
        print(
            f"{name:34s} {rate:7.1f} MB/s  {tokens:6.2f} M tokens/s per core  ({min(rates[name]):.1f} to {max(rates[name]):.1f})"
        )
    best = max(rate for name, rate in medians.items() if name.startswith("SentencePiece"))
    first = next(rate for name, rate in medians.items() if name.endswith("first pass"))
    print(f"ratio of the first pass to SentencePiece's better figure: {first / best:.1f}x")


def read(inputs: Sequence[str]) -> list[str]:
    documents = open_corpus(inputs, format="files").documents()
    return [d.text for d in documents if d.path.endswith(CODE) and len(d.text) < 1 << 20]


def take(texts: Sequence[str], megabytes: float) -> list[str]:
    """A random part of the corpus."""
    order = np.random.default_rng(0).permutation(len(texts))
    taken: list[str] = []
    left = megabytes * 1e6
    for i in order.tolist():
        if left <= 0:
            break
        taken.append(texts[int(i)])
        left -= len(taken[-1].encode())
    return taken


def size(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def in_batches(encoder: FastEncoder, texts: Sequence[str], chars: int = 1 << 20) -> list[np.ndarray]:
    """As the packer calls it."""
    result, batch, filled = [], [], 0
    for text in texts:
        batch.append(text)
        filled += len(text)
        if filled >= chars:
            result += encoder.encode_batch(batch)
            batch, filled = [], 0
    return result + encoder.encode_batch(batch)


if __name__ == "__main__":
    main()
