"""A stage's files are reused only by the program that would write the same rows."""

import json
import shutil
from pathlib import Path

import pytest
from opencoder_data.refinecode import pipeline
from opencoder_data.refinecode.code_version import ROOT, _closure, code_version
from opencoder_data.refinecode.config import STAGES, load
from opencoder_data.refinecode.stages import RUN


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package's source to change."""
    root = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "opencoder_data", root / "opencoder_data", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def versions(root):
    code_version.cache_clear()
    return {stage: code_version(RUN[stage].__module__, root) for stage in STAGES}


def test_a_copy_has_the_same_versions(copy):
    assert versions(copy) == versions(ROOT) and len(set(versions(ROOT).values())) == len(STAGES)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("filter/signals_html.py", "import", "_x = 1\nimport", {"filter"}),
        ("filter/default_thresholds.json", "{", "{ ", {"filter"}),
        ("fuzzy_dedup/kernels.py", "@njit", "_x = 1\n@njit", {"fuzzy_dedup"}),
        ("transform/header.py", "import re", "import re\n_x = 1", {"transform"}),
        ("tables/linguist_names.json", "{", "{ ", {"ingest", "preprocess", "transform"}),
        ("storage.py", "import json", "import json\n_x = 1", set(STAGES)),
        ("filter/signals_html.py", "import", "# a comment\nimport", set()),
        ("sample.py", '"""Stage 7', '"""Stage seven', set()),
        ("engine.py", "import os", "import os\n_x = 1", set()),
        ("report/render.py", "import html", "import html\n_x = 1", set()),
    ],
)
def test_what_changes_which_stage(copy, file, old, new, changed):
    path = copy / "opencoder_data" / "refinecode" / file
    before, text = versions(copy), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = versions(copy)
    path.write_text(text)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == changed


def test_all_imports_are_followed():
    """Against the interpreter: what importing a stage loads of the package is in its closure, or neutral."""
    import subprocess
    import sys

    for stage in ("filter", "fuzzy_dedup", "ingest"):
        module = RUN[stage].__module__
        code = f"import sys, {module}; print('\\n'.join(m for m in sys.modules if m.startswith('opencoder_data')))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        neutral = {"opencoder_data.refinecode.config", "opencoder_data.refinecode.engine"}
        assert set(done.stdout.split()) - neutral <= _closure(module, ROOT)


def test_another_program_is_rejected_redone_or_kept(tmp_path, monkeypatch, corpus_writer):
    corpus_writer(tmp_path / "in", families=2)
    config = load(None, ["stages=ingest,preprocess,sample", "engine.workers=1", "engine.progress=false"])
    arguments = config, [str(tmp_path / "in")], str(tmp_path / "out")
    pipeline.run_pipeline(*arguments)
    real = pipeline.code_version
    monkeypatch.setattr(pipeline, "code_version", lambda module: real(module) + ("+" if "sample" in module else ""))
    with pytest.raises(ValueError, match=r"stage sample of another version of the program.*--keep"):
        pipeline.run_pipeline(*arguments)
    ingested, sampled = (Path(arguments[2], n, "docs/part-00000.parquet") for n in ("01-ingest", "07-sample"))
    before = [p.stat().st_mtime_ns for p in (ingested, sampled)]
    pipeline.run_pipeline(*arguments, keep=True)
    assert [p.stat().st_mtime_ns for p in (ingested, sampled)] == before
    monkeypatch.setattr(pipeline, "code_version", real)
    assert json.loads(Path(arguments[2], "07-sample/stage.json").read_text())["stage"] == "sample"
    pipeline.run_pipeline(*arguments, overwrite=True)
    after = [p.stat().st_mtime_ns for p in (ingested, sampled)]
    assert after[0] == before[0] and after[1] > before[1]
