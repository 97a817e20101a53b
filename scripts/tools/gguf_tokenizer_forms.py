"""How many documents get the tokenizer's own ids from llama.cpp, for each form that a GGUF file can give the tokenizer.

    python scripts/tools/gguf_tokenizer_forms.py --tokenizer=PATH [--input=DIRECTORY] [--characters=1000000]

Forms: spm (plain SentencePiece, nothing put in front), llama-bpe (byte-level BPE with the cl100k split; a word that is a
token is taken whole) and dbrx (the same split, words always merged). The default input is this Python's standard library.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from clients import client
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.export_gguf import gguf_fields, sample
from opencoder_data.tokenizer.special_tokens import ENDOFTEXT

from opencoder_jax.hf.gguf_export import add_field


def spm_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """As llama.cpp's own converter writes a tokenizer.model, with both prefix flags off."""
    special = list(tokenizer.special_ids)
    pieces = tokenizer.proto.pieces
    pad = [f"[PAD{i}]" for i in range(len(pieces) + len(special), tokenizer.vocab_size)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [p.piece for p in pieces] + special + pad,
        "tokenizer.ggml.scores": [p.score for p in pieces] + [-1000.0] * (len(special) + len(pad)),
        "tokenizer.ggml.token_type": [p.type for p in pieces] + [3] * len(special) + [5] * len(pad),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.eos_token_id": tokenizer.special_ids[ENDOFTEXT],
    }


def write(path: Path, fields: dict[str, Any]) -> None:
    """A GGUF file without tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(fields["tokenizer.ggml.tokens"]))
    for name in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{name}", 64)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, value in fields.items():
        add_field(writer, name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def documents(directory: str | None, characters: int) -> list[str]:
    if directory is None:
        return list(sample(characters))
    texts = []
    for path in sorted(p for p in Path(directory).rglob("*") if p.is_file()):
        texts.append(path.read_text(encoding="utf-8", errors="ignore"))
        if sum(map(len, texts)) >= characters:
            break
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--input")
    parser.add_argument("--characters", type=int, default=1_000_000)
    args = parser.parse_args()
    tokenizer = Tokenizer(args.tokenizer)
    texts = documents(args.input, args.characters)
    expected = [tokenizer.encode(text) for text in texts]
    print(
        f"{tokenizer}: {len(texts)} documents, {sum(map(len, texts)):,} characters, {sum(map(len, expected)):,} tokens"
    )
    bpe = gguf_fields(tokenizer, tokenizer.vocab_size)
    forms = {"spm": spm_fields(tokenizer), "llama-bpe": bpe, "dbrx": bpe | {"tokenizer.ggml.pre": "dbrx"}}
    with tempfile.TemporaryDirectory() as work:
        for name, fields in forms.items():
            write(path := Path(work, f"{name}.gguf"), fields)
            start = time.perf_counter()
            found = client.call("tokenize", path, texts=texts)["ids"]
            same = [a == b for a, b in zip(found, expected, strict=True)]
            ids = [(_differing(a, b), len(b)) for a, b in zip(found, expected, strict=True)]
            wrong = sum(n for n, _ in ids) / sum(n for _, n in ids)
            print(f"{name}: {sum(same)} of {len(texts)} documents identical, {wrong:.4%} of tokens differ ({time.perf_counter() - start:.1f} s)")  # fmt: skip
            pairs = ((a, b) for a, b in zip(found, expected, strict=True) if a != b)
            for a, b in list(pairs)[:3]:
                at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                near = tokenizer.decode(b[max(0, at - 3) : at + 4])
                print(f"  first difference in a document, near {near!r}: {a[at : at + 4]} for {b[at : at + 4]}")


def _differing(a: list[int], b: list[int]) -> int:
    """Tokens of b that are not in the common prefix or suffix of a and b: an upper bound of what differs."""
    n = min(len(a), len(b))
    equal = np.array(a[:n]) == np.array(b[:n])
    first = int(np.argmin(equal)) if not equal.all() else n
    back = np.array(a[len(a) - n :])[::-1] == np.array(b[len(b) - n :])[::-1]
    last = int(np.argmin(back)) if not back.all() else n
    return max(0, len(b) - first - last)


if __name__ == "__main__":
    main()
