"""Decoding speed of our engine against `transformers.generate`, side by side: alternating, medians, two threads, fp32.

    python scripts/benchmarks/bench_generate.py --run=RUN --hf=DIRECTORY [--batches=1,8,32] [--tokens=48] [--rounds=3]

RUN is the import of DIRECTORY (`opencoder import`). transformers runs in the oracle environment (`make .venv-oracle/ready`),
in a process of its own that is idle while ours works and the other way round. Both are greedy, ignore end tokens, and get
the same prompts; compilation and a first call are not timed. Prints one JSON line per batch; `equal` counts rows with the
same tokens. `mixed`: prompts and answers of mixed lengths with in-flight admission, against batches of the same slots that
each run to their longest answer, ours and theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
THEIRS = """
import json, sys, time, torch, transformers
torch.set_num_threads(2)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model.generation_config.eos_token_id = None
print("ready", flush=True)
for line in sys.stdin:
    work = json.loads(line)
    longest = max(map(len, work["prompts"]))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in work["prompts"]])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in work["prompts"]])
    start = time.perf_counter()
    out = model.generate(input_ids=tokens, attention_mask=mask, do_sample=False, max_new_tokens=work["tokens"], pad_token_id=0)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": out[:, longest:].tolist()}), flush=True)
"""


class Theirs:
    """transformers in a process of its own."""

    def __init__(self, directory: str):
        command = [str(ROOT / ".venv-oracle" / "bin" / "python"), "-P", "-c", THEIRS, directory]
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd="/", env=env, stderr=subprocess.DEVNULL, **pipes)
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __call__(self, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._read())
        return answer["seconds"], answer["tokens"]


def ours(engine, prompts: list[list[int]], tokens: list[int]) -> tuple[float, list[list[int]]]:
    from opencoder_jax.inference.engine import Request
    from opencoder_jax.inference.sampling import Sampling

    rows = [engine.add(Request(p, Sampling(n), ignore_end=True)) for p, n in zip(prompts, tokens, strict=True)]
    start = time.perf_counter()
    for _ in engine.run():
        pass
    return time.perf_counter() - start, [r.drawn for r in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--hf", required=True)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", type=int, default=0, help="prompts of mixed lengths (0: none)")
    args = parser.parse_args()
    from opencoder_jax.inference.load import load

    model = load(args.run, dtype="float32")
    theirs = Theirs(args.hf)
    rng = np.random.default_rng(0)
    text = model.text.prompt((ROOT / "opencoder_jax" / "train.py").read_text(encoding="utf-8"))

    def prompt(length: int) -> list[int]:
        start = int(rng.integers(0, len(text) - length))
        return text[start : start + length]

    weights = model.engine(slots=1, capacity=256).weights
    from opencoder_jax.inference.engine import Engine

    for batch in map(int, filter(None, args.batches.split(","))):
        prompts = [prompt(32 + (7 * i) % 32) for i in range(batch)]
        engine = Engine(model.config, weights, slots=batch, capacity=256)
        ours(engine, prompts, [args.tokens] * batch)
        theirs(prompts, 4)
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        equal = 0
        for _ in range(args.rounds):
            seconds, mine = ours(engine, prompts, [args.tokens] * batch)
            times["ours"].append(seconds)
            seconds, other = theirs(prompts, args.tokens)
            times["theirs"].append(seconds)
            equal = sum(a == b for a, b in zip(mine, other, strict=True))
        report(f"batch {batch}", times, batch * args.tokens, {"equal": equal, "of": batch})
    if args.mixed:
        mixed(Engine(model.config, weights, slots=16, capacity=512), theirs, prompt, args.mixed, rng)
    return 0


def mixed(engine, theirs: Theirs, prompt, count: int, rng) -> None:
    """One after another: admission between blocks; our static batches; theirs."""
    prompts = [prompt(int(n)) for n in rng.integers(16, 200, count)]
    tokens = [int(n) for n in np.exp(rng.normal(3.4, 0.9, count)).clip(4, 250)]
    batches = [slice(i, i + engine.slots) for i in range(0, count, engine.slots)]
    static = lambda: sum(ours(engine, prompts[b], [max(tokens[b])] * len(prompts[b]))[0] for b in batches)  # noqa: E731
    ours(engine, prompts, tokens)
    static()
    times = {
        "ours": [ours(engine, prompts, tokens)[0]],
        "static": [static()],
        "theirs": [sum(theirs(prompts[b], max(tokens[b]))[0] for b in batches)],
    }
    report(f"mixed {count}", times, sum(tokens), {})


def report(name: str, times: dict[str, list[float]], tokens: int, more: dict[str, Any]) -> None:
    median = {k: statistics.median(v) for k, v in times.items()}
    ratios = {f"{k}/ours": round(v / median["ours"], 2) for k, v in median.items() if k != "ours"}
    rates = {k: round(tokens / v, 1) for k, v in median.items()}
    print(json.dumps({"what": name, "tokens_per_second": rates, **ratios, **more, "seconds": times}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
