"""Checkpoints of a run: state, position in the data, configuration, versions. Orbax, asynchronous.

`RUN/checkpoints/STEP/` holds `state` (Orbax arrays), `run` (JSON, see `run_record`) and `checksums.json`. Orbax writes
under another name and renames; the checksums are written just before, so that a directory with its final name is complete.
Array files carry no checksum of their own that a reader checks: without ours a flipped bit would be trained on.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xxhash
from flax import nnx
from jax.experimental import multihost_utils

from opencoder_jax import model as lm
from opencoder_jax.config import CheckpointConfig, RunConfig
from opencoder_jax.mixture import BatchSizes
from opencoder_jax.overrides import from_dict, to_json

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
CHECKSUMS = "checksums.json"
_UNFINISHED = ".orbax-checkpoint-tmp"
_READ_BYTES = 8 << 20


class Checkpoints:
    """Saves and restores the states of one run.

    Steps that `keep_every` divides are permanent; besides them the newest `max_rolling` of all stay. The processes of a run
    share the directory. Raises (save, check, wait): ValueError in one line when writing failed, the unfinished directory removed,
    or when a save takes more than `max_save_minutes`.
    """

    def __init__(self, run_dir: str | Path, config: CheckpointConfig):
        self.directory = Path(run_dir).absolute() / "checkpoints"
        self._config = config
        self._saving = -1
        self._saving_since = 0.0
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.max_rolling,
            keep_period=config.keep_every or None,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        self._manager = self._guard(
            lambda: ocp.CheckpointManager(self.directory, options=options, item_names=("state", "run"))
        )

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Starts writing `state`, and `record` (JSON), as step `step`; returns once the arrays are copied off the device."""
        if step in self._manager.all_steps():
            return
        self.wait()  # for the save before this one
        self._saving, self._saving_since = step, time.monotonic()
        items = ocp.args.Composite(state=ocp.args.StandardSave(plain(state)), run=ocp.args.JsonSave(record))
        self._guard(lambda: self._manager.save(step, args=items, force=True))

    def check(self) -> None:
        """Raises when the save in the background has failed, or hangs."""
        self._guard(self._manager.check_for_errors)
        minutes = (time.monotonic() - self._saving_since) / 60
        if minutes > self._config.max_save_minutes and self._manager.is_saving_in_progress():
            raise Hangs(
                f"{self.directory}: the save of step {self._saving} takes more than "
                f"checkpoint.max_save_minutes={self._config.max_save_minutes:g}: its writer hangs"
            )

    def wait(self) -> None:
        """Until everything saved is on disk."""
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        self._guard(self._manager.close)

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any], list[str]]:
        """The newest valid checkpoint, laid out as `abstract_state` says (any mesh, any number of processes).

        Returns: state (None when there is none), record, and a line for each newer one that is half-written (removed)
        or corrupt (renamed to corrupt-STEP).
        Raises: ValueError when all are corrupt or the checkpoint is of another architecture.
        """
        step, warnings = _agree(lambda: newest_valid(self.directory, self._config.verify, tidy=True))
        self._manager.reload()
        if step is None:
            return None, {}, warnings
        return *load_state(self.directory / str(step), abstract_state), warnings

    def _write_checksums(self) -> None:
        """In the thread of the save, when all files are written and the directory has not got its name yet."""
        if jax.process_index():
            return
        write_checksums(next(self.directory.glob(f"{self._saving}{_UNFINISHED}*")))

    def _guard(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (OSError, ValueError, RuntimeError) as error:
            if jax.process_index() == 0:
                for left in self.directory.glob(f"*{_UNFINISHED}*"):
                    shutil.rmtree(left, ignore_errors=True)
            raise ValueError(_explain(self.directory, error, self._config)) from error


def silence_abandoned_writes() -> None:
    """Keeps stacks off the console that follow a failed save.

    When one of tensorstore's writers fails, Orbax ends the save and raises it; the others then report to an event loop
    that is gone, each with a stack that says only this, or asyncio logs that nobody waited for their failure.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    show = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


def write_checksums(directory: Path) -> None:
    """The last file of a checkpoint directory."""
    names = _files(directory)
    with ThreadPoolExecutor() as pool:
        sums = dict(zip(names, pool.map(lambda name: _checksum(directory / name), names), strict=True))
    (directory / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")


def newest_valid(directory: Path, verify: str = "full", *, tidy: bool = False) -> tuple[int | None, list[str]]:
    """Step of the newest checkpoint whose files are what was written, and a line for each newer one that is not.

    verify: "full" reads every byte, "size" compares lengths. tidy: unfinished directories are removed, corrupt ones renamed.
    Raises: ValueError when there are checkpoints and all are corrupt.
    """
    warnings = []
    unfinished = list(directory.glob(f"*{_UNFINISHED}*"))
    for left in unfinished:
        warnings.append(f"{left}: half-written when the run was stopped" + (", removed" if tidy else ""))
        if tidy:
            shutil.rmtree(left)
    corrupt = []
    for step in sorted((int(p.name) for p in directory.glob("*") if p.name.isdigit()), reverse=True):
        reason = corruption(directory / str(step), verify)
        if reason is None:
            for bad in corrupt if tidy else []:
                target = directory / f"corrupt-{bad}"
                shutil.rmtree(target, ignore_errors=True)
                (directory / str(bad)).rename(target)
            return step, warnings
        corrupt.append(step)
        warnings.append(reason)
    if corrupt:
        raise ValueError(f"{'; '.join(warnings)}: no valid checkpoint is left; remove {directory} to start again")
    return None, warnings


def corruption(directory: Path, verify: str = "full") -> str | None:
    """What is wrong with a checkpoint, naming the file; None when nothing is."""
    try:
        sums = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{directory / CHECKSUMS}: {getattr(error, 'strerror', None) or 'corrupt'}"
    if not _are_checksums(sums):
        return f"{directory / CHECKSUMS}: corrupt (not the sizes and checksums of a checkpoint's files)"
    if unlisted := sorted(set(_files(directory)) - set(sums)):
        return f"{directory / unlisted[0]}: not listed in {CHECKSUMS}"

    def compare(item: tuple[str, list]) -> str | None:
        path, (size, digest) = directory / item[0], item[1]
        try:
            if not path.is_file():
                return f"{path}: missing"
            if path.stat().st_size != size:
                return f"{path}: {path.stat().st_size} bytes where {size} were written"
            if verify == "full" and _checksum(path)[1] != digest:
                return f"{path}: corrupt (checksum)"
        except OSError as error:
            return f"{path}: {error.strerror}"
        return None

    with ThreadPoolExecutor() as pool:
        return next((reason for reason in pool.map(compare, sums.items()) if reason), None)


def _are_checksums(sums: Any) -> bool:
    """Whether this is what `write_checksums` writes: {file: [size, hex digest]}, with state and record among the files."""
    return (
        isinstance(sums, dict)
        and "run/metadata" in sums
        and any(name.startswith("state/") for name in sums)
        and all(
            isinstance(value, list) and len(value) == 2 and type(value[0]) is int and isinstance(value[1], str)
            for value in sums.values()
        )
        and not any(".." in Path(name).parts or Path(name).is_absolute() for name in sums)
    )


def _files(directory: Path) -> list[str]:
    """What a checkpoint's checksums cover: not the files beside state and run, into which Orbax writes the time of the
    commit later."""
    files = (p for part in ("state", "run") for p in (directory / part).rglob("*") if p.is_file())
    return sorted(str(p.relative_to(directory)) for p in files)


def run_record(
    config: RunConfig,
    step: int,
    fingerprint: dict[str, str],
    compiler_options: dict[str, Any] | None = None,
    *,
    batches: BatchSizes | None = None,
    kernels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What is beside the arrays: enough to reject a wrong resume and to rebuild the model.

    The random state is the seed: weights are drawn at step 0 only, and the order of the data is a function of
    (seed, step). Args: batches: of the steps so far, default those of `config`. kernels: operation -> backend.
    """
    batches = batches or BatchSizes.constant(config.data)
    return {
        "step": step,
        "data": fingerprint | {"position": batches.records(step)},
        "batches": batches.changes,
        "random": {"seed": config.seed},
        "config": json.loads(to_json(config)),
        "versions": {name: version(name) for name in PACKAGES},
        "compiler_options": compiler_options or {},
        "kernels": kernels or {},
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def read_record(checkpoint: Path) -> dict[str, Any]:
    """The record of one checkpoint directory. Raises: ValueError naming the file, and the field that a newer version saved."""
    path = checkpoint / "run" / "metadata"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not {"step", "data", "random", "config"} <= record.keys():
            raise ValueError("no record of a run")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); not a checkpoint of this trainer") from None
    try:
        from_dict(record["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return record


def batches_so_far(record: dict[str, Any]) -> BatchSizes:
    """Sizes of the batches that a run has read, by step; runs of earlier versions had one size."""
    data = from_dict(record["config"]).data
    changes = record.get("batches")
    return BatchSizes(tuple(map(tuple, changes))) if changes else BatchSizes.constant(data)


def load_state(checkpoint: Path, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
    """(state, record) of one checkpoint directory. Raises: ValueError for another architecture."""
    record = read_record(checkpoint)
    saved = from_dict(record["config"]).model
    here, there = (plain(jax.tree.map(lambda x: x.shape, w)) for w in (abstract_state["params"], lm.abstract(saved)[1]))
    if here != there:
        fields = {
            k: v for k, v in record["config"]["model"].items() if k.startswith(("num_", "vocab")) or k.endswith("_dim")
        }
        shape = ", ".join(f"model.{k}={v}" for k, v in fields.items())
        raise ValueError(
            f"{checkpoint}: another architecture ({shape}); use its config, or another run_dir or init_from"
        )
    with ocp.StandardCheckpointer() as reader:
        return declared(reader.restore(checkpoint / "state", plain(abstract_state)), abstract_state), record


def plain(state: Any) -> Any:
    """A state as it is stored: arrays under their names, without the declarations of weights."""
    is_weight = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return jax.tree.map(lambda x: x.get_value() if is_weight(x) else x, state, is_leaf=is_weight)


def declared(stored: Any, abstract_state: Any) -> Any:
    """The inverse of `plain`, with the declarations of `abstract_state`."""
    return jax.tree.unflatten(jax.tree.structure(abstract_state), jax.tree.leaves(stored))


def load_params(path: str | Path) -> tuple[nnx.State, RunConfig, dict[str, Any]]:
    """Weights (numpy, on the host), configuration and record of a run directory or of one of its checkpoints.

    Reads the parameters alone, a third of the state. Raises: ValueError when there is nothing sound to read there.
    """
    checkpoint = resolve(path)
    record = read_record(checkpoint)
    config = from_dict(record["config"])
    weights = lm.abstract(config.model)[1]
    shapes = {"params": plain(weights)}
    kinds = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), shapes)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = ocp.args.PyTreeRestore(item=shapes, restore_args=kinds, partial_restore=True)
        return declared(reader.restore(checkpoint / "state", args=args)["params"], weights), config, record


def resolve(path: str | Path) -> Path:
    """Checkpoint directory of `RUN` (its newest valid one), `RUN/checkpoints` or `RUN/checkpoints/STEP`.

    Raises: ValueError when there is none, or the one named is corrupt.
    """
    path = Path(path).absolute()
    if path.name.isdigit() and (path / "run").is_dir():
        if reason := corruption(path):
            raise ValueError(f"{reason}: choose another checkpoint in {path.parent}")
        return path
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    step, _ = newest_valid(directory)
    if step is None:
        raise ValueError(f"{path}: no checkpoint there; give a run directory (runs/NAME) or RUN/checkpoints/STEP")
    return directory / str(step)


def _agree(choose: Callable[[], tuple[int | None, list[str]]]) -> tuple[int | None, list[str]]:
    """Process 0 chooses for all; its errors are everyone's."""
    if jax.process_count() == 1:
        return choose()
    step, warnings, error = None, [], None
    if jax.process_index() == 0:
        try:
            step, warnings = choose()
        except ValueError as failure:
            error = failure
    code = -2 if error else -1 if step is None else step
    code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == -2:
        raise error or ValueError("no valid checkpoint is left (process 0 says more)")
    return (None if code == -1 else code), warnings


def _checksum(path: Path) -> list:
    """[size in bytes, xxh3-64 in hex]."""
    digest, size = xxhash.xxh3_64(), 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return [size, digest.hexdigest()]


def space_needed(directory: Path, config: RunConfig, start: int, state_bytes: int) -> int:
    """Bytes that the checkpoints of the steps to come take at most besides those that are there: the permanent ones, the
    rolling ones and one that is being written. Stored states are compressed a little."""
    c = config.checkpoint
    permanent = config.num_steps // c.keep_every - start // c.keep_every if c.keep_every else 0
    there = sum(1 for p in directory.glob("*") if p.name.isdigit())
    return state_bytes * (permanent + max(0, c.max_rolling + 1 - there))


def space_warning(directory: Path, config: RunConfig, start: int, state_bytes: int) -> str | None:
    """A line when the file system has less free space than the run's checkpoints will take."""
    needed, free = space_needed(directory, config, start, state_bytes), shutil.disk_usage(directory).free
    if needed <= free:
        return None
    c = config.checkpoint
    return (
        f"{directory}: checkpoints up to step {config.num_steps:,} take about {needed / 2**30:.2f} GiB "
        f"({state_bytes / 2**30:.2f} GiB each), {free / 2**30:.2f} GiB are free; free some space, raise "
        f"checkpoint.keep_every={c.keep_every} or lower checkpoint.max_rolling={c.max_rolling}"
    )


class Hangs(Exception):
    """Something in the background has been silent for too long."""


def _explain(directory: Path, error: Exception, config: CheckpointConfig) -> str:
    text = str(error)
    if any(sign in text for sign in ("No space left", "os_error_code='28'", "ENOSPC", "Disk quota")):
        free = shutil.disk_usage(directory).free / 2**30 if directory.exists() else 0
        return (
            f"{directory}: disk full while saving ({free:.1f} GiB free); free some space or lower checkpoint.max_rolling="
            f"{config.max_rolling} or raise checkpoint.keep_every={config.keep_every} (a permanent checkpoint every so "
            "many steps), then resume"
        )
    if any(sign in text for sign in ("File too large", "os_error_code='27'", "EFBIG")):
        return f"{directory}: saving failed: File too large for the operating system's limit (ulimit -f); raise it, then resume"
    if any(sign in text for sign in ("Too many open files", "os_error_code='24'", "EMFILE", "os_error_code='23'")):
        return f"{directory}: saving failed: Too many open files; raise the limit (ulimit -n 4096), then resume"
    if isinstance(error, PermissionError):
        return f"{directory}: not writable; give another run_dir"
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    return f"{directory}: saving failed: {first[:300]}"
