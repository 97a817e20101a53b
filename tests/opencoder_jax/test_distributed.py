"""Two processes on localhost train the run that one process trains, and hand it over to one."""

from __future__ import annotations

import signal
import subprocess
import time

import numpy as np
import pytest

from opencoder_jax import distributed
from tests.opencoder_jax.training import Trainer, free_port


def two(trainer: Trainer, run: str, *, second: dict | None = None, **changes) -> list[subprocess.Popen[str]]:
    """second: overrides of the second process alone."""
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    both = [changes, changes | (second or {})]
    return [trainer.start(run, variables=shared | {"JAX_PROCESS_ID": str(i)}, **both[i]) for i in (0, 1)]


def wait(processes: list[subprocess.Popen[str]], timeout: float = 120) -> list[str]:
    """What they printed; none outlives the wait."""
    try:
        return [p.communicate(timeout=timeout)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()


def test_two_processes_train_as_one_and_stop_together(tmp_path):
    """SIGTERM reaches the second process only; both save the same step; one process goes on from there."""
    trainer = Trainer(tmp_path, {"num_steps": 2000, "checkpoint.save_minutes": 0.02, "log_every": 5})
    processes = two(trainer, "two", mesh__data=2, mesh__fsdp=1)
    while len(trainer.rows("two")) < 10 and all(p.poll() is None for p in processes):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    printed = wait(processes)
    assert [p.returncode for p in processes] == [3, 3], "\n".join(printed)
    assert "2 process(es)" in printed[0]
    assert "step" not in printed[1], "only the first process speaks"
    stopped = len(trainer.rows("two"))
    assert 10 <= stopped < 2000
    assert f"at step {stopped}" in trainer.run("two", num_steps=stopped + 10)
    trainer.run("one", num_steps=stopped + 10)
    np.testing.assert_allclose(trainer.losses("two"), trainer.losses("one"), rtol=1e-5)


def test_different_commands_are_rejected(tmp_path):
    """With sixty sources, whose names come before the field that differs."""
    sources = ",".join(f"/{'far' * 20}/{i}:{i + 1}" for i in range(60))
    processes = two(Trainer(tmp_path), "run", second={"seed": 1}, data__sources=sources)
    printed = wait(processes)
    assert [p.returncode for p in processes] == [2, 2], printed
    assert "the configuration differs between process 0 and processes [1] (seed)" in printed[0].splitlines()[-1]


class Layout:
    """Shape and sharding of a batch [A, 8, T], as one process sees them: the rows that its devices hold."""

    shape = (2, 8, 32)

    def __init__(self, *rows: tuple[int, int]):
        self.rows = rows

    @property
    def sharding(self):
        return self

    def addressable_devices_indices_map(self, shape):
        assert shape == self.shape
        return {i: (slice(None), slice(*rows), slice(None)) for i, rows in enumerate(self.rows)}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 1), (1, 2)], (0, 2)),
        ([(6, 7), (7, 8)], (6, 8)),
        ([(4, 8), (4, 8)], (4, 8)),  # devices of one tensor or context group
        ([(0, 8)], (0, 8)),
        ([(0, 1), (4, 5)], (0, 8)),  # apart: everything is read
        ([(1, 2), (2, 3)], (0, 8)),  # not aligned
    ],
)
def test_rows_of_a_process(rows, expected):
    assert distributed.local_rows({"tokens": Layout(*rows)}) == expected  # type: ignore[dict-item]


def test_coordinator_must_be_named(monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="set JAX_COORDINATOR_ADDRESS=host:port too"):
        distributed.initialize()
