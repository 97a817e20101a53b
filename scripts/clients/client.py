"""Calls llama.cpp (`run_llama_cpp.py`) in its own environment, with files in between."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-llamacpp" / "bin" / "python"


def call(command: str, model: str | Path, *, timeout: float = 600, **given: Any) -> dict[str, Any]:
    """Runs one command on a GGUF file. Raises: RuntimeError with its last words; ValueError without the environment."""
    if not PYTHON.exists():
        raise ValueError(f"{PYTHON}: no llama.cpp; make it with `make .venv-llamacpp/ready` (20 minutes)")
    with tempfile.TemporaryDirectory() as work:
        Path(work, "in.json").write_text(json.dumps(given))
        files = ["--model", str(model), "--input", f"{work}/in.json", "--output", f"{work}/out.json"]
        done = subprocess.run(
            [str(PYTHON), "-P", str(Path(__file__).with_name("run_llama_cpp.py")), command, *files],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"llama.cpp {command}: {done.stderr[-2000:]}")
        return json.loads(Path(work, "out.json").read_text())
