"""Runs that something happens to: a disk fills, a writer, loader or saver dies or falls silent, nobody reads the output.

Each ends by itself or on SIGTERM, with one line and a code of its own; none hangs. Into processes of their own faults are put by
the file of their configuration (`patch`).
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencoder_jax import overrides, train, validate
from opencoder_jax.checkpoint import load_params, read_record, resolve, write_checksums
from opencoder_jax.train import main
from tests.opencoder_jax.training import T, Trainer, micro_config, write_shards

STEPS = 24
# Waits of tests: what is silent for a second after a signal hangs.
FAST = "import opencoder_jax.watch as w\nw.LOOP_GRACE = w.EXIT_GRACE = 1.0\n"
READ, LOAD = "opencoder_data.shard_format.ShardReader.__getitem__", "opencoder_jax.validate.Evaluator._load"
EVENT = "tensorboardX.event_file_writer.EventsWriter.write_event"
COMMIT = "opencoder_jax.checkpoint.write_checksums"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Trainer:
    """Runs in processes of their own, for what hangs, is killed or loses its streams."""
    return Trainer(tmp_path_factory.mktemp("faults"), {"num_steps": STEPS, "checkpoint.keep_every": 8})


@pytest.fixture
def here(trainer, capsys, monkeypatch):
    """Runs in this process: code and what was printed, standard error last. Changes: as for `Trainer.start`."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("XDG_CACHE_HOME", str(trainer.directory / "cache"))
    if not (trainer.directory / "shards").exists():
        write_shards(trainer.directory / "shards")

    def run(name: str, code: int = 0, **changes) -> str:
        values = trainer.overrides | {key.replace("__", "."): value for key, value in changes.items()}
        config = micro_config(trainer.directory / "shards", run_dir=trainer.directory / name, **values)
        monkeypatch.setattr("opencoder_jax.overrides.parse", lambda _: config)
        capsys.readouterr()
        got = main([])
        printed = "".join(capsys.readouterr())
        assert got == code, printed
        return printed

    return run


@pytest.fixture
def whole(trainer, here) -> Path:
    """A run that nothing happened to."""
    if not (trainer.directory / "whole").exists():
        here("whole")
    return trainer.directory / "whole"


def last_line(printed: str) -> str:
    """The line that says why, alone."""
    assert "Traceback" not in printed, printed
    errors = [line for line in printed.splitlines() if "error" in line]
    assert len(errors) == 1, printed
    return errors[0]


def fails_after(monkeypatch, what: str, calls: int, error: Exception) -> None:
    """`what` (module.Class.method) works for so many calls, then raises; until `monkeypatch.undo`."""
    owner, _, name = what.rpartition(".")
    right, count = pkgutil.resolve_name(what), itertools.count()

    def faulty(*args, **kwargs):
        if next(count) >= calls:
            raise error
        return right(*args, **kwargs)

    monkeypatch.setattr(pkgutil.resolve_name(owner), name, faulty)


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("what", "calls", "error", "message"),
    [
        (EVENT, 60, full(), "tensorboard: No space left on device; free some space"),
        ("opencoder_jax.metrics.json.dumps", 12, full(), "metrics.jsonl: No space left on device; free some space"),
        (COMMIT, 0, full(), "disk full while saving .* checkpoint.max_rolling=2 or raise checkpoint.keep_every=8"),
        (READ, 40, full(), "No space left on device"),
        (READ, 40, OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "too many open files; raise the limit"),
        (READ, 40, ValueError("record 7 is gone"), "record 7 is gone"),
    ],
    ids=["events", "rows", "save", "loader", "open files", "record"],
)
def test_a_fault_ends_the_run_with_one_line_and_it_resumes(here, whole, trainer, monkeypatch, tmp_path, what, calls, error, message):  # fmt: skip
    with monkeypatch.context() as patch:
        fails_after(patch, what, calls, error)
        line = last_line(here(tmp_path.name, code=2))
    assert re.search(message, line), line
    assert "done" in here(tmp_path.name)
    assert trainer.losses(tmp_path.name) == trainer.losses("whole")


def hangs(marker: Path, what: str, calls: int) -> str:
    """Code after which `what` works for so many calls, then makes the file and never returns."""
    owner, _, name = what.rpartition(".")
    return (
        f"{FAST}import itertools, pathlib, pkgutil, threading\n"
        f"owner, count = pkgutil.resolve_name({owner!r}), itertools.count()\nright = owner.{name}\n"
        "def faulty(*args, **kwargs):\n"
        f"    if next(count) >= {calls}:\n"
        f"        pathlib.Path({str(marker)!r}).touch()\n        threading.Event().wait()\n"
        "    return right(*args, **kwargs)\n"
        f"owner.{name} = faulty\n"
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "calls", "message"),
    [
        (READ, 40, "the data loader did not answer for 0.05 minutes"),
        (COMMIT, 0, "takes more than checkpoint.max_save_minutes=0.05|writer did not answer"),
        pytest.param(EVENT, 60, "the files of the metrics did not answer", marks=SLOW),
    ],
    ids=["loader", "save", "events"],
)
def test_silence_ends_the_run_with_one_line(trainer, tmp_path, what, calls, message):
    patch = hangs(tmp_path / "hangs", what, calls)
    printed = trainer.run(
        tmp_path.name, code=5, patch=patch, max_silence_minutes=0.05, checkpoint__max_save_minutes=0.05
    )
    assert re.search(message, last_line(printed)), printed


@pytest.mark.parametrize("what", [pytest.param(READ, marks=SLOW), EVENT, LOAD], ids=["loader", "events", "evaluation"])
def test_sigterm_ends_a_run_in_which_something_hangs(trainer, tmp_path, what):
    evaluation = {"data__eval_sources": trainer.directory / "shards", "eval_every": 4} if what == LOAD else {}
    patch = hangs(tmp_path / "hangs", what, {READ: 40, EVENT: 60, LOAD: 1}[what])
    process = trainer.start(tmp_path.name, patch=patch, **evaluation)
    while not (tmp_path / "hangs").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 5, printed
    assert "stopped by a signal while" in last_line(printed)


def test_ctrl_c_saves_as_sigterm_does(trainer):
    process = trainer.start("interrupted", num_steps=2000, checkpoint__keep_every=0)
    while len(trainer.rows("interrupted")) < 5 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 3, printed
    saved = len(trainer.rows("interrupted"))
    assert f"stopped by Ctrl-C at step {saved}, saved" in printed
    assert (trainer.directory / "interrupted" / "checkpoints" / str(saved)).is_dir()


def test_one_run_directory_one_trainer(trainer, here):
    """The second is rejected with the first's pid; SIGKILL frees the directory at once; the first is not disturbed."""
    first = trainer.start("shared", num_steps=8_000)
    try:
        while len(trainer.rows("shared")) < 2 and first.poll() is None:
            time.sleep(0.001)
        line = last_line(here("shared", code=2))
        assert f"another trainer works there (pid {first.pid} on {os.uname().nodename}" in line
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert "held by" not in here("shared", num_steps=trainer.rows("shared")[-1]["step"] + 2)


def test_nobody_reads_standard_output(trainer):
    read, write = os.pipe()
    process = trainer.start("unread", stdout=write)
    os.close(write)
    os.close(read)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(said.splitlines()) == 1
    assert "standard output is closed" in said


@SLOW
def test_closed_standard_streams_do_not_matter(trainer, whole):
    """Their numbers must not become those of the run's files, into which libraries would write warnings."""

    def close() -> None:
        os.close(1)
        os.close(2)

    process = trainer.start("closed", before=close)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(trainer.losses("closed")) == STEPS


def test_a_checkpoint_of_a_newer_version_is_named_by_its_field(trainer, here, whole):
    run = trainer.directory / "newer"
    shutil.copytree(whole, run)
    for checkpoint in (run / "checkpoints").iterdir():
        path = checkpoint / "run" / "metadata"
        record = json.loads(path.read_text())
        record["config"]["model"]["qk_norm"] = True
        path.write_text(json.dumps(record))
        write_checksums(checkpoint)
    for name, options in (("newer", {}), ("child", {"init_from": run})):
        assert "unknown field model.qk_norm: saved by a newer version" in last_line(here(name, code=2, **options))
    for read in (load_params, lambda path: read_record(resolve(path))):  # of generate, and of export and validate
        with pytest.raises(ValueError, match=r"unknown field model\.qk_norm"):
            read(run)


def test_warm_start_from_another_tokenizer_is_rejected_and_changed_fields_are_said(trainer, here, whole):
    other = write_shards(trainer.directory / "other", tokenizer_hash="u")
    options = {"init_from": whole, "num_steps": 2, "schedule__warmup_steps": 0}
    line = last_line(here("warm", code=2, data__sources=other, **options))
    assert "was trained with tokenizer t, data.sources were packed with u" in line
    printed = here("warm", model__rope_theta=5e5, model__norm_eps=1e-6, **options)
    said = [line for line in printed.splitlines() if line.startswith("warning: changed since")]
    assert [line.rpartition(": model.")[2] for line in said] == [
        "rope_theta: 10000.0 -> 500000.0",
        "norm_eps: 1e-05 -> 1e-06",
    ]
    allowed = here("allowed", data__sources=other, checkpoint__allow_data_change="true", **options)
    assert [line for line in allowed.splitlines() if line.startswith("warning: ") and "tokenizer t" in line]


def test_fewer_steps_than_done_are_rejected(here, whole):
    line = last_line(here("whole", code=2, num_steps=STEPS - 1))
    assert f"num_steps={STEPS - 1} is below step {STEPS}" in line
    assert "done" in here("whole")


def test_another_batch_size_goes_on_at_the_recorded_position(trainer, here, whole):
    """24 steps of 8, then 6 of 16, then 6 of 4: every record of the stream once, and the counts right."""
    shutil.copytree(whole, trainer.directory / "batches")
    allowed = {"checkpoint__allow_data_change": "true"}
    here("batches", num_steps=STEPS + 6, data__global_batch_size=16, **allowed)
    # In two goes, the second of which has nothing to allow.
    here("batches", num_steps=STEPS + 10, data__global_batch_size=4, **allowed)
    here("batches", num_steps=STEPS + 12, data__global_batch_size=4)
    rows = trainer.rows("batches")
    records = [8 * s for s in range(1, STEPS + 1)] + [STEPS * 8 + 16 * s for s in range(1, 7)]
    records += [STEPS * 8 + 96 + 4 * s for s in range(1, 7)]
    assert [r["data_records"] for r in rows] == records
    assert [r["data_tokens"] for r in rows] == [T * n for n in records]
    assert trainer.losses("batches")[:STEPS] == trainer.losses("whole")


def test_run_whose_every_update_was_skipped_is_not_done(trainer, here):
    """Weights beyond fp32 after every update, from finite losses and gradients: the guard looks at the weights too."""
    printed = here("skipped", code=4, schedule__peak=3e38, schedule__warmup_steps=0, optimizer__b1=0, num_steps=3,
        optimizer__weight_decay=1e3, model__init_std=1.0)  # fmt: skip
    assert "all of the 3 updates were non-finite and skipped" in last_line(printed)
    assert [r["skipped"] for r in trainer.rows("skipped")] == [1, 2, 3]
    assert all(r["grad_norm"] > 0 for r in trainer.rows("skipped"))


def test_space_is_estimated_at_start(here, monkeypatch):
    usage = shutil.disk_usage("/")
    assert not any(line.startswith("warning") for line in here("space", num_steps=6).splitlines())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    printed = here("space", num_steps=14, checkpoint__keep_every=1)
    (said,) = (line for line in printed.splitlines() if line.startswith("warning") and "free" in line)
    assert "raise checkpoint.keep_every=1 or lower checkpoint.max_rolling=2" in said


def test_kernels_that_were_chosen_are_said_and_recorded(trainer, here):
    printed = here("kernels", num_steps=5)
    assert "attention xla" in next(line for line in printed.splitlines() if line.startswith("kernels: "))
    (start,) = [json.loads(line) for line in (trainer.directory / "kernels" / "starts.jsonl").read_text().splitlines()]
    record = read_record(resolve(trainer.directory / "kernels"))
    assert start["kernels"] == record["kernels"]
    assert set(start["kernels"]) == {"attention", "swiglu", "rms_norm", "linear_cross_entropy"}
    assert set(start["kernels"].values()) == {"xla"}


def test_a_run_directory_that_is_not_text_in_this_locale_is_rejected(here, trainer):
    line = last_line(here("caf\udce9", code=2))
    assert "set LC_ALL=C.UTF-8 or PYTHONUTF8=1" in line
    assert "done" in here("café", num_steps=5)


@pytest.mark.parametrize("module", [train, validate])
def test_help_is_printed(module, capsys):
    assert module.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(module.__doc__[:40])
    if module is train:
        assert "--optimizer.b2=float, at least 0 and at most" in printed
        assert all(f"--{name}=" in printed for name, _ in overrides.leaves(micro_config()))


@SLOW
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_fills_while_training(trainer, tmp_path):
    """A real one, of 1 MiB: ends by itself with one line, whatever is written when it is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no mounts here")
    try:
        (trainer.directory / "small").symlink_to(disk)
        line = last_line(
            trainer.run("small/run", code=2, num_steps=8_000, log_every=1000, checkpoint__keep_every=0, timeout=200)
        )
        assert "No space left on device" in line or "disk full" in line
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
