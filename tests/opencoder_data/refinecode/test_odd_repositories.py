"""Repositories that cannot be read give their work tree or a clear error; nothing outside the input is read."""

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pygit2
import pytest
from opencoder_data.refinecode.__main__ import main

from .test_odd_tables import ingest

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")}, "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x.invalid", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@x.invalid", "GIT_AUTHOR_DATE": "1600000000 +0000", "GIT_COMMITTER_DATE": "1600000000 +0000",
}  # fmt: skip
SECRET = "secret = 'of another repository'\n"


def git(directory, *arguments):
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True, text=True).stdout


def make(directory, files=None, *options):
    directory.mkdir(parents=True)
    git(directory, "init", "-q", "-b", "main", *options)
    for name, text in (files or {"a.py": "a = 1\n", "b.py": "b = 1\n"}).items():
        (directory / name).write_text(text)
    git(directory, "add", ".")
    git(directory, "commit", "-qm", "1")
    return directory


def rejected(source, tmp_path, capsys):
    """The one line of an input that is rejected with 2."""
    options = ("--engine.workers=1", "--engine.progress=false", "--stages=ingest,preprocess")
    assert main([f"--input={source}", f"--output={tmp_path / 'rejected'}", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot be read" in error
    return error


@pytest.fixture
def base(tmp_path):
    return make(tmp_path / "in" / "base")


def kept(documents):
    return sorted((d["path"], d["commit_time"]) for d in documents)


BOTH = [("a.py", 1_600_000_000), ("b.py", 1_600_000_000)]
FROM_TREE = [("a.py", None), ("b.py", None)]


@pytest.mark.parametrize("name", ["sha256", "unborn", "bad head", "no head", "cut commit", "empty objects", "reftable"])
def test_a_repository_that_cannot_be_read_gives_its_work_tree(name, tmp_path):
    repository = make(tmp_path / "in", None, *(["--object-format=sha256"] if name == "sha256" else []))
    inner = repository / ".git"
    if name == "unborn":
        git(repository, "symbolic-ref", "HEAD", "refs/heads/new")
    elif name == "bad head":
        (inner / "HEAD").write_text("nonsense\n")
    elif name == "no head":
        (inner / "HEAD").unlink()
    elif name == "cut commit":
        oid = git(repository, "rev-parse", "HEAD").strip()
        path = inner / "objects" / oid[:2] / oid[2:]
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:10])
    elif name == "empty objects":
        shutil.rmtree(inner / "objects")
        (inner / "objects").mkdir()
    elif name == "reftable":
        (inner / "HEAD").write_text("ref: refs/heads/.invalid\n")
        shutil.rmtree(inner / "refs")
        (inner / "refs").mkdir()
    documents, ledger, _ = ingest(repository, tmp_path / "out")
    assert kept(documents) == FROM_TREE and not any(".git" in d["path"] for d in documents)
    assert [r["rule"] for r in ledger if r["rule"]] == ["unreadable_repository"] and "work tree" in ledger[0]["detail"]
    # In a directory it costs only itself.
    (tmp_path / "outer").mkdir()
    shutil.move(repository, tmp_path / "outer" / "x")
    make(tmp_path / "outer" / "good", {"c.py": "c = 1\n"})
    documents, _, _ = ingest(tmp_path / "outer", tmp_path / "out2")
    assert kept(documents) == [("c.py", 1_600_000_000), ("x/a.py", None), ("x/b.py", None)]


def test_a_bare_repository_that_cannot_be_read_is_rejected_with_the_remedy(base, tmp_path, capsys):
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(base), str(bare))
    assert kept(ingest(bare, tmp_path / "out")[0]) == BOTH
    git(bare, "symbolic-ref", "HEAD", "refs/heads/master")
    assert "git symbolic-ref HEAD refs/heads/main" in rejected(bare, tmp_path, capsys)
    sha256 = tmp_path / "sha.git"
    make(tmp_path / "sha", None, "--object-format=sha256")
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "sha"), str(sha256))
    assert "sha256" in rejected(sha256, tmp_path, capsys)
    shutil.move(bare, tmp_path / "in" / "bare.git")
    _, ledger, _ = ingest(tmp_path / "in", tmp_path / "out2")
    assert [r["rule"] for r in ledger if r["source"] == "in/bare.git"] == ["unreadable_repository"]


def test_a_partial_clone_without_files_is_rejected(base, tmp_path, capsys):
    git(base, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{base}", str(tmp_path / "partial"))
    assert "partial clone" in rejected(tmp_path / "partial", tmp_path, capsys)
    git(tmp_path, "clone", "-q", "--filter=tree:0", f"file://{base}", str(tmp_path / "treeless"))
    assert kept(ingest(tmp_path / "treeless", tmp_path / "out")[0]) == BOTH


@pytest.mark.parametrize("name", ["packed", "shallow", "detached", "tag", "own alternates", "missing history"])
def test_ordinary_forms_are_read_with_their_times(name, base, tmp_path):
    (base / "c.py").write_text("c = 1\n")
    git(base, "add", ".")
    git(base, "commit", "-qm", "2")
    source, root = base, base
    if name == "packed":
        git(base, "gc", "-q")
        git(base, "pack-refs", "--all")
    elif name == "shallow":
        source = root = tmp_path / "shallow"
        git(tmp_path, "clone", "-q", "--depth=1", f"file://{base}", str(source))
    elif name == "detached":
        git(base, "checkout", "-q", "--detach")
    elif name == "tag":
        git(base, "tag", "-am", "t", "v1")
        (base / ".git" / "HEAD").write_text("ref: refs/tags/v1\n")
    elif name == "own alternates":
        git(base.parent, "clone", "-q", "--shared", "base", "shared")
        shutil.rmtree(base / "x", ignore_errors=True)
        root = base.parent
    elif name == "missing history":
        first = git(base, "rev-parse", "HEAD~1").strip()
        (base / ".git" / "objects" / first[:2] / first[2:]).unlink()
    documents, _, summary = ingest(root, tmp_path / "out")
    found = [d for d in documents if name != "own alternates" or d["source"] == "in/shared"]
    right = [*BOTH, ("c.py", 1_600_000_000)]
    if name == "missing history":
        right, odd = [(p, None) for p, _ in right], {"commit_time": 3}
    else:
        odd = {}
    assert kept(found) == right and summary.get("odd_metadata", {}) == odd
    assert source.exists()


def test_another_owner_is_no_obstacle(base, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    for directory, _, names in os.walk(base):
        for name in (".", *names):
            os.lchown(os.path.join(directory, name), 12345, 12345)
    assert kept(ingest(base, tmp_path / "out")[0]) == BOTH


def test_a_missing_directory_or_file_costs_only_itself(tmp_path):
    repository = tmp_path / "in"
    repository.mkdir()
    (repository / "sub").mkdir()
    (repository / "sub" / "d.py").write_text("d = 1\n")
    shutil.rmtree(repository)
    make(repository, {"a.py": "a = 1\n", "b.py": "b = 1\n"})
    (repository / "sub").mkdir()
    (repository / "sub" / "d.py").write_text("d = 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "2")
    for what in ("HEAD:sub", "HEAD:b.py"):
        oid = git(repository, "rev-parse", what).strip()
        (repository / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    documents, ledger, _ = ingest(repository, tmp_path / "out")
    assert [d["path"] for d in documents] == ["a.py"]
    assert {r["path"]: r["rule"] for r in ledger if r["rule"]} == {"sub/": "unreadable", "b.py": "unreadable"}


def outside(tmp_path):
    """Another repository beside the input, whose content must not appear."""
    return make(tmp_path / "elsewhere", {"secret.py": SECRET, "a.py": SECRET})


WAYS = ["file", "link", "worktree", "submodule", "alternates", "objects link", "pack link", "pack file link", "object link", "head link",
        "refs link", "commondir", "alternates link", "bare alternates"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out_of_the_input(way, tmp_path):
    secret = outside(tmp_path)
    inner = secret / ".git"
    root = tmp_path / "in"
    root.mkdir()
    repository = root / "r"
    if way in ("file", "link"):
        repository.mkdir()
        (repository / "mine.py").write_text("m = 1\n")
        if way == "file":
            (repository / ".git").write_text(f"gitdir: {inner}\n")
        else:
            (repository / ".git").symlink_to(inner)
    elif way == "worktree":
        git(secret, "worktree", "add", "-q", "-b", "w", str(repository))
        for name in ("secret.py", "a.py"):
            (repository / name).write_text("m = 1\n")
    else:
        make(repository, {"mine.py": "m = 1\n"})
        own = repository / ".git"
        head = git(secret, "rev-parse", "HEAD")
        if way == "submodule":
            (repository / "sub").mkdir()
            (repository / "sub" / ".git").write_text(f"gitdir: {inner}\n")
            git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head.strip()},sub")
            git(repository, "commit", "-qm", "2")
        elif way in ("alternates", "bare alternates", "alternates link"):
            place = own / "objects" / "info" / "alternates"
            if way == "alternates link":
                (tmp_path / "list").write_text(f"{inner / 'objects'}\n")
                place.symlink_to(tmp_path / "list")
            else:
                place.write_text(f"{inner / 'objects'}\n")
            (own / "refs" / "heads" / "main").write_text(head)
            if way == "bare alternates":
                shutil.move(own, root / "bare.git")
                shutil.rmtree(repository)
        elif way == "objects link":
            shutil.rmtree(own / "objects")
            (own / "objects").symlink_to(inner / "objects")
            (own / "refs" / "heads" / "main").write_text(head)
        elif way == "pack link":
            git(secret, "gc", "-q")
            shutil.rmtree(own / "objects" / "pack")
            (own / "objects" / "pack").symlink_to(inner / "objects" / "pack")
            (own / "refs" / "heads" / "main").write_text(head)
        elif way == "pack file link":
            git(secret, "gc", "-q")
            for path in (inner / "objects" / "pack").iterdir():
                (own / "objects" / "pack" / path.name).symlink_to(path)
            (own / "refs" / "heads" / "main").write_text(head)
        elif way == "object link":
            for path in (inner / "objects").glob("??/*"):
                (own / "objects" / path.parent.name).mkdir(exist_ok=True)
                if not (own / "objects" / path.parent.name / path.name).exists():
                    (own / "objects" / path.parent.name / path.name).symlink_to(path)
            (own / "refs" / "heads" / "main").write_text(head)
        elif way == "head link":
            (own / "HEAD").unlink()
            (own / "HEAD").symlink_to(inner / "HEAD")
        elif way == "refs link":
            shutil.move(own / "refs", tmp_path / "refs")
            (own / "refs").symlink_to(tmp_path / "refs")
        elif way == "commondir":
            (own / "commondir").write_text(f"{inner}\n")
    documents, ledger, _ = ingest(root, tmp_path / "out")
    assert documents or way == "bare alternates"
    assert not any("secret" in d["content"] or ("secret" in d["path"] and way != "worktree") for d in documents)
    assert all("m = 1" in d["content"] for d in documents)
    if way != "submodule":
        assert "unreadable_repository" in {r["rule"] for r in ledger}


def test_configuration_and_hooks_have_no_say(base, tmp_path):
    secret = outside(tmp_path)
    ran = tmp_path / "ran"
    hook = tmp_path / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    os.mkfifo(tmp_path / "fifo")
    with (base / ".git" / "config").open("a") as config:
        config.write(
            f"[core]\n\tworktree = {secret}\n\tfsmonitor = {hook}\n\thooksPath = {tmp_path}\n\tsshCommand = {hook}\n"
        )
        config.write(f'[include]\n\tpath = {tmp_path / "fifo"}\n[filter "x"]\n\tsmudge = {hook}\n\tclean = {hook}\n')
    for name in ("post-checkout", "pre-commit", "fsmonitor-watchman"):
        shutil.copy(hook, base / ".git" / "hooks" / name)
    assert kept(ingest(base, tmp_path / "out")[0]) == BOTH and not ran.exists()


@pytest.mark.parametrize("name", ["HEAD", "config", "packed-refs", "shallow"])
def test_pipes_and_devices_in_a_repository_are_not_waited_for(name, base, tmp_path):
    path = base / ".git" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    documents, _, _ = ingest(base, tmp_path / "out")
    assert [p for p, _ in kept(documents)] == ["a.py", "b.py"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_links_among_tables_stay_inside_the_input(kind, tmp_path):
    root = tmp_path / "in"
    (root / "blobs").mkdir(parents=True)
    line = '{"text": "%s = 1\\n", "path": "%s.py"}\n'
    (root / "mine.jsonl").write_text(line % ("m", "m"))
    (root / "blobs" / "x.jsonl").write_text(line % ("x", "x"))
    (root / "inside.jsonl").symlink_to("blobs/x.jsonl")
    (tmp_path / "secret.jsonl").write_text(line % ("secret", "s"))
    (root / "outside.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (root / "gone.jsonl").symlink_to(root / "nothing")
    os.mkfifo(root / "pipe.jsonl")
    options = ("ingest.kind=jsonl",) if kind == "jsonl" else ()
    documents, ledger, _ = ingest(root, tmp_path / "out", *options)
    assert {d["path"] for d in documents} == {"m.py", "x.py"}
    assert {r["source"]: r["rule"] for r in ledger if r["rule"]} == {
        "in/outside.jsonl": "symlink", "in/gone.jsonl": "not_a_file", "in/pipe.jsonl": "not_a_file",
    }  # fmt: skip


def test_a_directory_swapped_for_a_link_leads_nowhere(tmp_path):
    from opencoder_data.refinecode.config import IngestConfig
    from opencoder_data.refinecode.ingest import tree

    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.py").write_text(SECRET)
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "elsewhere")
    (raw,) = tree.read_files(str(tmp_path / "in"), [["sub/a.py", ""]], "in", "in", IngestConfig())
    assert raw.data is None and raw.rule == "symlink"


def test_deep_directories_and_trees(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.py").write_text("a = 1\n")
    here = os.getcwd()
    os.chdir(root)
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        Path("b.py").write_text("b = 1\n")
        os.chdir(here)
        documents, ledger, _ = ingest(root, tmp_path / "out")
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(root)], check=True)  # pytest's own removal is recursive
    assert "a.py" in {d["path"] for d in documents} and len(ledger) == 2

    repository = pygit2.init_repository(str(tmp_path / "git"), bare=True)
    blob = repository.create_blob(b"x = 1\n")
    builder = repository.TreeBuilder()
    builder.insert("x.py", blob, pygit2.enums.FileMode.BLOB)
    tree = builder.write()
    for _ in range(3000):
        builder = repository.TreeBuilder()
        builder.insert("d", tree, pygit2.enums.FileMode.TREE)
        builder.insert("y.py", blob, pygit2.enums.FileMode.BLOB)
        tree = builder.write()
    who = pygit2.Signature("a", "a@x.invalid", 1_600_000_000)
    repository.create_commit("HEAD", who, who, "1", tree, [])
    documents, ledger, _ = ingest(tmp_path / "git", tmp_path / "out2")
    assert len(documents) > 1000 and [r["rule"] for r in ledger if r["rule"]] == ["unreadable"]


def test_a_tree_of_trees_that_multiplies_is_bounded(tmp_path):
    """Ten levels of ten times the same directory: 10^10 files in 20 objects."""
    repository = pygit2.init_repository(str(tmp_path / "git"), bare=True)
    item, mode = repository.create_blob(b"x = 1\n"), pygit2.enums.FileMode.BLOB
    for _ in range(10):
        builder = repository.TreeBuilder()
        for i in range(10):
            builder.insert(f"d{i}.py", item, mode)
        item, mode = builder.write(), pygit2.enums.FileMode.TREE
    who = pygit2.Signature("a", "a@x.invalid", 1_600_000_000)
    repository.create_commit("HEAD", who, who, "1", item, [])
    documents, ledger, _ = ingest(tmp_path / "git", tmp_path / "out", "ingest.max_archive_entries=2000")
    assert 1000 < len(documents) < 2000 and [r["rule"] for r in ledger if r["rule"]] == ["archive_limit"]


def test_large_blobs_are_rejected_by_their_header(tmp_path, monkeypatch):
    repository = make(tmp_path / "in", {"a.py": "a = 1\n", "big.py": "#" * 5000})
    unpacked = []
    monkeypatch.setattr(
        pygit2.Repository, "__getitem__", _noting(pygit2.Repository.__getitem__, unpacked), raising=True
    )
    documents, ledger, _ = ingest(repository, tmp_path / "out", "ingest.max_file_bytes=4000")
    assert [d["path"] for d in documents] == ["a.py"]
    assert {r["path"]: (r["rule"], r["size"]) for r in ledger}["big.py"] == ("size_limit", 5000)
    assert git(repository, "rev-parse", "HEAD:big.py").strip() not in unpacked
    assert git(repository, "rev-parse", "HEAD:a.py").strip() in unpacked


def _noting(function, into):
    def get(self, key):
        into.append(str(key))
        return function(self, key)

    return get


def test_an_object_whose_id_is_not_the_sum_of_its_content_is_rejected_by_itself(tmp_path):
    repository = make(tmp_path / "in")
    name = git(repository, "rev-parse", "HEAD:a.py").strip()
    blob = repository / ".git/objects" / name[:2] / name[2:]
    blob.chmod(0o644)
    blob.write_bytes(zlib.compress(b"blob 6\0" + b"a = 2\n"))
    documents, ledger, _ = ingest(repository, tmp_path / "out")
    assert [d["path"] for d in documents] == ["b.py"]
    assert [(r["path"], r["rule"]) for r in ledger] == [("a.py", "unreadable"), ("b.py", None)]
