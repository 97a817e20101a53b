"""Cells of Arrow columns as Python values, each by itself where a bound is near or one of them cannot be read."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_data.refinecode.ingest.bounds import Budget
from opencoder_data.refinecode.ingest.columns import Odd, Seconds
from opencoder_data.refinecode.ingest.streams import ERRORS

UNFOLDED_BYTES = 64_000_000
"""Largest piece of a column that is unfolded from a dictionary, and that becomes Python objects at once."""


def can_be_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        test(kind)
        for test in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
            pa.types.is_large_binary, pa.types.is_binary_view,
        )
    )  # fmt: skip


def stop_if_cancelled(error: BaseException) -> None:
    """Arrow turns Ctrl-C into an error of its own."""
    if isinstance(error, pa.ArrowCancelled):
        raise KeyboardInterrupt from None


class TooLong:
    def __init__(self, size: int, limit: int):
        self.size, self.limit = size, limit


class Invalid:
    def __init__(self, size: int):
        self.size = size


def text_cells(array: pa.Array, budget: Budget) -> Iterator[Any]:
    """Cells of a column of text or bytes, one in memory at a time; `TooLong` or `Invalid` for what is rejected."""
    if isinstance(array, pa.DictionaryArray):
        # Of its entries those alone that this piece refers to.
        indices, values = _referred(array)
    else:
        indices, values = range(len(array)), array
    kind = values.type
    if not can_be_text(kind):
        # Numbers, lists and records are not text; `row_file` says so.
        names = values.to_pylist() if not pa.types.is_nested(kind) else [Odd()] * len(values)
        yield from (None if i is None else names[i] for i in indices)
        return
    text = not any(t(kind) for t in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
    binary = as_binary(values)
    lengths = pc.call_function("binary_length", [binary])
    if isinstance(indices, range) and (quick := _whole(values, lengths, budget)) is not None:
        yield from quick
        return
    sizes = lengths.to_pylist()
    for index in indices:
        budget.rows()
        size = None if index is None else sizes[index]
        if size is None:
            yield None
            continue
        budget.unpacked(size)
        if size > budget.member:
            yield TooLong(size, budget.member)
            continue
        data = binary[index].as_py()
        if text:
            try:
                data = data.decode("utf-8")
            except UnicodeDecodeError:
                data = Invalid(size)
        yield data


def _whole(values: pa.Array, lengths: pa.Array, budget: Budget) -> list[Any] | None:
    """All cells at once where no bound is near and every text is UTF-8, else None."""
    total, longest = pc.call_function("sum", [lengths]).as_py() or 0, pc.call_function("max", [lengths]).as_py() or 0
    if total > UNFOLDED_BYTES or longest > budget.member or not budget.has_space(total, len(values)):
        return None
    cells = _strings(values)
    if cells is not None:
        budget.rows(len(values))
        budget.unpacked(total)
    return cells


def _strings(array: pa.Array) -> list[Any] | None:
    """Cells of a column of text or bytes; None where a text is not UTF-8."""
    try:
        return array.to_numpy(zero_copy_only=False).tolist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        stop_if_cancelled(error)
        return None


def as_binary(values: pa.Array) -> pa.Array:
    kind = values.type
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return values.cast(pa.large_binary() if large else pa.binary())


def _referred(array: pa.DictionaryArray) -> tuple[list[int | None], pa.Array]:
    """(place of each cell's value or None, the values that the cells refer to)."""
    places = pc.call_function("unique", [pc.call_function("drop_null", [array.indices])])
    found = pc.call_function("index_in", [array.indices], pc.SetLookupOptions(value_set=places))
    return found.to_pylist(), array.dictionary.take(places)


def cells_or_odd(arrays: Iterable[pa.Array]) -> Iterator[Any]:
    """Cells of a metadata column; after corruption `Odd` for ever."""
    try:
        for array in arrays:
            yield from plain_cells(array)
    except (*ERRORS, pa.ArrowException, MemoryError, OverflowError) as error:
        stop_if_cancelled(error)
    while True:
        yield Odd()


def plain_cells(array: pa.Array) -> Iterator[Any]:
    """Cells as Python values, each by itself: times as numbers of seconds, strings that are not UTF-8 as bytes."""
    if isinstance(array, pa.DictionaryArray):
        places, used = _referred(array)
        values = list(plain_cells(used))
        yield from (None if i is None else values[i] for i in places)
        return
    kind = array.type
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    if pa.types.is_timestamp(kind):
        yield from _scaled(array.cast(pa.timestamp(kind.unit)).view(pa.int64()), 1, per_second[kind.unit])
    elif pa.types.is_date32(kind):
        yield from _scaled(array.view(pa.int32()), 86_400, 1)
    elif pa.types.is_date64(kind):
        yield from _scaled(array.view(pa.int64()), 1, 1_000)
    else:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            cells = _strings(array)
            yield from [_decoded(v) for v in as_binary(array).to_pylist()] if cells is None else cells
            return
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            yield from array.to_pylist()
            return
        for cell in array:  # others may fail, or be large
            try:
                yield cell.as_py()
            except (ValueError, OverflowError, ArithmeticError):
                yield Odd()


def _scaled(array: pa.Array, times: int, per: int) -> Iterator[Any]:
    yield from (None if v is None else Seconds(v * times // per) for v in array.to_pylist())


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value
