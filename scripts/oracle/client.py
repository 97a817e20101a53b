"""Calls the oracle (`llama.py`) in its own environment, with files in between."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-oracle" / "bin" / "python"


def available() -> bool:
    return PYTHON.exists()


def call(command: str, model: str | Path, *, timeout: float = 600, **arrays: Any) -> dict[str, np.ndarray]:
    """Runs one command on a Hugging Face model directory.

    Raises: RuntimeError with the oracle's last words; ValueError when there is no oracle environment.
    """
    if not available():
        raise ValueError(f"{PYTHON}: no oracle environment; make it with `make .venv-oracle/ready`")
    with tempfile.TemporaryDirectory() as work:
        np.savez(f"{work}/in.npz", **arrays)
        # -P and an empty PYTHONPATH: the directory kernels/ at the root would pass for a package that transformers knows.
        script = str(ROOT / "scripts" / "oracle" / "llama.py")
        files = ["--model", str(model), "--input", f"{work}/in.npz", "--output", f"{work}/out.npz"]
        done = subprocess.run(
            [str(PYTHON), "-P", script, command, *files],
            cwd=work,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"oracle {command}: {done.stderr[-2000:]}")
        with np.load(f"{work}/out.npz") as out:
            return {name: out[name] for name in out.files}
