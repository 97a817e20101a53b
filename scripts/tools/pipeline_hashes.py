"""Hashes of what RefineCode makes of a fixed corpus: run before and after a change that must keep every row.

``python scripts/tools/pipeline_hashes.py WORK [--split-module=...]`` copies files of this Python's standard library (some of
them twice, or with a changed line) to WORK/in, runs the pipeline over them in several forms, splits the first result, and
prints one hash for each form, over names and bytes of documents, ledger, summary and the tables of all stages.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

FILES, PER_REPOSITORY, MAX_BYTES = 320, 20, 100_000
SUFFIXES = (".py", ".txt", ".html", ".json", ".h", ".rst", ".csv", ".md")
COMMON = ("--engine.progress=false", "--layout.partition_mb=0.5", "--layout.shuffle_rows=500", "--ingest.repo_depth=1")
FORMS = {
    "default": ("--engine.workers=2",),
    "one worker, no verification": ("--engine.workers=1", "--fuzzy_dedup.verify=false", "--filter.time_limit_s=0"),
    "chunks, classic MinHash": ("--fuzzy_dedup.level=chunk", "--fuzzy_dedup.sketch=minhash", "--fuzzy_dedup.preset=25x10"),
    "repositories": ("--fuzzy_dedup.level=repo", "--sample.ratios=python=0.5", "--fuzzy_dedup.measure_recall=true"),
    "compat filter": ("--filter.profile=compat", "--stages=ingest,preprocess,filter"),
}  # fmt: skip
# Digests of the program, times, and marks of steps other than the last: everything else must be equal.
LEFT_OUT = ("stage.json", "timings.json", "run.json")


def write_corpus(root: Path) -> int:
    """Files of the standard library in repositories; every tenth again as it is and with a changed line."""
    library = Path(sysconfig.get_path("stdlib"))
    found = [
        p
        for p in sorted(library.rglob("*"))
        if p.suffix in SUFFIXES and "site-packages" not in p.parts and p.is_file() and 0 < p.stat().st_size < MAX_BYTES
    ]
    chosen = found[:: max(1, len(found) // FILES)]
    written = 0
    for number, path in enumerate(chosen):
        data = path.read_bytes()
        texts = {f"{number:03d}_{path.name}": data}
        if number % 10 == 0:
            texts[f"copy/{number:03d}_{path.name}"] = data
            lines = data.split(b"\n")
            texts[f"near/{number:03d}_{path.name}"] = b"\n".join(
                [*lines[: len(lines) // 2], b"x", *lines[len(lines) // 2 + 1 :]]
            )
        for name, text in texts.items():
            target = root / f"repository{number // PER_REPOSITORY:02d}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
            written += 1
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        for number, path in enumerate(chosen[:20]):
            info = zipfile.ZipInfo(f"{number:03d}_{path.name}", (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, path.read_bytes() + b"\n# changed\n" * 30)
    for path in root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return written


def tree_hash(root: Path) -> tuple[int, str]:
    """(files, hash) of names and bytes of all files below a directory but `LEFT_OUT`."""
    digest = hashlib.sha256()
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name not in LEFT_OUT)
    # The plan holds absolute paths.
    files = [p for p in files if ("done" not in p.parts or p.parent.name == "docs") and p.parent.name != "plan"]
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
    return len(files), digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--split-module", default="opencoder_data.split")
    parser.add_argument("--hash-only", action="store_true", help="of what an earlier call left in WORK")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    if arguments.hash_only:
        for name in (*(f"run{n}" for n in range(len(FORMS))), "split/train", "split/held_out"):
            print(f"{name}: {tree_hash(work / name)}")
        return 0
    shutil.rmtree(work, ignore_errors=True)
    print(f"corpus: {write_corpus(work / 'in')} files and an archive, {tree_hash(work / 'in')[1]}", flush=True)
    for number, (name, options) in enumerate(FORMS.items()):
        output = f"run{number}"
        command = [sys.executable, "-m", "opencoder_data.refinecode", "--input=in", f"--output={output}"]
        subprocess.run([*command, *COMMON, *options], cwd=work, check=True, stdout=subprocess.DEVNULL)
        files, all_files = tree_hash(work / output)
        documents = tree_hash(work / output / "documents")[1]
        print(f"{name}: {files} files {all_files}, documents {documents}", flush=True)
    command = [sys.executable, "-m", arguments.split_module, "--run=run0", "--output=split", "--holdout=0.1"]
    subprocess.run([*command, "--group=language,input"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    for name in ("train", "held_out"):
        files, digest = tree_hash(work / "split" / name)
        print(f"split, {name}: {files} files {digest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
