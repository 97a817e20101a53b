"""Gather the measuring corpus: real code in many languages from source packages of PyPI, npm and Debian.

    python scripts/gather_corpus.py --output DIR [--recipe docs/refinecode/corpus.toml] [--limit_mb 0]

Needs uv, npm and apt-get with dpkg's tools; which hosts they ask is their configuration, not ours. The package lists
and pinned versions are the recipe's. Writes `DIR/downloads` (archives, kept between calls), `DIR/corpus/REGISTRY/PACKAGE/`
(unpacked; times are the archives') and `DIR/corpus.json` (files, bytes
and SHA-256 of each archive, and what could not be had, which also makes the exit code 1). Archives inside the
packages stay packed. DIR must lie outside the repository.
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
"""(package, folder) -> its archives in that folder."""

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments: str, cwd: Path | None = None) -> str:
    """Output of a command; ValueError with its last line when it fails."""
    result = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise ValueError(f"{' '.join(arguments[:3])} failed: {lines[-1]}")
    return result.stdout


def pypi(_: Path) -> Fetch:
    """Source distributions, checked against the index's SHA-256. Nothing is built."""

    def fetch(requirement: str, folder: Path) -> list[Path]:
        if not list(folder.glob("*.*")):
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
            folder.mkdir(parents=True, exist_ok=True)
            (folder / sdist["url"].rsplit("/", 1)[-1]).write_bytes(data)
        return list(folder.iterdir())

    return fetch


def npm(_: Path) -> Fetch:
    """Package tarballs."""

    def fetch(package: str, folder: Path) -> list[Path]:
        if not list(folder.glob("*.tgz")):
            folder.mkdir(parents=True, exist_ok=True)
            command("npm", "pack", "--silent", package, cwd=folder)
        return list(folder.glob("*.tgz"))

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

    def fetch(package: str, folder: Path) -> list[Path]:
        if not (folder / ".complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            command("apt-get", "source", "--download-only", *options, package, cwd=folder)
            (folder / ".complete").touch()
        return [p for p in folder.iterdir() if ".tar." in p.name and not p.name.endswith(".asc")]

    return fetch


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


def gather(recipe: Path, output: Path, limit_mb: float) -> dict:
    """Fetch and unpack the recipe's packages; stops after `limit_mb` megabytes unpacked (0: no limit)."""
    if output.resolve().is_relative_to(ROOT):
        raise ValueError(f"{output} lies inside the repository; give a folder outside")
    lists = tomllib.loads(recipe.read_text())
    report: dict = {"packages": {}, "missing": {}, "files": 0, "bytes": 0}
    for registry, prepare in (("debian", debian), ("npm", npm), ("pypi", pypi)):
        fetch = prepare(output / "downloads" / registry)
        for package in lists[registry]:
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
                unpack(archives, temporary)
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
    parser.add_argument("--recipe", type=Path, default=ROOT / "docs" / "refinecode" / "corpus.toml")
    parser.add_argument("--limit_mb", type=float, default=0)
    arguments = parser.parse_args()
    try:
        report = gather(arguments.recipe, arguments.output, arguments.limit_mb)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for package, reason in report["missing"].items():
        print(f"missing: {package}: {reason}", file=sys.stderr)
    print(f"{len(report['packages'])} packages, {report['files']} files, {report['bytes'] / 1e6:.1f} MB")
    return 1 if report["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
