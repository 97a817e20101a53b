"""Exchange of key rows between partitions: every map task writes its rows sorted by bucket, one row group per bucket;
a reduce task reads its bucket from all files. Text never travels this way."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.pipeline import storage


def num_buckets(rows: int, rows_per_bucket: int) -> int:
    return max(1, -(-rows // rows_per_bucket))


def bucket_of_hex(keys: pa.ChunkedArray | pa.Array, buckets: int) -> np.ndarray:
    """Bucket of hexadecimal keys, by their first 8 digits. Returns int64 [N]."""
    if len(keys) == 0:
        return np.zeros(0, np.int64)
    return np.array([int(k[:8], 16) for k in keys.to_pylist()], np.int64) % buckets


def write_buckets(url: str, table: pa.Table, bucket: np.ndarray, buckets: int) -> None:
    """`bucket` int [N] in [0, buckets)."""
    order = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[order], np.arange(buckets + 1))
    with (
        storage.replacing(url) as path,
        open(path, "wb") as file,
        pq.ParquetWriter(file, table.schema, compression="zstd") as writer,
    ):
        groups: dict[str, int] = {}
        table = table.take(pa.array(order))
        for b in range(buckets):
            count = int(starts[b + 1] - starts[b])
            if count:
                groups[str(b)] = len(groups)
                writer.write_table(table.slice(int(starts[b]), count), row_group_size=count)
        writer.add_key_value_metadata({"buckets": ",".join(groups)})


def read_bucket(urls: Iterable[str], bucket: int) -> pa.Table:
    """Rows of one bucket out of all files, in the order of `urls`."""
    tables = []
    schema = None
    for url in urls:
        with storage.open_read(url) as handle:
            parquet = pq.ParquetFile(handle)
            schema = parquet.schema_arrow.remove_metadata()
            listed = (parquet.metadata.metadata or {}).get(b"buckets", b"").decode().split(",")
            if str(bucket) in listed:
                tables.append(parquet.read_row_group(listed.index(str(bucket))).replace_schema_metadata(None))
    assert schema is not None
    return pa.concat_tables(tables) if tables else schema.empty_table()
