"""The filter inside the pipeline, overrides of its rules, and sampling by language."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode import sample
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.filter_stage import thresholds_of
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline

GOOD = '''"""Reads records."""
import json
from pathlib import Path


def read_records(path, limit=None):
    """Records of a file of JSON lines, `limit` at most."""
    records = []
    for number, line in enumerate(Path(path).read_text().splitlines()):
        if limit is not None and number >= limit:
            break
        record = json.loads(line)
        records.append((number, record))
    return records


class Index:
    def __init__(self, records):
        self.by_key = {}
        for number, record in records:
            key = record.get("key", number)
            self.by_key.setdefault(key, []).append(record)

    def find(self, key, default=None):
        found = self.by_key.get(key)
        if found is None:
            return default
        total = sum(item.get("size", 0) for item in found)
        return found if total else default
'''


def run(tmp_path, name, rows, stages, *overrides):
    directory = tmp_path / name
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), directory / "rows.parquet", row_group_size=20)
    config = load(None, [f"stages={stages}", "engine.workers=1", "engine.progress=false", *overrides])
    output = str(tmp_path / f"{name}-out")
    summary = run_pipeline(config, [str(directory)], output)
    return summary, {r["path"]: r for r in read_ledger(output).to_pylist()}, output


def test_filter_keeps_every_value_and_names_every_rule(tmp_path):
    rows = [
        {"repo": "r", "path": "good.py", "content": GOOD},
        {"repo": "r", "path": "short.py", "content": "x = 1\n"},
        {"repo": "r", "path": "data.json", "content": "[" + "1, 2, 3, 4,\n" * 3_000 + "5]\n"},
    ]
    stages = "ingest,preprocess,transform,filter"
    _, ledger, output = run(tmp_path, "a", rows, stages, "filter.time_limit_s=0")
    assert ledger["good.py"]["status"] == "kept"
    assert ledger["short.py"]["stage"] == "filter" and "qsc_code_num_lines" in ledger["short.py"]["rule"].split(";")
    assert "qsc_code_num_lines = 1, dropped when x < 10" in ledger["short.py"]["detail"]
    table = pq.read_table(f"{output}/06-filter/signals/part-00000.parquet").to_pylist()
    assert [r["keep"] for r in table] == [True, False, False]
    assert table[1]["qsc_code_num_lines"] == 1.0 and table[0]["qsc_code_num_words"] > 30
    rules = "filter.thresholds.code/python"
    off = [f"{rules}.{name}=off" for name in ledger["short.py"]["rule"].split(";")]
    _, changed, _ = run(tmp_path, "b", rows, stages, "filter.time_limit_s=10", *off)
    assert changed["short.py"]["status"] == "kept" and changed["good.py"]["status"] == "kept"
    assert changed["data.json"]["rule"] == ledger["data.json"]["rule"]


SAMPLES = Path(__file__).parent / "filter" / "samples"


def test_the_guard_changes_no_value_whatever_the_batch(tmp_path):
    """Each document meets its own name, size and language: with the child process and without, in batches of any size."""
    rows = [
        {"repo": "r", "path": f"{n}/{p.name}", "content": p.read_text() + f"\n{'/' * 2} {n}\n"}
        for n in range(3)
        for p in sorted(SAMPLES.iterdir())
    ]
    rows += [{"repo": "r", "path": "words_test.go", "content": (SAMPLES / "words.go").read_text()}]
    stages = "ingest,preprocess,transform,filter"
    tables = []
    for name, overrides in {
        "guarded": ("filter.time_limit_s=10",),
        "plain": ("filter.time_limit_s=0",),
        "small": ("filter.time_limit_s=10", "layout.batch_mb=0.002", "layout.partition_mb=0.01"),
    }.items():
        _, _, output = run(tmp_path, name, rows, stages, *overrides)
        parts = [pq.read_table(p) for p in sorted(Path(output, "06-filter", "signals").iterdir())]
        found = [r for part in parts for r in part.to_pylist()]
        assert len({r.pop("doc_id") for r in found}) == len(rows)  # an id depends on the directory
        tables.append(sorted(found, key=repr))
    assert tables[0] == tables[1] == tables[2]
    assert [r["errors"] for r in tables[0] if r["errors"]] == []
    assert sum(r["qsc_codego_cate_testfile"] == 1.0 for r in tables[0]) == 1
    sizes = {len(r["content"].encode()) for r in rows}
    assert {r["qsc_code_size_file_byte"] for r in tables[0] if r["doc_type"] != "text"} <= sizes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.thresholds.code/python.qsc_code_num_linez=x < 3", "did you mean 'qsc_code_num_lines'"),
        ("filter.thresholds.code/pyton.qsc_code_num_lines=x < 3", "unknown group"),
        ("filter.thresholds.code/python.qsc_code_num_lines=less than 3", "does not parse"),
        ("filter.profile=strict", "strict"),
    ],
)
def test_bad_rules_stop_before_any_work(override, message):
    with pytest.raises(ValueError, match=message):
        thresholds_of(load(None, [override]).filter)


def test_overrides_add_to_the_tables_of_a_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[filter.thresholds."code/c"]\nqsc_code_num_lines = "x < 2"\n[sample]\nratios = {c = 0.5}\n')
    config = load(str(file), ["filter.thresholds.code/c.qsc_code_num_words=off", "sample.ratios=go=0.25"])
    assert config.filter.thresholds == {"code/c": {"qsc_code_num_lines": "x < 2", "qsc_code_num_words": "off"}}
    assert config.sample.ratios == {"c": 0.5, "go": 0.25}


def files(language, suffix, count, size):
    return [
        {"repo": "r", "path": f"{language}{i}.{suffix}", "content": f"{language} {i} " + "y" * size}
        for i in range(count)
    ]


def test_sample_cuts_to_ratio_and_size_and_ignores_order(tmp_path):
    rows = (
        files("java", "java", 300, 1000)
        + files("html", "html", 300, 1000)
        + files("go", "go", 300, 1000)
        + files("c", "c", 50, 10)
    )
    stages = "ingest,preprocess,sample"
    summary, ledger, _ = run(tmp_path, "a", rows, stages, "sample.sizes=go=100kb")
    share = {k: v["bytes_kept"] / v["bytes_in"] for k, v in summary["languages"].items()}
    assert share["java"] == pytest.approx(sample.PUBLISHED_RATIOS["java"], abs=0.004)
    assert share["html"] == pytest.approx(sample.PUBLISHED_RATIOS["html"], abs=0.004)
    assert summary["languages"]["go"]["bytes_kept"] == pytest.approx(100_000, abs=1_100) and share["c"] == 1
    kept = {r["path"] for r in ledger.values() if r["status"] == "kept"}
    # A smaller share of the same corpus keeps a subset; another seed keeps others.
    _, less, _ = run(tmp_path, "b", rows, stages, "sample.sizes=go=50kb", "layout.partition_mb=0.05")
    fewer = {r["path"] for r in less.values() if r["status"] == "kept"}
    assert fewer < kept and {p for p in kept if p[:2] != "go"} == {p for p in fewer if p[:2] != "go"}
    _, other, _ = run(tmp_path, "c", rows, stages, "sample.seed=2", "sample.sizes=go=100kb")
    assert {r["path"] for r in other.values() if r["status"] == "kept"} != kept


def test_sizes_parse():
    assert sample.parse_size("64GB") == 64e9 and sample.parse_size(" 1.5 mb") == 1.5e6
    with pytest.raises(ValueError, match="not a size"):
        sample.parse_size("many")
