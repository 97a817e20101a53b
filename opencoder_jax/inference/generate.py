"""Completions: `opencoder generate --checkpoint=RUN --prompt='def fib(n):'`.

Runs the prompts through the inference engine (`engine.py`): what is drawn depends on seed, index of the sample and
position, on no other prompt and no size of a batch.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx
from opencoder_data import command
from opencoder_data.shard_format import write_atomically
from opencoder_data.tokenizer import TextTokenizer

from opencoder_jax.config import ModelConfig
from opencoder_jax.inference.engine import Engine, Event, Request, Row
from opencoder_jax.inference.load import load
from opencoder_jax.inference.sampling import Sampling
from opencoder_jax.inference.stops import Stops

# Prompts decoded at once, at most.
SLOTS = 32
# Capacities are rounded up to this, so that few lengths are compiled.
ROUND = 64


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
    slots: int = SLOTS,
) -> list[list[int]]:
    """New token ids of each prompt, the end token that was drawn included.

    Args:
      prompts: token ids, one or more each; together with the new ones at most cfg.max_seq_len.
      samples: index of each row among the samples of its prompt (default: counted in the order of the rows). What is
        drawn depends on seed, this index and the token's position alone, on no other row and no order of rows.
      end_ids: a row ends with the first of these.
      slots: prompts decoded at once; the others follow as rows end.

    Raises: ValueError for an empty prompt, ids outside the vocabulary, too many tokens, or logits that are not finite.
    """
    requests = _requests(prompts, sampling, samples)
    rows = _run(cfg, params, requests, end_ids, slots)
    return [row.drawn + [e.end_token for e in events if e.end_token is not None] for row, events in rows]


def generate_text(
    cfg: ModelConfig,
    params: nnx.State,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    stop: Sequence[str] = (),
    allow_special: bool = False,
    slots: int = SLOTS,
) -> list[Completion]:
    """Completions of texts; a row ends at an end token, before the first of the stop strings, or by length.

    Args:
      stop: the one that begins first counts, wherever tokens and characters are cut.
      allow_special: names of special tokens in a prompt (a chat's `<|im_start|>`) mean these tokens.

    Raises: ValueError as `generate_tokens`, and for an empty stop string.
    """
    ids = [[*tokenizer.prefix_ids, *tokenizer.encode(p, allow_special=allow_special)] for p in prompts]
    requests = _requests(ids, sampling, stops=_stops(stop), text_of=tokenizer.token_bytes)
    return [
        Completion("".join(e.text for e in events), row.drawn, events[-1].reason)
        for row, events in _run(cfg, params, requests, tokenizer.end_ids, slots)
    ]


def _stops(stop: Sequence[str]) -> Stops:
    if "" in stop:
        raise ValueError("--stop='': an empty stop string would stop before the first token; leave it out")
    return Stops(stop)


def _requests(prompts: Sequence[Sequence[int]], sampling: Sampling, samples=None, **fields: Any) -> list[Request]:
    indices = _sample_indices(prompts) if samples is None else samples
    return [Request(p, sampling, sample=i, **fields) for p, i in zip(prompts, indices, strict=True)]


def _run(cfg, params, requests: list[Request], end_ids, slots: int) -> list[tuple[Row, list[Event]]]:
    """Each request's row and its events."""
    if not requests:
        return []
    longest = max(len(r.prompt) + r.sampling.max_new_tokens for r in requests)
    capacity = min(-(-longest // ROUND) * ROUND, cfg.max_seq_len)
    engine = Engine(cfg, params, slots=min(slots, len(requests)), capacity=capacity, end_ids=end_ids)
    rows: list[Row] = []
    for i, request in enumerate(requests):
        if not len(request.prompt):
            raise ValueError(
                f"prompt {i} is empty: give some text (the model saw nothing before a document's first token)"
            )
        try:
            rows.append(engine.add(request))
        except ValueError as error:
            raise ValueError(f"prompt {i}: {error}") from None
    events: dict[int, list[Event]] = {id(row): [] for row in rows}
    for row, event in engine.run():
        if event.error:
            raise ValueError(f"prompt {rows.index(row)}: {event.error}")
        events[id(row)].append(event)
    return [(row, events[id(row)]) for row in rows]


def _sample_indices(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Of each prompt, how many equal ones came before it."""
    seen: Counter[tuple[int, ...]] = Counter()
    indices = []
    for prompt in map(tuple, prompts):
        indices.append(seen[prompt])
        seen[prompt] += 1
    return indices


def main(arguments: list[str]) -> int:
    return command.run(lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written")


def _main(arguments: list[str]) -> int:
    parser = command.Parser(prog="python -m opencoder_jax.inference.generate", description=__doc__)
    parser.add_argument(
        "--checkpoint", required=True, help="run directory, RUN/checkpoints/STEP, Hugging Face directory or GGUF file"
    )
    parser.add_argument("--prompt", action="append", required=True, help="text to continue; may be given several times")
    parser.add_argument("--tokenizer", help="tokenizer.model or tokenizer.json (default: that of RUN)")
    parser.add_argument("--num_samples", type=int, default=1, help="completions of each prompt (default 1)")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default): greedy")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=0, help="0 (default): all")
    parser.add_argument("--min_p", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=SLOTS, help="completions decoded at once (default %(default)s)")
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
    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p, args.seed, args.top_k, args.min_p)
    if args.num_samples < 1:
        raise ValueError(f"num_samples={args.num_samples}: must be at least 1")
    if args.slots < 1:
        raise ValueError(f"slots={args.slots}: must be at least 1")
    _stops(args.stop)
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise ValueError(f"--json={args.json}: its directory does not exist; make it first")
    model = load(args.checkpoint, args.tokenizer, dtype=args.dtype)
    prompts = [prompt for prompt in args.prompt for _ in range(args.num_samples)]
    options = {"stop": args.stop, "allow_special": args.allow_special, "slots": args.slots}
    rows = generate_text(model.config, model.params, model.text.tokenizer, prompts, sampling, **options)
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
