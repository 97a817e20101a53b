"""All signals and the decision of the RefineCode filter: speed per core, and agreement with a reference run.

    python scripts/benchmarks/bench_filter.py --corpus corpus.jsonl [--profile default] [--peer-root DIR --peer-python PY] [--limit N]
    python scripts/benchmarks/bench_filter.py --corpus corpus.jsonl --before DIR   # also against another version of ours
    python scripts/benchmarks/bench_filter.py --corpus corpus.jsonl --guarded
    python scripts/benchmarks/bench_filter.py --corpus corpus.jsonl --agreement reference.jsonl --profile compat
    python scripts/benchmarks/bench_filter.py --pathological [--file draco_decoder.js] [--peer-root DIR --peer-python PY]

corpus.jsonl: one file per line with path, filename (stem), ext, program_lang, doc_type, lang, text, size. With
`--peer-root` (a checkout of the released filter) and `--peer-python` (its own environment: Python 3.11, numpy 1.26.4,
pygments 2.21, jieba, zhconv, esprima, beautifulsoup4, nltk, regex), the two take turns on slices of the corpus in one
run and the ratio of their CPU times is printed, by language and by size of file. `--before` takes the directory that holds
another version's package opencoder_data, which takes its turns too. `--guarded` measures the way through the child process
that the stage takes: processor time of both processes, beside that of the signals alone. reference.jsonl holds the peer's decisions and signals, as
scripts/benchmarks/bench_filter_peer.py writes them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from opencoder_data.refinecode.filter import compute_signals, decide, group_of, load_thresholds
from opencoder_data.refinecode.filter.guard import Guard

SMALL = 12_000  # bytes: files up to this size are small ones


def load(path: str, limit: int | None) -> list[dict]:
    """Rows of a JSONL file."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for _, line in zip(range(limit or 1 << 60), f, strict=False)]


def options_of(row: dict, profile: str) -> dict:
    """Options of `compute_signals` for a corpus row."""
    name = row["filename"] + ("." + row["ext"] if row["ext"] else "")
    return {
        "language": row["program_lang"], "doc_type": row["doc_type"], "file_name": name, "profile": profile,
        "natural": row["lang"], "size_bytes": row["size"],
    }  # fmt: skip


def signals_of(row: dict, profile: str, timings: dict | None = None):
    """Signals of a corpus row."""
    return compute_signals(row["text"], **options_of(row, profile), timings=timings)


def run_ours(rows: list[dict], profile: str, rules) -> list[float]:
    """CPU seconds of signals and decision of each row."""
    spent = []
    for row in rows:
        start = time.process_time()
        values = signals_of(row, profile)
        decide(values, group_of(row["program_lang"], row["doc_type"], row["lang"]), rules, row["path"])
        spent.append(time.process_time() - start)
    return spent


def run_before(rows: list[dict], profile: str, directory: str) -> list[float]:
    """`run_ours` of another version of the package, in a process of its own."""
    with tempfile.TemporaryDirectory() as tmp:
        source, target = Path(tmp) / "in.jsonl", Path(tmp) / "out.json"
        source.write_text("".join(json.dumps(r) + "\n" for r in rows))
        command = [sys.executable, __file__, "--corpus", str(source), "--profile", profile, "--seconds", str(target)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": directory})
        return json.loads(target.read_text())


def warm_up(rows: list[dict], profile: str) -> None:
    """One file of each language, so that nothing is compiled while the clock runs."""
    for row in {r["program_lang"]: r for r in rows}.values():
        signals_of(row, profile)
    signals_of({**rows[0], "text": "\u00e9 = 1\n"}, profile)


def run_peer(rows: list[dict], python: str, root: str) -> list[float]:
    """CPU seconds the released filter needs for each row, in its own interpreter."""
    with tempfile.TemporaryDirectory() as tmp:
        source, target = Path(tmp) / "in.jsonl", Path(tmp) / "out.jsonl"
        source.write_text("".join(json.dumps(r) + "\n" for r in rows))
        script = Path(__file__).with_name("bench_filter_peer.py").resolve()
        subprocess.run([python, str(script), root, str(source), str(target)], check=True, stdout=subprocess.DEVNULL)
        return [r["seconds"] for r in load(str(target), None)]


def keys_of(row: dict) -> tuple[str, ...]:
    """What a row's time is counted under."""
    size = "small" if row["size"] <= SMALL else "large"
    return row["program_lang"], f"{row['program_lang']} {size}", f"all {size}", "all"


def speed(args) -> None:
    """Print MB/s per core by language, by size and in all, and the ratios: medians of the repetitions."""
    rows = load(args.corpus, args.limit)
    rules = load_thresholds(args.profile)
    warm_up(rows, args.profile)
    sides = {"ours": lambda part: run_ours(part, args.profile, rules)}
    if args.before:
        sides["before"] = lambda part: run_before(part, args.profile, args.before)
    if args.peer_root:
        sides["released"] = lambda part: run_peer(part, args.peer_python, args.peer_root)
    megabytes: dict[str, float] = defaultdict(float)
    files: Counter[str] = Counter()
    for row in rows:
        for key in keys_of(row):
            megabytes[key] += len(row["text"]) / 1e6
            files[key] += 1
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in sides}
    size = -(-len(rows) // args.slices)
    for _ in range(args.repeat):
        for who in sides:
            runs[who].append(defaultdict(float))
        for at in range(0, len(rows), size):
            part = rows[at : at + size]
            for who, seconds_of in sides.items():
                for row, value in zip(part, seconds_of(part), strict=True):
                    for key in keys_of(row):
                        runs[who][-1][key] += value
    print(f"profile {args.profile}, {len(rows)} files, CPU time per core, median of {args.repeat} runs by turns")
    print(f"{'':20s} files  bytes/file  " + "".join(f"{who + ' MB/s':>15s}" for who in sides) + "   others / ours")
    for key in sorted(megabytes, key=lambda k: (k.startswith("all"), -megabytes[k.split()[0]], k)):
        spent = {who: [r[key] for r in runs[who]] for who in sides}
        line = f"{key:20s} {files[key]:5d} {megabytes[key] / max(files[key], 1) * 1e6:11.0f}  "
        line += "".join(f"{megabytes[key] / statistics.median(v):15.3f}" for v in spent.values())
        ratios = (
            statistics.median(t / o for t, o in zip(spent[w], spent["ours"], strict=True)) for w in list(sides)[1:]
        )
        print(line + "".join(f"{ratio:8.1f}" for ratio in ratios))


def guarded(args) -> None:
    """Print the processor time a file costs: signals alone, and in both processes on the way through the guard."""
    rows = load(args.corpus, args.limit)
    warm_up(rows, args.profile)
    documents = [(row["text"], options_of(row, args.profile)) for row in rows]
    results: dict[str, list[float]] = {"signals alone": [], "asking process": [], "child": [], "wall": []}
    with Guard(60) as guard:
        for row in {r["program_lang"]: r for r in rows}.values():
            guard.compute(row["text"], **options_of(row, args.profile))
        assert guard._child is not None
        child = Path(f"/proc/{guard._child.pid}/stat")
        ticks = os.sysconf("SC_CLK_TCK")
        for _ in range(args.repeat):
            start = time.process_time()
            for text, options in documents:
                compute_signals(text, **options)
            results["signals alone"].append(time.process_time() - start)
            before = sum(map(int, child.read_text().rsplit(")", 1)[1].split()[11:13]))
            start, wall = time.process_time(), time.perf_counter()
            for _ in guard.compute_all(documents):
                pass
            results["asking process"].append(time.process_time() - start)
            results["wall"].append(time.perf_counter() - wall)
            after = sum(map(int, child.read_text().rsplit(")", 1)[1].split()[11:13]))
            results["child"].append((after - before) / ticks)
    print(f"profile {args.profile}, {len(rows)} files, microseconds a file, median of {args.repeat}")
    for name, values in results.items():
        print(f"{name:16s} {statistics.median(values) / len(rows) * 1e6:8.0f}")


def by_signal(args) -> None:
    """Print where the time goes, by signal (wall time; a shared view is billed to the first signal that asks for it)."""
    timings: dict[str, float] = {}
    for row in load(args.corpus, args.limit):
        signals_of(row, args.profile, timings)
    total = sum(timings.values())
    for name, seconds in sorted(timings.items(), key=lambda kv: -kv[1])[:25]:
        print(f"{seconds:8.2f} s {seconds / total:6.1%} {name}")


def pathological(args) -> None:
    """Print the seconds of one 700 kB minified JavaScript file: `--file`, or one line of 7,000 nested functions."""
    if args.file:
        text = Path(args.file).read_text(encoding="utf-8")
    else:
        unit = 'function a%d(e,t){var n=e||{};return n.x=t?"s%d":function(){return n&&a%d(n,[1,2,t>0?t:-1])},n}'
        text = ("!function(){" + ";".join(unit % (i, i, i) for i in range(7600)) + "}();")[:700_000]
    row = {"path": "m.min.js", "text": text, "filename": "m.min", "ext": "js", "program_lang": "javascript",
           "doc_type": "code", "lang": "en", "size": len(text)}  # fmt: skip
    for profile in ("default", "compat"):
        signals_of({**row, "text": "var a = 1;\n"}, profile)
    spent: dict[str, list[float]] = {"default": [], "compat": [], "released filter": []}
    for _ in range(args.repeat):
        for profile in ("default", "compat"):
            start = time.perf_counter()
            signals_of(row, profile)
            spent[profile].append(time.perf_counter() - start)
        if args.peer_root:
            spent["released filter"] += run_peer([row], args.peer_python, args.peer_root)
    print(f"minified JavaScript, {len(text):,} characters, median seconds of {args.repeat} runs by turns")
    for name, values in spent.items():
        if values:
            print(f"{name:16s} {statistics.median(values):8.3f}")


def agreement(args) -> None:
    """Print the share of equal decisions and, for each difference, the rules on which the two differ."""
    rows = load(args.corpus, args.limit)
    reference = {r["path"]: r for r in load(args.agreement, None)}
    rules = load_thresholds(args.profile)
    equal = total = 0
    causes: Counter = Counter()
    unequal_signals: Counter = Counter()
    for row in rows:
        other = reference.get(row["path"])
        if other is None:
            continue
        total += 1
        values = signals_of(row, args.profile)
        group = group_of(row["program_lang"], row["doc_type"], row["lang"])
        table = rules[group] if group else {}
        # rules with a probability are compared as if they always fired (the peer script does the same)
        fired = {n for n, r in table.items() if r and (v := values.get(n)) is not None and r.hit(v)}
        for name, value in (other["signals"] or {}).items():
            mine = values.get(name)
            if (mine is None) != (value is None) or (mine is not None and abs(mine - value) > 1e-6):
                unequal_signals[name] += 1
        if (not fired) == (other["effective"] == "1"):
            equal += 1
            continue
        hits = set(other["hits"])
        cause = "ours only: " + ",".join(sorted(fired)) if fired else "peer only: " + ",".join(sorted(hits))
        causes[(row["program_lang"], cause)] += 1
        if args.verbose:
            print(row["path"], cause, {n: (values.get(n), (other["signals"] or {}).get(n)) for n in fired ^ hits})
            if other.get("err"):
                print("   peer error:", other["err"].strip()[-200:])
    print(f"profile {args.profile}: {equal} of {total} decisions equal ({equal / max(total, 1):.2%})")
    for cause, n in causes.most_common(40):
        print(n, *cause)
    print("signals that differ in value:", unequal_signals.most_common(60))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus")
    parser.add_argument("--profile", default="default", choices=("default", "compat"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer-root")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--before", help="directory that holds another version's opencoder_data")
    parser.add_argument("--guarded", action="store_true")
    parser.add_argument("--seconds", help="write the seconds of each row of ours to this file, and nothing else")
    parser.add_argument("--agreement", metavar="REFERENCE")
    parser.add_argument("--by-signal", action="store_true")
    parser.add_argument("--file", help="of --pathological")
    parser.add_argument("--pathological", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if args.pathological:
        return pathological(args)
    if not args.corpus:
        parser.error("--corpus is required")
    if args.agreement:
        return agreement(args)
    if args.seconds:
        rows = load(args.corpus, None)
        warm_up(rows, args.profile)
        Path(args.seconds).write_text(json.dumps(run_ours(rows, args.profile, load_thresholds(args.profile))))
        return None
    if args.guarded:
        return guarded(args)
    return by_signal(args) if args.by_signal else speed(args)


if __name__ == "__main__":
    main()
