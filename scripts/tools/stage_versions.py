"""Keeps the versions of pipeline stages honest: a table of each stage's version and of a digest of the source that it reaches.

A finished run is reused as long as its stages' versions are the same (`opencoder_data/pipeline/stage.py`), so whoever changes the
rows of a stage must raise its `version`. The test `tests/opencoder_data/pipeline/test_stage_versions.py` fails while source and
table differ. Then either

    raise `version` in the stage's class and run       python scripts/tools/stage_versions.py
    or, when no row can change,                        python scripts/tools/stage_versions.py --same-rows=STAGE[,STAGE ...]

`--same-rows=all` acknowledges every stage. What counts: the syntax trees of the stage's module and of every module of this
project that it imports, and the JSON and TOML tables that they read. What does not: comments, docstrings, layout, where a module
is stored or what it is called (imports of our own modules are left out), and `NEUTRAL` modules.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from opencoder_data.pipeline.source import ReadDocuments
from opencoder_data.pipeline.stage import ENGINE_LIBRARIES, Pipeline, Stage
from opencoder_data.refinecode.config import RefineConfig
from opencoder_data.refinecode.pipeline import pipeline_of

PACKAGE = "opencoder_data"
ROOT = Path(__file__).resolve().parents[2] / "data"
TABLE = ROOT.parent / "tests" / "opencoder_data" / "pipeline" / "stage_versions.json"
# When, where and within which memory a task runs, and options whose values are part of a run's fingerprint: never the rows.
_NEUTRAL = (
    "address_space",
    "command",
    "fields",
    "numba_cache",
    "pipeline.config",
    "pipeline.executors",
    "refinecode.config",
)
NEUTRAL = frozenset({PACKAGE, *(f"{PACKAGE}.{name}" for name in _NEUTRAL)})
# Libraries that the reached modules import and that decide no row: where files are, and progress.
NEUTRAL_LIBRARIES = frozenset({"fsspec", "tqdm"})


def pipelines() -> tuple[Pipeline, ...]:
    """Every pipeline of the project, and the stages that any may use."""
    return Pipeline("any", (ReadDocuments(),)), pipeline_of(RefineConfig())


def describe(stage: Stage, root: Path = ROOT) -> dict[str, Any]:
    """The entry of a stage in the table, by the source below `root`: its version, libraries and digest."""
    modules = reached(type(stage).__module__, root)
    parts = []
    for path in modules.values():
        parts.append(_digest(_normal(_parse(path, path.stat().st_mtime_ns))))
        tree = _parse(path, path.stat().st_mtime_ns)
        parts += [_digest(table.read_bytes()) for table in _named(tree, path, (".json", ".toml"))]
    return {
        "version": stage.version,
        "libraries": sorted(stage.libraries),
        "source": _digest("".join(sorted(parts)).encode()),
    }


def problems(stages: Mapping[str, Sequence[Stage]], table: Mapping[str, Any], root: Path = ROOT) -> list[str]:
    """What is wrong with versions, libraries or the table: a line each."""
    found = []
    for pipeline, each in stages.items():
        entries = table.get(pipeline, {})
        for stage in each:
            name, now = f"{pipeline}/{stage.name}", describe(stage, root)
            missing = libraries_of(stage, root) - {*stage.libraries, *ENGINE_LIBRARIES, *NEUTRAL_LIBRARIES}
            if missing:
                found.append(f"{name}: its source imports {', '.join(sorted(missing))}: add to `libraries`")
            before = entries.get(stage.name)
            if before is None:
                found.append(f"{name}: not in the table")
            elif before != now and before["version"] == now["version"]:
                found.append(f"{name}: its source changed, its version {now['version']} did not")
            elif before != now:
                found.append(f"{name}: version {before['version']} in the table, {now['version']} in the source")
    return found


def reached(module: str, root: Path) -> dict[str, Path]:
    """Name and file of the module and of all of the project's modules that it imports, `NEUTRAL` ones left out."""
    found: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _path_of(name, root)
        if name in found or name in NEUTRAL or path is None:
            continue
        found[name] = path
        tree = _parse(path, path.stat().st_mtime_ns)
        todo += [n for n in _imports(tree, name, path) if n.split(".")[0] == PACKAGE]
        # Programs that a module starts from their file.
        todo += [f"{name.rpartition('.')[0]}.{child.stem}" for child in _named(tree, path, (".py",))]
        # A module's packages are imported before it.
        todo += [parent for parent in [name.rpartition(".")[0]] if parent]
    return dict(sorted(found.items()))


def libraries_of(stage: Stage, root: Path = ROOT) -> set[str]:
    """Distributions that the reached source imports."""
    names: set[str] = set()
    for name, path in reached(type(stage).__module__, root).items():
        names |= {n.split(".")[0] for n in _imports(_parse(path, path.stat().st_mtime_ns), name, path)}
    return {d for n in names - sys.stdlib_module_names - {PACKAGE} for d in _distributions().get(n, [n])}


def _path_of(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.AST, name: str, path: Path) -> Iterator[str]:
    """Absolute names of what a module imports; of `from a import b` both a and a.b, whichever is a module."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _parse(path: Path, modified: int) -> ast.Module:
    """The syntax tree; `modified` (ns) is there for the cache."""
    return ast.parse(path.read_bytes())


def _normal(node: Any) -> bytes:
    """A syntax tree as bytes that are the same for every Python version, without strings that stand alone (docstrings) and
    without imports of our own modules."""
    if isinstance(node, list):
        return b"[" + b",".join(_normal(item) for item in node if not _has_no_effect(item)) + b"]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{node!r}".encode("utf-8", "surrogatepass")
    # Fields that are empty are left out: newer Pythons have more of them.
    fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("kind", "type_comment"))
    shown = [name.encode() + b"=" + _normal(value) for name, value in fields if value is not None and value != []]
    return type(node).__name__.encode() + b"(" + b",".join(shown) + b")"


def _has_no_effect(node: Any) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or (node.module or "").split(".")[0] == PACKAGE
    return isinstance(node, ast.Import) and all(alias.name.split(".")[0] == PACKAGE for alias in node.names)


def _named(tree: ast.AST, path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files below the module's directory that its source names."""
    names = {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant)
        and isinstance(n.value, str)
        and n.value.endswith(suffixes)
        and "/" not in n.value
        and not n.value.startswith(".")
    }
    return sorted(p for p in path.parent.rglob("*.*") if p.name in names) if names else []


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@cache
def _distributions() -> dict[str, list[str]]:
    return {k: sorted(set(v)) for k, v in importlib.metadata.packages_distributions().items()}


def main(argv: Sequence[str] | None = None, table_path: Path = TABLE, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same-rows", default="", metavar="STAGES", help="stages whose change alters no row, or `all`")
    same = parser.parse_args(argv).same_rows.split(",")
    table = json.loads(table_path.read_text()) if table_path.exists() else {}
    written: dict[str, Any] = {}
    code = 0
    for pipeline in pipelines():
        before = table.get(pipeline.name, {})
        entries = written.setdefault(pipeline.name, {})
        for stage in pipeline.stages:
            old, new = before.get(stage.name), describe(stage, root)
            entries[stage.name] = new
            if old == new:
                continue
            if old and old["version"] == new["version"] and stage.name not in same and "all" not in same:
                print(
                    f"{pipeline.name}/{stage.name}: the source changed; raise its version, or say --same-rows={stage.name}"
                )
                entries[stage.name], code = old, 1
            else:
                print(f"{pipeline.name}/{stage.name}: version {new['version']} written")
    table_path.write_text(json.dumps(written, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
