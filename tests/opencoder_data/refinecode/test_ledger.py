"""The ledger accounts for every file, and a pipeline that lost, invented or counted one twice is found out."""

import os
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.ledger import merge_partition, read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline
from opencoder_data.refinecode.run import Run

FILES = {
    "a/one.py": b"x = 1\n",
    "a/tool": b"#!/usr/bin/env python3\nprint(1)\n",
    "a/Makefile": b"all:\n\techo hello\n",
    "a/main.c": b"int main(void) { return 0; }\n",
    "b/copy.py": b"x = 1\n",
    "b/lib.so": b"\x7fELF\0\0",
    "b/notes.md": b"# Notes\n\nSome words.\n",
}
CONFIG = load(None, ["stages=ingest,preprocess,exact_dedup", "engine.workers=1", "engine.progress=false"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(run, summary) of three stages over the files above, in one partition."""
    root = tmp_path_factory.mktemp("ledger")
    for name, data in FILES.items():
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(data)
    summary = run_pipeline(CONFIG, [str(root / "in")], str(root / "out"))
    return Run(CONFIG, (str(root / "in"),), str(root / "out")), summary


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be corrupt."""
    shutil.copytree(finished[0].output, tmp_path / "out")
    return Run(CONFIG, finished[0].inputs, str(tmp_path / "out"))


def test_every_row_says_what_the_file_is(finished):
    run, _summary = finished
    rows = {r["path"]: r for r in read_ledger(run.output).to_pylist()}
    found = {path: (r["status"], r["stage"], r["rule"], r["language"], r["doc_type"]) for path, r in rows.items()}
    kept = ("kept", None, None)
    assert found == {
        "a/one.py": (*kept, "python", "code"),
        "a/tool": (*kept, "python", "code"),
        "a/Makefile": (*kept, "makefile", "code"),
        "a/main.c": (*kept, "c", "code"),
        "b/copy.py": ("dropped", "exact_dedup", "exact_duplicate", "python", "code"),
        "b/lib.so": ("dropped", "ingest", "unknown_language", None, None),
        "b/notes.md": (*kept, "markdown", "text"),
    }
    assert {path: r["size"] for path, r in rows.items()} == {path: len(data) for path, data in FILES.items()}
    assert rows["b/copy.py"]["detail"] == f"copy of {rows['a/one.py']['doc_id']}"


def test_the_summary_adds_up(finished):
    _, summary = finished
    sizes = {path: len(data) for path, data in FILES.items()}
    gone = sizes["b/copy.py"] + sizes["b/lib.so"]
    assert (summary["files_in"], summary["bytes_in"]) == (7, sum(sizes.values()))
    assert (summary["files_kept"], summary["bytes_kept"]) == (5, sum(sizes.values()) - gone)
    assert summary["files_dropped"] == [
        {"stage": "ingest", "rule": "unknown_language", "files": 1},
        {"stage": "exact_dedup", "rule": "exact_duplicate", "files": 1},
    ]
    python = sizes["a/one.py"] + sizes["a/tool"]
    assert summary["languages"]["python"] == {
        "files_in": 3, "bytes_in": python + sizes["b/copy.py"], "files_kept": 2, "bytes_kept": python,
    }  # fmt: skip
    assert summary["languages"]["unknown"] == {"files_in": 1, "bytes_in": sizes["b/lib.so"]}
    # By bytes kept, the largest first.
    assert list(summary["languages"]) == ["python", "c", "markdown", "makefile", "unknown"]


def edit(run, stage, kind, change):
    path = run.part(stage, kind, 0)
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("stage", "kind", "change", "message"),
    [
        ("exact_dedup", "docs", lambda t: t.slice(1), "5 files kept in the ledger, 4 in the documents"),
        ("exact_dedup", "docs", lambda t: pa.concat_tables([t, t.slice(0, 1)]), "5 files kept in the ledger, 6 in the"),
        ("exact_dedup", "drops", lambda t: t.slice(0, 0), "6 files kept in the ledger, 5 in the documents"),
        ("exact_dedup", "drops", lambda t: pa.concat_tables([t, t]), "dropped twice"),
        ("ingest", "drops", lambda t: pa.concat_tables([t, t.slice(0, 1)]), "a doc_id occurs twice"),
    ],
    ids=["document lost", "document twice", "drop lost", "dropped twice", "listed twice"],
)
def test_what_does_not_balance_is_found(run, stage, kind, change, message):
    edit(run, stage, kind, change)
    with pytest.raises(RuntimeError, match=message):
        merge_partition(run, 0)


def test_a_document_that_was_dropped_is_found(run):
    """One document in another's place: the numbers agree, the files do not."""
    listed = pq.read_table(run.part("ingest", "drops", 0))
    copy = listed.filter(pc.equal(listed["path"], "b/copy.py"))["doc_id"][0]

    def change(docs):
        ids = pa.array([copy, *docs["doc_id"].to_pylist()[1:]], docs.schema.field("doc_id").type)
        return docs.set_column(0, docs.schema.field(0), ids)

    edit(run, "exact_dedup", "docs", change)
    with pytest.raises(RuntimeError, match="both kept and dropped"):
        merge_partition(run, 0)


def test_documents_are_those_of_the_last_stage(finished):
    run, _ = finished
    last, final = run.part("exact_dedup", "docs", 0), os.path.join(run.output, "documents", "part-00000.parquet")
    assert pq.read_table(final).equals(pq.read_table(last))
    assert os.path.samefile(last, final), "a link, not a copy, where the file system has links"
