"""Reads a Delta table with programs that are not carebed, every column of every row, and compares them with carebed's own answer.

usage: rows.py TABLE_FOLDER ANSWER.parquet    prints how many rows all agree on, or fails and says where they do not"""

import sys

import duckdb
import polars
from deltalake import DeltaTable

folder, answer = sys.argv[1:]
ours = polars.read_parquet(answer)
table = DeltaTable(folder)
duckdb.sql("SET TimeZone = 'UTC'")
files = table.file_uris()
read = {
    "Polars": polars.scan_delta(folder).collect(),
    "deltalake": polars.from_arrow(table.to_pyarrow_table()),
    # The day is in the paths, not in the files.
    "DuckDB": polars.from_arrow(duckdb.sql("SELECT * FROM read_parquet(?, hive_partitioning = true)", params=[files]).to_arrow_table()),
}


def plain(frame):
    """The columns in our order and one form, the rows in one order."""
    times = [name for name in ours.columns if name.endswith("_time")]
    frame = frame.select(ours.columns).with_columns(
        *(polars.col(name).cast(polars.Datetime("ms")).cast(polars.Int64) for name in times),
        polars.col("event_day").cast(polars.Date),
    )
    frame = frame.with_columns(polars.col(polars.Categorical).cast(polars.String))
    return frame.sort(ours.columns, nulls_last=True)


expected = plain(ours)
for name, frame in read.items():
    found = plain(frame)
    if not found.equals(expected):
        wrong = [column for column in ours.columns if not found[column].equals(expected[column])]
        sys.exit(f"{name} reads {found.height} rows, carebed {expected.height}; these columns differ: {wrong}")
print(expected.height)
