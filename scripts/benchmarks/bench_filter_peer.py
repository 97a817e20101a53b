"""Run the released filter on a corpus, in its own environment: `python bench_filter_peer.py ROOT in.jsonl out.jsonl`.

ROOT is a checkout of OpenCoder-llm/opc_data_filtering. Written per file: path, signals, effective ('1' keeps), hits,
err, seconds (CPU). Its unseeded random rules are made to fire always, so that two runs can be compared.
"""

import contextlib
import io
import json
import os
import sys
import time


def main() -> None:
    """Command line."""
    root, source, target = (os.path.abspath(p) for p in sys.argv[1:4])
    sys.path.insert(0, root)
    os.chdir(root)
    import random

    from pipeline.compute_filtering import CodeFilter  # pyright: ignore[reportMissingImports]
    from pipeline.compute_quality_signals import ComputeCodeQualitySignal  # pyright: ignore[reportMissingImports]

    random.random = lambda: 1.0
    signals, decide = ComputeCodeQualitySignal(), CodeFilter()
    with open(source) as rows, open(target, "w") as out:
        for line in rows:
            row = json.loads(line)
            start = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                result = json.loads(
                    signals.evaluate(
                        row["text"],
                        row["filename"],
                        row["lang"],
                        row["ext"],
                        row["size"],
                        row["program_lang"],
                        row["doc_type"],
                    )
                )
                quality = result.get("quality_signal")
                verdict = json.loads(decide.evaluate(row["doc_type"], row["lang"], row["program_lang"], quality))
            record = {
                "path": row["path"],
                "signals": json.loads(quality) if quality else None,
                "effective": verdict["effective"],
                "hits": [name for name, hit in json.loads(verdict["hit_map"]).items() if hit],
                "err": result.get("err_msg"),
                "seconds": time.process_time() - start,
            }
            out.write(json.dumps(record) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
