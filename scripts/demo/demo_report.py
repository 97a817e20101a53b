"""The demo's report: one HTML page with the loss curve, bits per byte beside two baselines, and every file's fate."""

from __future__ import annotations

import base64
import html
import json
import lzma
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
from opencoder_data.shard_format import TOKEN_ID, ShardReader

from opencoder_jax import model as lm
from opencoder_jax import overrides

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}pre{background:#f5f5f2;padding:.8rem;overflow:auto;font-size:14px}
.new{background:#dff0d8}.big{font-size:1.3rem}img{max-width:100%}"""


def write_report(out: Path, seconds: dict[str, float], total: float, prompts: Sequence[str], last_step: int) -> Path:
    """Writes OUT/report.html, OUT/loss.png and OUT/results.json from what the run left; returns the page's path."""
    rows = bits_per_byte(out)
    everything = _total(rows)
    plot(out)
    config = overrides.load("tiny").model
    beats = {name: 1 - everything["model"] / everything[name] for name in ("unigram", "zlib", "xz")}
    summary = json.loads((out / "refine" / "summary.json").read_text())
    handed_over = json.loads((out / "data" / "handover.json").read_text())
    results = {"bits_per_byte": [*rows, everything], "fewer_bits_than": beats, "seconds": seconds}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    headline = (
        f"{everything['model']:.3f} bits per byte on held-out files: {_versus(beats['xz'])} than xz, "
        f"{_versus(beats['zlib'])} than zlib, {_versus(beats['unigram'])} than the unigram model"
    )
    print("\n" + headline)
    sections = [
        "<h1>opencoder_jax demo</h1>",
        f"<p class=big>{headline}.</p>",
        f"<p>{lm.num_params(config):,} parameters, {config.num_layers} layers, vocabulary {config.vocab_size:,}; "
        f"annealed for {last_step} steps after pre-training. "
        f"Commands of this run took {total / 60:.1f} minutes.</p>",
        "<h2>Training</h2>",
        _image(out / "loss.png"),
        "<h2>Held-out files: bits per byte</h2>",
        "<p>Model and baselines code the same files, each file by itself: xz (preset 9 extreme) and zlib (level 9) file by file, the "
        "unigram model with the token frequencies of the training set. The model pays 13 bits for a file's first token, which nothing "
        "foretells; its context is one record.</p>",
        _table(
            ["language", "files", "bytes", "unigram", "zlib", "xz", "after pre-training", "after annealing"],
            [
                [r["language"], f"{r['files']:,}", f"{r['bytes']:,}"]
                + [f"{r[k]:.3f}" for k in ("unigram", "zlib", "xz", "pretrained", "model")]
                for r in [*rows, everything]
            ],
        ),
        "<h2>Completions by the exported model, loaded again</h2>",
        *completions(out, prompts),
        "<h2>What happened to every file</h2>",
        _table(
            ["stage", "rule", "files"],
            [["found", "", f"{summary['files_in']:,}"]]
            + [
                [d["stage"], d["rule"].replace("_", " "), f"-{d['files']:,}"]
                for d in _shortened(summary["files_dropped"])
            ]
            + [["kept", "", f"{summary['files_kept']:,}"]],
        ),
        "<p>All rules, examples of each and the distribution of every signal: <a href=refine/report.html>refine/report.html</a>. "
        f"{handed_over['left_out_for_overlap']:,} files were left out of training because they repeat a held-out file.</p>",
        _table(
            ["language", "files kept", "bytes kept"],
            [
                [k, f"{v.get('files_kept', 0):,}", f"{v.get('bytes_kept', 0):,}"]
                for k, v in _largest(summary["languages"])
            ],
        ),
        "<h2>Time</h2>",
        _table(["step", "seconds"], [[k, f"{v:.1f}"] for k, v in seconds.items()]),
    ]
    page = out / "report.html"
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>opencoder_jax demo</title><style>{STYLE}</style>{''.join(sections)}"
    )
    return page


def bits_per_byte(out: Path) -> list[dict]:
    """One row per language: files, bytes, and bits per byte of the baselines and of the model at the end of each stage."""
    stages = {"pretrained": _evaluation(out / "runs" / "tiny"), "model": _evaluation(out / "runs" / "tiny_anneal")}
    counts = np.ones(_vocab_size(out), np.int64)
    for directory in sorted((out / "shards").iterdir()):
        if (directory / "manifest.json").exists():
            for record in ShardReader(directory, check="size"):
                counts += np.bincount(record[1:] & TOKEN_ID, minlength=len(counts))
    token_bits = -np.log2(counts / counts.sum())
    rows = []
    for path in sorted((out / "data" / "held_out").iterdir()):
        texts = [t.encode() for t in pq.read_table(path, columns=["content"])["content"].to_pylist()]
        size = sum(map(len, texts))
        reader = ShardReader(out / "shards" / "held_out" / path.name, check="size")
        tokens = np.concatenate([r[(0 if i == 0 else 1) :] & TOKEN_ID for i, r in enumerate(reader)])[
            : reader.manifest.num_tokens
        ]
        xz = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
        rows.append({
            "language": path.name.replace("_", " "),
            "files": len(texts),
            "bytes": size,
            "unigram": float(token_bits[tokens].sum()) / size,
            "zlib": 8 * sum(len(zlib.compress(t, 9)) for t in texts) / size,
            # Raw LZMA2: without the container's header and checksum, which weigh on small files.
            "xz": 8 * sum(len(lzma.compress(t, lzma.FORMAT_RAW, filters=xz)) for t in texts) / size,
            **{stage: values[path.name] for stage, values in stages.items()},
        })  # fmt: skip
    return rows


def plot(out: Path) -> None:
    """Loss and learning rate of both stages over the tokens seen, to OUT/loss.png."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), height_ratios=[3, 1], sharex=True, layout="constrained")
    seen = 0
    for run, label, colour in (("tiny", "pre-training", "tab:blue"), ("tiny_anneal", "annealing", "tab:orange")):
        config = overrides.from_json((out / "runs" / run / "config.json").read_text())
        per_step = config.data.global_batch_size * config.data.seq_len
        rows = [json.loads(line) for line in (out / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        tokens = seen + np.array([r["step"] for r in rows]) * per_step
        loss = np.array([r["loss"] for r in rows])
        window = max(1, min(25, len(loss) // 4))
        smooth = np.convolve(np.pad(loss, (window - 1, 0), mode="edge"), np.ones(window) / window, "valid")
        top.plot(tokens, loss, color=colour, alpha=0.2, linewidth=0.7)
        top.plot(tokens, smooth, color=colour, label=f"{label} (mean of {window} steps)")
        bottom.plot(tokens, [r["learning_rate"] for r in rows], color=colour)
        seen = int(tokens[-1])
    top.set(ylabel="loss, nats per token", title="Training loss and learning rate")
    top.legend(frameon=False)
    bottom.set(xlabel="tokens seen", ylabel="learning rate", yscale="log")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(out / "loss.png", dpi=150)
    plt.close(figure)


def completions(out: Path, prompts: Sequence[str]) -> Iterable[str]:
    rows = json.loads((out / "completions.json").read_text())
    for prompt, row in zip(prompts, rows, strict=True):
        yield f"<pre>{html.escape(prompt)}<span class=new>{html.escape(row['completion'])}</span></pre>"


def _evaluation(run: Path) -> dict[str, float]:
    """Bits per byte by held-out directory at the run's last evaluation."""
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    return {r["source"]: r["bits_per_byte"] for r in rows}


def _total(rows: list[dict]) -> dict:
    size = sum(r["bytes"] for r in rows)
    total = {"language": "all", "files": sum(r["files"] for r in rows), "bytes": size}
    for name in ("unigram", "zlib", "xz", "pretrained", "model"):
        total[name] = math.fsum(r[name] * r["bytes"] for r in rows) / size
    return total


def _vocab_size(out: Path) -> int:
    return overrides.from_json((out / "runs" / "tiny" / "config.json").read_text()).model.vocab_size


def _versus(saved: float) -> str:
    return f"{abs(saved):.1%} {'fewer' if saved >= 0 else 'more'}"


def _shortened(dropped: list[dict], most: int = 8) -> list[dict]:
    """The filter's rules after the most frequent ones in one row."""
    filtered = [d for d in dropped if d["stage"] == "filter"]
    rest = sum(d["files"] for d in filtered[most:])
    rows = [d for d in dropped if d not in filtered[most:]]
    if rest:
        at = rows.index(filtered[most - 1]) + 1
        rows.insert(at, {"stage": "filter", "rule": f"{len(filtered) - most} further rules", "files": rest})
    return rows


def _largest(languages: dict[str, dict]) -> list[tuple[str, dict]]:
    kept = [(k, v) for k, v in languages.items() if v.get("files_kept")]
    return sorted(kept, key=lambda kv: -kv[1]["bytes_kept"])[:15]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = lambda tag, row: "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in row)  # noqa: E731
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', head)}</tr>{body}</table>"


def _image(path: Path) -> str:
    return (
        f'<img alt="loss and learning rate" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
    )
