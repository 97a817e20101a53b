"""From a directory of source code to a trained, resumed, released model and a report: what `make demo` runs.

Every step is a command that a user could type; each is printed, timed and can be found in OUT/logs. A second run goes on
where the first one stopped. `SOURCE=directory make demo` takes another corpus than the code that Python brought along.
"""

from __future__ import annotations

if __name__ == "__main__":
    from opencoder_data import command

    command.interruptible_imports()

import json
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo_report import write_report
from opencoder_data import command
from opencoder_data.shard_format import read_manifest, write_atomically

from opencoder_jax import overrides
from opencoder_jax.checkpoint import resolve

# Files up to this size make the demo's corpus: in a few minutes the model should see many files rather than a few long ones.
MAX_FILE_BYTES = 20_000
# Held out by content hash. A language with fewer files or bytes than this among them is not a sample: it trains.
HOLD_OUT = ("--holdout_min_files=8", "--holdout_min_bytes=20000", "--holdout_max_bytes=120000")
# Shares to hold out, the first that leaves a sample of some language: a small corpus needs a larger one.
HOLD_OUT_SHARES = (0.04, 0.1, 0.2)
VOCAB_SIZE = 8_192
# Training takes about this long on any machine: a sweep of one mesh times the step, and the steps follow from it.
TRAIN_MINUTES, MIN_STEPS, MAX_STEPS, ANNEAL_SHARE = 6.0, 800, 4_000, 0.25
PROMPTS = (
    "import os\n\n\ndef list_files(path):\n",
    "class Stack:\n    def __init__(self):\n",
    "#include <stdio.h>\n\nint main(",
)
# Before annealing code and text have the shares of the hand-over and the standard library waits, as the paper's stages
# differ in their mixture.
PRETRAIN_SOURCES = ("code", "text")
ANNEAL_MIXTURE = {"code": 0.5, "standard_library": 0.45, "text": 0.05}


class Demo:
    def __init__(self, out: Path):
        self.out = out
        self.seconds: dict[str, float] = {}
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, name: str, *module: str, until_step: int | None = None, run_dir: Path | None = None) -> int:
        """Runs a module of the project; with until_step the process is killed outright once its run got that far."""
        print(f"\n[{name}] python -m {shlex.join(module)}", flush=True)
        began = time.monotonic()
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        streams |= {"text": True, "encoding": "utf-8", "errors": "replace", "env": os.environ | {"PYTHONUTF8": "1"}}
        path = self.out / "logs" / f"{name}.log"
        with path.open("w", encoding="utf-8") as log, command.child_process(module, **streams) as process:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                if not line.startswith(("config:", "hlo:")) and "it/s]" not in line and "part/s]" not in line:
                    print("  " + line.rstrip(), flush=True)
                if (
                    until_step is not None
                    and run_dir is not None
                    and _last_step(run_dir) >= until_step
                    and _saved(run_dir)
                ):
                    process.send_signal(signal.SIGKILL)
                    print(
                        f"  -- killed at step {_last_step(run_dir)} (SIGKILL), newest checkpoint: step {_saved(run_dir)[-1]}"
                    )
                    until_step = None
            code = process.wait()
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - began
        if code not in (0, -signal.SIGKILL):
            raise ValueError(f"step {name} ended with exit code {code}; its log: {path}")
        return code


def main() -> int:
    return command.run(_main, stopped="stopped by Ctrl-C; the same command goes on with the step that was stopped")


def _main() -> int:
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--source", default="", help="directory of source code (default: Python's library and packages)"
    )
    parser.add_argument("--out", default="demo", help="directory for everything the demo makes")
    args = parser.parse_args()
    sources = [args.source] if args.source else [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    for source in sources:
        if not Path(source).is_dir():
            raise ValueError(f"SOURCE={source}: no such directory")
    began = time.monotonic()
    out = Path(args.out)
    check_same_source(out, sources)
    demo = Demo(out)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out.absolute() / "jax_cache"))

    # All stages of RefineCode; partitions small enough to keep two cores busy to the end.
    inputs = [f"--input={s}" for s in sources]
    small = [f"--ingest.max_file_bytes={MAX_FILE_BYTES}", "--layout.partition_mb=4"]
    demo.run("1-refine", "opencoder_data.refinecode", *inputs, f"--output={out}/refine", *small)
    if not (out / "refine" / "report.html").exists():
        demo.run("1-refine-report", "opencoder_data.refinecode.report", f"--run={out}/refine")
    data = out / "data"
    if not ((data / "handover.json").exists() and (data / "held_out").exists()):  # the first is its last file
        for share in HOLD_OUT_SHARES:
            shutil.rmtree(data, ignore_errors=True)
            options = [f"--run={out}/refine", f"--output={data}", "--group=input,doc_type", f"--holdout={share}"]
            demo.run("2-hand-over", "opencoder_data.refinecode.handover", *options, *HOLD_OUT)
            if (data / "held_out").exists():
                break
    token_sources = token_sources_of(data / "train", sysconfig.get_path("stdlib"))
    held_out_directories = sorted((data / "held_out").iterdir()) if (data / "held_out").exists() else []
    if not held_out_directories or not token_sources["code"]:
        raise ValueError("SOURCE holds too little code for a training and a held-out part (some 1 MB are needed)")
    tokenizer = out / "tokenizer"
    if not (tokenizer / "tokenizer.model").exists():
        size = [f"--vocab_size={VOCAB_SIZE}", f"--output={tokenizer}"]
        demo.run("3-tokenizer", "opencoder_data.tokenizer", "train", f"--input={data}/train", *size)
    seq_len = overrides.load("tiny").data.seq_len
    for name, directories in token_sources.items():
        pack(demo, directories, tokenizer, out / "shards" / name, seq_len)
    for directory in held_out_directories:
        pack(demo, [directory], tokenizer, out / "shards" / "held_out" / directory.name, seq_len)

    held_out = ",".join(str(p) for p in sorted((out / "shards" / "held_out").iterdir()))
    pretrained, annealed = out / "runs" / "tiny", out / "runs" / "tiny_anneal"
    pretrain_shares = pretrain_mixture(data, token_sources)
    anneal_shares = {k: v for k, v in ANNEAL_MIXTURE.items() if token_sources[k]}
    steps, anneal_steps = num_steps(demo, pretrain_shares, anneal_shares)
    train = ["opencoder_jax.train", "--config=tiny", sources_option(out, pretrain_shares), f"--num_steps={steps}"]
    train += [f"--data.eval_sources={held_out}", f"--run_dir={pretrained}", f"--checkpoint.keep_every={steps // 4}"]
    if not _saved(pretrained):
        demo.run("6-train", *train, until_step=steps // 4 + steps // 20, run_dir=pretrained)
    demo.run("7-resume", *train)
    anneal = ["opencoder_jax.train", "--config=tiny_anneal", sources_option(out, anneal_shares)]
    anneal += [f"--data.eval_sources={held_out}", f"--run_dir={annealed}", f"--init_from={pretrained}"]
    anneal += [f"--num_steps={anneal_steps}", f"--schedule.decay_steps={anneal_steps}"]
    demo.run("8-anneal", *anneal)

    export, loaded = out / "export", out / "runs" / "from_export"
    if not (export / "config.json").exists():
        release = [f"--checkpoint={annealed}", f"--to={export}", f"--tokenizer={tokenizer}", "--dtype=fp32"]
        demo.run("9-export", "opencoder_jax.hf.export", *release)
    if not loaded.exists():
        demo.run("10-import", "opencoder_jax.hf.export", "import", f"--from={export}", f"--to={loaded}")
    prompts = [f"--prompt={p}" for p in PROMPTS]
    sampling = ["--max_new_tokens=80", f"--json={out}/completions.json"]
    demo.run(
        "11-generate",
        "opencoder_jax.inference.generate",
        f"--checkpoint={loaded}",
        f"--tokenizer={export}",
        *prompts,
        *sampling,
    )

    report = write_report(out, demo.seconds, time.monotonic() - began, PROMPTS, int(resolve(annealed).name))
    print(f"\nreport: {report}")
    return 0


def check_same_source(out: Path, sources: list[str]) -> None:
    """A directory holds one demo: another corpus wants another directory."""
    path = out / "source.json"
    if path.exists() and json.loads(path.read_text()) != sources:
        raise ValueError(f"{out} holds the demo of {json.loads(path.read_text())}; give --out=DIRECTORY or remove it")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(sources).encode())


def token_sources_of(train: Path, standard_library: str) -> dict[str, list[Path]]:
    """The directories INPUT.TYPE of the hand-over by the token source that they belong to."""
    sources: dict[str, list[Path]] = {"code": [], "standard_library": [], "text": []}
    for directory in sorted(train.iterdir()):
        name, _, doc_type = directory.name.rpartition(".")
        library = name == Path(standard_library).name
        sources["text" if doc_type != "code" else "standard_library" if library else "code"].append(directory)
    return sources


def pretrain_mixture(data: Path, token_sources: dict[str, list[Path]]) -> dict[str, float]:
    """Weights of the hand-over, summed over the directories of each token source that pre-training reads."""
    weights = {k: v["weight"] for k, v in json.loads((data / "handover.json").read_text())["train"].items()}
    shares = {k: sum(weights[f.name] for f in token_sources[k]) for k in PRETRAIN_SOURCES if token_sources[k]}
    return {k: round(share / sum(shares.values()), 6) for k, share in shares.items()}


def pack(demo: Demo, documents: Sequence[Path], tokenizer: Path, shards: Path, seq_len: int) -> None:
    if (shards / "pack.json").exists() or not documents:  # the packer's last file
        return
    inputs = [f"--tokenizer={tokenizer}", f"--output={shards}", f"--seq_len={seq_len}", f"--source={shards.name}"]
    demo.run("4-pack", "opencoder_data.pack", "--input", *map(str, documents), *inputs)


def num_steps(demo: Demo, *mixtures: dict[str, float]) -> list[int]:
    """Steps of pre-training and of annealing that fill TRAIN_MINUTES here, fewer where a mixture's data does not last.

    The speed is measured once; the numbers are kept for the runs to come.
    """
    path = demo.out / "steps.json"
    if not path.exists():
        speed, config = demo.out / "speed", overrides.load("tiny")
        timing = ["--config=tiny", "--meshes=fsdp=1", "--warmup=20", "--steps=40", f"--out={speed}"]
        demo.run("5-speed", "opencoder_jax.perf.sweep.sweep", *timing)
        row = json.loads((speed / "results.jsonl").read_text().splitlines()[-1])
        fitting = min(max(int(60 * TRAIN_MINUTES / row["median_seconds"]), MIN_STEPS), MAX_STEPS)
        steps = []
        for shares, part in zip(mixtures, (1 - ANNEAL_SHARE, ANNEAL_SHARE), strict=True):
            sizes = {k: read_manifest(demo.out / "shards" / k).num_tokens for k in shares}
            lasting = min(size * sum(shares.values()) / shares[k] for k, size in sizes.items())
            tokens_per_step = config.data.global_batch_size * config.data.seq_len
            steps.append(min(int(part * fitting), int(config.data.max_epochs * lasting / tokens_per_step)))
        if min(steps) < config.schedule.warmup_steps:
            raise ValueError(f"SOURCE holds too little code: its tokens last for {steps} steps of training")
        write_atomically(path, json.dumps(steps).encode())
    return json.loads(path.read_text())


def sources_option(out: Path, shares: dict[str, float]) -> str:
    return "--data.sources=" + ",".join(f"{out}/shards/{k}:{v}" for k, v in shares.items())


def _last_step(run_dir: Path) -> int:
    try:
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (FileNotFoundError, IndexError, json.JSONDecodeError, KeyError):
        return 0


def _saved(run_dir: Path) -> list[int]:
    directory = run_dir / "checkpoints"
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit()) if directory.is_dir() else []


if __name__ == "__main__":
    command.end(main())
