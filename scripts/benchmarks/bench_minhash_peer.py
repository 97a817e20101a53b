"""Sketch texts with one library, in its environment: `python bench_minhash_peer.py LIBRARY in.json out.npz`.

in.json: {"texts": [...], "slots": 2048}. out.npz: sketches [N, slots] and seconds (CPU time of text to sketches, after
a warm-up). Words are runs of word characters, shingles five words in a row; each library's own way where it has one.
Libraries: rensa, rensa_rho, rensa_c, datasketch, text_dedup, datatrove, daft.
"""

# pyright: reportMissingImports=false
import json
import re
import sys
import time

import numpy as np

NGRAM = 5
WORD = re.compile(r"\w+")


def shingles(text: str) -> list[str]:
    """Distinct runs of five words."""
    words = WORD.findall(text)
    return list({" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))})


def rensa(slots: int):
    """Bulk digests, one row a text."""
    from rensa import RMinHash

    return lambda texts: RMinHash.digest_matrix_from_token_sets(map(shingles, texts), slots, 42)


def rensa_rho(slots: int):
    """The library's sketch whose cost does not grow with slots times shingles."""
    from rensa import RMinHash

    return lambda texts: RMinHash.digest_matrix_from_token_sets_rho(map(shingles, texts), slots, 42)


def rensa_c(slots: int):
    """Two permutations, circulant."""
    from rensa import CMinHash

    def run(texts):
        out = []
        for text in texts:
            sketch = CMinHash(slots, 42)
            sketch.update(shingles(text))
            out.append(sketch.digest())
        return out

    return run


def datasketch(slots: int):
    """MinHash.bulk with xxHash in place of SHA-1, its fastest way."""
    import xxhash
    from datasketch import MinHash

    def run(texts):
        sets = [[s.encode() for s in shingles(t)] for t in texts]
        return [m.digest() for m in MinHash.bulk(sets, num_perm=slots, seed=42, hashfunc=xxhash.xxh32_intdigest)]

    return run


def text_dedup(slots: int):
    """Its `embed_func`, 64-bit arithmetic over 32-bit hashes, its own words."""
    from text_dedup.minhash import SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import xxh3_32hash

    prime, top = np.uint64((1 << 61) - 1), np.uint64((1 << 32) - 1)
    rng = np.random.RandomState(42)
    permutations = tuple(rng.randint(low, int(prime), slots, dtype=np.uint64) for low in (1, 0))

    def run(texts):
        out = []
        for i, text in enumerate(texts):
            signature = embed_func(
                text, i, num_perm=slots, ngram_size=NGRAM, min_length=0, hashranges=[(0, slots)],
                permutations=permutations, hash_func=xxh3_32hash, dtype=np.uint64, max_hash=top, modulo_prime=prime,
            )  # fmt: skip
            out.append(np.frombuffer(signature[SIGNATURE_COLUMN][0], np.uint64))
        return out

    return run


def datatrove(slots: int):
    """Its signature step's shingles and signature."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    step = MinhashDedupSignature("/tmp", MinhashConfig(n_grams=NGRAM, num_buckets=slots // 16, hashes_per_bucket=16))
    return lambda texts: [np.concatenate(step.get_signature(step.get_shingles(t))) for t in texts]


def daft(slots: int):
    """Words joined by blanks in the engine, then its minhash."""
    import daft
    from daft import col
    from daft.functions import minhash, regexp_replace

    def run(texts):
        words = regexp_replace(col("text"), r"[^\p{L}\p{N}\p{M}_]+", " ")
        sketch = minhash(words, num_hashes=slots, ngram_size=NGRAM, hash_function="xxhash3_64")
        table = daft.from_pydict({"text": texts}).select(sketch.alias("s")).to_arrow()
        return np.array(table.column("s").combine_chunks().flatten()).reshape(len(texts), slots)

    return run


def matrix(found) -> np.ndarray:
    """[N, slots] of whatever the library returned."""
    if hasattr(found, "to_rows"):
        found = found.to_rows()
    return np.asarray(found)


def main() -> None:
    """Command line."""
    library, source, target = sys.argv[1:4]
    with open(source) as f:
        job = json.load(f)
    run = globals()[library](job["slots"])
    run(job["texts"][:8])
    start = time.process_time()
    found = run(job["texts"])
    seconds = time.process_time() - start
    np.savez(target, sketches=matrix(found), seconds=seconds)


if __name__ == "__main__":
    main()
