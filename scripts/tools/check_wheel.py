"""The built wheel, in a fresh environment outside the repository: do the commands run, with their tables and configurations inside?

    python scripts/tools/check_wheel.py WHEEL        (make test-wheel builds the wheel first)

Installs WHEEL[data], takes some files of Python's own library through RefineCode, a tokenizer, shards and three training steps,
and plans a mesh. Exit code 1 with the command's output at the first one that fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

NUM_FILES = 80
VOCABULARY = 1024


def main(wheel: str) -> int:
    with tempfile.TemporaryDirectory(prefix="opencoder-wheel-") as name:
        work = Path(name)
        uv = shutil.which("uv") or str(Path(__file__).parents[2] / ".uv" / "bin" / "uv")
        run(work, [uv, "venv", "--quiet", "--python", sys.executable, "env"])
        run(work, [uv, "pip", "install", "--quiet", "--python", "env", f"{Path(wheel).resolve()}[data]"])
        corpus(work / "in")
        opencoder = str(work / "env" / "bin" / "opencoder")
        tiny = ["--config=tiny", f"--model.vocab_size={VOCABULARY}", "--data.seq_len=128"]
        run(work, [opencoder, "--help"])
        run(
            work,
            [
                opencoder,
                "data",
                "refinecode",
                "--input=in",
                "--output=run",
                "--engine.workers=1",
                "--engine.progress=false",
            ],
        )
        train = ["--input=run/documents", f"--vocab_size={VOCABULARY}", "--output=tok"]
        run(work, [opencoder, "tokenizer", "train", *train])
        run(
            work,
            [opencoder, "data", "pack", "--input=run/documents", "--tokenizer=tok", "--output=shards", "--seq_len=128"],
        )
        steps = [
            "--data.sources=shards:1",
            "--run_dir=trained",
            "--num_steps=3",
            "--schedule.warmup_steps=1",
            "--data.max_epochs=100",
        ]
        run(work, [opencoder, "train", *tiny, *steps])
        run(work, [str(work / "env" / "bin" / "python"), "-m", "opencoder_jax.train", "--help"])
        run(work, [opencoder, "export", "--checkpoint=trained", "--tokenizer=tok", "--to=released"])
        run(work, [opencoder, "plan", *tiny, "--topology=h100:1x2", "--compiler=cpu", "--out=planned"])
        run(work, [opencoder, "eval", "toolchains", "--unsafe-no-sandbox", "Shell"])
        print("the wheel's commands run outside the repository")
    return 0


def corpus(target: Path) -> None:
    """Some files of Python's own library."""
    target.mkdir()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:NUM_FILES]:
        shutil.copy(path, target)


def run(work: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
