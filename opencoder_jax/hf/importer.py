"""A released model as a run at step 0, tensor by tensor.

    opencoder import --from=DIRECTORY|FILE.gguf --to=RUN

Takes the directory of a Hugging Face Llama (safetensors, one file or several) or a GGUF file. The run is what
`--init_from`, `generate`, `serve` and `export` take; its parameters are fp32. It is written under another name and renamed
at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import orbax.checkpoint as ocp
from opencoder_data import command
from opencoder_data.tokenizer import load_tokenizer
from opencoder_data.tokenizer.interface import FILES
from opencoder_data.tokenizer.json_file import JsonTokenizer
from opencoder_data.tokenizer.model import FILE, RELEASED_FILE

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.checkpoint import plain, run_record, write_checksums
from opencoder_jax.config import DataConfig, MeshConfig, ModelConfig, RunConfig, ScheduleConfig
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.directory import complete_directory
from opencoder_jax.hf.fields import model_config
from opencoder_jax.hf.safetensors_stream import Reader
from opencoder_jax.overrides import to_json
from opencoder_jax.step import make_train_step

# Arrays of an imported checkpoint are stored in pieces of this size.
CHUNK_BYTES = 64 << 20
# What a tokenizer consists of, beside tokenizer.model or tokenizer.json.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


class Source(Protocol):
    """A released model: its shape, its tensors under Hugging Face's names and in its layouts, its tokenizer."""

    config: ModelConfig
    name: str
    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray: ...
    def write_tokenizer(self, directory: Path) -> None: ...


class HfDirectory:
    """A Hugging Face model directory. Raises: ValueError in one line for whatever is not a Llama's."""

    def __init__(self, path: Path):
        self._path = path
        file = path / "config.json"
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file}: cannot be read ({error}); give the directory of a Hugging Face model, or a GGUF file"
            ) from None
        self.config = model_config(fields, str(file))
        self.name = fields.get("_name_or_path") or path.name
        reader = Reader(path)
        self.shapes, self.read = reader.shapes, reader.read
        hf.check_names(self.config, self.shapes, str(path))
        self._check_copy()

    def _check_copy(self) -> None:
        """Raises: ValueError where a tied model's file has an output matrix of its own."""
        if self.config.tie_word_embeddings and hf.TIED_COPY in self.shapes:
            embedding = self.read("model.embed_tokens.weight")
            if not np.array_equal(self.read(hf.TIED_COPY), embedding):
                raise ValueError(
                    f"{self._path}: tie_word_embeddings is true, but {hf.TIED_COPY} differs from model.embed_tokens.weight"
                )

    def write_tokenizer(self, directory: Path) -> None:
        """The files as they are; of tokenizer.model and tokenizer.json the one that `load_tokenizer` takes."""
        if not any((self._path / name).is_file() for name in FILES):
            return
        tokenizer = load_tokenizer(self._path)
        _check_sentencepiece(tokenizer.path)
        name = tokenizer.path.name
        shutil.copyfile(tokenizer.path, directory / (FILE if name == RELEASED_FILE else name))
        for name in SETTINGS if isinstance(tokenizer, JsonTokenizer) else ():
            if (self._path / name).is_file():
                shutil.copyfile(self._path / name, directory / name)


def _check_sentencepiece(path: Path) -> None:
    """Raises: ValueError for a tokenizer.model of another maker: its ids would be read as OpenCoder's."""
    settings = path.with_name("tokenizer_config.json")
    if path.name != FILE or not settings.is_file():
        return
    try:
        added = json.loads(settings.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        theirs = {token["content"]: int(i) for i, token in added.items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{settings}: cannot be read ({error}); download it again") from None
    ours = load_tokenizer(path).special_ids
    if (theirs and any(theirs.get(name, i) != i for name, i in ours.items())) or (
        theirs and not ours.keys() & theirs.keys()
    ):
        raise ValueError(f"{path}: its special tokens are not OpenCoder's; put the model's tokenizer.json beside it")


def import_model(source: str | Path, to: str | Path, *, memory_gb: float = 4.0) -> Path:
    """Makes a run at step 0 of a released model; its parameters become fp32.

    Adam's moments start at zero, as those of a new run. The parameters pass through files on disk; memory holds one
    tensor and memory_gb (10^9 bytes) on their way into the checkpoint, at least the largest parameter.

    Args: source: a Hugging Face directory, or a GGUF file. to: the run, which must not exist yet or be empty.
    Returns: the run directory.
    Raises: ValueError in one line: another architecture, a tensor that is missing, cut short or of another shape.
    """
    model = open_source(Path(source))
    config = imported_config(model.config, Path(to).name)
    # Parameters and two moments, and the parameters once more as scratch.
    with complete_directory(Path(to), 4 * 4 * lm.num_params(model.config)) as directory:
        model.write_tokenizer(directory)  # first: what is wrong with it is said before gigabytes are copied
        scratch = directory / "scratch"
        scratch.mkdir()
        mesh = sharding.make_mesh(MeshConfig(fsdp=1), jax.devices("cpu")[:1])
        with jax.set_mesh(mesh):
            abstract = make_train_step(config, mesh).abstract_state
        rows = hf.grouped(hf.table(model.config))

        def leaf(path, x):
            keys = tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))
            group = rows.get(keys[1:], []) if keys[0] == "params" else []
            return jax.device_put(_on_disk(scratch, "-".join(keys) or "x", x, group, model), x.sharding, may_alias=True)

        state = jax.tree_util.tree_map_with_path(leaf, abstract)
        record = run_record(config, 0, {}) | {"imported_from": model.name}
        save(directory / "checkpoints" / "0", plain(state), record, memory_gb)
        del state
        shutil.rmtree(scratch)
        (directory / "config.json").write_text(to_json(config), encoding="utf-8")
    return Path(to)


def open_source(path: Path) -> Source:
    """Raises: ValueError for what is neither."""
    if path.is_dir():
        return HfDirectory(path)
    from opencoder_jax.hf.gguf_source import GgufFile

    return GgufFile(path)


def save(directory: Path, state: Any, record: dict[str, Any], memory_gb: float) -> None:
    """A checkpoint as `Checkpoints` writes it, but array after array where that one copies the whole state first."""
    (directory / "run").mkdir(parents=True)
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), state)
    memory_gb = max(memory_gb, 1e-9 * max(x.nbytes for x in jax.tree.leaves(state)))
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=memory_gb)  # pyright: ignore[reportArgumentType]
    with ocp.Checkpointer(handler) as writer:
        writer.save(directory / "state", args=ocp.args.PyTreeSave(state, save_args=pieces))
    (directory / "run" / "metadata").write_text(json.dumps(record))
    write_checksums(directory)


def imported_config(cfg: ModelConfig, name: str) -> RunConfig:
    return RunConfig(
        name=name,
        model=cfg,
        mesh=MeshConfig(fsdp=1),
        data=DataConfig(seq_len=cfg.max_seq_len, global_batch_size=1),
        schedule=ScheduleConfig(warmup_steps=0),
        num_steps=1,
    )


def _on_disk(scratch: Path, name: str, like: Any, rows: list[hf.Tensor], source: Source) -> np.ndarray:
    """An array in a file, so that the system can drop its pages: imported tensors, or zeros (a file with a hole)."""
    if not like.ndim:
        return np.zeros((), like.dtype)
    path = scratch / f"{name}-{len(list(scratch.iterdir()))}"
    array = np.memmap(path, like.dtype, "w+", shape=like.shape)
    for row in rows:
        array[slice(None) if row.layer is None else row.layer] = row.from_hf(source.read(row.name))
    array.flush()
    return array


def main(arguments: list[str]) -> int:
    return command.run(
        lambda: _main(arguments), stopped="stopped by Ctrl-C; nothing was written, the same command begins anew"
    )


def _main(arguments: list[str]) -> int:
    parser = command.Parser(
        prog="opencoder import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source", required=True, help="directory of a Hugging Face model, or a GGUF file"
    )
    parser.add_argument("--to", required=True, help="run directory to make")
    args = parser.parse_args(arguments)
    run = import_model(args.source, args.to)
    print(f"run at step 0: {run}")
    if not any((run / name).exists() for name in FILES):
        print("warning: no tokenizer beside the model; give --tokenizer to what uses the run", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
