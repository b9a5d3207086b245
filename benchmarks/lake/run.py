"""The lake beside DuckDB, chDB and Polars: the same SQL on the same files, and bytes at rest beside their own formats.

Usage: python benchmarks/lake/run.py <work folder> [--homes 5000] [--days 1] [--polls-a-batch 16] [--repeats 5]
Makes the lake below the work folder when it is not there. Prints versions, then tables in Markdown.
"""

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAKE = ROOT / "target/release/examples/lake"
THREADS = 2

# {ms:x} milliseconds of a time, {at:x} a time, {table} the rows. All else is the same text for every program.
QUERIES = {
    "count": "SELECT count(*) AS n FROM {table}",
    "last value per bed": """SELECT bed_id, event_time, value FROM (SELECT bed_id, event_time, value,
        row_number() OVER (PARTITION BY bed_id ORDER BY event_time DESC) AS n
        FROM {table} WHERE quantity = 'heart_rate') AS t WHERE n = 1""",
    "gaps over 10 min": """SELECT bed_id, event_time, gap FROM (SELECT bed_id, event_time,
        {ms:event_time} - lag({ms:event_time}) OVER (PARTITION BY bed_id ORDER BY event_time) AS gap
        FROM {table} WHERE quantity = 'heart_rate') AS t WHERE gap > 600000""",
    "one bed one hour": """SELECT event_time, quantity, value FROM {table} WHERE bed_id = 'bed-00042'
        AND event_time >= {at:2026-03-01 12:00:00} AND event_time < {at:2026-03-01 13:00:00}
        ORDER BY quantity, event_time""",
    "one bed one day": """SELECT event_time, quantity, value FROM {table} WHERE bed_id = 'bed-00042'
        AND event_time >= {at:2026-03-01 00:00:00} AND event_time < {at:2026-03-02 00:00:00}
        ORDER BY quantity, event_time""",
    "hourly averages of all": """SELECT bed_id, quantity, date_trunc('hour', event_time) AS hour, avg(value) AS mean,
        count(*) AS n FROM {table} GROUP BY bed_id, quantity, date_trunc('hour', event_time)""",
    "bed exits over 20 min": """SELECT bed_id, left_at, back_at FROM (SELECT bed_id, value, event_time AS left_at,
        lead(event_time) OVER (PARTITION BY bed_id ORDER BY event_time) AS back_at
        FROM (SELECT bed_id, event_time, value, lag(value) OVER (PARTITION BY bed_id ORDER BY event_time) AS earlier
        FROM {table} WHERE quantity = 'bed_occupancy') AS t WHERE earlier IS NULL OR earlier <> value) AS u
        WHERE value = 0 AND {ms:back_at} - {ms:left_at} > 1200000""",
    "nightly summary": """SELECT bed_id, quantity, date_trunc('day', event_time) AS night, avg(value) AS mean,
        min(value) AS low, max(value) AS high, count(*) AS n FROM {table}
        WHERE quantity IN ('heart_rate', 'respiratory_rate') AND value > 0
        GROUP BY bed_id, quantity, date_trunc('day', event_time)""",
}

# As users ask it, where there is more than observations; all else as above.
AS_USERS_ASK = {
    "last value per bed": "SELECT bed_id, event_time, value FROM latest WHERE quantity = 'heart_rate'",
    "bed exits over 20 min": """SELECT bed_id, started_at, ended_at FROM episodes WHERE kind = 'out_of_bed'
        AND started_at >= {at:2026-03-01 00:00:00} AND {ms:ended_at} - {ms:started_at} > 1200000""",
}

DIALECTS = {
    "carebed": ("CAST({} AS BIGINT)", "TIMESTAMP '{}Z'"),
    "DuckDB": ("epoch_ms({})", "TIMESTAMPTZ '{}Z'"),
    "chDB": ("toUnixTimestamp64Milli({})", "toDateTime64('{}', 3, 'UTC')"),
    "Polars": ("({})", "'{}'::timestamp"),
}


def sql(program, query, table):
    ms, at = DIALECTS[program]
    out = query.replace("{table}", table)
    for kind, form in (("ms", ms), ("at", at)):
        while f"{{{kind}:" in out:
            before, rest = out.split(f"{{{kind}:", 1)
            inner, after = rest.split("}", 1)
            out = before + form.format(inner) + after
    return " ".join(out.split())


def timed(run, repeats):
    """The median of the repeats after one to warm up, and how many rows came."""
    rows, times = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        rows = run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), rows


def duckdb_runs(pattern, repeats):
    import duckdb

    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET TimeZone = 'UTC'")
    table = f"read_parquet('{pattern}')"
    return {
        name: timed(lambda q=sql("DuckDB", query, table): len(connection.execute(q).to_arrow_table()), repeats)
        for name, query in QUERIES.items()
    }, duckdb.__version__


def chdb_runs(pattern, repeats):
    import chdb
    from chdb import session

    place = session.Session()
    place.query(f"SET max_threads = {THREADS}")
    answers = {}
    for name, query in QUERIES.items():
        text = sql("chDB", query, f"file('{pattern}', Parquet)")
        text += f" SETTINGS max_threads = {THREADS}"
        try:
            answers[name] = timed(lambda q=text: place.query(q, "Arrow").rows_read() and 0, repeats)
        except Exception as error:
            answers[name] = (None, str(error).splitlines()[0][:100])
    return answers, chdb.__version__


def polars_runs(pattern, repeats):
    import polars

    answers = {}
    context = polars.SQLContext(t=polars.scan_parquet(pattern, hive_partitioning=False))
    for name, query in QUERIES.items():
        text = sql("Polars", query, "t")
        text = text.replace("(event_time)", "CAST(event_time AS BIGINT)").replace("(back_at)", "CAST(back_at AS BIGINT)")
        text = text.replace("(left_at)", "CAST(left_at AS BIGINT)")
        try:
            answers[name] = timed(lambda q=text: len(context.execute(q, eager=True)), repeats)
        except Exception as error:
            answers[name] = (None, str(error).splitlines()[0][:100])
    return answers, polars.__version__


def carebed_runs(command, queries, lake, work, repeats):
    file = work / "queries.json"
    file.write_text(json.dumps({name: sql("carebed", query, "observations") for name, query in queries.items()}))
    return inside(command, lake, file, repeats)


def inside(*arguments):
    done = subprocess.run([LAKE, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def at_rest(pattern, work, rows):
    """Bytes a value in the other programs' own formats, sorted as ours."""
    import duckdb
    from chdb import session

    sizes = {}
    own = work / "own.duckdb"
    own.unlink(missing_ok=True)
    connection = duckdb.connect(str(own), config={"threads": THREADS, "memory_limit": "8GB"})
    connection.execute(
        f"CREATE TABLE o AS SELECT * FROM read_parquet('{pattern}') ORDER BY bed_id, quantity, event_time"
    )
    connection.execute("CHECKPOINT")
    connection.close()
    sizes["DuckDB"] = own.stat().st_size / rows
    own.unlink()
    folder = work / "own.chdb"
    shutil.rmtree(folder, ignore_errors=True)
    place = session.Session(str(folder))
    place.query("CREATE DATABASE IF NOT EXISTS d ENGINE = Atomic")
    low = ("area home_id bed_id device_id room quantity unit quality clock_quality gateway_id epoch lane text").split()
    columns = ", ".join(
        f"toLowCardinality({c}) AS {c}" if c not in ("room", "text") else f"toLowCardinality(assumeNotNull({c})) AS {c}"
        for c in low
    )
    rest = "event_time, assumeNotNull(value) AS value, boot, seq, gateway_time, received_time"
    place.query(
        "CREATE TABLE d.o ENGINE = MergeTree ORDER BY (bed_id, quantity, event_time) SETTINGS allow_nullable_key = 1 AS "
        f"SELECT {columns.replace('toLowCardinality(bed_id)', 'toLowCardinality(assumeNotNull(bed_id))')}, {rest} "
        f"FROM file('{pattern}', Parquet)"
    )
    place.query("OPTIMIZE TABLE d.o FINAL")
    answer = place.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'o' AND active", "CSV")
    sizes["chDB"] = int(str(answer).strip()) / rows
    shutil.rmtree(folder, ignore_errors=True)
    return sizes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--homes", type=int, default=5000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--polls-a-batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", action="store_true", help="also bytes at rest in the other programs' own formats")
    options = parser.parse_args()
    if not LAKE.exists():
        sys.exit("build it first: cargo build --release -p carebed --example lake")
    options.work.mkdir(parents=True, exist_ok=True)
    lake = options.work / f"lake-{options.homes}-{options.days}-{options.polls_a_batch}"
    made = lake.with_suffix(".json")
    if not made.exists():
        shutil.rmtree(lake, ignore_errors=True)
        lake.mkdir()
        made.write_text(json.dumps(inside("generate", lake, options.homes, options.days, options.polls_a_batch)))
    facts = json.loads(made.read_text())
    pattern = f"{lake}/observations/event_day=*/*.parquet"
    files = glob.glob(pattern)
    print(f"{facts['rows']:,} values, {len(files)} files, {facts['bytes_a_value']:.3f} bytes a value with the log;",
          f"made in {facts['seconds']:.0f} s ({facts['seconds_committing']:.0f} s commits,"
          f" {facts['seconds_compacting']:.0f} s compaction)\n", flush=True)

    ours = carebed_runs("queries", QUERIES, lake, options.work, options.repeats)
    users = carebed_runs("users", AS_USERS_ASK, lake, options.work, options.repeats)
    peers, versions = {}, {}
    for name, runs in (("DuckDB", duckdb_runs), ("chDB", chdb_runs), ("Polars", polars_runs)):
        try:
            peers[name], versions[name] = runs(pattern, options.repeats)
        except Exception as error:
            peers[name], versions[name] = {}, f"failed: {error}"[:100]
    print("versions:", ", ".join(f"{name} {version}" for name, version in versions.items()), "· threads:", THREADS, "\n")
    print("| query | carebed ms | cold | plan |", " | ".join(peers), "| ratio to the best |")
    print("|---|--:|--:|--:|" + "--:|" * (len(peers) + 1))
    ratios, as_users_ask = [], {}
    for name in QUERIES:
        mine = ours["queries"][name]
        theirs = {peer: runs.get(name, (None, "not run")) for peer, runs in peers.items()}
        best = min((ms for ms, _ in theirs.values() if ms is not None), default=None)
        ratio = mine["ms"] / best if best else float("nan")
        ratios.append(ratio)
        asked = users["queries"].get(name, mine)
        as_users_ask[name] = (asked, asked["ms"] / best if best else float("nan"))
        cells = " | ".join(f"{ms:.1f}" if ms is not None else "no" for ms, _ in theirs.values())
        print(f"| {name} | {mine['ms']:.1f} | {mine['cold_ms']:.1f} | {mine['plan_ms']:.1f} | {cells} | {ratio:.2f} |")
        for peer, (ms, rows) in theirs.items():
            if ms is None:
                print(f"<!-- {peer}, {name}: {rows} -->", file=sys.stderr)
            elif peer != "chDB" and rows != mine["rows"]:
                print(f"! {peer} gives {rows} rows for {name}, carebed {mine['rows']}")
    print(f"\ngeometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}, largest {max(ratios):.2f}\n")
    print("| as users ask it | carebed ms | cold | rows | ratio to the best above |\n|---|--:|--:|--:|--:|")
    for name, (asked, ratio) in as_users_ask.items():
        what = "" if name in AS_USERS_ASK else " (the same)"
        print(f"| {name}{what} | {asked['ms']:.1f} | {asked['cold_ms']:.1f} | {asked['rows']} | {ratio:.2f} |")
    mean = statistics.geometric_mean(ratio for _, ratio in as_users_ask.values())
    print(f"\ngeometric mean: {mean:.2f}; to make all episodes of the lake took {users['open_ms'] / 1000:.1f} s")
    if options.sizes:
        sizes = at_rest(pattern, options.work, facts["rows"])
        print("bytes a value at rest:", f"carebed {facts['bytes_a_value']:.3f},",
              ", ".join(f"{name} {size:.3f}" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
