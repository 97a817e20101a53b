"""Text to signature of 2,048 slots: speed per core and recall, beside the libraries of PyPI, by turns in one run.

    python scripts/benchmarks/bench_minhash.py --input DIRECTORY --peer-python PY [--libraries rensa,...] [--files 800] [--repeat 3]

DIRECTORY holds code with near duplicates (scripts/tools/gather_corpus.py: two releases of some packages). Of its files of 1 to
100 kB those come first that have a partner of Jaccard similarity 0.7 or more, then others, in the order of their hashes, up to
`--files`. PY is the interpreter of an environment with rensa, datasketch, datatrove, text-dedup and daft. A slow
library sketches only as many files as it can in about `--seconds` when timed, and all of them once for its recall:
the share of the pairs of similarity >= 0.7 (exact, by our words) of which at least one of 128 bands of 16 rows agrees.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from opencoder_data.refinecode.fuzzy_dedup import kernels
from opencoder_data.refinecode.fuzzy_dedup.exact_pairs import all_pairs

SLOTS, BANDS, ROWS = 2048, 128, 16
LIBRARIES = "rensa,rensa_rho,rensa_c,datasketch,text_dedup,datatrove,daft"


def shingle_sets(texts: list[str]):
    """(shingles, offsets) of texts."""
    encoded = [t.encode() for t in texts]
    ends = np.cumsum([len(e) for e in encoded])
    starts = np.r_[0, ends[:-1]]
    return kernels.shingle_sets(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)


def ours(texts: list[str], sketch: str) -> tuple[np.ndarray, float]:
    """(sketches, CPU seconds) from text."""
    start = time.process_time()
    shingles, offsets = shingle_sets(texts)
    if sketch == "fss":
        found = kernels.fast_similarity_sketch(shingles, offsets, SLOTS, 1)
    else:
        found = kernels.min_hash(shingles, offsets, *kernels.permutations(SLOTS, 1))
    return found, time.process_time() - start


def peer(library: str, texts: list[str], python: str) -> tuple[np.ndarray, float]:
    """(sketches, CPU seconds) of a library in its own interpreter."""
    with tempfile.TemporaryDirectory() as tmp:
        source, target = Path(tmp) / "in.json", Path(tmp) / "out.npz"
        source.write_text(json.dumps({"texts": texts, "slots": SLOTS}))
        script = Path(__file__).with_name("bench_minhash_peer.py").resolve()
        subprocess.run([python, str(script), library, str(source), str(target)], check=True, stdout=subprocess.DEVNULL)
        out = np.load(target)
        return out["sketches"], float(out["seconds"])


def choose(root: Path, count: int) -> tuple[list[str], np.ndarray]:
    """(texts, pairs int64 [P, 2] of similarity >= 0.7 among them)."""
    suffixes = {".py", ".js", ".c", ".h", ".java", ".go", ".cpp", ".cc", ".cs", ".ts", ".rb", ".php", ".html", ".scala"}
    paths = sorted(
        (p for p in root.rglob("*") if p.suffix in suffixes and p.is_file() and 1_000 <= p.stat().st_size <= 100_000),
        key=lambda p: hashlib.sha256(str(p.relative_to(root)).encode()).digest(),
    )
    texts = list(dict.fromkeys(p.read_bytes().decode("utf-8", "replace") for p in paths))
    shingles, offsets = shingle_sets(texts)
    pairs, values = all_pairs(shingles, offsets, 0.7)
    pairs = pairs[values < 1]
    picked: dict[int, None] = {}
    # Evenly over the range: every so-and-so-many-th pair in the order of similarity.
    for a, b in pairs[np.argsort(values[values < 1], kind="stable")][:: max(1, len(pairs) * 4 // count)]:
        picked.update({int(a): None, int(b): None})
    picked = dict.fromkeys(list(picked)[: count // 2])
    for i in range(len(texts)):
        if len(picked) >= count:
            break
        picked[i] = None
    chosen = [texts[i] for i in picked]
    found, values = all_pairs(*shingle_sets(chosen), 0.7)
    return chosen, found


def recall(sketches: np.ndarray, pairs: np.ndarray) -> float:
    """Share of the pairs that meet in a band."""
    bands = sketches[:, : BANDS * ROWS].reshape(len(sketches), BANDS, ROWS)
    return float((bands[pairs[:, 0]] == bands[pairs[:, 1]]).all(2).any(1).mean())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--libraries", default=LIBRARIES)
    parser.add_argument("--files", type=int, default=800)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    texts, pairs = choose(args.input, args.files)
    size = sum(len(t.encode()) for t in texts)
    names = ["ours: fast similarity sketching", "ours: classic MinHash", *args.libraries.split(",")]
    for sketch in ("fss", "minhash"):
        ours(texts[:8], sketch)
    found: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name in names:
        if name.startswith("ours"):
            sketches, seconds = ours(texts, "fss" if "fast" in name else "minhash")
        else:
            sketches, seconds = peer(name, texts, args.peer_python)
        found[name] = recall(sketches, pairs)
        counts[name] = min(len(texts), max(20, int(len(texts) * args.seconds / seconds)))
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.repeat):
        for name in names:
            part = texts[:: -(-len(texts) // counts[name])]
            if name.startswith("ours"):
                seconds = ours(part, "fss" if "fast" in name else "minhash")[1]
            else:
                seconds = peer(name, part, args.peer_python)[1]
            rates[name].append(len(part) / seconds)
    print(f"{len(texts)} files, {size / 1e6:.2f} MB; {len(pairs)} pairs of Jaccard similarity >= 0.7; {SLOTS} slots, "
          f"{BANDS} bands of {ROWS} rows; CPU time, median of {args.repeat} by turns")  # fmt: skip
    best = statistics.median(rates[names[0]])
    for name in names:
        rate = statistics.median(rates[name])
        print(
            f"{name:34s} {rate:9.0f} files/s  recall {found[name]:.3f}  files timed {counts[name]:5d}  ours is {best / rate:7.1f} x"
        )


if __name__ == "__main__":
    main()
