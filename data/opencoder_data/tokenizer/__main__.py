"""`python -m opencoder_data.tokenizer train --input DIRECTORY --vocab_size 96640 --output DIRECTORY`; `... info PATH`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from opencoder_data import command
from opencoder_data.tokenizer.model import Tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    return command.run(
        lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written, the same command begins anew"
    )


def _main(arguments: Sequence[str] | None) -> int:
    parser = command.Parser(prog="python -m opencoder_data.tokenizer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a SentencePiece model on a corpus")
    train.add_argument("--input", nargs="+", required=True, help="Parquet, JSON lines, or directories of text files")
    train.add_argument("--vocab_size", type=int, required=True, help="rows of the embedding, a multiple of 128")
    train.add_argument("--output", required=True, help="directory for tokenizer.model")
    train.add_argument("--format", default="auto", help="auto, parquet, jsonl or files")
    train.add_argument("--text_column", default="", help="default: content, else text")
    train.add_argument("--max_mb", type=float, default=0, help="stop reading after so much text (0: all)")
    train.add_argument("--character_coverage", type=float, default=0.9995)
    train.add_argument("--num_threads", type=int, default=0, help="0: all cores")
    info = commands.add_parser("info", help="describe a tokenizer")
    info.add_argument("path")
    args = parser.parse_args(arguments)
    if args.command == "train":
        _train(args)
    else:
        print(_describe(Tokenizer(args.path)))
    return 0


def _train(args: argparse.Namespace) -> None:
    from opencoder_data.documents import Columns, Skipped, open_corpus
    from opencoder_data.tokenizer.train import train

    corpus = open_corpus(args.input, format=args.format, columns=Columns(text=args.text_column))
    skipped = Skipped()
    path = train(
        (document.text for document in corpus.documents(skipped)),
        args.vocab_size,
        args.output,
        max_bytes=int(args.max_mb * 1e6),
        character_coverage=args.character_coverage,
        num_threads=args.num_threads,
    )
    for reason, count in skipped.counts.items():
        print(f"left out {count} documents: {reason}")
    print(_describe(Tokenizer(path)))


def _describe(tokenizer: Tokenizer) -> str:
    first = tokenizer.num_pieces
    unused = tokenizer.vocab_size - first - len(tokenizer.special_ids)
    return (
        f"{tokenizer.path}: {first} pieces, special tokens {first} to {first + len(tokenizer.special_ids) - 1}, "
        f"{unused} unused rows, vocab_size {tokenizer.vocab_size}, hash {tokenizer.hash}"
    )


if __name__ == "__main__":
    command.end(main())
