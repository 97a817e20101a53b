"""Every form of input gives the same documents: directory, archives, git, tables, and URLs."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pygit2
import pytest
import zstandard
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline
from opencoder_data.refinecode.storage import listdir, read_table

FILES = {
    "src/main.py": "import os\n\nprint(os.name)\n",
    "src/größe.c": "int größe = 1; /* ä */\n",
    "lib/util.go": "package lib\n\nfunc F() int { return 1 }\n",
}


def documents(source, output, *overrides):
    config = load(None, ["stages=ingest,preprocess", "engine.workers=1", "engine.progress=false", *overrides])
    run_pipeline(config, [source], output)
    directory = f"{output}/documents"
    return pa.concat_tables([read_table(f"{directory}/{n}") for n in listdir(directory)]).to_pylist()


def as_tar(compress):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in FILES.items():
            info = tarfile.TarInfo(path)
            info.size, info.mtime = len(text.encode()), 1_700_000_000
            archive.addfile(info, io.BytesIO(text.encode()))
    return compress(buffer.getvalue())


def as_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in FILES.items():
            archive.writestr(zipfile.ZipInfo(path, (2023, 11, 14, 0, 0, 0)), text)
    return buffer.getvalue()


def as_jsonl(compress, names=("repo_name", "path", "content")):
    lines = [json.dumps(dict(zip(names, ("r", path, text), strict=True))) for path, text in FILES.items()]
    return compress("\n".join(lines).encode())


def as_parquet(**columns):
    buffer = io.BytesIO()
    names = {"path": "path", "content": "content"} | columns
    pq.write_table(pa.table({names["path"]: list(FILES), names["content"]: list(FILES.values())}), buffer)
    return buffer.getvalue()


def plain(data):
    return data


FORMS = {
    "a.tar": lambda: as_tar(plain),
    "a.tar.gz": lambda: as_tar(gzip.compress),
    "a.tgz": lambda: as_tar(gzip.compress),
    "a.tar.bz2": lambda: as_tar(bz2.compress),
    "a.tar.xz": lambda: as_tar(lzma.compress),
    "a.tar.zst": lambda: as_tar(zstandard.compress),
    "a.zip": as_zip,
    "a.jsonl": lambda: as_jsonl(plain),
    "a.jsonl.gz": lambda: as_jsonl(gzip.compress),
    "a.jsonl.zst": lambda: as_jsonl(zstandard.compress),
    "a.jsonl.xz": lambda: as_jsonl(lzma.compress, ("max_stars_repo_name", "max_stars_repo_path", "content")),
    "a.ndjson.bz2": lambda: as_jsonl(bz2.compress, ("repository_name", "file_path", "text")),
    "a.parquet": as_parquet,
    "b.parquet": lambda: as_parquet(path="max_stars_repo_path", content="text"),
}


@pytest.mark.parametrize("name", FORMS)
def test_archives_and_tables(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name]())
    found = documents(str(tmp_path / name), str(tmp_path / "out"))
    assert {r["path"]: r["content"] for r in found} == FILES
    assert {r["language"] for r in found} == {"python", "c", "go"}
    if "tar" in name:
        assert {(r["commit_time"], r["time_source"]) for r in found} == {(1_700_000_000, "archive")}


@pytest.mark.parametrize("scheme", ["memory", "file", "local"])
def test_directory_by_url(scheme, tmp_path):
    root = f"{scheme}://{tmp_path}/in" if scheme != "local" else f"{tmp_path}/in"
    fs, base = fsspec.core.url_to_fs(root)
    for path, text in FILES.items():
        fs.makedirs(f"{base}/{path}".rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(f"{base}/{path}", text.encode())
    output = f"{scheme}://{tmp_path}/out" if scheme != "local" else f"{tmp_path}/out"
    found = documents(root, output)
    assert {r["path"]: r["content"] for r in found} == FILES
    ledger = read_ledger(output)
    assert ledger.num_rows == 3 and set(ledger.column("status").to_pylist()) == {"kept"}


@pytest.mark.parametrize("scheme", ["memory", "local"])
def test_archives_in_a_directory_by_url(scheme, tmp_path):
    root = f"{scheme}://{tmp_path}/in"
    fs, base = fsspec.core.url_to_fs(root)
    fs.makedirs(f"{base}/deep")
    fs.pipe_file(f"{base}/deep/a.tar.gz", FORMS["a.tar.gz"]())
    fs.pipe_file(f"{base}/b.zip", FORMS["a.zip"]())
    found = documents(root, str(tmp_path / "out"))
    assert {(r["source"], r["path"]) for r in found} == {
        (s, p) for s in ("in/deep/a.tar.gz", "in/b.zip") for p in FILES
    }
    closed = documents(root, str(tmp_path / "closed"), "ingest.archives=false")
    assert closed == [] and read_ledger(str(tmp_path / "closed")).num_rows == 2


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.jsonl.zst", "a.parquet"])
def test_archives_and_tables_by_url(name, tmp_path):
    url = f"memory://{tmp_path}/{name}"
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(path, FORMS[name]())
    assert {r["path"]: r["content"] for r in documents(url, str(tmp_path / "out"))} == FILES


@pytest.mark.parametrize("bare", [False, True])
def test_git_gives_the_time_of_the_last_change_of_each_file(bare, tmp_path):
    """A branch merged back, a file renamed, one deleted, one restored to what it was."""
    work = tmp_path / "repo"
    repo = pygit2.init_repository(str(work))
    first = "x = 1\n"

    def commit(time, changes, parents, ref="HEAD"):
        for path, text in changes.items():
            if text is None:
                repo.index.remove(path)
            else:
                entry = pygit2.IndexEntry(path, repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB)
                repo.index.add(entry)
        signature = pygit2.Signature("A", "a@example.org", time, 0)
        return repo.create_commit(ref, signature, signature, "m", repo.index.write_tree(), parents)

    a = commit(100, {"keep.py": "k = 1\n", "old.py": "moved = 1\n", "gone.py": "g = 1\n", "back.py": first}, [])
    b = commit(200, {"back.py": "x = 2\n", "old.py": None, "dir/new.py": "moved = 1\n"}, [a])
    side_tree_time = commit(300, {"dir/side.py": "s = 1\n"}, [b], ref="refs/heads/side")
    repo.index.remove("dir/side.py")
    c = commit(400, {"back.py": first, "gone.py": None}, [b])
    commit(500, {"dir/side.py": "s = 1\n"}, [c, side_tree_time])
    source = work
    if bare:
        source = tmp_path / "repo.git"
        pygit2.clone_repository(str(work), str(source), bare=True)
    found = documents(str(source), str(tmp_path / "out"), "ingest.kind=git")
    assert {r["path"]: r["commit_time"] for r in found} == {
        "keep.py": 100,
        "dir/new.py": 200,
        "dir/side.py": 300,
        "back.py": 400,
    }
    assert {r["time_source"] for r in found} == {"commit"}


def test_stars_licence_and_time_columns(tmp_path):
    table = {
        "max_stars_repo_name": ["o/r"] * 2,
        "max_stars_repo_path": ["a.py", "b.py"],
        "content": ["a = 1\n", "b = 1\n"],
        "max_stars_count": [7, None],
        "max_stars_repo_licenses": [["MIT", "Apache-2.0"], []],
        "max_stars_repo_stars_event_max_datetime": ["2020-01-02T00:00:00Z", None],
    }
    pq.write_table(pa.table(table), tmp_path / "v1.parquet")
    a, b = sorted(documents(str(tmp_path / "v1.parquet"), str(tmp_path / "out")), key=lambda r: r["path"])
    assert (a["stars"], a["licence"], a["commit_time"], a["time_source"]) == (7, "MIT;Apache-2.0", 1577923200, "column")
    assert (b["stars"], b["licence"], b["commit_time"], b["time_source"]) == (None, None, None, None)
    assert a["repo"] == "o/r" and Path(a["source"]).name == "v1.parquet"
