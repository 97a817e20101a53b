"""Completions: `python -m opencoder_jax.generate --checkpoint=RUN --prompt='def fib(n):'`.

One pass over the prompts fills the key/value cache, then one token per row and step. Prompts of a batch may differ in
length: they are padded on the left, and padding is no segment of theirs. Tokens are drawn in blocks between which the
host looks for stops; what is drawn does not depend on the block's length.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.special_tokens import ENDOFTEXT, IM_END

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import load_params, resolve
from opencoder_jax.config import ModelConfig, replace

Array = jax.Array
# Tokens drawn between two looks of the host at what has been drawn.
BLOCK = 16
# Prompts and caches are rounded up to this, so that few lengths are compiled.
ROUND = 64


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_p keeps the fewest tokens whose probabilities reach it (Holtzman et al. 2020)."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1")


@dataclass(frozen=True)
class Completion:
    """text without the stop; reason: stop (a stop string), end (an end token) or length."""

    text: str
    tokens: list[int]
    reason: str


def generate_tokens(
    cfg: ModelConfig,
    params: nnx.State,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    end_ids: Sequence[int] = (),
    stopped: Callable[[list[int]], bool] = lambda new: False,
) -> list[list[int]]:
    """New token ids of each prompt, the end token that was drawn included.

    Args:
      prompts: token ids, one or more each; together with the new ones at most cfg.max_seq_len.
      end_ids: a row ends with the first of these.
      stopped: called with a row's new tokens after every block; True ends the row (which may then be longer than needed).

    Raises: ValueError for an empty prompt, ids outside the vocabulary, or too many tokens.
    """
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty: give at least one token")
        if min(prompt) < 0 or max(prompt) >= cfg.vocab_size:
            raise ValueError(f"prompt {i}: ids {min(prompt)}..{max(prompt)}, model.vocab_size={cfg.vocab_size}")
        if len(prompt) + sampling.max_new_tokens > cfg.max_seq_len:
            raise ValueError(
                f"prompt {i}: {len(prompt)} tokens and max_new_tokens={sampling.max_new_tokens} exceed "
                f"model.max_seq_len={cfg.max_seq_len}; shorten one of them"
            )
    B, P = len(prompts), _round_up(max(map(len, prompts), default=1))
    S = P + _round_up(sampling.max_new_tokens)
    tokens = np.zeros((B, P), np.int32)
    lengths = np.array([len(p) for p in prompts], np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[P - len(prompt) :] = prompt
    pad = jnp.asarray(P - lengths)
    segments = (jnp.arange(S) >= pad[:, None]).astype(jnp.int32)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(sampling.seed)))(jnp.arange(B))
    static = (cfg, sampling.temperature == 0, sampling.top_p < 1)
    draw = (keys, jnp.float32(sampling.temperature), jnp.float32(sampling.top_p))
    params = _compute_params(params, cfg)
    state = _prefill(*static, params, jnp.asarray(tokens), pad, segments, draw)
    new: list[list[int]] = [[] for _ in range(B)]
    done = [False] * B
    while not all(done):
        block, state = _block(*static, params, state, pad, segments, draw)
        for i, row in enumerate(np.asarray(block).tolist()):
            for token in row:
                if done[i]:
                    break
                new[i].append(token)
                done[i] = token in end_ids or len(new[i]) == sampling.max_new_tokens
            done[i] = done[i] or stopped(new[i])
    return new


def generate_text(
    cfg: ModelConfig,
    params: nnx.State,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    stop: Sequence[str] = (),
    allow_special: bool = False,
) -> list[Completion]:
    """Completions of texts; a row ends at an end token, before the first of the stop strings, or by length.

    Args: allow_special: names of special tokens in a prompt (a chat's `<|im_start|>`) stand for these tokens.
    """
    ends = [tokenizer.special_ids[ENDOFTEXT], tokenizer.special_ids[IM_END]]

    def cut(new: list[int]) -> tuple[str, str]:
        ended = bool(new) and new[-1] in ends
        text = tokenizer.decode(new[:-1] if ended else new)
        places = [place for place in (text.find(s) for s in stop) if place >= 0]
        if places:
            return text[: min(places)], "stop"
        return text, "end" if ended else "length"

    ids = [tokenizer.encode(prompt, allow_special=allow_special) for prompt in prompts]
    rows = generate_tokens(cfg, params, ids, sampling, end_ids=ends, stopped=lambda new: cut(new)[1] == "stop")
    completions = []
    for new in rows:
        text, reason = cut(new)
        completions.append(Completion(text, new, reason))
    return completions


def sample(logits: Array, keys: Array, temperature: Array, top_p: Array, *, nucleus: bool) -> Array:
    """logits fp32 [B, V], one key per row -> token ids int32 [B]."""
    logits = logits / temperature
    if nucleus:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
        # The least likely token kept: the last one before which less than top_p has been gathered.
        last = jnp.sum(before < top_p, axis=-1, keepdims=True) - 1
        logits = jnp.where(logits >= jnp.take_along_axis(ordered, last, -1), logits, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _next(greedy: bool, nucleus: bool, logits: Array, position: Array, draw: tuple[Array, Array, Array]) -> Array:
    if greedy:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    keys, temperature, top_p = draw
    keys = jax.vmap(jax.random.fold_in)(keys, position)  # a row's n-th token has a key of its own
    return sample(logits, keys, temperature, top_p, nucleus=nucleus)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _prefill(cfg, greedy, nucleus, params, tokens, pad, segments, draw):
    """First token of every row, and the cache of the prompts."""
    B, P = tokens.shape
    model = lm.bind(cfg, params)
    positions = jnp.maximum(jnp.arange(P) - pad[:, None], 0)
    hidden, cache = model.decode(tokens, positions, lm.init_cache(cfg, B, segments.shape[1]), segments)
    first = _next(greedy, nucleus, model.logits(hidden[:, -1]), P - pad, draw)
    return first, cache


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def _block(cfg, greedy, nucleus, params, state, pad, segments, draw):
    """BLOCK tokens per row [B, BLOCK], the first of them that of `state`, and the state after them."""
    model = lm.bind(cfg, params)

    def step(state, _):
        token, cache = state
        position = cache["length"] - pad
        hidden, cache = model.decode(token[:, None], position[:, None], cache, segments)
        return (_next(greedy, nucleus, model.logits(hidden[:, 0]), position + 1, draw), cache), token

    state, tokens = jax.lax.scan(step, state, length=BLOCK)
    return tokens.T, state


def _compute_params(params: nnx.State, cfg: ModelConfig) -> nnx.State:
    """Matrices in the compute dtype, once and not per step; norm scales as they are."""

    def cast(weight: nnx.Variable) -> nnx.Variable:
        dtype = None if "norm" in weight.axes else cfg.compute_dtype
        return weight.replace(jnp.asarray(weight.get_value(), dtype))

    return jax.tree.map(cast, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def _round_up(n: int) -> int:
    return -(-n // ROUND) * ROUND


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m opencoder_jax.generate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="run folder, or RUN/checkpoints/STEP")
    parser.add_argument("--prompt", action="append", required=True, help="text to continue; may be given several times")
    parser.add_argument("--tokenizer", help="tokenizer.model or its folder (default: RUN/tokenizer.model)")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default): greedy")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stop", action="append", default=[], help="text before which to stop; may be given several times"
    )
    parser.add_argument(
        "--allow_special", action="store_true", help="read names of special tokens in prompts as tokens"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the computation (default: the run's)")
    parser.add_argument("--json", help="file for prompts and completions")
    args = parser.parse_args(arguments)
    try:
        sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p, args.seed)
        checkpoint = resolve(args.checkpoint)
        tokenizer = Tokenizer(args.tokenizer or checkpoint.parent.parent)
        params, config, record = load_params(checkpoint)
        expected = record["data"].get("tokenizer")
        if (expected and tokenizer.hash != expected) or tokenizer.vocab_size > config.model.vocab_size:
            raise ValueError(f"{tokenizer.path}: not the tokenizer of {checkpoint}; give that one by --tokenizer")
        cfg = replace(config.model, compute_dtype=args.dtype or config.model.compute_dtype)
        rows = generate_text(
            cfg, params, tokenizer, args.prompt, sampling, stop=args.stop, allow_special=args.allow_special
        )
        if args.json:
            _write_json(Path(args.json), args.prompt, rows)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    for prompt, row in zip(args.prompt, rows, strict=True):
        print(f"--- {len(row.tokens)} tokens, ended by {row.reason}\n{prompt}{row.text}")
    return 0


def _write_json(path: Path, prompts: list[str], rows: list[Completion]) -> None:
    values: list[dict[str, Any]] = [
        {"prompt": p, "completion": r.text, "tokens": r.tokens, "reason": r.reason}
        for p, r in zip(prompts, rows, strict=True)
    ]
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
