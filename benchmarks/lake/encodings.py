"""Bytes a value at rest: which encoding for which column, and beside DuckDB's and chDB's own formats.

Usage: python benchmarks/lake/encodings.py [homes]      (seeded; a day of one bed with three quantities each, polled every 30 s)
Writes with pyarrow, so that any encoding can be tried; the product's own writer has the one that measured best.
"""

import os
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOMES = int(sys.argv[1]) if len(sys.argv) > 1 else 600
POLLS = 2880
START = 1772323200000


def table(polls_a_batch, own_jitter=False, gateway_time=False):
    rng = np.random.default_rng(1)
    n = HOMES * 3 * POLLS
    event = np.empty((HOMES, 3, POLLS), np.int64)
    received, seq, value = np.empty_like(event), np.empty_like(event), np.empty((HOMES, 3, POLLS))
    batch = np.arange(POLLS) // polls_a_batch
    for home in range(HOMES):
        for quantity in range(3):
            if quantity == 0 or own_jitter:
                jittered = START + np.arange(POLLS) * 30000 + rng.integers(-500, 501, POLLS)
            event[home, quantity] = jittered
        last = np.maximum.reduceat(event[home, 0], np.arange(0, POLLS, polls_a_batch))
        received[home] = (last + 2000 + rng.integers(0, 3000, len(last)))[batch]
        seq[home] = batch
        value[home, 0] = np.cumsum(rng.random(POLLS) < 1 / 150) % 2
        value[home, 1] = np.clip(np.round(55 + rng.random() * 20 + np.cumsum(rng.uniform(-1.2, 1.2, POLLS)) % 40), 42, 120)
        value[home, 2] = np.clip(np.round(15 + rng.normal(0, 1, POLLS)), 9, 28)
    bed = np.repeat(np.arange(HOMES), 3 * POLLS)
    kind = np.tile(np.repeat(np.arange(3), POLLS), HOMES)
    words = lambda index, names: pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(names)).cast(pa.string())
    same = lambda name: words(np.zeros(n, np.int32), [name])
    time = pa.timestamp("ms", "UTC")
    each = range(HOMES)
    return pa.table({
        "area": words(bed % 40, [f"3607{i:02}" for i in range(40)]),
        "home_id": words(bed, [f"home-{i:05}" for i in each]), "bed_id": words(bed, [f"bed-{i:05}" for i in each]),
        "device_id": same("mat-1"), "room": same("bedroom"),
        "quantity": words(kind, ["bed_occupancy", "heart_rate", "respiratory_rate"]), "unit": words((kind > 0) * 1, ["1", "/min"]),
        "event_time": pa.array(event.ravel()).cast(time), "value": pa.array(value.ravel()), "text": pa.nulls(n, pa.string()),
        "quality": same("good"), "clock_quality": same("synchronised"), "gateway_id": words(bed, [f"gw-{i:05}" for i in each]),
        "boot": pa.array(bed.astype(np.int64) % 7 + 1), "epoch": words(bed, [f"{int(x):016x}" for x in rng.integers(0, 2**62, HOMES)]),
        "lane": same("routine"), "seq": pa.array(seq.ravel()),
        "gateway_time": pa.array(event.ravel()).cast(time) if gateway_time else pa.nulls(n, time),
        "received_time": pa.array(received.ravel()).cast(time),
    })


def parquet(rows, file, times, value, level, page_rows, more=None):
    encodings = {"seq": "DELTA_BINARY_PACKED", "boot": "DELTA_BINARY_PACKED", **(more or {})}
    encodings |= {c: times for c in ("event_time", "received_time", "gateway_time") if times}
    encodings |= {"value": value} if value else {}
    words = [c for c in rows.column_names if c not in encodings]
    pq.write_table(rows, file, compression="zstd", compression_level=level, use_dictionary=words, column_encoding=encodings,
                   row_group_size=131072, data_page_size=8 << 20, write_page_index=True, max_rows_per_page=page_rows)
    metadata, bytes_of = pq.ParquetFile(file).metadata, {}
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            bytes_of[chunk.path_in_schema] = bytes_of.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    large = {c: b / rows.num_rows for c, b in bytes_of.items() if b / rows.num_rows > 0.01}
    return os.path.getsize(file) / rows.num_rows, ", ".join(f"{c} {b:.2f}" for c, b in large.items())


def own_formats(file, folder, n):
    from chdb import session

    path = folder / "own.duckdb"
    connection = duckdb.connect(str(path), config={"threads": 2})
    connection.execute(f"CREATE TABLE o AS SELECT * FROM read_parquet('{file}') ORDER BY bed_id, quantity, event_time")
    connection.execute("CHECKPOINT")
    connection.close()
    place = session.Session(str(folder / "own.chdb"))
    place.query("CREATE DATABASE IF NOT EXISTS d ENGINE = Atomic")
    words = "area home_id bed_id device_id room quantity unit quality clock_quality gateway_id epoch lane".split()
    columns = ", ".join(f"toLowCardinality(assumeNotNull({c})) AS {c}" for c in words)
    times = "assumeNotNull(event_time) AS event_time, assumeNotNull(received_time) AS received_time, gateway_time"
    place.query(
        "CREATE TABLE d.o ENGINE = MergeTree ORDER BY (bed_id, quantity, event_time) AS "
        f"SELECT {columns}, {times}, assumeNotNull(value) AS value, text, assumeNotNull(boot) AS boot, assumeNotNull(seq) AS seq "
        f"FROM file('{file}', Parquet)"
    )
    place.query("OPTIMIZE TABLE d.o FINAL")
    size = int(str(place.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'o' AND active", "CSV")).strip())
    duck = path.stat().st_size / n
    path.unlink()
    return duck, size / n


def main():
    import chdb

    print(f"{HOMES} homes, pyarrow {pa.__version__}, DuckDB {duckdb.__version__}, chDB {chdb.__version__}\n")
    print("| polls a batch | encodings | zstd | rows a page | bytes a value | of these |\n|--:|---|--:|--:|--:|---|")
    split, delta = "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = folder / "t.parquet"
        tries = [(16, "defaults", None, None, 3, 20000), (16, "deltas for times", delta, None, 3, 20000),
                 (16, "split times", split, None, 3, 20000), (16, "split times and values", split, split, 3, 20000),
                 (16, "deltas for times, split values", delta, split, 6, 131072)]
        tries += [(16, "split times and values", split, split, level, 131072) for level in (1, 3, 6, 9, 15)]
        tries += [(polls, "split times and values", split, split, 6, 131072) for polls in (1, 2)]
        rows, made = None, None
        for polls, name, times, value, level, page in tries:
            if made != polls:
                rows, made = table(polls), polls
            size, large = parquet(rows, file, times, value, level, page)
            print(f"| {polls} | {name} | {level} | {page} | {size:.3f} | {large} |", flush=True)
        for name, options in (("gateway_time written out", {"gateway_time": True}), ("each quantity its own jitter", {"own_jitter": True})):
            rows = table(16, **options)
            size, large = parquet(rows, file, split, split, 6, 131072)
            print(f"| 16 | split, {name} | 6 | 131072 | {size:.3f} | {large} |", flush=True)
        rows = table(16)
        size, _ = parquet(rows, file, split, split, 6, 131072)
        duck, click = own_formats(file, folder, rows.num_rows)
        print(f"\nbytes a value at rest: this Parquet {size:.3f}, DuckDB's own format {duck:.3f}, chDB's MergeTree {click:.3f}")


main()
