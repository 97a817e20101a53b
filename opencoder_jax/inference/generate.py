"""Completions: `python -m opencoder_jax.inference.generate --checkpoint=RUN --prompt='def fib(n):'`.

One pass over the prompts fills the key/value cache, then one token per row and step. Prompts of a batch may differ in
length: they are padded on the left, and padding has no segment. Tokens are drawn in blocks between which the
host looks for stops; what is drawn does not depend on the block's length.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from opencoder_data import command
from opencoder_data.shard_format import write_atomically
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
# Below this logits of fp32 that differ at all have probabilities of 1 and 0.
GREEDY_BELOW = 1e-5
# Sums of probabilities in fp32 are exact to this.
SUM_ERROR = 1e-6


@dataclass(frozen=True)
class Sampling:
    """temperature 0 (and below 1e-5) is greedy, whatever top_p; top_p keeps the fewest tokens whose probabilities reach
    it (Holtzman et al. 2020), of equally likely ones those with the smaller ids.

    Raises: ValueError for values that are out of range or not finite.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be 0 (greedy) or a finite number above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must fit 64 bits")

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True)
class Completion:
    """text without the stop; reason: stop (a stop string), end (an end token) or length.

    tokens: no more than the text needs: without the end token, and without what was drawn after the stop. The last one
    may reach into the stop string.
    """

    text: str
    tokens: list[int]
    reason: str


def generate_tokens(
    cfg: ModelConfig,
    params: nnx.State,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    samples: Sequence[int] | None = None,
    end_ids: Sequence[int] = (),
    stopped: Callable[[list[int]], bool] = lambda new: False,
) -> list[list[int]]:
    """New token ids of each prompt, the end token that was drawn included.

    Args:
      prompts: token ids, one or more each; together with the new ones at most cfg.max_seq_len.
      samples: index of each row among the samples of its prompt (default: counted in the order of the rows). What is
        drawn depends on seed, this index and the token's position alone, on no other row and no order of rows.
      end_ids: a row ends with the first of these.
      stopped: called with a row's new tokens after every block; True ends the row (which may then be longer than needed).

    Raises: ValueError for an empty prompt, ids outside the vocabulary, too many tokens, or logits that are not finite.
    """
    if not prompts:
        return []
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(
                f"prompt {i} is empty: give some text (the model saw nothing before a document's first token)"
            )
        if min(prompt) < 0 or max(prompt) >= cfg.vocab_size:
            raise ValueError(f"prompt {i}: ids {min(prompt)}..{max(prompt)}, model.vocab_size={cfg.vocab_size}")
        if len(prompt) + sampling.max_new_tokens > cfg.max_seq_len:
            raise ValueError(
                f"prompt {i}: {len(prompt)} tokens and max_new_tokens={sampling.max_new_tokens} exceed "
                f"model.max_seq_len={cfg.max_seq_len}; shorten one of them"
            )
    B, P = len(prompts), _round_up(max(map(len, prompts)))
    S = P + _round_up(sampling.max_new_tokens)
    tokens = np.zeros((B, P), np.int32)
    lengths = np.array([len(p) for p in prompts], np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[P - len(prompt) :] = prompt
    pad = jnp.asarray(P - lengths)
    segments = (jnp.arange(S) >= pad[:, None]).astype(jnp.int32)
    indices = _sample_indices(prompts) if samples is None else list(samples)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(sampling.seed)))(jnp.asarray(indices, jnp.uint32))
    static = (cfg, sampling.greedy, sampling.top_p < 1)
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
                if token < 0:
                    raise ValueError(
                        f"prompt {i}: the logits of new token {len(new[i])} are not finite; the checkpoint's parameters "
                        "are not, or too large for the dtype (try --dtype=float32, or an earlier checkpoint)"
                    )
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

    Args:
      stop: the one that begins first counts, wherever tokens and characters are cut.
      allow_special: names of special tokens in a prompt (a chat's `<|im_start|>`) mean these tokens.

    Raises: ValueError as `generate_tokens`, and for an empty stop string.
    """
    if "" in stop:
        raise ValueError("--stop='': an empty stop string would stop before the first token; leave it out")
    ends = [tokenizer.special_ids[ENDOFTEXT], tokenizer.special_ids[IM_END]]
    # On bytes: a character that the tokens have only half of can neither match nor hide a match.
    stops = [s.encode("utf-8", "surrogateescape") for s in stop]
    ids = [tokenizer.encode(prompt, allow_special=allow_special) for prompt in prompts]

    def stopped(new: list[int]) -> bool:
        data = tokenizer.decode_bytes(new)
        place = _first_stop(data, stops)
        return place >= 0 and not _may_begin_before(place, data, stops)

    completions = []
    for new in generate_tokens(cfg, params, ids, sampling, end_ids=ends, stopped=stopped if stops else _never):
        ended = bool(new) and new[-1] in ends
        tokens = new[:-1] if ended else new
        data = tokenizer.decode_bytes(tokens)
        place, reason = _first_stop(data, stops), "end" if ended else "length"
        if place >= 0:
            data, tokens, reason = data[:place], tokens[: _num_tokens(tokenizer, tokens, place)], "stop"
        completions.append(Completion(data.decode("utf-8", "replace"), tokens, reason))
    return completions


def _never(new: list[int]) -> bool:
    return False


def _first_stop(data: bytes, stops: Sequence[bytes]) -> int:
    """Where the first of the stop strings begins, -1 if none is there."""
    return min((place for place in map(data.find, stops) if place >= 0), default=-1)


def _may_begin_before(place: int, data: bytes, stops: Sequence[bytes]) -> bool:
    """Whether the end of `data` is the beginning of a stop string that would begin before `place` if it went on so."""
    return any(s.startswith(data[at:]) for s in stops for at in range(max(0, len(data) - len(s) + 1), place))


def _num_tokens(tokenizer: Tokenizer, tokens: Sequence[int], num_bytes: int) -> int:
    """How many of the tokens make the first num_bytes."""
    ends = np.cumsum([0, *(len(tokenizer.token_bytes(t)) for t in tokens)])
    return int(np.searchsorted(ends, num_bytes))


def _sample_indices(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Of each prompt, how many equal ones came before it."""
    seen: Counter[tuple[int, ...]] = Counter()
    indices = []
    for prompt in map(tuple, prompts):
        indices.append(seen[prompt])
        seen[prompt] += 1
    return indices


def sample(logits: Array, keys: Array, temperature: Array, top_p: Array, *, nucleus: bool) -> Array:
    """logits fp32 [B, V], one key per row -> token ids int32 [B]. top_p counts with `nucleus` only."""
    # The largest becomes 0: nothing overflows, however small the temperature.
    logits = (logits - logits.max(-1, keepdims=True)) / temperature
    if nucleus:
        order = jnp.argsort(-logits, axis=-1, stable=True)
        p = jax.nn.softmax(jnp.take_along_axis(logits, order, -1))
        # Kept in order of likelihood, the first always, as long as those before have not reached top_p. Of equally
        # likely ones no more stay than that takes, so ranks decide and not probabilities.
        kept = (jnp.cumsum(p, axis=-1) - p < top_p - SUM_ERROR).at[..., 0].set(True)
        kept = jnp.put_along_axis(jnp.zeros_like(kept), order, kept, -1, inplace=False)
        logits = jnp.where(kept, logits, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _next(greedy: bool, nucleus: bool, logits: Array, position: Array, draw: tuple[Array, Array, Array]) -> Array:
    """Token ids [B]; -1 where the logits are not finite."""
    if greedy:
        tokens = jnp.argmax(logits, -1).astype(jnp.int32)
    else:
        keys, temperature, top_p = draw
        keys = jax.vmap(jax.random.fold_in)(keys, position)  # a row's n-th token has a key of its own
        tokens = sample(logits, keys, temperature, top_p, nucleus=nucleus)
    return jnp.where(jnp.isfinite(logits.max(-1)), tokens, -1)  # a NaN anywhere is the maximum


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
    return command.run(lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written")


def _main(arguments: list[str]) -> int:
    parser = command.Parser(prog="python -m opencoder_jax.inference.generate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--prompt", action="append", required=True, help="text to continue; may be given several times")
    parser.add_argument("--tokenizer", help="tokenizer.model or its directory (default: RUN/tokenizer.model)")
    parser.add_argument("--num_samples", type=int, default=1, help="completions of each prompt (default 1)")
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
    # What can be rejected is rejected before the parameters are read.
    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    if args.num_samples < 1:
        raise ValueError(f"num_samples={args.num_samples}: must be at least 1")
    if "" in args.stop:
        raise ValueError("--stop='': an empty stop string would stop before the first token; leave it out")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise ValueError(f"--json={args.json}: its directory does not exist; make it first")
    checkpoint = resolve(args.checkpoint)
    tokenizer = Tokenizer(args.tokenizer or checkpoint.parent.parent)
    params, config, record = load_params(checkpoint)
    expected = record["data"].get("tokenizer")
    if (expected and tokenizer.hash != expected) or tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(f"{tokenizer.path}: not the tokenizer of {checkpoint}; give that one by --tokenizer")
    cfg = replace(config.model, compute_dtype=args.dtype or config.model.compute_dtype)
    prompts = [prompt for prompt in args.prompt for _ in range(args.num_samples)]
    options = {"stop": args.stop, "allow_special": args.allow_special}
    rows = generate_text(cfg, params, tokenizer, prompts, sampling, **options)
    if args.json:
        _write_json(Path(args.json), prompts, rows)
    for prompt, row in zip(prompts, rows, strict=True):
        print(f"--- {len(row.tokens)} tokens, ended by {row.reason}\n{prompt}{row.text}")
    return 0


def _write_json(path: Path, prompts: list[str], rows: list[Completion]) -> None:
    values: list[dict[str, Any]] = [
        {"prompt": p, "completion": r.text, "tokens": r.tokens, "reason": r.reason}
        for p, r in zip(prompts, rows, strict=True)
    ]
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
