"""A checkpoint as a release: a directory that PyTorch users load, or a GGUF file for llama.cpp, tensor by tensor.

    opencoder export --checkpoint=RUN --to=DIRECTORY [--dtype=bf16|fp16|fp32] [--tokenizer=PATH]
    opencoder export --checkpoint=RUN --to=FILE.gguf --format=gguf [--dtype=f16|q8_0|f32]

The directory is what `AutoModelForCausalLM` and `AutoTokenizer` load with no code of ours. It is written under another name
and renamed at the end: what has the given name is complete. `opencoder import` is the reverse.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from opencoder_data import command
from opencoder_data.tokenizer import TextTokenizer, Tokenizer

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import read_record, resolve
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.directory import complete_directory
from opencoder_jax.hf.fields import hf_config
from opencoder_jax.hf.importer import SETTINGS
from opencoder_jax.hf.model_card import model_card
from opencoder_jax.hf.safetensors_stream import Writer
from opencoder_jax.hf.stored import read_parameter, run_tokenizer
from opencoder_jax.overrides import from_dict

DTYPES = {
    "bf16": ("bfloat16", np.dtype(ml_dtypes.bfloat16)),
    "fp16": ("float16", np.dtype(np.float16)),
    "fp32": ("float32", np.dtype(np.float32)),
}


def export(
    checkpoint: str | Path,
    to: str | Path,
    *,
    dtype: str = "bf16",
    tokenizer: str | Path | None = None,
    max_shard_gb: float = 5.0,
) -> Path:
    """Writes a checkpoint as a Hugging Face model directory.

    Args:
      checkpoint: RUN (its newest valid checkpoint) or RUN/checkpoints/STEP.
      to: a directory that does not exist yet, or is empty.
      dtype: bf16, fp16 or fp32.
      tokenizer: tokenizer.model, tokenizer.json or their directory; default that of RUN. Without one the directory holds
        no tokenizer files.
      max_shard_gb: size of a safetensors file, in 10^9 bytes.

    Returns: the directory. Memory: one parameter (all layers' matrices of one kind) in fp32 and one tensor.
    Raises: ValueError in one line for what the user can change; nothing is left behind then.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype={dtype}: choose {' or '.join(DTYPES)}")
    source = resolve(checkpoint)
    record = read_record(source)
    config = from_dict(record["config"])
    spelled = run_tokenizer(tokenizer, source, record, config.model.vocab_size)
    name, kind = DTYPES[dtype]
    rows = hf.table(config.model)
    with complete_directory(Path(to), lm.num_params(config.model) * kind.itemsize) as directory:
        # Files in the order a reader expects: embedding, layer after layer, norm, output.
        shapes = {row.name: row.shape for row in sorted(rows, key=_file_order)}
        with Writer(directory, shapes, kind, int(max_shard_gb * 1e9)) as writer:
            for path, group in hf.grouped(rows).items():
                whole = read_parameter(source, path)
                for row in group:
                    tensor = row.to_hf(whole if row.layer is None else whole[row.layer])
                    if kind == np.float16 and np.abs(tensor).max() > np.finfo(np.float16).max:
                        raise ValueError(
                            f"{row.name} has values above fp16's largest, 65504; take --dtype=bf16 or fp32"
                        )
                    writer.write(row.name, tensor)
                del whole  # before the next one is read
        first, stops = _ends(spelled)
        fields = hf_config(config.model, dtype=name, bos_token_id=first, eos_token_id=stops[0] if stops else None)
        generation = {"bos_token_id": first, "eos_token_id": stops, "do_sample": False}
        if spelled:
            generation["pad_token_id"] = spelled.pad_id
            _write_tokenizer(spelled, directory, config.model.max_seq_len)
        _write_json(directory / "config.json", fields)
        _write_json(directory / "generation_config.json", generation)
        card = model_card(config, record, source, dtype=name, rate=_gguf_rate(spelled, config.model.vocab_size))
        (directory / "README.md").write_text(card, encoding="utf-8")
    return Path(to)


def _file_order(row: hf.Tensor) -> tuple[int, int]:
    rank = 1 if row.layer is not None else 0 if row.path == ("embed",) else 2
    return rank, row.layer or 0


def _ends(tokenizer: TextTokenizer | None) -> tuple[int | None, list[int] | None]:
    """bos_token_id and the tokens that end generation.

    The first is as in the tokenizer; the published configuration has SentencePiece's <s> there, which no model was trained
    on. Documents of pre-training end with <|endoftext|>, turns of a chat with <|im_end|>: both stop generation, the second
    is `eos_token`.
    """
    if tokenizer is None:
        return None, None
    name = {i: text for text, i in tokenizer.special_ids.items()}
    first = next((i for i in tokenizer.special_ids.values() if name[i] == tokenizer.bos_token), None)
    return first, sorted(tokenizer.end_ids, key=lambda i: name.get(i) != tokenizer.eos_token)


def _gguf_rate(tokenizer: TextTokenizer | None, num_rows: int) -> str | None:
    """What a GGUF file of a tokenizer of ours gives, for the model card."""
    if not isinstance(tokenizer, Tokenizer):
        return None
    from opencoder_data.tokenizer.export_gguf import sample_rate

    return str(sample_rate(tokenizer, num_rows))


def _write_tokenizer(tokenizer: TextTokenizer, directory: Path, model_max_length: int) -> None:
    if isinstance(tokenizer, Tokenizer):
        from opencoder_data.tokenizer.export_hf import export_hf

        export_hf(tokenizer, directory, model_max_length=model_max_length)
        return
    for name in (tokenizer.path.name, *SETTINGS):
        if tokenizer.path.with_name(name).is_file():
            shutil.copyfile(tokenizer.path.with_name(name), directory / name)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    return command.run(
        lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written, the same command begins anew"
    )


def _main(arguments: list[str]) -> int:
    parser = command.Parser(
        prog="opencoder export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--to", required=True, help="directory to make, or the GGUF file")
    parser.add_argument(
        "--format", default="hf", choices=["hf", "gguf"], help="hf (default): a directory of safetensors"
    )
    parser.add_argument("--dtype", help="hf: bf16 (default), fp16 or fp32; gguf: f16 (default), q8_0 or f32")
    parser.add_argument("--tokenizer", help="tokenizer.model or tokenizer.json (default: that of RUN)")
    parser.add_argument("--max_shard_gb", type=float, help="hf: size of a file in 10^9 bytes (default 5)")
    args = parser.parse_args(arguments)
    if args.format == "gguf":
        from opencoder_jax.hf.gguf_export import export_gguf

        if args.max_shard_gb is not None:
            raise ValueError("--max_shard_gb: a GGUF export is one file; leave it out")
        print(export_gguf(args.checkpoint, args.to, dtype=args.dtype or "f16", tokenizer=args.tokenizer))
        return 0
    options = {"dtype": args.dtype or "bf16", "tokenizer": args.tokenizer}
    directory = export(args.checkpoint, args.to, max_shard_gb=args.max_shard_gb or 5.0, **options)
    print(f"model directory: {directory}")
    if not (directory / "tokenizer.json").exists():
        print("warning: no tokenizer files: give --tokenizer", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
