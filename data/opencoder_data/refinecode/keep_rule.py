"""Which copy of a duplicate stays: most stars, then latest commit, then a stable tie-break.

The paper names the first two. The tie-break is the smallest (repo, path, doc_id): it depends on the files alone, so the
result is the same for any order of the input, any partitioning and any number of workers.
"""

import pyarrow as pa

RANK_COLUMNS = ("stars", "commit_time", "repo", "path", "doc_id")


def sort_keys(first: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Arrow sort keys: groups by `first`, the copy to keep at the head of each group."""
    order = {"stars": "descending", "commit_time": "descending"}
    return first + [(name, order.get(name, "ascending")) for name in RANK_COLUMNS]


def fill_unknown(table: pa.Table) -> pa.Table:
    """Unknown stars and times rank below every known value."""
    for name in ("stars", "commit_time"):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, table.column(name).fill_null(-(2**62)))
    return table
