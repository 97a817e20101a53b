"""Numbers defined once: FLOPs per token, MFU, peaks; and where a run writes them."""

from __future__ import annotations

import collections
import contextlib
import datetime
import json
import math
import os
import re
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from opencoder_jax.config import ModelConfig, RunConfig
from opencoder_jax.mixture import BatchSizes

# Dense bf16 peak FLOP/s of one device (without sparsity), by a word of JAX's device_kind; the first that fits counts.
# NVIDIA: data sheets of A100, H100 (SXM 989, NVL 835, PCIe 756), H200, DGX B200, GB200. TPU: cloud.google.com/tpu/docs.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12,
}


# Parts of a card: MIG slices ("... MIG 1g.10gb") and virtual GPUs ("GRID A100-20C", "NVIDIA H100-2-20C").
_SLICE = re.compile(r"\bMIG\b|\bGRID\b|\bvGPU\b|-\d+[ABCQ]\b", re.IGNORECASE)
# Seconds after which events are on disk at the latest, for a TensorBoard that watches the run.
FLUSH_SECONDS = 30


def peak_flops(device_kind: str) -> float | None:
    """bf16 FLOP/s of a device; None when not in the table or only a slice of a card (MFU is then not given)."""
    if _SLICE.search(device_kind):
        return None
    found = (flops for name, flops in PEAK_FLOPS.items() if re.search(rf"(?<![A-Za-z0-9]){name}(?!\d)", device_kind))
    return next(found, None)


def flops_per_token(cfg: ModelConfig, seq_len: int, *, causal: bool) -> float:
    """FLOPs of forward and backward pass per token, recomputation not counted (PaLM appendix B).

    6 per weight that is multiplied (the embedding look-up is none), and attention's two products: 12 L N H T in the
    full convention, half of it in the causal one, which counts what a causal kernel must do.
    """
    matrices = (
        cfg.num_layers
        * cfg.embed_dim
        * (2 * cfg.num_query_heads * cfg.head_dim + 2 * cfg.num_kv_heads * cfg.head_dim + 3 * cfg.ffn_dim)
        + cfg.embed_dim * cfg.vocab_size
    )
    attention = 12 * cfg.num_layers * cfg.num_query_heads * cfg.head_dim * seq_len
    return 6.0 * matrices + attention * (0.5 if causal else 1.0)


def mfu(
    tokens_per_second_per_device: float, cfg: ModelConfig, seq_len: int, device_kind: str, *, causal: bool
) -> float | None:
    """Share of the device's bf16 peak that the model's FLOPs use."""
    peak = peak_flops(device_kind)
    return None if peak is None else tokens_per_second_per_device * flops_per_token(cfg, seq_len, causal=causal) / peak


class Progress:
    """Rates and remaining time from the moments at which steps were seen to be done."""

    def __init__(self, config: RunConfig, device: Any, num_devices: int, start: int, batches: BatchSizes | None = None):
        """batches: of all steps of the run, where they changed; default those of `config`."""
        self._config, self._device, self._num_devices = config, device, num_devices
        self._batches = batches or BatchSizes.constant(config.data)
        # One window of log_every steps: what a user waits for, saving and evaluating included.
        self._seen: collections.deque[tuple[int, float]] = collections.deque(maxlen=config.log_every + 1)
        self._seen.append((start, time.monotonic()))

    def row(self, step: int, metrics: Mapping[str, float]) -> dict[str, float | int | None]:
        """Metrics of a step that has just been seen to be done (`step` steps in all) with rates, memory, position."""
        self._seen.append((step, time.monotonic()))
        (first, begin), (_, end) = self._seen[0], self._seen[-1]
        seconds = (end - begin) / max(step - first, 1)
        c = self._config
        per_step = c.data.global_batch_size * c.data.seq_len
        rate = per_step / max(seconds, 1e-9)
        shares = {
            convention: mfu(
                rate / self._num_devices,
                c.model,
                c.data.seq_len,
                self._device.device_kind,
                causal=convention == "causal",
            )
            for convention in ("causal", "full")
        }
        return {
            **metrics,
            "seconds_per_step": seconds,
            "tokens_per_second": rate,
            "mfu_causal": shares["causal"],
            "mfu_full": shares["full"],
            **memory(self._device),
            # The data's position: records read so far, and tokens.
            "data_records": self._batches.records(step),
            "data_tokens": self._batches.tokens(step),
            "eta_seconds": (c.num_steps - step) * seconds,
        }

    def line(self, step: int, row: Mapping[str, float | int | None]) -> str:
        """The row for the console."""
        parts = [f"step {step:>7,}/{self._config.num_steps:,}", f"loss {row['loss']:.4f}"]
        parts += [f"lr {row['learning_rate']:.2e}", f"grad norm {row['grad_norm']:.3f}"]
        parts += [f"{row['tokens_per_second']:,.0f} tokens/s"]
        if row["mfu_causal"] is not None:
            parts += [f"mfu {row['mfu_causal']:.1%} causal, {row['mfu_full']:.1%} full"]
        gib = row["device_peak_bytes"] or row["host_peak_bytes"]
        parts += [f"{(gib or 0) / 2**30:.2f} GiB", f"eta {datetime.timedelta(seconds=round(row['eta_seconds'] or 0))}"]
        if row["skipped"]:
            parts += [f"{row['skipped']:.0f} skipped"]
        return "  ".join(parts)


def memory(device: Any) -> dict[str, int | None]:
    """Peak bytes in use: of the device (None where it does not say, as on CPU) and of this process's resident set."""
    stats = device.memory_stats() or {}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"device_peak_bytes": stats.get("peak_bytes_in_use"), "host_peak_bytes": peak_kib * 1024}


class MetricsWriter:
    """metrics.jsonl, eval.jsonl and TensorBoard events in a run directory; every step is there once.

    Rows of steps after `start_step` were written by a run that was killed before it saved: dropped, they come again.
    Everything is written in the caller's thread. Raises (all methods): OSError, with the file's name.
    """

    def __init__(self, run_dir: Path, start_step: int):
        self._files: dict[str, TextIO] = {}
        for name in ("metrics", "eval"):
            path = run_dir / f"{name}.jsonl"
            with _naming(path):
                if path.exists():
                    _keep_rows(path, start_step)
                self._files[name] = path.open("a", encoding="utf-8")
        self._board = Events(run_dir / "tensorboard", start_step + 1)

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """A row of metrics.jsonl, and its numbers as TensorBoard scalars."""
        self._append("metrics", {"step": step, "time": round(time.time(), 3), **values})
        self._board.scalars(step, values)

    def write_eval(self, step: int, source: str, values: Mapping[str, float | int | None]) -> None:
        """A row of eval.jsonl."""
        self._append("eval", {"step": step, "source": source, **values})
        self._board.scalars(step, {f"eval/{source}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Closes every file; the first error is raised when all are closed."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._board.close)
            for file in self._files.values():
                stack.enter_context(_naming(Path(file.name)))
                stack.callback(file.close)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        # JSON has no NaN.
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        file = self._files[name]
        with _naming(Path(file.name)):
            file.write(json.dumps(clean) + "\n")
            file.flush()


class Events:
    """A TensorBoard event file, written in the caller's thread: tensorboardX's own writer queues events for a thread that
    a full disk kills, and then blocks for ever when its queue is full.

    Raises (all methods): OSError, with the directory's name.
    """

    def __init__(self, directory: Path, purge_step: int):
        """purge_step: events of this step and later ones in earlier files no longer count."""
        self._directory, self._flushed = directory, time.monotonic()
        with _naming(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # The process in the name: a run may start twice within a second.
            self._writer = EventsWriter(str(directory / "events"), f".{os.getpid()}")
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        with _naming(self._directory):
            for name, value in values.items():
                if value is not None:
                    self._write(Event(step=step, summary=summary.scalar(name, value)))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._flushed = time.monotonic()
                self._writer.flush()

    def close(self) -> None:
        with _naming(self._directory):
            self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError in this block names the file: one of a write does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _keep_rows(path: Path, last_step: int) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    part = path.with_suffix(".part")
    try:
        part.write_text("".join(line + "\n" for line in lines if _step(line) <= last_step), encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut by a kill
        return math.inf
