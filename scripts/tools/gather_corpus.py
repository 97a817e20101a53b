"""Gather the measuring corpus: real code in many languages from source packages of PyPI, npm and Debian.

    python scripts/tools/gather_corpus.py --output DIR [--recipe docs/refinecode/corpus.toml ...] [--limit_mb 0]

Needs uv, npm, apt-get with dpkg's tools and git; which hosts they ask is their configuration, not ours. The package lists
and pinned versions are the recipes'. A GitHub repository is read from a bare clone at `DIR/downloads/github/OWNER+NAME.git`
(or from the directory of bare clones that --clones names), which is made where it is missing. Writes `DIR/downloads` (archives, kept between calls), `DIR/corpus/REGISTRY/PACKAGE/`
(unpacked; times are the archives') and `DIR/corpus.json` (files, bytes
and SHA-256 of each archive, and what could not be had, which also makes the exit code 1). Archives inside the
packages stay packed. DIR must be outside the repository.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path

Fetch = Callable[[str, Path], list[Path]]
"""(package, directory) -> its archives in that directory."""

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str, cwd: Path | None = None) -> str:
    """Output of a command; ValueError with its last line when it fails."""
    result = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise ValueError(f"{' '.join(arguments[:3])} failed: {lines[-1]}")
    return result.stdout


def pypi(_: Path) -> Fetch:
    """Source distributions, checked against the index's SHA-256. Nothing is built."""

    def fetch(requirement: str, directory: Path) -> list[Path]:
        if not list(directory.glob("*.*")):
            with tempfile.TemporaryDirectory() as tmp:
                source, lock = Path(tmp) / "requirements.in", Path(tmp) / "pylock.toml"
                source.write_text(requirement + "\n")
                options = ("--no-deps", "--quiet", "--python-version", "3.13", "--output-file", str(lock))
                command("uv", "pip", "compile", str(source), *options)
                package = tomllib.loads(lock.read_text())["packages"][0]
            if "sdist" not in package:
                raise ValueError(f"{requirement} has no source distribution")
            sdist = package["sdist"]
            with urllib.request.urlopen(sdist["url"]) as answer:
                data = answer.read()
            if hashlib.sha256(data).hexdigest() != sdist["hashes"]["sha256"]:
                raise ValueError(f"{requirement}: the archive's SHA-256 is not the index's")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / sdist["url"].rsplit("/", 1)[-1]).write_bytes(data)
        return list(directory.iterdir())

    return fetch


def npm(_: Path) -> Fetch:
    """Package tarballs."""

    def fetch(package: str, directory: Path) -> list[Path]:
        if not list(directory.glob("*.tgz")):
            directory.mkdir(parents=True, exist_ok=True)
            command("npm", "pack", "--silent", package, cwd=directory)
        return list(directory.glob("*.tgz"))

    return fetch


def debian(downloads: Path) -> Fetch:
    """Source packages of the machine's distribution, with package lists and a cache of their own."""
    state = downloads / ".apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    stanzas = [p.read_text() for p in Path("/etc/apt/sources.list.d").glob("*.sources")]
    stanzas = [text.replace("Types: deb\n", "Types: deb-src\n") for text in stanzas if "debian-archive" in text]
    if not stanzas:
        raise ValueError("this machine's apt knows no Debian archive (a *.sources file with its keyring)")
    (state / "src.sources").write_text("\n".join(stanzas))
    options = [
        f"-oDir::Etc::sourcelist={state / 'src.sources'}", "-oDir::Etc::sourceparts=/dev/null", f"-oDir::State::lists={state / 'lists'}",
        f"-oDir::Cache={state / 'cache'}", "-oAPT::Sandbox::User=root",
    ]  # fmt: skip
    command("apt-get", "update", *options)

    def fetch(package: str, directory: Path) -> list[Path]:
        if not (directory / ".complete").exists():
            directory.mkdir(parents=True, exist_ok=True)
            try:
                command("apt-get", "source", "--download-only", *options, package, cwd=directory)
            except ValueError:
                # A mirror may lack the distribution's own part; the upstream archive is what is measured.
                if not list(directory.glob("*.orig*.tar.*")):
                    raise
            (directory / ".complete").touch()
        return [p for p in directory.iterdir() if ".tar." in p.name and not p.name.endswith(".asc")]

    return fetch


def github(clones: Path) -> Callable[[Path], Fetch]:
    """The newest commit of bare clones `clones/OWNER+NAME.git` (or `.../repo` below a directory of that name)."""

    def prepare(_: Path) -> Fetch:
        def fetch(repository: str, directory: Path) -> list[Path]:
            archive = directory / "source.tar"
            if not archive.exists():
                flat = repository.replace("/", "+")
                bare = next(
                    (p for p in (clones / f"{flat}.git", clones / flat / "repo") if p.is_dir()), clones / f"{flat}.git"
                )
                if not bare.is_dir():
                    command(
                        "git", "clone", "--quiet", "--bare", "--depth=1", f"https://github.com/{repository}", str(bare)
                    )
                # A snapshot may lack its largest files: what is not there is left out.
                there = command("git", "-C", str(bare), "rev-list", "--objects", "--missing=print", "--no-walk", "HEAD")
                absent = {line[1:] for line in there.splitlines() if line.startswith("?")}
                listed = [
                    line.split("\t")
                    for line in command("git", "-C", str(bare), "ls-tree", "-rz", "HEAD").split("\0")
                    if line
                ]
                without = [f":(exclude,literal){path}" for entry, path in listed if entry.split()[2] in absent]
                directory.mkdir(parents=True, exist_ok=True)
                partial = directory / ".partial"
                command(
                    "git",
                    "-C",
                    str(bare),
                    "archive",
                    "--format=tar",
                    f"--output={partial}",
                    "HEAD",
                    "--",
                    ".",
                    *without,
                )
                partial.replace(archive)
            return [archive]

        return fetch

    return prepare


def unpack(archives: list[Path], target: Path) -> None:
    """Plain files of the archives under `target`: no links, no devices, nothing outside it."""
    for archive in sorted(archives):
        inner = target / archive.name.split(".tar.")[0] if ".tar." in archive.name else target
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg():
                    try:
                        tar.extract(member, inner, set_attrs=False, filter="data")
                        os.utime(inner / member.name.lstrip("/"), (member.mtime, member.mtime))
                    except (tarfile.FilterError, OSError) as error:
                        print(f"left out: {archive.name}: {member.name}: {error}", file=sys.stderr)


def gather(recipes: list[Path], output: Path, limit_mb: float, clones: Path | None = None) -> dict:
    """Fetch and unpack the recipes' packages; stops after `limit_mb` megabytes unpacked (0: no limit)."""
    if output.resolve().is_relative_to(ROOT):
        raise ValueError(f"{output} is inside the repository; give a directory outside")
    tables = [tomllib.loads(recipe.read_text()) for recipe in recipes]
    repositories = github(clones or output / "downloads" / "github")
    report: dict = {"packages": {}, "missing": {}, "files": 0, "bytes": 0}
    for registry, prepare in (("debian", debian), ("npm", npm), ("pypi", pypi), ("github", repositories)):
        packages = [package for table in tables for package in table.get(registry, [])]
        if not packages:
            continue
        fetch = prepare(output / "downloads" / registry)
        for package in dict.fromkeys(packages):
            if limit_mb and report["bytes"] > limit_mb * 1e6:
                break
            name = package.replace("==", "-").replace("=", "_").replace(":", "%").replace("/", "+")
            try:
                archives = fetch(package, output / "downloads" / registry / name)
            except (ValueError, OSError) as error:  # gone from the registry, say: the others still make a corpus
                report["missing"][f"{registry}/{package}"] = str(error)
                continue
            target = output / "corpus" / registry / name
            if not target.exists():
                temporary = target.with_name(".unpacking")
                shutil.rmtree(temporary, ignore_errors=True)
                try:
                    unpack(archives, temporary)
                except tarfile.TarError as error:
                    report["missing"][f"{registry}/{package}"] = f"{error}; remove {archives[0].parent} and try again"
                    continue
                temporary.replace(target)
            sizes = [p.stat().st_size for p in target.rglob("*") if p.is_file()]
            hashes = {a.name: hashlib.sha256(a.read_bytes()).hexdigest() for a in sorted(archives)}
            report["packages"][f"{registry}/{name}"] = {"files": len(sizes), "bytes": sum(sizes), "archives": hashes}
            report["files"] += len(sizes)
            report["bytes"] += sum(sizes)
    (output / "corpus.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, nargs="+", default=[ROOT / "docs" / "refinecode" / "corpus.toml"])
    parser.add_argument("--clones", type=Path, help="directory of bare clones OWNER+NAME.git that are there already")
    parser.add_argument("--limit_mb", type=float, default=0)
    arguments = parser.parse_args()
    try:
        report = gather(arguments.recipe, arguments.output, arguments.limit_mb, arguments.clones)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for package, reason in report["missing"].items():
        print(f"missing: {package}: {reason}", file=sys.stderr)
    print(f"{len(report['packages'])} packages, {report['files']} files, {report['bytes'] / 1e6:.1f} MB")
    return 1 if report["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
