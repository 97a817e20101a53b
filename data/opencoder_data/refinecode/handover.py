"""Stage 9: a finished run handed over to the tokenizer, the packer and the trainer.

``python -m opencoder_data.refinecode.handover --run DIR --output OUT [--group=language] [--holdout=0.01]`` writes

    OUT/train/GROUP/*.parquet          documents, one directory per language, type or input
    OUT/held_out/LANGUAGE/*.parquet    held-out documents; training files that repeat one are left out
    OUT/handover.json                  files, bytes and weight of each directory

and with ``--tokenizer=MODEL`` packs them into OUT/shards and prints the ``--data.sources`` of the trainer. A weight is the
group's share of the training text (of the tokens, once packed): each file is then seen equally often.
"""

import argparse
import dataclasses
import re
from collections import Counter
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_data import command
from opencoder_data.pack import PackOptions, pack
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import fingerprint
from opencoder_data.refinecode.engine import make_executor, run_tasks
from opencoder_data.refinecode.held_out import HoldOut, OverlapIndex
from opencoder_data.refinecode.report.collect import open_run
from opencoder_data.refinecode.run import Run
from opencoder_data.refinecode.schema import DOCUMENTS

GROUPS = ("language", "doc_type", "input")
_COLUMNS = ("doc_id", "source", "repo", "path", "language", "doc_type", "content", "sha256")
_SCHEMA = pa.schema([DOCUMENTS.field(name) for name in _COLUMNS])


def hand_over(
    output: str, target: str, *, group: tuple[str, ...] = ("language",), hold_out: HoldOut | None = None
) -> dict[str, Any]:
    """Documents of the finished run in `output` as training and held-out directories under `target`; returns the figures.

    Raises ValueError when the run is not finished or `target` holds something else.
    """
    if not group or any(name not in GROUPS for name in group):
        raise ValueError(f"group: choose among {', '.join(GROUPS)}, not {','.join(group)!r}")
    run, hold_out = open_run(output), hold_out or HoldOut()
    last = run.config.stages[-1]
    written_by = storage.read_json(storage.join(run.directory(last), "stage.json"))
    identity = fingerprint(written_by, list(group), dataclasses.asdict(hold_out))
    state = storage.join(target, "handover.json")
    if storage.exists(state):
        report = storage.read_json(state)
        if report["identity"] != identity:
            raise ValueError(f"{target} holds the hand-over of another run or other options; give another directory")
        return report
    _clear(target, identity)
    _index.cache_clear()
    parts = range(run.num_parts())
    executor = make_executor(run.config.engine, run.config.layout)
    try:

        def each(step: Any, label: str, *arguments: Any) -> list[Any]:
            tasks = [(run, p, *arguments) for p in parts]
            return run_tasks(executor, step, tasks, label=label, progress=run.config.engine.progress)

        chosen: set[str] = set()
        if hold_out.share:
            found = each(candidates, "hand over: choose", hold_out)
            chosen = hold_out.choose(c for part in found for c in part)
        held = each(write_held_out, "hand over: hold out", target, chosen) if chosen else []
        trained = each(write_training, "hand over: training", target, group, chosen, hold_out.overlap)
    finally:
        executor.close()
    train = _sum(count["groups"] for count in trained)
    total = sum(size for _, size in train.values())
    if not total:
        raise ValueError(f"the run in {output} kept no document to train on")
    report = {
        "identity": identity,
        "run": output,
        "train": {
            name: {"files": files, "bytes": size, "weight": size / total} for name, (files, size) in train.items()
        },
        "held_out": {name: {"files": files, "bytes": size} for name, (files, size) in _sum(held).items()},
        "left_out_for_overlap": sum(count["left_out"] for count in trained),
    }
    storage.write_json(state, report)
    return report


def _clear(target: str, identity: str) -> None:
    """Begin anew what an interrupted hand-over left; reject a directory of other things."""
    marker = storage.join(target, ".handover")
    if not storage.exists(marker) and any(not n.startswith(".") for n in storage.listdir(target)):
        raise ValueError(f"{target} holds other files; give an empty or new directory")
    storage.write_text(marker, identity)
    for name in ("train", "held_out"):
        storage.remove(storage.join(target, name))


def _sum(counts: Any) -> dict[str, tuple[int, int]]:
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for count in counts:
        for name, (number, size) in count.items():
            files[name] += number
            sizes[name] += size
    return {name: (files[name], sizes[name]) for name in sorted(files)}


def candidates(run: Run, part: int, hold_out: HoldOut) -> list[tuple[str, str, int]]:
    """(sha256, language, bytes of text) of the files of a partition that could be held out."""
    found = []
    for batch in run.documents(run.config.stages[-1], part, ["sha256", "language", "content"]):
        sizes = pc.binary_length(batch.column("content")).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
        rows = zip(batch.column("sha256").to_pylist(), batch.column("language").to_pylist(), sizes, strict=True)
        found += [(sha, language or "unknown", size) for sha, language, size in rows if hold_out.candidate(sha)]
    return found


class _Directories:
    """Appends rows to DIRECTORY/NAME/part-N.parquet, opened as names come up."""

    def __init__(self, run: Run, part: int, directory: str, stack: ExitStack):
        self.run, self.part, self.directory, self.stack = run, part, directory, stack
        self.writers: dict[str, storage.ParquetAppender] = {}
        self.counts: dict[str, tuple[int, int]] = {}

    def append(self, names: list[str], rows: pa.Table) -> None:
        if not names:
            return
        column = pa.array(names)
        for name in sorted(set(names)):
            chosen = rows.filter(pc.equal(column, name))  # pyright: ignore[reportAttributeAccessIssue]
            if name not in self.writers:
                url = storage.join(self.directory, name, f"part-{self.part:05d}.parquet")
                path = self.stack.enter_context(storage.replacing(url))
                # A row group per batch: however many directories are open, nothing waits in memory.
                level = self.run.config.layout.compression_level
                self.writers[name] = storage.ParquetAppender(path, _SCHEMA, 0, level)
            self.writers[name].append(chosen.select(_SCHEMA.names))
            size = pc.sum(pc.binary_length(chosen.column("content"))).as_py()  # pyright: ignore[reportAttributeAccessIssue]
            files, before = self.counts.get(name, (0, 0))
            self.counts[name] = (files + chosen.num_rows, before + size)

    def close(self) -> dict[str, tuple[int, int]]:
        for writer in self.writers.values():
            writer.close()
        return self.counts


def write_held_out(run: Run, part: int, target: str, chosen: set[str]) -> dict[str, tuple[int, int]]:
    """Held-out documents of a partition by language; returns (files, bytes) by directory."""
    with ExitStack() as stack:
        directories = _Directories(run, part, storage.join(target, "held_out"), stack)
        for batch in run.documents(run.config.stages[-1], part, list(_COLUMNS)):
            rows = batch.filter(pa.array([sha in chosen for sha in batch.column("sha256").to_pylist()], pa.bool_()))
            directories.append(
                [directory_name(language or "unknown") for language in rows.column("language").to_pylist()], rows
            )
        return directories.close()


def write_training(
    run: Run, part: int, target: str, group: tuple[str, ...], chosen: set[str], overlap: float
) -> dict[str, Any]:
    """The other documents of a partition by group, without those that repeat a held-out document."""
    index = _index(target) if chosen else None
    left_out = 0
    with ExitStack() as stack:
        directories = _Directories(run, part, storage.join(target, "train"), stack)
        for batch in run.documents(run.config.stages[-1], part, list(_COLUMNS)):
            rows = batch.filter(pa.array([sha not in chosen for sha in batch.column("sha256").to_pylist()], pa.bool_()))
            if index is not None and rows.num_rows:
                keep = index.overlap(rows.column("content")) < overlap
                left_out += int((~keep).sum())
                rows = rows.filter(pa.array(keep))
            columns = [_group_column(rows, name) for name in group]
            directories.append([directory_name(".".join(values)) for values in zip(*columns, strict=True)], rows)
        return {"groups": directories.close(), "left_out": left_out}


@lru_cache(maxsize=1)
def _index(target: str) -> OverlapIndex:
    """Once per process: the held-out documents are the same for all partitions."""
    directory = storage.join(target, "held_out")
    tables = [
        storage.read_table(storage.join(directory, language, name), ["content"])
        for language in storage.listdir(directory)
        for name in storage.listdir(storage.join(directory, language))
    ]
    return OverlapIndex(pa.concat_tables(tables).column("content"))


def _group_column(rows: pa.Table, name: str) -> list[str]:
    if name == "input":
        # Archives and repositories below an input are named after it: INPUT/path/in/it.
        return [s.strip("/").split("/")[0] for s in rows.column("source").to_pylist()]
    return [value or "unknown" for value in rows.column(name).to_pylist()]


def directory_name(name: str) -> str:
    """A group's name as the name of a directory: ``visual basic .net`` gives ``visual_basic_.net``."""
    return re.sub(r"[^\w.+#-]", "_", name).strip(".") or "unknown"


def pack_documents(target: str, tokenizer: str, *, seq_len: int = 4_096, num_workers: int = 0) -> dict[str, Any]:
    """Packs what `hand_over` wrote into `target`/shards; returns and writes the mixture by tokens, `mixture.json`."""
    report = storage.read_json(storage.join(target, "handover.json"))
    shards = Path(target) / "shards"
    tokens = {}
    for directory, names in (("train", report["train"]), ("held_out", report["held_out"])):
        for name in names:
            options = PackOptions(seq_len=seq_len, source=name)
            documents = storage.join(target, directory, name)
            manifest = pack([documents], tokenizer, shards / directory / name, options, num_workers=num_workers)["."]
            tokens[directory, name] = manifest.num_tokens
    total = sum(count for (directory, _), count in tokens.items() if directory == "train")
    mixture = {
        "tokens": total,
        "sources": [
            {"path": str(shards / directory / name), "tokens": count, "weight": count / total}
            for (directory, name), count in sorted(tokens.items(), key=lambda kv: (-kv[1], kv[0]))
            if directory == "train"
        ],
        "held_out": [str(shards / directory / name) for directory, name in tokens if directory == "held_out"],
    }
    storage.write_json(storage.join(target, "mixture.json"), mixture)
    return mixture


def main(argv: list[str] | None = None) -> int:
    return command.run(
        lambda: _main(argv), stopped="stopped by Ctrl-C; the same command begins anew and ends with the same"
    )


def _main(argv: list[str] | None) -> int:
    parser = command.Parser(
        prog="python -m opencoder_data.refinecode.handover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="output directory of a finished run")
    parser.add_argument("--output", required=True, metavar="OUT")
    parser.add_argument("--group", default="language", help=f"one or more of {', '.join(GROUPS)}, joined by commas")
    parser.add_argument("--holdout", type=float, default=0.0, help="share of the files kept out of training")
    parser.add_argument("--holdout_min_files", type=int, default=HoldOut.min_files, help="per language, else it trains")
    parser.add_argument("--holdout_min_bytes", type=int, default=HoldOut.min_bytes, help="per language, else it trains")
    parser.add_argument("--holdout_max_bytes", type=int, default=HoldOut.max_bytes, help="per language; 0: no limit")
    parser.add_argument(
        "--holdout_overlap",
        type=float,
        default=HoldOut.overlap,
        help="a training file with this share of a held-out file's five-word runs is left out",
    )
    parser.add_argument("--tokenizer", default="", metavar="MODEL", help="pack the documents into OUT/shards as well")
    parser.add_argument("--seq_len", type=int, default=4_096)
    arguments = parser.parse_args(argv)
    run, target = arguments.run.rstrip("/"), arguments.output.rstrip("/")
    hold_out = HoldOut(
        arguments.holdout,
        arguments.holdout_min_files,
        arguments.holdout_min_bytes,
        arguments.holdout_max_bytes,
        arguments.holdout_overlap,
    )
    report = hand_over(run, target, group=tuple(arguments.group.split(",")), hold_out=hold_out)
    for directory in ("train", "held_out"):
        for name, values in report[directory].items():
            weight = f", weight {values['weight']:.4f}" if "weight" in values else ""
            print(
                f"{storage.join(target, directory, name)}: {values['files']:,} files, {values['bytes']:,} bytes{weight}"
            )
    if report["held_out"]:
        print(f"left out of training, as they repeat a held-out file: {report['left_out_for_overlap']:,} files")
    if arguments.tokenizer:
        mixture = pack_documents(target, arguments.tokenizer, seq_len=arguments.seq_len)
        print("--data.sources=" + ",".join(f"{s['path']}:{s['weight']:.6g}" for s in mixture["sources"]))
        if mixture["held_out"]:
            print("--data.eval_sources=" + ",".join(mixture["held_out"]))
    return 0


if __name__ == "__main__":
    command.end(main())
