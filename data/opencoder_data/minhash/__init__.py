"""Near duplicates of texts, as a library: it knows Arrow columns and arrays, no files and no pipeline.

| module | from | to |
|---|---|---|
| `shingles` | texts | sets of hashed runs of words (n-grams) |
| `sketches` | sets | sketches whose share of equal slots estimates Jaccard similarity |
| `banding` | sketches | band keys; presets; the S-curve |
| `candidates` | keys | candidate pairs; connected components |
| `verification` | candidate pairs | exact Jaccard similarity; all exact pairs of a corpus |
| `near_pairs` | texts | near-duplicate pairs in memory: all of the above |
| `overlap` | a few indexed texts | which of many others repeat them: held-out files, benchmarks |
| `recall` | a corpus | measured recall and precision of bandings |
"""

from opencoder_data.numba_cache import give_numba_a_cache

give_numba_a_cache()
