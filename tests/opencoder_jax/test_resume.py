"""Runs as real processes: killed at any moment, stopped, corrupt, moved to another mesh; the losses stay the same."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.checkpoint import Checkpoints, corruption, load_params, newest_valid
from opencoder_jax.config import CheckpointConfig
from tests.opencoder_jax.training import FAST_COMPILE, Trainer, fake_devices, write_shards

STEPS = 80


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Trainer:
    """A run that is never interrupted is in `whole`; it saves as often as those that are."""
    trainer = Trainer(tmp_path_factory.mktemp("resume"), {"num_steps": STEPS, "checkpoint.keep_every": 8})
    trainer.run("whole")
    assert trainer.losses("whole")[-1] < trainer.losses("whole")[0] - 1
    return trainer


def kill(trainer: Trainer, run: str, choice: random.Random, during_save: bool) -> None:
    """Starts the run and ends it by SIGKILL: within a save, or a random moment after a random step."""
    process = trainer.start(run)
    rows = trainer.rows(run)
    target = choice.randrange(len(rows) + 1, STEPS) if len(rows) + 1 < STEPS else STEPS
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        saving = any((trainer.directory / run / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
        enough = (trainer.rows(run) or [{"step": 0}])[-1]["step"] >= target
        if enough and (saving or not during_save):
            break
        time.sleep(0.001)
    if not during_save:
        time.sleep(choice.random() * 0.05)
    process.kill()
    process.communicate()


def check_killed(trainer: Trainer, run: str, kills: int) -> None:
    choice = random.Random(kills)
    for i in range(kills):
        kill(trainer, run, choice, during_save=i % 2 == 0)
        if len(trainer.rows(run)) >= STEPS:  # it came to its end: start over, so that every kill interrupts something
            assert trainer.losses(run) == trainer.losses("whole")
            shutil.rmtree(trainer.directory / run)
    # The last kill may have come before the first checkpoint: then there is nothing to resume yet.
    while not any(p.name.isdigit() for p in (trainer.directory / run / "checkpoints").glob("*")):
        kill(trainer, run, choice, during_save=True)
    printed = trainer.run(run)
    assert "resumed" in printed
    # Every step once, every loss bit for bit, and the same weights.
    assert trainer.losses(run) == trainer.losses("whole")
    mine, whole = (load_params(trainer.directory / r)[0] for r in (run, "whole"))
    assert all(np.array_equal(a, b) for a, b in zip(flatten(mine), flatten(whole), strict=True))


def flatten(tree) -> list[np.ndarray]:
    import jax

    return jax.tree.leaves(tree)


def test_four_kills(trainer):
    check_killed(trainer, "killed-4", 4)


@pytest.mark.slow
def test_twenty_kills(trainer):
    check_killed(trainer, "killed-20", 20)


def test_sigterm_saves_and_exits_with_3(trainer):
    process = trainer.start("stopped")
    while len(trainer.rows("stopped")) < 10 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 3, printed
    assert "stopped by SIGTERM" in printed
    saved = len(trainer.rows("stopped"))
    assert (trainer.directory / "stopped" / "checkpoints" / str(saved)).is_dir()
    assert f"resumed {trainer.directory / 'stopped'} at step {saved}" in trainer.run("stopped")
    assert trainer.losses("stopped") == trainer.losses("whole")


@pytest.mark.parametrize("harm", ["flip", "half-written"])
def test_corrupt_checkpoint_gives_way_to_the_one_before(trainer, harm):
    run = trainer.directory / f"corrupt-{harm}"
    shutil.copytree(trainer.directory / "whole", run)
    steps = sorted(int(p.name) for p in (run / "checkpoints").iterdir())
    newest = run / "checkpoints" / str(steps[-1])
    file = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if harm == "flip":
        flip(file)
    else:
        newest.rename(newest.with_name(f"{newest.name}.orbax-checkpoint-tmp"))
    printed = trainer.run(run.name)
    assert f"resumed {run} at step {steps[-2]}" in printed
    said = next(line for line in printed.splitlines() if line.startswith("warning"))
    assert str(newest) in said
    assert "using the checkpoint before" in said
    assert trainer.losses(run.name) == trainer.losses("whole")
    assert not list((run / "checkpoints").glob("*tmp*"))


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


HARM = {
    "checksum": flip,
    "bytes where": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("words", HARM)
def test_every_corrupt_file_is_found(trainer, words, tmp_path):
    """One harmed file after another, of those that a restore reads."""
    shutil.copytree(trainer.directory / "whole" / "checkpoints", tmp_path / "checkpoints")
    newest = max((int(p.name), p) for p in (tmp_path / "checkpoints").iterdir())[1]
    files = [p for part in ("state", "run") for p in (newest / part).rglob("*") if p.is_file()]
    assert len(files) > 5
    assert corruption(newest) is None
    for file in files:
        raw = file.read_bytes()
        HARM[words](file)
        reason = corruption(newest)
        assert reason is not None, file
        assert words in reason
        assert str(file) in reason
        if words == "bytes where":
            assert corruption(newest, "size") is not None
        file.write_bytes(raw)
    (newest / "checksums.json").unlink()
    assert "checksums.json: No such file" in str(corruption(newest))


FORMS = {
    "a list": lambda sums: list(sums),
    "null": lambda sums: None,
    "a number": lambda sums: 3,
    "nothing listed": lambda sums: {},
    "digests alone": lambda sums: {name: digest for name, (_, digest) in sums.items()},
    "another order": lambda sums: {name: [digest, size] for name, (size, digest) in sums.items()},
    "a size of words": lambda sums: {name: [str(size), digest] for name, (size, digest) in sums.items()},
    "a third entry": lambda sums: {name: [size, digest, 0] for name, (size, digest) in sums.items()},
    "no record": lambda sums: {name: value for name, value in sums.items() if not name.startswith("run/")},
    "one file less": lambda sums: dict(list(sums.items())[1:]),
    "files elsewhere": lambda sums: sums | {"../../x": [0, ""]},
}


@pytest.mark.parametrize("form", FORMS)
def test_checksums_of_another_form_are_corruption(trainer, tmp_path, form):
    newest = max((int(p.name), p) for p in (trainer.directory / "whole" / "checkpoints").iterdir() if p.name.isdigit())[
        1
    ]
    shutil.copytree(newest, tmp_path / newest.name)
    path = tmp_path / newest.name / "checksums.json"
    path.write_text(json.dumps(FORMS[form](json.loads(path.read_text()))))
    reason = corruption(tmp_path / newest.name)
    assert reason is not None
    assert "checksums.json" in reason
    assert "\n" not in reason
    with pytest.raises(ValueError, match="no valid checkpoint is left"):
        newest_valid(tmp_path)


def test_no_valid_checkpoint_is_rejected(trainer, tmp_path):
    shutil.copytree(trainer.directory / "whole" / "checkpoints", tmp_path / "checkpoints")
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        (checkpoint / "checksums.json").write_text("{")
    with pytest.raises(ValueError, match="no valid checkpoint is left"):
        newest_valid(tmp_path / "checkpoints", tidy=True)


def test_resumes_on_another_mesh(trainer):
    """Eight devices, then two, then one: losses as on one device."""
    eight, two = (fake_devices(n, FAST_COMPILE) for n in (8, 2))
    stages = [
        (eight, 8, {"mesh__fsdp": 4, "mesh__tensor": 2}),
        (two, 14, {"mesh__data": 2, "mesh__fsdp": 1}),
        ({}, 20, {}),
    ]
    for variables, steps, mesh in stages:
        # The schedule is constant after its warm-up: the number of steps does not change it.
        trainer.run("moved", variables=variables, num_steps=steps, **mesh)
    np.testing.assert_allclose(trainer.losses("moved"), trainer.losses("whole")[:20], rtol=1e-5)


def test_other_data_is_rejected_unless_allowed(trainer):
    run = trainer.directory / "other-data"
    shutil.copytree(trainer.directory / "whole", run)
    other = write_shards(trainer.directory / "other", seed=9)
    printed = trainer.run(run.name, code=2, data__sources=other, num_steps=STEPS + 2)
    assert "shards, mixture changed" in printed.splitlines()[-1]
    allowed = {"data__sources": other, "num_steps": STEPS + 2, "checkpoint__allow_data_change": "true"}
    assert f"at step {STEPS}" in trainer.run(run.name, **allowed)
    assert len(trainer.losses(run.name)) == STEPS + 2


def test_other_architecture_is_rejected(trainer):
    printed = trainer.run("whole", code=2, model__ffn_dim=128)
    assert "another architecture" in printed.splitlines()[-1]
    assert "model.ffn_dim=64" in printed.splitlines()[-1]


def test_annealing_inherits_parameters_and_moments(trainer):
    other = write_shards(trainer.directory / "anneal-shards", seed=3)
    printed = trainer.run(
        "annealed",
        init_from=trainer.directory / "whole",
        data__sources=f"{trainer.directory / 'shards'}:1,{other}:3",
        schedule__warmup_steps=0,
        schedule__decay_steps=40,
        num_steps=40,
    )
    assert "parameters and optimizer state inherited" in printed
    rows = trainer.rows("annealed")
    assert [rows[0]["step"], rows[0]["learning_rate"]] == [1, pytest.approx(3e-3)]
    assert rows[-1]["learning_rate"] == pytest.approx(1e-5 * (3e-3 / 1e-5) ** (1 / 40), rel=1e-4)
    # Learnt already, although half of the data is new: no start at ln(64) = 4.2.
    assert rows[0]["loss"] < 2


def test_disk_full_is_one_line_and_leaves_nothing_half_written(trainer):
    """No file may exceed 48 KiB (the operating system's limit): the state does not fit."""
    limit = 48 << 10
    printed = trainer.run(
        "full",
        code=2,
        num_steps=20,
        checkpoint__save_minutes=30,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    errors = [line for line in printed.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "saving failed" in errors[0]
    assert "File too large" in errors[0]
    assert list((trainer.directory / "full" / "checkpoints").iterdir()) == []
    assert "Traceback" not in printed


def test_disk_full_names_the_remedy(tmp_path):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())

    def no_space():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        ValueError,
        match=r"disk full while saving .* free some space or lower checkpoint.max_rolling.* or raise checkpoint.keep_every",
    ):
        checkpoints._guard(no_space)


def checkpoint_steps(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def test_permanent_checkpoints_stay_and_rolling_ones_go(trainer):
    trainer.run("kept", num_steps=19, checkpoint__keep_every=6, checkpoint__save_minutes=0)
    assert checkpoint_steps(trainer.directory / "kept") == [6, 12, 18, 19]
