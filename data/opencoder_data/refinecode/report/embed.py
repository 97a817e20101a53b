"""Two-dimensional picture of kept against dropped files (the paper's figure 3 shows CodeBERT embeddings).

The default featuriser needs no weights: counts of hashed word and character n-grams. ``codebert=DIRECTORY`` takes CodeBERT's
weights from a local directory (transformers and torch are then needed); any other model comes in as ``module:function``,
which maps a list of texts to a float array [N, D].
"""

import importlib
import os
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import xxhash

from opencoder_data.refinecode.filter_stage import STAGE as FILTER
from opencoder_data.refinecode.run import Run

Embedder = Callable[[list[str]], np.ndarray]
_DIM = 1024
_CHARS = 4_000
_LABELS = {"hashed": "hashed n-grams"}


def hashed_ngrams(texts: list[str]) -> np.ndarray:
    """float32 [N, 1024]: counts of word 1- and 2-grams and character 4-grams, hashed, damped by the logarithm, unit length."""
    out = np.zeros((len(texts), _DIM), np.float32)
    for i, text in enumerate(texts):
        text = text[:_CHARS]
        words = text.split()
        grams = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
        grams += [text[j : j + 4] for j in range(0, len(text) - 3, 2)]
        slots = np.fromiter((xxhash.xxh3_64_intdigest(g.encode()) % _DIM for g in grams), np.int64, len(grams))
        counts = np.log1p(np.bincount(slots, minlength=_DIM))
        out[i] = counts / max(float(np.linalg.norm(counts)), 1e-9)
    return out


def load_embedder(name: str) -> Embedder:
    """``hashed``, ``codebert=DIRECTORY`` or ``module:function``; ValueError when it cannot be loaded."""
    if name == "hashed":
        return hashed_ngrams
    if name.startswith("codebert="):
        return _codebert(name.removeprefix("codebert="))
    module, sep, function = name.partition(":")
    try:
        if not sep:
            raise ImportError("write module:function")
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"embedder {name!r}: {error}") from None


def _codebert(directory: str) -> Embedder:
    """Hidden state of the first token, of the first 512 tokens of each text: float32 [N, 768]."""
    if not os.path.isdir(directory):
        raise ValueError(f"embedder codebert={directory}: there is no such directory")
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from transformers import AutoModel, AutoTokenizer  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("embedder codebert needs the packages torch and transformers") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = AutoModel.from_pretrained(directory, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ValueError(f"embedder codebert: {directory} holds no model: {str(error).splitlines()[0]}") from None

    def embed(texts: list[str]) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for begin in range(0, len(texts), 16):
                batch = tokenizer(
                    texts[begin : begin + 16], truncation=True, max_length=512, padding=True, return_tensors="pt"
                )
                rows.append(model(**batch).last_hidden_state[:, 0].float().numpy())
        return np.concatenate(rows)

    return embed


def sample_texts(run: Run, per_side: int) -> tuple[list[str], np.ndarray]:
    """Texts and keep flags of `per_side` kept and dropped files each, those with the smallest ids (which are random)."""
    ids: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    from opencoder_data.refinecode.report.collect import signal_tables

    for part, table in enumerate(signal_tables(run, ["doc_id", "keep"])):
        for doc_id, keep in zip(table.column("doc_id").to_pylist(), table.column("keep").to_pylist(), strict=True):
            ids[keep].append((doc_id, part))
    chosen = {i: (keep, part) for keep in ids for i, part in sorted(ids[keep])[:per_side]}
    texts, flags = [], []
    for part in sorted({p for _, p in chosen.values()}):
        for batch in run.documents(run.upstream(FILTER), part, ["doc_id", "content"]):
            for i, doc_id in enumerate(batch.column("doc_id").to_pylist()):
                if doc_id in chosen:
                    texts.append(batch.column("content")[i].as_py()[:_CHARS])
                    flags.append(chosen[doc_id][0])
    return texts, np.array(flags, bool)


def principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(projection float [N, 2], shares of variance [2]) of features [N, D]."""
    centred = features - features.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    total = float((singular**2).sum()) or 1.0
    return centred @ directions[:2].T, singular[:2] ** 2 / total


def pca_png(run: Run, embedder: str, per_side: int = 600) -> bytes | None:
    """Scatter plot as PNG; None when either side has no file."""
    import io

    from matplotlib.figure import Figure

    texts, keep = sample_texts(run, per_side)
    if keep.all() or not keep.any() or len(texts) < 3:
        return None
    points, share = principal_components(np.asarray(load_embedder(embedder)(texts), np.float64))
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    colours = {False: "#c0392b", True: "#2471a3"}
    # Mixed, so that neither side hides the other.
    order = np.random.default_rng(0).permutation(len(points))
    axes.scatter(*points[order].T, s=12, alpha=0.6, c=[colours[k] for k in keep[order].tolist()], linewidths=0)
    for flag, name in ((True, "kept"), (False, "dropped")):
        axes.scatter([], [], s=30, color=colours[flag], label=f"{name} ({(keep == flag).sum():,} files)")
    axes.set_title(f"Kept against dropped files, features: {_LABELS.get(embedder, embedder.partition('=')[0])}")
    axes.set_xlabel(f"first principal component ({share[0]:.1%} of variance)")
    axes.set_ylabel(f"second principal component ({share[1]:.1%})")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
