"""Which program wrote a stage's files: a digest of the source that decides its rows.

It covers the stage's module, every module of this package that it imports, directly or not, the tables that they read,
and the versions of the libraries that they import. Comments, docstrings and layout do not count; neither do `config`,
whose values are part of a run's fingerprint, nor `engine`, which decides when and where a task runs, never its result.
"""

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "opencoder_data"
NEUTRAL = frozenset({f"{PACKAGE}.refinecode.config", f"{PACKAGE}.refinecode.engine"})
ROOT = Path(__file__).parents[2]


@cache
def code_version(module: str, root: Path = ROOT) -> str:
    """Hex digest for a module of the package whose parent directory is `root`; nothing is imported."""
    digest = hashlib.blake2b(digest_size=16)
    libraries: set[str] = set()
    for name in sorted(_closure(module, root)):
        path = _path_of(name, root)
        assert path is not None
        tree = _parse(path, path.stat().st_mtime_ns)
        digest.update(f"{name}\0{ast.dump(tree)}\0".encode())
        for table in _tables(tree, path.parent):
            digest.update(f"{table.name}\0".encode() + table.read_bytes())
        libraries |= {n.split(".")[0] for n in _imports(tree, name, path) if not n.startswith(PACKAGE)}
    for library in sorted(libraries - sys.stdlib_module_names):
        digest.update(f"{library} {_library_version(library)}\0".encode())
    digest.update(f"python {sys.version_info.major}.{sys.version_info.minor}".encode())
    return digest.hexdigest()


def _closure(module: str, root: Path) -> set[str]:
    """The module and all of the package's modules that it imports, `NEUTRAL` ones left out."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = _path_of(name, root)
        if name in found or name in NEUTRAL or path is None:
            continue
        found.add(name)
        todo += [n for n in _imports(_parse(path, path.stat().st_mtime_ns), name, path) if n.startswith(PACKAGE)]
        # A module's packages are imported before it.
        todo += [parent for parent in [name.rpartition(".")[0]] if parent]
    return found


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
    """Syntax tree without docstrings; `modified` (ns) is there for the cache."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A string alone on its line has no effect: a docstring, or one that documents a field.
            node.body = [  # pyright: ignore[reportAttributeAccessIssue]
                s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            ]
    return tree


def _tables(tree: ast.AST, directory: Path) -> list[Path]:
    """JSON and TOML files below the module's directory that it names."""
    names = {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant)
        and isinstance(n.value, str)
        and n.value.endswith((".json", ".toml"))
        and "/" not in n.value
    }
    return sorted(p for p in directory.rglob("*.*") if p.name in names)


@cache
def _distributions() -> dict[str, list[str]]:
    return {k: sorted(set(v)) for k, v in importlib.metadata.packages_distributions().items()}


def _library_version(library: str) -> str:
    return " ".join(importlib.metadata.version(d) for d in _distributions().get(library, []))
