"""PyTorch release, both ways, tensor by tensor.

    python -m opencoder_jax.hf.export --checkpoint RUN --to DIRECTORY [--dtype bf16|fp32] [--tokenizer PATH]
    python -m opencoder_jax.hf.export import --from DIRECTORY --to RUN

The directory is what `AutoModelForCausalLM` and `AutoTokenizer` load with no code of ours. It is written under another
name and renamed at the end: a directory with the given name is complete. The reverse makes a run that `--init_from`,
`generate` and `export` take.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from opencoder_data import command
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.special_tokens import ENDOFTEXT, IM_END

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.checkpoint import plain, read_record, resolve, run_record, write_checksums
from opencoder_jax.config import DataConfig, MeshConfig, RunConfig, ScheduleConfig
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.model_card import model_card
from opencoder_jax.hf.safetensors_stream import Reader, Writer
from opencoder_jax.overrides import from_dict, to_json
from opencoder_jax.step import make_train_step

DTYPES = {"bf16": ("bfloat16", np.dtype(ml_dtypes.bfloat16)), "fp32": ("float32", np.dtype(np.float32))}
# Arrays of an imported checkpoint are stored in pieces of this size.
CHUNK_BYTES = 64 << 20


def export(
    checkpoint: str | Path,
    to: str | Path,
    *,
    dtype: str = "bf16",
    tokenizer: str | Path | None = None,
    max_shard_gb: float = 5.0,
) -> Path:
    """Writes a checkpoint as a Hugging Face model directory.

    Args:
      checkpoint: RUN (its newest valid checkpoint) or RUN/checkpoints/STEP.
      to: a directory that does not exist yet, or is empty.
      dtype: bf16 or fp32.
      tokenizer: tokenizer.model or its directory; default RUN/tokenizer.model if that is there. Without one the directory
        holds no tokenizer files.
      max_shard_gb: size of a safetensors file, in 10^9 bytes.

    Returns: the directory. Memory: one parameter (all layers' matrices of one kind) in fp32 and one tensor.
    Raises: ValueError in one line for what the user can change; nothing is left behind then.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype={dtype}: choose {' or '.join(DTYPES)}")
    source = resolve(checkpoint)
    record = read_record(source)
    config = from_dict(record["config"])
    spelled = _tokenizer(tokenizer, source, record, config.model.vocab_size)
    name, kind = DTYPES[dtype]
    rows = hf.table(config.model)
    with complete_directory(Path(to), lm.num_params(config.model) * kind.itemsize) as directory:
        # Files in the order a reader expects: embedding, layer after layer, norm, output.
        shapes = {row.name: row.shape for row in sorted(rows, key=_file_order)}
        with Writer(directory, shapes, kind, int(max_shard_gb * 1e9)) as writer:
            for path, group in hf.grouped(rows).items():
                whole = read_parameter(source, path)
                for row in group:
                    writer.write(row.name, row.to_hf(whole if row.layer is None else whole[row.layer]))
                del whole  # before the next one is read
        stops = [spelled.special_ids[IM_END], spelled.special_ids[ENDOFTEXT]] if spelled else None
        # As in the tokenizer; the published configuration has SentencePiece's <s> here, which no model was trained on.
        first = spelled.endoftext_id if spelled else None
        fields = hf.hf_config(config.model, dtype=name, bos_token_id=first, eos_token_id=stops[0] if stops else None)
        # Documents of pre-training end with <|endoftext|>, turns of a chat with <|im_end|>: both stop generation.
        generation = {"bos_token_id": first, "eos_token_id": stops, "do_sample": False}
        if spelled:
            from opencoder_data.tokenizer.export_hf import export_hf

            generation["pad_token_id"] = spelled.pad_id
            export_hf(spelled, directory, model_max_length=config.model.max_seq_len)
        _write_json(directory / "config.json", fields)
        _write_json(directory / "generation_config.json", generation)
        (directory / "README.md").write_text(model_card(config, record, source, dtype=name), encoding="utf-8")
    return Path(to)


def import_hf(source: str | Path, to: str | Path, *, memory_gb: float = 4.0) -> Path:
    """Makes a run at step 0 of a Hugging Face Llama directory (any of bf16, fp16, fp32; parameters become fp32).

    Adam's moments start at zero, as those of a new run. The parameters pass through files on disk; memory holds one
    tensor and memory_gb (10^9 bytes) on their way into the checkpoint, at least the largest parameter.

    Returns: the run directory, which must not exist yet or be empty.
    Raises: ValueError in one line: another architecture, a tensor that is missing, cut short or of another shape.
    """
    source = Path(source)
    try:
        fields = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source / 'config.json'}: cannot be read ({error}); give the directory of a Hugging Face model"
        ) from None
    cfg = hf.model_config(fields, str(source / "config.json"))
    reader = Reader(source)
    hf.check_names(cfg, reader.shapes, str(source))
    config = imported_config(cfg, Path(to).name)
    # Parameters and two moments, and the parameters once more as scratch.
    with complete_directory(Path(to), 4 * 4 * lm.num_params(cfg)) as directory:
        scratch = directory / "scratch"
        scratch.mkdir()
        mesh = sharding.make_mesh(MeshConfig(fsdp=1), jax.devices("cpu")[:1])
        with jax.set_mesh(mesh):
            abstract = make_train_step(config, mesh).abstract_state
        rows = hf.grouped(hf.table(cfg))

        def leaf(path, x):
            keys = tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))
            group = rows.get(keys[1:], []) if keys[0] == "params" else []
            return jax.device_put(
                _on_disk(scratch, "-".join(keys) or "x", x, group, reader), x.sharding, may_alias=True
            )

        state = jax.tree_util.tree_map_with_path(leaf, abstract)
        record = run_record(config, 0, {}) | {"imported_from": fields.get("_name_or_path") or source.name}
        _save(directory / "checkpoints" / "0", plain(state), record, memory_gb)
        del state
        shutil.rmtree(scratch)
        (directory / "config.json").write_text(to_json(config), encoding="utf-8")
        if (source / "tokenizer.model").is_file():
            shutil.copyfile(source / "tokenizer.model", directory / "tokenizer.model")
    return Path(to)


def _save(directory: Path, state: Any, record: dict[str, Any], memory_gb: float) -> None:
    """A checkpoint as `Checkpoints` writes it, but array after array where that one copies the whole state first."""
    (directory / "run").mkdir(parents=True)
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), state)
    memory_gb = max(memory_gb, 1e-9 * max(x.nbytes for x in jax.tree.leaves(state)))
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=memory_gb)  # pyright: ignore[reportArgumentType]
    with ocp.Checkpointer(handler) as writer:
        writer.save(directory / "state", args=ocp.args.PyTreeSave(state, save_args=pieces))
    (directory / "run" / "metadata").write_text(json.dumps(record))
    write_checksums(directory)


def imported_config(cfg: Any, name: str) -> RunConfig:
    return RunConfig(
        name=name,
        model=cfg,
        mesh=MeshConfig(fsdp=1),
        data=DataConfig(seq_len=cfg.max_seq_len, global_batch_size=1),
        schedule=ScheduleConfig(warmup_steps=0),
        num_steps=1,
    )


def read_parameter(checkpoint: Path, path: tuple[str, ...]) -> np.ndarray:
    """One parameter of a checkpoint, on the host: stored piece after stored piece, where Orbax holds all at once."""
    state = checkpoint / "state"
    layout = json.loads((state / "_METADATA").read_text())
    store = {"driver": "ocdbt", "base": f"file://{state}/", "path": ".".join(("params", *path)) + "/"}
    spec = {"driver": "zarr3" if layout.get("use_zarr3") else "zarr", "kvstore": store}
    array = tensorstore.open(spec, open=True, read=True).result()
    whole = np.empty(array.shape, array.dtype.numpy_dtype)
    pieces: Any = array.chunk_layout.read_chunk.shape
    steps = [range(0, n, size) for n, size in zip(array.shape, pieces, strict=True)]
    for corner in itertools.product(*steps):
        piece = tuple(slice(at, at + step.step) for at, step in zip(corner, steps, strict=True))
        piece = tuple(slice(s.start, min(s.stop, n)) for s, n in zip(piece, array.shape, strict=True))
        whole[piece] = array[piece].read().result()
    return whole


@contextlib.contextmanager
def complete_directory(final: Path, num_bytes: int) -> Iterator[Path]:
    """A directory under another name that becomes `final` when the block ends well and vanishes when it does not.

    Raises: ValueError when `final` is there already, or the disk has not num_bytes free or gets full.
    """
    final = final.absolute()
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise ValueError(f"{final}: exists already; remove it or give another directory")
    existing = next(p for p in final.parents if p.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise ValueError(
            f"{existing}: {num_bytes / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free; free some space"
        )
    _remove_abandoned(final)
    part = final.with_name(f"{_part_prefix(final)}{os.getpid()}")
    try:
        with command.temporary_directory(part), _locked(part):
            yield part
            if final.exists():
                final.rmdir()
            part.rename(final)
    except OSError as error:
        raise ValueError(f"{final}: {error.strerror or error}; nothing was written") from error


def _part_prefix(final: Path) -> str:
    return f".{final.name}.part-"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Holds the directory's lock, which the system takes back however this process ends; False where another holds it, or
    the file system has no locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        ours = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)


def _remove_abandoned(final: Path) -> None:
    """What killed exports to the same name left; whatever a running one works on stays."""
    for part in final.parent.glob(glob.escape(_part_prefix(final)) + "*"):
        with contextlib.suppress(OSError), _locked(part) as ours:
            if ours:
                shutil.rmtree(part, ignore_errors=True)


def _tokenizer(given: str | Path | None, source: Path, record: dict[str, Any], vocab_size: int) -> Tokenizer | None:
    """The run's tokenizer. Raises: ValueError when it does not exist or is not the one of the run's shards."""
    run_dir = source.parent.parent
    if given is None and not (run_dir / "tokenizer.model").is_file():
        return None
    tokenizer = Tokenizer(given or run_dir)
    expected = record["data"].get("tokenizer")
    if expected and tokenizer.hash != expected:
        raise ValueError(
            f"{tokenizer.path}: its hash is {tokenizer.hash}, the run was trained with {expected}; give that tokenizer"
        )
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{tokenizer.path}: vocabulary of {tokenizer.vocab_size}, the model has {vocab_size}: another model's tokenizer"
        )
    return tokenizer


def _on_disk(scratch: Path, name: str, like: Any, rows: list[hf.Tensor], reader: Reader) -> np.ndarray:
    """An array in a file, so that the system can drop its pages: imported tensors, or zeros (a file with a hole)."""
    if not like.ndim:
        return np.zeros((), like.dtype)
    path = scratch / f"{name}-{len(list(scratch.iterdir()))}"
    array = np.memmap(path, like.dtype, "w+", shape=like.shape)
    for row in rows:
        array[slice(None) if row.layer is None else row.layer] = row.from_hf(reader.read(row.name))
    array.flush()
    return array


def _file_order(row: hf.Tensor) -> tuple[int, int]:
    rank = 1 if row.layer is not None else 0 if row.path == ("embed",) else 2
    return rank, row.layer or 0


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    return command.run(
        lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written, the same command begins anew"
    )


def _main(arguments: list[str]) -> int:
    importing = arguments[:1] == ["import"]
    parser = command.Parser(
        prog="python -m opencoder_jax.hf.export" + (" import" if importing else ""),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if importing:
        parser.add_argument("--from", dest="source", required=True, help="directory of a Hugging Face model")
    else:
        parser.add_argument("--checkpoint", required=True, help="run directory, or RUN/checkpoints/STEP")
        parser.add_argument("--dtype", default="bf16", help="bf16 (default) or fp32")
        parser.add_argument("--tokenizer", help="tokenizer.model (default: RUN/tokenizer.model)")
        parser.add_argument("--max_shard_gb", type=float, default=5.0)
    parser.add_argument("--to", required=True, help="directory to make")
    args = parser.parse_args(arguments[1:] if importing else arguments)
    if importing:
        print(f"run at step 0: {import_hf(args.source, args.to)}")
        return 0
    options = {"dtype": args.dtype, "tokenizer": args.tokenizer, "max_shard_gb": args.max_shard_gb}
    directory = export(args.checkpoint, args.to, **options)
    print(f"model directory: {directory}")
    if not (directory / "tokenizer.json").exists():
        print("warning: no tokenizer files: give --tokenizer", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
