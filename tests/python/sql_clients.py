"""Asks the centre's SQL as analysts' tools do; prints one line a check and fails with the first that is wrong.

usage: sql_clients.py PORT, with PGUSER and PGPASSWORD set
"""

import sys

import psycopg

PORT = sys.argv[1]

SEARCH_PATH = """SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
    FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
                         array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
         string_to_array(current_setting('search_path'),',') s"""
# What Grafana's PostgreSQL data source asks while a dashboard is made (queries as its own source words their shape).
GRAFANA = [
    "SELECT current_setting('server_version_num')::int/100 as version",
    "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
    f"""SELECT CASE WHEN quote_ident(table_schema) IN ({SEARCH_PATH})
          THEN quote_ident(table_name)
          ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', 'timescaledb_information')
        ORDER BY CASE WHEN quote_ident(table_schema) IN ({SEARCH_PATH}) THEN 0 ELSE 1 END, 1""",
    """select quote_ident(column_name) as "column", data_type as "type"
       from information_schema.columns where quote_ident(table_name) = 'observations'""",
]


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")
    print(f"ok {what}")


def psycopg_checks():
    with psycopg.connect(host="127.0.0.1", port=PORT, dbname="carebed") as connection:
        connection.autocommit = True
        count = "SELECT count(*) FROM observations WHERE home_id = %s AND value > %s"
        for attempt in range(7):  # psycopg prepares on the server from the fifth on
            check(f"a parameter, attempt {attempt}", connection.execute(count, ("h1", 0.5)).fetchone()[0], 10)
        cursor = connection.cursor(binary=True)
        cursor.execute("SELECT event_time, value, text, seq FROM observations WHERE home_id = 'h1' ORDER BY event_time LIMIT 1")
        time, value, text, seq = cursor.fetchone()
        check("binary values", (time.isoformat(), value, text, seq), ("2026-05-01T12:00:00+00:00", 1.0, None, 0))
        try:
            with connection.transaction(), connection.cursor(name="many") as cursor:
                cursor.execute("SELECT value FROM observations")
            sys.exit("a cursor was taken")
        except psycopg.errors.FeatureNotSupported:
            print("ok a cursor on the server is refused")
        try:
            connection.execute("DELETE FROM observations")
            sys.exit("a DELETE was taken")
        except psycopg.Error as error:
            check("a DELETE is refused", error.sqlstate, "25006")
        for query in GRAFANA:
            rows = connection.execute(query).fetchall()
            print(f"ok {len(rows)} rows for {' '.join(query.split())[:60]}")
        tables = {row[0].removeprefix("public.") for row in connection.execute(GRAFANA[2]).fetchall()}
        check("Grafana finds the tables", {"observations", "episodes", "latest"} <= tables, True)
        columns = {row[0] for row in connection.execute(GRAFANA[3]).fetchall()}
        check("Grafana finds the columns", {"home_id", "event_time", "value"} <= columns, True)


def prepared_checks():
    """What a connection keeps on the server is bounded; who closes what is not needed goes on for ever."""
    with psycopg.connect(host="127.0.0.1", port=PORT, dbname="carebed", autocommit=True) as connection:
        wire = connection.pgconn
        kept, told = 0, ""
        while not told and kept < 2_000:
            told = wire.prepare(f"mine_{kept}".encode(), f"SELECT {kept}".encode()).error_message.decode()
            kept += not told
        check("so many are kept", kept, 512)
        check("the next one is refused", "too many prepared statements" in told, True)
        check("those that are there run", wire.exec_prepared(b"mine_7", []).get_value(0, 0), b"7")
        for number in range(10):
            connection.execute(f"DEALLOCATE mine_{number}")
        connection.prepared_max = 5
        for number in range(30):  # psycopg closes the oldest of them by itself
            connection.execute(f"SELECT {number}", prepare=True).fetchall()
        check("the other nine fit in", wire.prepare(b"another", b"SELECT 1").error_message, b"")
        connection.execute("DISCARD ALL")
        long = f"SELECT '{'x' * 200_000}'".encode()
        taken = [not wire.prepare(f"long_{n}".encode(), long).error_message for n in range(12)]
        check("long ones are fewer", taken, [True] * 10 + [False] * 2)
        check("the connection goes on", connection.execute("SELECT 1", prepare=False).fetchone(), (1,))


psycopg_checks()
prepared_checks()
