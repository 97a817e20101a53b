"""The model card of an export: what the model is, and the record of its training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opencoder_jax import model as lm
from opencoder_jax.config import RunConfig
from opencoder_jax.overrides import leaves

TOKENIZER = """## Tokenizer

Nothing is put before or after a text (`add_bos_token: false`, `add_prefix_space: false`); batches are padded on the left.
`bos_token` is `<|endoftext|>`, for tools that need a token in front of a text without context: lm-eval takes it as its
prefix token. Training had nothing in front of a document: likelihoods of texts without any context are to be compared
among models of this project alone. `<s>` (id 1) never occurs in training: never put it in front of a prompt.

llama.cpp: its converter reads `tokenizer.model` as plain SentencePiece. The two settings above keep `<s>` and a space
from being put in front, but the text is not split into words first, as it was in training: pieces cross the borders of
words, numbers and indentation, and most files get other ids than the model was trained on, without a warning. For
scores and for serious use take transformers or vLLM, or give llama.cpp token ids made by this `tokenizer.json`."""


def model_card(config: RunConfig, record: dict[str, Any], checkpoint: Path, *, dtype: str) -> str:
    """Markdown with the front matter that model hubs read."""
    model, step = config.model, record["step"]
    tokens = step * config.data.global_batch_size * config.data.seq_len
    shape = [
        ("parameters", f"{lm.num_params(model):,}"),
        ("layers", model.num_layers),
        ("model dim", model.embed_dim),
        ("query / key-value heads", f"{model.num_query_heads} / {model.num_kv_heads} of {model.head_dim}"),
        ("feed-forward dim", model.ffn_dim),
        ("vocabulary", model.vocab_size),
        ("rotary base", f"{model.rope_theta:,.0f}"),
        ("context", model.max_seq_len),
        ("weights stored as", dtype),
    ]
    training = [
        ("steps of this run", f"{step:,}"),
        ("tokens of this run", f"{tokens:,}"),
        ("parameters inherited from", config.init_from or record.get("imported_from") or "none: drawn at random"),
        ("devices", record.get("devices", "?")),
        *((f"data fingerprint: {name}", value) for name, value in record["data"].items() if name != "position"),
        *((f"last {name}", value) for name, value in _last_metrics(checkpoint).items()),
        *((f"{name}, version", value) for name, value in record["versions"].items()),
    ]
    sections = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- code\n---",
        f"# {config.name}",
        "A decoder of the OpenCoder architecture (arXiv 2411.04905), trained with opencoder_jax.",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\nmodel = AutoModelForCausalLM.from_pretrained("PATH")\n```',
        TOKENIZER,
        "## Architecture",
        _rows(shape),
        "## Training record",
        _rows(training),
        "### Resolved configuration",
        "```\n" + "\n".join(f"{name}={value}" for name, value in leaves(config)) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _rows(pairs: list[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in pairs)])


def _last_metrics(checkpoint: Path) -> dict[str, Any]:
    """Training loss and held-out figures as last logged up to the checkpoint's step; empty without such files."""
    run_dir, step = checkpoint.parent.parent, int(checkpoint.name)
    last: dict[str, Any] = {}
    for row in _rows_until(run_dir / "metrics.jsonl", step):
        last |= {"loss": round(row["loss"], 4)} if row.get("loss") is not None else {}
    for row in _rows_until(run_dir / "eval.jsonl", step):
        figures = {k: round(v, 4) for k, v in row.items() if k not in ("step", "source") and isinstance(v, float)}
        last[f"evaluation on {row['source']}"] = ", ".join(f"{k} {v}" for k, v in figures.items())
    return last


def _rows_until(path: Path, step: int) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a line cut short when a run was killed
        if row.get("step", 0) <= step:
            yield row
