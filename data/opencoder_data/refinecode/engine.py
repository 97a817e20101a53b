"""Runs independent tasks: processes of this machine, or Ray tasks on a cluster.

Tasks are pure functions of their arguments that leave their result in files and return a small value, so the executor
decides when and where, never what. Ray is imported only when asked for.
"""

import multiprocessing
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from opencoder_data import command
from opencoder_data.refinecode.config import EngineConfig, LayoutConfig

Task = Callable[..., Any]

# Open files: measured with lsof for one process of a run with all stages, doubled, and pipes for each worker.
_DRIVER_FILES, _WORKER_FILES = 64, 8


# Measured on code of a Python installation (docs/experiments/2026-11-21-refinecode-engine.md), with a fifth to spare.
_DRIVER_MB, _WORKER_MB, _PER_BATCH_MB, _PER_PARTITION_MB, _PER_SHUFFLE_ROW_BYTES = 150, 500, 4, 5, 800


def workers_within(memory_mb: int, layout: LayoutConfig) -> int:
    """How many workers of this layout fit; ValueError when there is no space for one."""
    text = _PER_BATCH_MB * layout.batch_mb + _PER_PARTITION_MB * layout.partition_mb
    each = _WORKER_MB + max(text, _PER_SHUFFLE_ROW_BYTES * layout.shuffle_rows / 1e6)
    workers = int((memory_mb - _DRIVER_MB) // each)
    if workers < 1:
        raise ValueError(
            f"engine.memory_mb={memory_mb} is too little for one worker, which takes {_DRIVER_MB + each:.0f} with "
            f"layout.batch_mb={layout.batch_mb:g}, layout.partition_mb={layout.partition_mb:g} and "
            f"layout.shuffle_rows={layout.shuffle_rows}; raise it or lower those"
        )
    return workers


def need_open_files(workers: int) -> None:
    """Raise this process's limit of open files to what so many workers need. Raises ValueError with the remedy."""
    need = _DRIVER_FILES + _WORKER_FILES * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise ValueError(
                f"only {hard} files may be open at a time and {workers} workers need {need}: raise the limit with "
                f"`ulimit -n {max(1024, need)}`, or lower --engine.workers"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


class LocalExecutor:
    """Fork-server processes; with one worker, this process."""

    name = "local"

    def __init__(self, config: EngineConfig, layout: LayoutConfig):
        self.workers = config.workers or len(os.sched_getaffinity(0))
        if config.memory_mb:
            self.workers = min(self.workers, workers_within(config.memory_mb, layout))
        need_open_files(self.workers)
        self._pool: ProcessPoolExecutor | None = None

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("forkserver")
            # Imported once in the fork server instead of once per worker.
            context.set_forkserver_preload(["opencoder_data.refinecode.stages"])
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=command.start_worker)
        return self._pool

    def run(self, function: Task, tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """(task index, result) as they finish."""
        if self.workers == 1 or len(tasks) == 1:
            for index, task in enumerate(tasks):
                yield index, function(*task)
            return
        pool = self._open()
        todo = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        try:
            while True:
                # A few more than workers, so none waits; not all, so a stopped run stops.
                while len(running) < 2 * self.workers and (item := next(todo, None)) is not None:
                    with command.starting_workers():
                        running[pool.submit(function, *item[1])] = item[0]
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    index = running.pop(future)
                    yield index, future.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process died (out of memory?); lower --layout.batch_mb or --engine.workers and run the same "
                "command again: finished partitions are kept"
            ) from None
        except KeyboardInterrupt:
            command.kill_workers()  # their files appear whole or not at all
            raise
        finally:
            for future in running:
                future.cancel()

    def stop(self) -> None:
        """End the workers now, in the midst of their tasks."""
        if self._pool is not None:
            workers = multiprocessing.active_children()
            self._pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join()
            self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


class RayExecutor:
    """Ray tasks, one CPU each; memory is the cluster's business (`engine.memory_mb` is not used). Input and output must be reachable from every node (shared directory or object store)."""

    name = "ray"

    def __init__(self, config: EngineConfig):
        # Under `uv run` Ray would start the workers by the same command, in a copy of the working directory without its
        # environment; every node has the program installed anyway.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ValueError("engine.executor=ray needs the extra [ray]: uv sync --extra data --extra ray") from None
        self._ray = ray
        self._owned = not ray.is_initialized()
        if self._owned:
            options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False, "include_dashboard": False}
            if config.ray_address:
                _check_reachable(config.ray_address)
                options = {"logging_level": "warning", "address": config.ray_address}
            elif config.workers:
                options["num_cpus"] = config.workers
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                line = str(error).strip().split("\n")[0]
                raise ValueError(
                    f"engine.ray_address={config.ray_address or 'local'}: no cluster answers: {line}"
                ) from None
        self.workers = config.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, function: Task, tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=3)(function)
        todo = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        while True:
            while len(running) < 2 * self.workers and (item := next(todo, None)) is not None:
                running[remote.remote(*item[1])] = item[0]
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                index = running.pop(reference)
                yield index, ray.get(reference)

    def stop(self) -> None:
        """Tasks in progress end with the cluster, or by themselves."""

    def close(self) -> None:
        if self._owned:
            self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes before it gives up an address where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" or a name that Ray resolves
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"engine.ray_address={address}: no cluster answers there: {error}") from None


Executor = LocalExecutor | RayExecutor


def make_executor(config: EngineConfig, layout: LayoutConfig) -> Executor:
    if config.executor == "local":
        return LocalExecutor(config, layout)
    if config.executor == "ray":
        return RayExecutor(config)
    raise ValueError(f"engine.executor is local or ray, not {config.executor!r}")


def run_tasks(
    executor: Executor, function: Task, tasks: Sequence[tuple[Any, ...]], *, label: str, progress: bool, done: int = 0
) -> list[Any]:
    """All results in task order, with a progress bar that counts `done` earlier tasks as finished."""
    results: list[Any] = [None] * len(tasks)
    with tqdm(total=len(tasks) + done, initial=done, desc=label, unit="part", disable=not progress) as bar:
        for index, result in executor.run(function, tasks):
            results[index] = result
            bar.update()
    return results
