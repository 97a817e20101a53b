"""A stage's files are reused only by stages of the same version, and the versions are kept honest."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from opencoder_data.refinecode.config import STAGES, RefineConfig, load
from opencoder_data.refinecode.pipeline import pipeline_of, run_pipeline
from opencoder_data.refinecode.sample import Sample

from scripts.tools import stage_versions

REFINE = pipeline_of(RefineConfig()).stages


def test_versions_and_table_agree_with_the_source():
    """Where this fails: raise the version of the stage if any row can change, then run scripts/tools/stage_versions.py."""
    stages = {pipeline.name: pipeline.stages for pipeline in stage_versions.pipelines()}
    found = stage_versions.problems(stages, json.loads(stage_versions.TABLE.read_text()))
    remedy = "raise `version` if a row can change; then python scripts/tools/stage_versions.py [--same-rows=STAGE]"
    assert not found, "\n".join([*found, remedy])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package's source to change."""
    root = tmp_path_factory.mktemp("source")
    source = stage_versions.ROOT / "opencoder_data"
    shutil.copytree(source, root / "opencoder_data", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def digests(root):
    return {stage.name: stage_versions.describe(stage, root)["source"] for stage in REFINE}


def test_a_copy_has_the_same_digests(copy):
    assert digests(copy) == digests(stage_versions.ROOT) and len(set(digests(copy).values())) == len(STAGES)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("refinecode/filter/signals_html.py", "import", "_x = 1\nimport", {"filter"}),
        ("refinecode/filter/default_thresholds.json", "{", "{ ", {"filter"}),
        ("minhash/sketches.py", "@njit", "_x = 1\n@njit", {"fuzzy_dedup"}),
        ("refinecode/transform/header.py", "import re", "import re\n_x = 1", {"transform"}),
        ("refinecode/transform/parse_child.py", "import re", "import re\n_x = 1", {"transform"}),
        ("refinecode/tables/linguist_names.json", "{", "{ ", {"ingest", "preprocess", "transform"}),
        ("pipeline/storage.py", "import json", "import json\n_x = 1", set(STAGES)),
        ("refinecode/filter/signals_html.py", "import", "# a comment\nimport", set()),
        ("refinecode/sample.py", '"""Stage 7', '"""Stage seven', set()),
        ("pipeline/executors.py", "import os", "import os\n_x = 1", set()),
        ("refinecode/report/render.py", "import html", "import html\n_x = 1", set()),
    ],
)
def test_what_changes_which_stage(copy, file, old, new, changed):
    path = copy / "opencoder_data" / file
    before, text = digests(copy), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    after = digests(copy)
    path.write_text(text)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == changed


def test_a_module_that_moves_keeps_the_digest(copy, tmp_path):
    """`header` goes elsewhere under another name; who imports it says so, and nothing else changes."""
    root = tmp_path / "moved"
    shutil.copytree(copy, root)
    package = root / "opencoder_data"
    (package / "refinecode/transform/header.py").rename(package / "refinecode/leading.py")
    users = [p for p in package.rglob("*.py") if "refinecode.transform.header import" in p.read_text()]
    for path in users:
        path.write_text(path.read_text().replace("refinecode.transform.header import", "refinecode.leading import"))
    assert users and digests(root) == digests(copy)


def test_all_imports_are_followed():
    """Against the interpreter: what importing a stage loads of the package is reached, or neutral."""
    for stage in REFINE:
        module = type(stage).__module__
        code = f"import sys, {module}; print('\\n'.join(m for m in sys.modules if m.startswith('opencoder_data')))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) - stage_versions.NEUTRAL <= set(
            stage_versions.reached(module, stage_versions.ROOT)
        )


def test_a_changed_source_needs_a_version_or_an_acknowledgement(copy, tmp_path, monkeypatch, capsys):
    table = tmp_path / "table.json"
    stages = {pipeline.name: pipeline.stages for pipeline in stage_versions.pipelines()}

    def problems():
        return stage_versions.problems(stages, json.loads(table.read_text()), copy)

    assert stage_versions.main([], table, copy) == 0 and not problems()
    path = copy / "opencoder_data/refinecode/sample.py"
    text = path.read_text()
    path.write_text(text.replace("np.argsort(order)", "np.argsort(-order)"))
    try:
        assert problems() == ["refinecode/sample: its source changed, its version 1 did not"]
        before = table.read_text()
        assert stage_versions.main([], table, copy) == 1 and table.read_text() == before
        assert "--same-rows=sample" in capsys.readouterr().out
        assert stage_versions.main(["--same-rows=filter"], table, copy) == 1
        with monkeypatch.context() as patch:
            patch.setattr(Sample, "version", 2)
            assert problems() == ["refinecode/sample: version 1 in the table, 2 in the source"]
            assert stage_versions.main([], table, copy) == 0 and not problems()
        assert problems() == ["refinecode/sample: version 2 in the table, 1 in the source"]
        table.write_text(before)
        assert stage_versions.main(["--same-rows=sample"], table, copy) == 0 and not problems()
        monkeypatch.setattr(Sample, "libraries", ())
        path.write_text(text.replace("import hashlib", "import hashlib\nimport scipy"))
        assert "refinecode/sample: its source imports scipy: add to `libraries`" in problems()
    finally:
        path.write_text(text)


def test_another_version_is_an_error_redone_or_kept(tmp_path, monkeypatch, corpus_writer):
    corpus_writer(tmp_path / "in", families=2)
    config = load(None, ["stages=ingest,preprocess,sample", "engine.workers=1", "engine.progress=false"])
    arguments = config, [str(tmp_path / "in")], str(tmp_path / "out")
    run_pipeline(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(Sample, "libraries", ("scipy",))
        with pytest.raises(
            ValueError, match=r"stage sample of another version of the program's libraries \(scipy: not used"
        ):
            run_pipeline(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(Sample, "version", 7)
        with pytest.raises(ValueError, match=r"stage sample of another version.*\(stage sample: 1, now 7\).*--keep"):
            run_pipeline(*arguments)
        ingested, sampled = (Path(arguments[2], n, "docs/part-00000.parquet") for n in ("01-ingest", "07-sample"))
        before = [p.stat().st_mtime_ns for p in (ingested, sampled)]
        run_pipeline(*arguments, keep=True)
        assert [p.stat().st_mtime_ns for p in (ingested, sampled)] == before
    assert json.loads(Path(arguments[2], "07-sample/stage.json").read_text())["stage"] == "sample"
    run_pipeline(*arguments, overwrite=True)
    after = [p.stat().st_mtime_ns for p in (ingested, sampled)]
    assert after[0] == before[0] and after[1] > before[1]
