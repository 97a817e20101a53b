"""Hugging Face's Llama names and layouts, both ways, from one table: every tensor of either side exactly once.

The table derives from the weights' declarations in `model.py`: the name pattern, and how many leading dims are inputs.
Hugging Face keeps one [out, in] matrix per layer where this project stacks [layers, in..., out...].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from flax import nnx

from opencoder_jax.config import ModelConfig
from opencoder_jax.model import Weight, abstract

LAYER = "{}"
TIED_COPY = "lm_head.weight"  # present beside a tied embedding in some files, then equal to it


@dataclass(frozen=True)
class Tensor:
    """One tensor of a Hugging Face checkpoint and the slice of a parameter that it is."""

    name: str
    path: tuple[str, ...]  # in the state of weights
    layer: int | None  # index into the parameter's leading dim; None: the whole parameter
    ours: tuple[int, ...]  # shape of that slice
    in_dims: int  # leading dims of the slice that are inputs; 0: same layout on both sides

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape at Hugging Face."""
        if not self.in_dims:
            return self.ours
        return math.prod(self.ours[self.in_dims :]), math.prod(self.ours[: self.in_dims])

    def to_hf(self, piece: np.ndarray) -> np.ndarray:
        """The slice [in..., out...] -> [out, in]."""
        return piece.reshape(self.shape[::-1]).T if self.in_dims else piece

    def from_hf(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_hf`."""
        return array.T.reshape(self.ours) if self.in_dims else array


def table(cfg: ModelConfig) -> list[Tensor]:
    """All tensors, parameter by parameter."""
    rows = []
    for path, weight in nnx.to_flat_state(abstract(cfg)[1]):
        assert isinstance(weight, Weight)
        path, shape = tuple(map(str, path)), tuple(weight.shape)
        if LAYER in weight.hf:
            rows += [Tensor(weight.hf.format(i), path, i, shape[1:], weight.in_dims) for i in range(shape[0])]
        else:
            rows.append(Tensor(weight.hf, path, None, shape, weight.in_dims))
    return rows


def check_names(cfg: ModelConfig, shapes: dict[str, tuple[int, ...]], source: str) -> None:
    """Raises ValueError for the first tensor that is missing, superfluous or of another shape."""
    expected = {row.name: row.shape for row in table(cfg)}
    # Older releases carry this constant table of frequencies, some the tied embedding under both names.
    ignored = ("rotary_emb.inv_freq", *((TIED_COPY,) if cfg.tie_word_embeddings else ()))
    found = {name: shape for name, shape in shapes.items() if not name.endswith(ignored)}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        hint = "download the model again" + (", or set tie_word_embeddings: true" if missing == [TIED_COPY] else "")
        raise ValueError(f"{source}: {len(missing)} tensor(s) missing, first {missing[0]}; {hint}")
    if extra:
        raise ValueError(f"{source}: {len(extra)} tensor(s) that no such model has, first {extra[0]}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise ValueError(f"{source}: {name} is {tuple(found[name])}, config.json makes it {shape}")


def to_hf(cfg: ModelConfig, weights: nnx.State) -> dict[str, np.ndarray]:
    """All tensors under their Hugging Face names: for models that fit into memory; `export` streams."""
    ours = {tuple(map(str, path)): np.asarray(weight[...]) for path, weight in nnx.to_flat_state(weights)}
    return {
        row.name: row.to_hf(ours[row.path] if row.layer is None else ours[row.path][row.layer]) for row in table(cfg)
    }


def from_hf(cfg: ModelConfig, tensors: dict[str, np.ndarray], source: str = "tensors") -> nnx.State:
    """The inverse of `to_hf`. Raises: ValueError as `check_names`."""
    check_names(cfg, {name: array.shape for name, array in tensors.items()}, source)
    rows = grouped(table(cfg))
    weights = {}
    for path, weight in nnx.to_flat_state(abstract(cfg)[1]):
        mine = rows[tuple(map(str, path))]
        pieces = [row.from_hf(tensors[row.name]) for row in mine]
        weights[path] = weight.replace(pieces[0] if mine[0].layer is None else np.stack(pieces))
    return nnx.from_flat_state(weights)


def grouped(rows: Iterable[Tensor]) -> dict[tuple[str, ...], list[Tensor]]:
    """Rows by parameter, layers in order."""
    groups: dict[tuple[str, ...], list[Tensor]] = {}
    for row in rows:
        groups.setdefault(row.path, []).append(row)
    return groups
