"""The lake beside DuckDB, chDB and Polars: the same SQL on the same files, and bytes at rest beside their own formats.

Usage: python benchmarks/lake/run.py <work folder> [--homes 5000] [--days 1] [--polls-a-batch 16] [--repeats 5]
Makes the lake below the work folder when it is not there. Prints versions, then tables in Markdown. The programs take turns, query
by query, so that a machine that is not quiet treats them alike.
"""

import argparse
import glob
import json
import multiprocessing
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


class Ours:
    """The product in a process of its own, as an analyst has it: one session, one statement after the other."""

    def __init__(self, lake, memory):
        command = [str(LAKE), "ask", str(lake), memory]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.open_ms = json.loads(self.child.stdout.readline())["open_ms"]

    def ask(self, text):
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended at: {text}")
        answer = json.loads(line)
        return answer["ms"], answer["rows"]


def clocked(run):
    start = time.perf_counter()
    rows = run()
    return (time.perf_counter() - start) * 1000, rows


class DuckDB:
    def __init__(self, pattern):
        import duckdb

        self.version = duckdb.__version__
        self.table = f"read_parquet('{pattern}')"
        self.connection = duckdb.connect(config={"threads": THREADS})
        self.connection.execute("SET TimeZone = 'UTC'")

    def ask(self, text):
        return clocked(lambda: len(self.connection.execute(text).to_arrow_table()))


class ChDB:
    def __init__(self, pattern):
        import chdb
        from chdb import session

        self.version = chdb.__version__
        self.table = f"file('{pattern}', Parquet)"
        self.place = session.Session()

    def ask(self, text):
        import pyarrow

        text += f" SETTINGS max_threads = {THREADS}"
        took, answer = clocked(lambda: self.place.query(text, "ArrowStream"))
        return took, pyarrow.ipc.open_stream(answer.bytes()).read_all().num_rows


class Polars:
    def __init__(self, pattern):
        import polars

        self.version = polars.__version__
        self.table = "t"
        self.context = polars.SQLContext(t=polars.scan_parquet(pattern, hive_partitioning=False))

    def ask(self, text):
        for column in ("event_time", "back_at", "left_at"):
            text = text.replace(f"({column})", f"CAST({column} AS BIGINT)")
        return clocked(lambda: len(self.context.execute(text, eager=True)))


def measured(ours, users, peers, repeats):
    """Milliseconds of all programs for each query, taken in turns, so that what else the machine does meets them alike. The first
    turn is apart: cold."""
    times, rows, cannot = {}, {}, {}
    for name, query in QUERIES.items():
        asked = {program: (peer, sql(program, query, peer.table)) for program, peer in peers.items()}
        asked["carebed"] = (ours, sql("carebed", query, "observations"))
        asked["plan"] = (ours, "EXPLAIN " + asked["carebed"][1])
        if users and name in AS_USERS_ASK:
            asked["as users ask"] = (users, sql("carebed", AS_USERS_ASK[name], ""))
        for turn in range(repeats + 1):
            for program, (place, text) in asked.items():
                if (program, name) in cannot:
                    continue
                try:
                    took, rows[program, name] = place.ask(text)
                    times.setdefault((program, name), []).append(took)
                except Exception as error:
                    cannot[program, name] = str(error).splitlines()[0][:100]
                    print(f"<!-- {program}, {name}: {cannot[program, name]} -->", file=sys.stderr)
    cold = {key: taken[0] for key, taken in times.items()}
    medians = {key: statistics.median(taken[1:]) for key, taken in times.items() if key not in cannot}
    return medians, cold, rows


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
    parser.add_argument("--plain", action="store_true", help="without the table as users ask it")
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

    peers = {}
    for name, program in (("DuckDB", DuckDB), ("chDB", ChDB), ("Polars", Polars)):
        try:
            peers[name] = program(pattern)
        except ImportError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    print("versions:", ", ".join(f"{name} {peer.version}" for name, peer in peers.items()), "· threads:", THREADS,
          "· load at the beginning:", os.getloadavg()[0], "\n", flush=True)
    ours, users = Ours(lake, "plain"), None if options.plain else Ours(lake, "memory")
    ms, cold, rows = measured(ours, users, peers, options.repeats)

    print("| query | carebed ms | cold | plan |", " | ".join(peers), "| ratio to the best | to each |")
    print("|---|--:|--:|--:|" + "--:|" * len(peers) + "--:|---|")
    ratios, as_users_ask, to_each = [], [], {name: [] for name in peers}
    for name in QUERIES:
        mine = ms["carebed", name]
        theirs = {peer: ms.get((peer, name)) for peer in peers}
        best = min(filter(None, theirs.values()), default=float("nan"))
        ratios.append(mine / best)
        as_users_ask.append(ms.get(("as users ask", name), mine) / best)
        for peer, took in theirs.items():
            to_each[peer] += [mine / took] if took else []
            if took and rows[peer, name] != rows["carebed", name]:
                print(f"! {peer} gives {rows[peer, name]} rows for {name}, carebed {rows['carebed', name]}")
        cells = " | ".join(f"{took:.1f}" if took else "no" for took in theirs.values())
        each = ", ".join(f"{mine / took:.2f}" if took else "–" for took in theirs.values())
        print(f"| {name} | {mine:.1f} | {cold['carebed', name]:.1f} | {ms['plan', name]:.1f} | {cells} "
              f"| {ratios[-1]:.2f} | {each} |")
    print(f"\ngeometric mean of the ratios to the best of each query: {statistics.geometric_mean(ratios):.2f}, largest "
          f"{max(ratios):.2f}; to", ", ".join(f"{peer} {statistics.geometric_mean(r):.2f}" for peer, r in to_each.items() if r), "\n")
    if users:
        print("| as users ask it | carebed ms | cold | rows | ratio to the best above |\n|---|--:|--:|--:|--:|")
        for name, ratio in zip(QUERIES, as_users_ask):
            own = name in AS_USERS_ASK
            key = ("as users ask" if own else "carebed", name)
            print(f"| {name}{'' if own else ' (the same)'} | {ms[key]:.1f} | {cold[key]:.1f} | {rows[key]} | {ratio:.2f} |")
        print(f"\ngeometric mean: {statistics.geometric_mean(as_users_ask):.2f}; "
              f"to make all episodes of the lake took {users.open_ms / 1000:.1f} s")
    print("load at the end:", os.getloadavg()[0])
    if options.sizes:
        # In a process of its own: chDB serves one place a process.
        with multiprocessing.get_context("spawn").Pool(1) as apart:
            sizes = apart.apply(at_rest, (pattern, options.work, facts["rows"]))
        print("bytes a value at rest:", f"carebed {facts['bytes_a_value']:.3f},",
              ", ".join(f"{name} {size:.3f}" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
