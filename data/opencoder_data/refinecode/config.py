"""Configuration of the pipeline: one frozen dataclass per stage, TOML files, typed command-line overrides.

A config file holds any subset of the fields, one table per stage::

    [engine]
    workers = 8
    [fuzzy_dedup]
    preset = "128x16"

and ``--fuzzy_dedup.preset=128x16`` does the same on the command line.
"""

import dataclasses
import difflib
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("ingest", "preprocess", "exact_dedup", "fuzzy_dedup", "transform", "filter", "sample")


@dataclass(frozen=True)
class EngineConfig:
    """Where and how wide the work runs; no field here changes a single output row."""

    executor: str = "local"
    """``local`` (processes of this machine) or ``ray`` (a running or private Ray cluster)."""
    workers: int = 0
    """Tasks at a time; 0 = the CPUs of this machine (local) or of the cluster (ray)."""
    memory_mb: int = 0
    """Memory that the processes of this machine may take together, in 1e6 bytes; fewer workers run if need be. 0 = no bound."""
    ray_address: str = ""
    """Address of a running cluster; empty starts a private one."""
    progress: bool = True


@dataclass(frozen=True)
class LayoutConfig:
    """How the corpus is cut; bounds the memory of a task, changes file names but not the set of rows."""

    partition_mb: float = 64.0
    """Raw bytes per partition, in 1e6 bytes (an archive or a git repository is never cut)."""
    batch_mb: float = 16.0
    """Text held in memory at a time per task (a row group of the Parquet files), in 1e6 bytes."""
    shuffle_rows: int = 1_000_000
    """Rows of a key table that one reduce task holds."""
    compression_level: int = 1


@dataclass(frozen=True)
class IngestConfig:
    kind: str = "auto"
    """``auto``, ``tree``, ``git``, ``archive``, ``parquet``, ``arrow`` or ``jsonl``."""
    archives: bool = True
    """Open archives met in a directory tree."""
    git: bool = True
    """Read git repositories met in a directory tree from HEAD, with the last commit time of each file."""
    max_file_bytes: int = 8_000_000
    """Files above are not read (paper: 8 MB)."""
    max_archive_bytes: int = 100_000_000_000
    """An archive, compressed table or repository that unpacks to more is read up to there, in bytes."""
    max_archive_ratio: int = 1_100
    """Likewise at so many times its size on disk (and more than 256 MB); gzip reaches 1,032 on zeros, code 10."""
    max_archive_entries: int = 2_000_000
    """Likewise at so many members or files."""
    max_table_rows: int = 20_000_000
    """Likewise at so many rows of one table."""
    max_archive_s: float = 3_600.0
    """Likewise after so many seconds; 0 = no bound. Where it is reached, the result depends on the machine."""
    max_memory_mb: int = 2_000
    """Address space that reading one archive, table or repository may add to its process, in 1e6 bytes; 0 = no bound."""
    skip_unread: bool = True
    """Do not read files whose name alone says that pre-processing would drop them."""
    repo_depth: int = 0
    """How many leading directories of a path name the repository in a directory tree; 0 = the tree is one repository."""
    skip_dirs: tuple[str, ...] = (".git", ".hg", ".svn", "__pycache__")
    licence: str = ""
    """Licence recorded for files whose source names none."""


@dataclass(frozen=True)
class PreprocessConfig:
    max_file_bytes: int = 8_000_000
    heuristics: bool = True
    """Settle ambiguous extensions by content, as GitHub Linguist does; off = the released extension map."""
    notebooks: bool = True
    """Turn Jupyter notebooks into structured cells; off = drop them as the released map does."""
    languages: tuple[str, ...] = ()
    """Keep these languages only; empty = all 607."""
    doc_types: tuple[str, ...] = ("code", "data", "text")


@dataclass(frozen=True)
class ExactDedupConfig:
    """No choice here: SHA-256 of the raw file, most stars, latest commit, stable tie-break."""


@dataclass(frozen=True)
class FuzzyDedupConfig:
    preset: str = "128x16"
    """``128x16``, ``16x128`` (as the paper prints it), ``25x10``, ``14x8``; `slots`, `bands`, `rows` override it."""
    slots: int = 0
    bands: int = 0
    rows: int = 0
    sketch: str = "fss"
    """``fss`` (Fast Similarity Sketching) or ``minhash`` (classic, the published method)."""
    level: str = "file"
    """``file``, ``chunk`` or ``repo``: what is compared and dropped."""
    chunk_bytes: int = 14_700
    """Chunk level: 4,096 tokens as published, at 3.6 bytes each."""
    verify: bool = True
    """Check candidate pairs by exact Jaccard similarity of their shingle sets."""
    min_jaccard: float = 0.7
    seed: int = 1
    measure_recall: bool = False
    """Compare with all exact pairs of up to 40,000 documents; for the report."""


@dataclass(frozen=True)
class TransformConfig:
    headers: bool = True
    """Remove copyright and licence notices from the leading comments."""
    personal: bool = True
    """Replace e-mail, IP addresses, keys, tokens, passwords and author names by placeholders."""


@dataclass(frozen=True)
class FilterConfig:
    profile: str = "default"
    """``default``, or ``compat``: the released filter, defects included."""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """group (or ``*``) -> signal -> condition such as ``x > 0.5``; ``off`` switches the rule off."""
    time_limit_s: float = 10.0
    """Seconds of processor time per signal and file; a signal stopped by it has no value. 0 = none, and no child process."""


@dataclass(frozen=True)
class SampleConfig:
    published: bool = True
    """Cut Java and HTML to the published shares of their size after filtering."""
    ratios: dict[str, float] = field(default_factory=dict)
    """language -> share of its bytes to keep."""
    sizes: dict[str, str] = field(default_factory=dict)
    """language -> target size, as in ``200GB``; takes precedence over a ratio."""
    seed: int = 1


@dataclass(frozen=True)
class RefineConfig:
    stages: tuple[str, ...] = STAGES
    engine: EngineConfig = field(default_factory=EngineConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    exact_dedup: ExactDedupConfig = field(default_factory=ExactDedupConfig)
    fuzzy_dedup: FuzzyDedupConfig = field(default_factory=FuzzyDedupConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, in declaration order."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any]) -> RefineConfig:
    """Inverse of `to_dict`."""
    return _merge(RefineConfig(), values, "")


def fingerprint(*parts: Any) -> str:
    """Hex digest of plain values; equal configs give equal fingerprints on every machine."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def load(path: str | None = None, overrides: Sequence[str] = ()) -> RefineConfig:
    """Defaults, then the TOML file, then ``a.b=value`` overrides.

    Raises ValueError naming file, field and remedy.
    """
    config = RefineConfig()
    if path:
        try:
            values = tomllib.loads(Path(path).read_text())
        except FileNotFoundError:
            raise ValueError(f"config file {path} does not exist") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"config file {path} is not valid TOML: {error}") from None
        config = _merge(config, values, f"{path}: ")
    for item in overrides:
        name, sep, text = item.partition("=")
        if not sep:
            raise ValueError(f"override {item!r}: write it as --section.field=value")
        nested: dict[str, Any] = {}
        cursor = nested
        *parents, leaf = name.split(".")
        for parent in parents:
            cursor = cursor.setdefault(parent, {})
        cursor[leaf] = _Text(text)
        config = _merge(config, nested, "--")
    unknown = [s for s in config.stages if s not in STAGES]
    if unknown:
        raise ValueError(f"stages: {unknown[0]!r} is not a stage; the stages are {', '.join(STAGES)}")
    if list(config.stages) != [s for s in STAGES if s in config.stages]:
        raise ValueError(f"stages must be in the order {', '.join(STAGES)} and named once")
    if not config.stages:
        raise ValueError(f"stages is empty; the stages are {', '.join(STAGES)}")
    if config.stages[0] != "ingest":
        # Whatever is asked for, something must read the input.
        config = dataclasses.replace(config, stages=("ingest", *config.stages))
    return config


def fields_and_defaults() -> list[str]:
    """``section.field=default`` of every field, as the command line takes them."""
    lines = []
    for name, value in to_dict(RefineConfig()).items():
        for field_name, default in value.items() if isinstance(value, dict) else [("", value)]:
            shown = ",".join(default) if isinstance(default, list) else default
            shown = str(shown).lower() if isinstance(shown, bool) else shown if shown != {} else ""
            lines.append(f"{name}.{field_name}={shown}" if field_name else f"{name}={shown}")
    return lines


class _Text(str):
    """A value from the command line, still to be parsed by the type of its field."""


def _merge(config: Any, values: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        full = prefix + name
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise ValueError(f"{where}{full} is not a field of the configuration{hint}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}{full} is a section: give one of its fields, as in {full}.<field>=value")
            changes[name] = _merge(current, value, where, full + ".")
        else:
            changes[name] = _parse(value, hints[name], where + full)
            if isinstance(current, dict):
                changes[name] = _union(current, changes[name])
    return dataclasses.replace(config, **changes)


def _union(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are added to, not replaced, down to their leaves."""
    both = {
        k: _union(old[k], v) if isinstance(v, Mapping) and isinstance(old.get(k), Mapping) else v
        for k, v in new.items()
    }
    return {**old, **both}


def _parse(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, _Text) and value.lower() == "none"):
            return None
        return _parse(value, next(a for a in args if a is not type(None)), where)
    if origin is tuple:
        items = [_Text(v) for v in value.split(",") if v] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(f"{where} takes a list, not {value!r}")
        return tuple(_parse(item, args[0], where) for item in items)
    if origin is dict:
        if isinstance(value, _Text):
            pairs = (item.partition("=" if "=" in item else ":") for item in value.split(",") if item)
            value = {k: _Text(v) for k, _, v in pairs}
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} takes a table of names and values, not {value!r}")
        return {str(k): _parse(v, args[1], where + "." + str(k)) for k, v in value.items()}
    if hint is Any:
        return str(value) if isinstance(value, _Text) else value
    if hint is bool:
        text = str(value).lower()
        if text in ("true", "1", "yes", "on"):
            return True
        if text in ("false", "0", "no", "off"):
            return False
        raise ValueError(f"{where} takes true or false, not {value!r}")
    if isinstance(value, bool) or (hint is str and not isinstance(value, str)):
        raise ValueError(f"{where} takes {hint.__name__}, not {value!r}")
    try:
        if hint is int and not isinstance(value, int):
            number = float(str(value).replace("_", ""))
            if number != int(number):
                raise ValueError
            return int(number)
        return hint(str(value)) if hint is str else hint(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{where} takes {hint.__name__}, not {value!r}") from None
