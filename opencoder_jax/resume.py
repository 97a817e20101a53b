"""What a run inherits from a checkpoint: its own, when it is resumed, or another run's, when it starts from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from opencoder_jax import overrides
from opencoder_jax.checkpoint import load_state, read_record, resolve
from opencoder_jax.config import RunConfig
from opencoder_jax.step import State, TrainStep


def warm_start(config: RunConfig, ts: TrainStep, tokenizer_hash: str, say: Callable[[str], object]) -> State:
    """Parameters and optimizer state of another run's last checkpoint, counters from 0: annealing and tuning start so.

    Says which fields of the model changed. Raises: ValueError when there is none, or it is of another architecture or
    another tokenizer.
    """
    checkpoint = resolve(config.init_from)
    record = read_record(checkpoint)
    theirs = record["data"].get("tokenizer") or run_tokenizer(checkpoint)
    if theirs is None:
        say(f"warning: {checkpoint} names no tokenizer: whether data.sources were packed with its own is not checked")
    elif theirs != tokenizer_hash:
        line = (
            f"init_from={config.init_from} was trained with tokenizer {theirs}, data.sources were packed with "
            f"{tokenizer_hash}: its embeddings mean other tokens"
        )
        if not config.checkpoint.allow_data_change:
            raise ValueError(f"{line}; pack the data with its tokenizer, or pass --checkpoint.allow_data_change")
        say(f"warning: {line}")
    for line in overrides.changes(overrides.from_dict(record["config"]), config):
        if line.startswith("model."):
            say(f"warning: changed since {checkpoint}: {line}")
    state, _ = load_state(checkpoint, ts.abstract_state)
    say(
        f"parameters and optimizer state inherited from {checkpoint} (step {record['step']:,} of {record['config']['name']})"
    )
    counters = {name: state[name] for name in ("step", "nonfinite", "skipped")}
    return state | jax.tree.map(jax.numpy.zeros_like, counters)


def run_tokenizer(checkpoint: Path) -> str | None:
    """Hash of the tokenizer that is beside an imported model, None when there is none."""
    from opencoder_data.tokenizer import Tokenizer

    path = checkpoint.parent.parent / "tokenizer.model"
    return Tokenizer(path).hash if path.is_file() else None


def check_same_run(
    config: RunConfig, fingerprint: dict[str, str], record: dict[str, Any], say: Callable[[str], object]
) -> None:
    """Says which fields changed since the checkpoint. Raises: ValueError when data or seed did, unless allowed, and when the
    run has come further than num_steps."""
    if config.num_steps < record["step"]:
        raise ValueError(
            f"num_steps={config.num_steps} is below step {record['step']}, to which {config.run_dir} has come; give at "
            "least that, or another run_dir"
        )
    for line in overrides.changes(overrides.from_dict(record["config"]), config):
        say(f"warning: changed since the checkpoint: {line}")
    changed = [name for name, value in fingerprint.items() if record["data"].get(name) != value]
    changed += ["seed"] if record["random"]["seed"] != config.seed else []
    if changed and not config.checkpoint.allow_data_change:
        raise ValueError(
            f"{config.run_dir}: {', '.join(changed)} changed since this run was saved: the steps to come would see other "
            "data. Restore it, use a new run_dir (with init_from), or pass --checkpoint.allow_data_change"
        )
