"""The report of a finished run: its figures against the run's own files, its page by parsing it."""

import base64
import io
import json
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.report.__main__ import main, write_report
from opencoder_data.refinecode.report.embed import load_embedder, principal_components
from opencoder_data.refinecode.report.render import histogram


class Page(HTMLParser):
    """Tables by heading, images, and tags left open."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.images, self.heading, self.summaries = [], {}, [], "", 0
        self.lines = Counter()

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in ("img", "meta", "rect", "line"):
            self.open.append(tag)
        if tag == "h2":
            self.heading = ""
        if tag == "tr":
            self.tables.setdefault(self.heading, []).append([])
        if tag == "summary":
            self.summaries += 1
        self.lines[tag] += 1

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.heading += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[self.heading][-1].append(data)


@pytest.fixture(scope="module")
def reported(finished_run, tmp_path_factory):
    """(output directory, report, parsed page) of a copy of the run."""
    output = str(tmp_path_factory.mktemp("reported") / "run")
    shutil.copytree(finished_run[0], output)
    report = write_report(output)
    page = Page()
    page.feed(Path(output, "report.html").read_text())
    page.close()
    return output, report, page


def documents(output, directory):
    names = [n for n in storage.listdir(f"{output}/{directory}") if n.endswith(".parquet")]
    return pa.concat_tables([pq.read_table(f"{output}/{directory}/{n}") for n in names]).to_pylist()


def test_ledger_balances_and_matches_the_page(reported):
    output, report, page = reported
    ledger = read_ledger(output).to_pylist()
    kept = sum(r["status"] == "kept" for r in ledger)
    assert report["balance"] == {
        "files_in": len(ledger),
        "kept": kept,
        "dropped": len(ledger) - kept,
        "documents": len(documents(output, "documents")),
    }
    assert 0 < kept < len(ledger) == 24 * 7
    rows = page.tables["Ledger"][1:]
    assert rows[0][-1] == str(len(ledger)) and rows[-1][-1] == str(kept)
    assert sum(int(r[-1].replace(",", "")) for r in rows[1:-1]) == len(ledger) - kept
    size = sum(r["size"] for r in ledger)
    assert (
        report["ledger"]["bytes_in"] == size
        and f"files in ({size / 1e6:,.2f} MB)" in Path(output, "report.md").read_text()
    )
    by_stage = Counter(r["stage"] for r in ledger if r["stage"])
    assert by_stage["exact_dedup"] == 24 and by_stage["fuzzy_dedup"] == 24 and by_stage["sample"] > 0
    assert json.loads(Path(output, "report.json").read_text()) == report
    assert Path(output, "report.md").read_text().count("## ") == len(page.tables)


def test_languages_have_the_columns_of_table_16(reported):
    output, report, _ = reported
    rows = {r["language"]: r for r in report["languages"]}
    for directory, files, size in (
        ("04-fuzzy_dedup/docs", "files_after_dedup", "bytes_after_dedup"),
        ("06-filter/docs", "files_after_filter", "bytes_after_filter"),
        ("documents", "files_final", "bytes_final"),
    ):
        counted, bytes_ = Counter(), Counter()
        for row in documents(output, directory):
            counted[row["language"]] += 1
            bytes_[row["language"]] += len(row["content"].encode())
        assert {k: r[files] for k, r in rows.items() if r[files]} == counted
        assert {k: r[size] for k, r in rows.items() if r[files]} == bytes_
    assert sum(r["share_after_dedup"] for r in rows.values()) == pytest.approx(1, abs=1e-5)
    assert rows["java"]["files_final"] < rows["java"]["files_after_filter"] == 24
    assert rows["python"]["tokens_final"] == round(rows["python"]["bytes_final"] / 3.6)


def test_rules_signals_and_examples(reported):
    output, report, page = reported
    signals = {
        r["doc_id"]: r
        for n in storage.listdir(f"{output}/06-filter/signals")
        for r in pq.read_table(f"{output}/06-filter/signals/{n}").to_pylist()
    }
    fired = Counter(rule for r in signals.values() for rule in r["rules"])
    assert {r["signal"]: r["fired"] for r in report["filter"]["rules"]} == fired and fired
    for rule in report["filter"]["rules"]:
        assert rule["about"] and rule["examples"]
        for example in rule["examples"]:
            assert rule["signal"] in signals[example["doc_id"]]["rules"]
    for s in report["filter"]["signals"]:
        assert sum(s["kept"]) + sum(s["dropped"]) == s["known"]
        assert sum(s["kept"]) == sum(r["keep"] and r[s["signal"]] is not None for r in signals.values())
    lines = next(s for s in report["filter"]["signals"] if s["signal"] == "qsc_code_num_lines")
    assert lines["conditions"][0].startswith("x < 10")
    assert page.summaries == len(fired) and page.lines["svg"] == len(report["filter"]["signals"])
    assert not page.open


def test_failed_signals_are_counted(reported, tmp_path):
    output, report, page = reported
    assert report["filter"]["failed"] == 0 and page.tables["Signals that failed"][2][-1] == "0"
    broken = str(tmp_path / "run")
    shutil.copytree(output, broken)
    path = Path(broken, "06-filter/signals/part-00000.parquet")
    table = pq.read_table(path)
    errors: list[list[str]] = [[] for _ in range(table.num_rows)]
    errors[0] = ["qsc_a: stopped after 10 s", "qsc_b: TypeError: no"]
    errors[1] = ["qsc_b: ValueError: a: b"]
    column = table.schema.get_field_index("errors")
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(errors, pa.list_(pa.string()))), path)
    found = write_report(broken)["filter"]
    assert (found["failed"], found["stopped"], found["failed_signals"]) == (2, 1, {"qsc_b": 2, "qsc_a": 1})
    assert "| qsc_b | 2 |" in Path(broken, "report.md").read_text()


def test_thresholds_stand_where_their_value_is():
    signal = {
        "edges": [0.0, 50.0, 100.0],
        "kept": [3, 1],
        "dropped": [1, 0],
        "scale": "linear",
        "conditions": ["x > 25"],
    }
    assert 'x1="50.0"' in histogram(signal, width=200)
    log = {**signal, "edges": [0.0, 99.0, 9_999.0], "scale": "log", "conditions": ["x > 9.9e1 or x < -3"]}
    assert 'x1="100.0"' in histogram(log, width=200) and histogram(log).count("<line") == 1


def test_picture_separates_two_kinds_of_files(reported):
    page = reported[2]
    (source,) = page.images
    pixels = imread(io.BytesIO(base64.b64decode(source.split(",")[1])), format="png")
    assert pixels.shape[2] == 4 and pixels[..., :3].std() > 0.02
    embed = load_embedder("hashed")
    code = [f"def f{i}(a, b):\n    return a + b * {i}\n" * 5 for i in range(20)]
    prose = [f"The quick brown fox number {i} jumps over the lazy dog. " * 5 for i in range(20)]
    points, share = principal_components(embed(code + prose).astype(np.float64))
    assert (points[:20, 0].max() < points[20:, 0].min()) or (points[:20, 0].min() > points[20:, 0].max())
    assert 0 < share[1] <= share[0] <= 1


def test_presets_note_recall_and_comparison(reported, finished_run):
    output, report, _ = reported
    assert "probably swapped" in report["fuzzy_dedup"]["banding"] and report["recall"]["bandings"]["16x128"]
    compared = write_report(output, compare=[finished_run[0]])["levels"]
    assert [r["files_kept"] for r in compared] == [compared[0]["files_kept"]] * 2
    assert compared[0]["files_before"] - compared[0]["files_kept"] == report["fuzzy_dedup"]["copies"]


def test_clear_errors(reported, tmp_path, capsys):
    output = reported[0]
    assert main([f"--run={tmp_path}"]) == 2
    assert main([f"--run={output}", "--embedder=nowhere:f"]) == 2
    assert main([f"--run={output}", f"--embedder=codebert={tmp_path}/none"]) == 2
    broken = str(tmp_path / "run")
    shutil.copytree(output, broken)
    table = pq.read_table(f"{broken}/ledger/part-00000.parquet")
    pq.write_table(table.slice(1), f"{broken}/ledger/part-00000.parquet")
    assert main([f"--run={broken}"]) == 2
    first, second, weights, third = capsys.readouterr().err.strip().split("\n")
    assert (
        "run.json is missing" in first
        and "nowhere" in second
        and "no such directory" in weights
        and "do not agree with summary.json" in third
    )
