"""Counts the rows of a Delta table per home and UTC day with programs that are not carebed: Polars reads the table through
deltalake, DuckDB reads the files that the table's log names. Prints home,day,count as CSV, or fails when the two differ.

usage: counts.py TABLE_FOLDER"""

import sys

import duckdb
import polars
from deltalake import DeltaTable

folder = sys.argv[1]
by_polars = sorted(
    polars.scan_delta(folder)
    .with_columns(polars.col("event_time").dt.convert_time_zone("UTC").dt.date().alias("day"))
    .group_by("home_id", "day")
    .len()
    .collect()
    .rows()
)
files = DeltaTable(folder).file_uris()
duckdb.sql("SET TimeZone = 'UTC'")
by_duckdb = sorted(
    duckdb.sql(
        "SELECT home_id, CAST(event_time AS DATE) AS day, count(*) FROM read_parquet(?, hive_partitioning = false) GROUP BY ALL",
        params=[files],
    ).fetchall()
)
if by_polars != by_duckdb:
    sys.exit(f"Polars counts {len(by_polars)} home-days, DuckDB {len(by_duckdb)}, and they differ")
for home, day, count in by_polars:
    print(f"{home},{day},{count}")
