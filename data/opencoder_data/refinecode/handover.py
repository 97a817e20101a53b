"""Stage 9: a finished run as token shards with mixture weights.

``python -m opencoder_data.refinecode.handover --run DIR --tokenizer MODEL --output SHARDS`` packs the documents into one
shard folder per language and writes `mixture.json`: for each folder its tokens and its weight, the share of the tokens.
Weights that follow the sizes after sampling give each file the same number of passes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from opencoder_data.pack import PackOptions, pack
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.report.collect import open_run


def hand_over(
    output: str, tokenizer: str, shards: str, *, seq_len: int = 4_096, holdout: float = 0.0, num_workers: int = 0
) -> dict[str, Any]:
    """Packs the documents of the run in `output`; returns and writes the mixture.

    Raises ValueError when the run is not finished or the shard folder belongs to other input.
    """
    run = open_run(output)
    options = PackOptions(seq_len=seq_len, by_language=True, holdout=holdout)
    manifests = pack(
        [storage.join(output, "documents")], tokenizer, shards, options, format="parquet", num_workers=num_workers,
        progress=run.config.engine.progress,
    )  # fmt: skip
    train = {f: m for f, m in manifests.items() if not f.startswith("holdout/")}
    total = sum(m.num_tokens for m in train.values())
    mixture = {
        "tokens": total,
        "sources": [
            {"path": str(Path(shards) / folder), "tokens": m.num_tokens, "weight": m.num_tokens / total}
            for folder, m in sorted(train.items(), key=lambda kv: (-kv[1].num_tokens, kv[0]))
        ],
    }
    storage.write_json(storage.join(shards, "mixture.json"), mixture)
    return mixture


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m opencoder_data.refinecode.handover", description=__doc__)
    parser.add_argument("--run", required=True, metavar="DIR", help="output folder of a finished run")
    parser.add_argument("--tokenizer", required=True, metavar="MODEL")
    parser.add_argument("--output", required=True, metavar="SHARDS")
    parser.add_argument("--seq_len", type=int, default=4_096)
    parser.add_argument("--holdout", type=float, default=0.0, help="share of the documents kept out of training")
    arguments = parser.parse_args(argv)
    try:
        mixture = hand_over(
            arguments.run.rstrip("/"),
            arguments.tokenizer,
            arguments.output,
            seq_len=arguments.seq_len,
            holdout=arguments.holdout,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("--data.sources=" + ",".join(f"{s['path']}:{s['weight']:.6g}" for s in mixture["sources"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
