//! What somebody may try with the centre's SQL, signed in or not: each ends with an error, and the service goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use carebed_tests::process::until;
use carebed_tests::real;
use carebed_tests::sql_server::{Served, err, out, serve};

const PATIENCE: Duration = Duration::from_secs(60);
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000)";

async fn goes_on(served: &Served) {
    let Some(counted) = served.psql("analyst", &["-c", "SELECT count(*) FROM observations"]).await else { return };
    assert_eq!(out(&counted), "20");
}

/// A client that speaks the protocol by itself: it says who it is, and no more.
fn begin(served: &Served) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = b"\0\x03\0\0user\0analyst\0database\0carebed\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    // One that was closed unheard may be gone by now.
    let _closed = socket.write_all(&[&length, &body[..]].concat());
    socket
}

/// All that a socket is told until it is closed.
fn told(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _reset = socket.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_give_nobody_more() {
    let served = serve(|config| config.limits.memory_bytes = 8 << 20).await;
    for set in [
        "SET datafusion.runtime.memory_limit = '100G'",
        "SET datafusion.execution.target_partitions TO 64",
        "SET \"datafusion\".\"runtime\".\"memory_limit\" = '100G'",
        "SET \"datafusion.runtime.memory_limit\" = '100G'",
        "SET LOCAL datafusion.runtime.memory_limit = '100G'",
        "SET SESSION datafusion.runtime.memory_limit = '100G'",
    ] {
        let Some(answer) = served.psql("analyst", &["-c", set]).await else { return };
        assert!(err(&answer).contains("[sql]"), "{set}");
    }
    // Also not by undoing what the server has set.
    let hungry = "SELECT array_length(array_agg(value)) FROM generate_series(1, 30000000)";
    for before in ["RESET datafusion.runtime.memory_limit", "RESET ALL", "DISCARD ALL", "SET application_name = 'x'"] {
        let answer = served.psql("analyst", &["-c", before, "-c", hungry]).await.unwrap();
        assert!(err(&answer).contains("memory") || err(&answer).contains("esources"), "{before}: {}", err(&answer));
    }
    for harmless in
        ["SET client_min_messages = 'warning'", "SET TIME ZONE 'Asia/Shanghai'", "SET extra_float_digits = 3"]
    {
        out(&served.psql("analyst", &["-c", harmless]).await.unwrap());
    }
    // Less, they may ask for.
    let less = served.psql("analyst", &["-c", "SET statement_timeout = '300ms'", "-c", ENDLESS]).await.unwrap();
    assert!(err(&less).contains("took longer than 300ms"), "{}", err(&less));
    goes_on(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_deep_and_long_up_to_a_bound() {
    let served = serve(|_| ()).await;
    let ask = async |sql: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{sql};\n")).unwrap();
        served.psql("analyst", &["-f", &file.path().to_string_lossy()]).await
    };
    let chain = |n: usize| format!("SELECT 1{}", "+1".repeat(n));
    // As deep as its words allow: each cast is a level of its own.
    let Some(deep) = ask(&format!("SELECT 1{}", "::int".repeat(4_900))).await else { return };
    assert_eq!(out(&deep), "1");
    let deep = ask(&chain(500)).await.unwrap();
    assert_eq!(out(&deep), "501");
    for (what, sql, why) in [
        ("a long chain", chain(6_000), "too long"),
        ("a longer chain", chain(400_000), "too long"),
        ("a chain of conditions", format!("SELECT 1 WHERE {}", vec!["1 <> 2"; 514].join(" AND ")), "too long"),
        ("a chain of texts", format!("SELECT {}", vec!["'x'"; 514].join(" || ")), "too long"),
        ("a long comment", format!("SELECT 1 /*{}*/", "x".repeat(300 << 10)), "too long"),
        ("a message without end", format!("SELECT '{}'", "x".repeat(3 << 20)), "not taken"),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(4_000), ")".repeat(4_000)), ""),
        ("subqueries", format!("{}SELECT 1{}", "SELECT * FROM (".repeat(900), ") x".repeat(900)), ""),
        ("negations", format!("SELECT {}true", "NOT ".repeat(9_000)), ""),
        ("cases", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(1_500), " END".repeat(1_500)), ""),
    ] {
        let told = err(&ask(&sql).await.unwrap());
        assert!(told.contains(why), "{what}: {told}");
    }
    for sql in [
        format!("SELECT count(*) FROM observations WHERE {}", vec!["value > 0"; 500].join(" AND ")),
        format!("SELECT count(*) FROM observations WHERE home_id IN ({})", vec!["'h1'"; 4_000].join(",")),
        format!("SELECT {}", vec!["'x'"; 60].join(" || ")),
        vec!["SELECT 1"; 100].join(" UNION ALL "),
    ] {
        // Whatever it says of it, it says it.
        let _taken_or_refused = ask(&sql).await;
    }
    goes_on(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_without_end() {
    let served = serve(|config| {
        config.limits.time = Duration::from_millis(1_500);
        config.limits.memory_bytes = 64 << 20;
    })
    .await;
    for sql in [
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c",
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT value FROM generate_series(1, 1000000000) ORDER BY value DESC",
        "SELECT array_agg(value) FROM generate_series(1, 1000000000)",
        "SELECT string_agg(CAST(value AS varchar), 'x') FROM generate_series(1, 1000000000)",
        "SELECT regexp_like('x', '((((a{1,100}){1,100}){1,100}){1,100}){1,100}')",
    ] {
        let begun = tokio::time::Instant::now();
        let Some(answer) = served.psql("analyst", &["-c", sql]).await else { return };
        let _why = err(&answer);
        // Far less than forever, however busy the machine is.
        assert!(begun.elapsed() < PATIENCE, "{sql}");
    }
    goes_on(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_read_or_written() {
    let served = serve(|_| ()).await;
    let secret = served.data.path().join("secret.csv");
    std::fs::write(&secret, "root:secret\n").unwrap();
    let (secret, target) = (secret.to_string_lossy(), served.data.path().join("out.csv"));
    for sql in [
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM \"{secret}\""),
        format!("SELECT * FROM read_csv('{secret}')"),
        format!("SELECT pg_read_file('{secret}')"),
        format!("SELECT * FROM parquet_metadata('{secret}')"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        format!("COPY (SELECT 1) TO '{}'", target.display()),
        format!("COPY observations FROM '{secret}'"),
        "COPY observations TO STDOUT".to_owned(),
        format!("LOAD '{secret}'"),
        "CREATE FUNCTION f() RETURNS int RETURN 1".to_owned(),
        "DO 'x'".to_owned(),
        "PREPARE p AS DELETE FROM observations; EXECUTE p".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO gaps SELECT * FROM gaps".to_owned(),
        "WITH x AS (SELECT 1) INSERT INTO gaps SELECT * FROM gaps".to_owned(),
    ] {
        let Some(answer) = served.psql("analyst", &["-c", &sql]).await else { return };
        let told = err(&answer);
        assert!(!told.contains("root:secret") && !out_of(&answer).contains("root:secret"), "{sql}: {told}");
    }
    assert!(!target.exists());
    goes_on(&served).await;
}

fn out_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_and_a_catalogue_tell_nothing_of_other_areas() {
    let served = serve(|_| ()).await;
    for sql in ["EXPLAIN SELECT * FROM observations", "EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM observations"] {
        let Some(answer) = served.psql("street", &["-c", sql]).await else { return };
        assert!(err(&answer).contains("other areas"), "{sql}");
        out(&served.psql("analyst", &["-c", sql]).await.unwrap());
    }
    let tables = "SELECT table_schema || '.' || table_name FROM information_schema.tables ORDER BY 1";
    let tables = out(&served.psql("street", &["-c", tables]).await.unwrap());
    assert!(tables.lines().count() > 20, "{tables}");
    let each: Vec<String> = tables.lines().map(|table| format!("SELECT * FROM {table}")).collect();
    let mut arguments = vec!["-v", "ON_ERROR_STOP=0"];
    arguments.extend(each.iter().flat_map(|sql| ["-c", sql.as_str()]));
    let rows = out_of(&served.psql("street", &arguments).await.unwrap());
    assert!(rows.contains("h1") && rows.contains("310104"), "{rows}");
    assert!(!rows.contains("h2") && !rows.contains("310105"), "{rows}");
}

/// An analyst at psql who has signed in and asks; none without psql. The other end of its output is kept open beside it.
fn asks(served: &Served, statement: &str) -> Option<(Child, BufReader<ChildStdout>)> {
    let psql = real::program(&["psql"], "postgresql-client")?;
    let mut command = served.client(&psql, "analyst");
    command.args(["--no-psqlrc", "-c", "\\echo in", "-c", statement]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");
    Some((client, said))
}

/// What an analyst presses when it takes too long, and again while nothing happens: Ctrl-C that comes before the statement has
/// begun does not end it. What the client was told by its end.
async fn stop(client: Child) -> Option<String> {
    let id = client.id().to_string();
    let ended = tokio::task::spawn_blocking(move || client.wait_with_output().unwrap());
    let is_over = || async {
        if !ended.is_finished() {
            Command::new("kill").args(["-INT", &id]).status().unwrap();
        }
        ended.is_finished().then_some(())
    };
    until(PATIENCE, is_over).await?;
    Some(String::from_utf8_lossy(&ended.await.unwrap().stderr).into_owned())
}

/// The audit log says last that a statement was ended.
fn is_written_down(served: &Served) -> bool {
    let audit = std::fs::read_to_string(served.data.path().join("audit/sql.jsonl")).unwrap();
    audit.lines().last().is_some_and(|line| line.contains("canceling statement"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_when_its_client_wants_it_to() {
    let served = serve(|config| config.limits.time = Duration::from_secs(3_600)).await;
    for endless in [
        ENDLESS,
        // One that gives rows all the while.
        "SELECT value FROM generate_series(1, 100000000000) WHERE value % 100000000 = 0",
    ] {
        let Some((client, _said)) = asks(&served, endless) else { return };
        let told = stop(client).await.expect("the statement goes on");
        assert!(told.contains("canceling statement"), "{told}");
        assert!(is_written_down(&served));
        goes_on(&served).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_room_ends_when_its_client_wants_it_to() {
    let served = serve(|config| {
        config.limits.time = Duration::from_secs(3_600);
        config.statements_max = 1;
    })
    .await;
    let Some((taking, _said)) = asks(&served, ENDLESS) else { return };
    // Again when it came before the one that takes all the room.
    let told = until(PATIENCE, || async {
        let (waiting, _said) = asks(&served, "SELECT 1")?;
        let told = stop(waiting).await.expect("it waits on");
        told.contains("canceling statement").then_some(told)
    });
    assert!(told.await.is_some(), "nothing waits");
    assert!(is_written_down(&served));
    stop(taking).await.expect("the statement goes on");
    goes_on(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_are_told_and_cost_those_who_are_in_nothing() {
    let served = serve(|_| ()).await;
    let Some(answer) = served.psql("analyst", &["-c", "SELECT 1"]).await else { return };
    assert_eq!(out(&answer), "1");
    let (mut taken, mut n_told, mut n_unheard) = (Vec::new(), 0, 0);
    let sockets: Vec<TcpStream> = (0..1_000).map(|_| begin(&served)).collect();
    for mut socket in sockets {
        let mut first = [0; 1];
        match socket.read(&mut first) {
            Ok(1) if first == *b"R" => taken.push(socket),
            Ok(1) if first == *b"E" => {
                n_told += 1;
                let told = told(&mut socket);
                assert!(told.contains("53300") && told.contains("all 8 connections are taken"), "{told}");
            }
            _ => n_unheard += 1,
        }
    }
    assert_eq!(taken.len(), 8, "{n_told} told, {n_unheard} unheard");
    assert!(n_told > 0 && n_told + n_unheard == 992, "{n_told} told, {n_unheard} unheard");
    let refused = err(&served.psql("analyst", &["-c", "SELECT 1"]).await.unwrap());
    assert!(refused.contains("all 8 connections are taken"), "{refused}");
    drop(taken);
    let again = until(PATIENCE, || async {
        served.psql("analyst", &["-c", "SELECT 1"]).await.filter(|answer| answer.status.success())
    });
    assert!(again.await.is_some(), "nobody gets in any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_has_not_signed_in_fills_the_memory_or_stays() {
    let served = serve(|_| ()).await;
    for message in [&b"p\x7f\xff\xff\xff"[..], b"Q\x20\x00\x00\x00SELECT"] {
        let mut socket = begin(&served);
        socket.write_all(message).unwrap();
        let told = told(&mut socket);
        assert!(told.contains("FATAL"), "{message:?}: {told:?}");
    }
    // The library that reads the protocol panics over an answer that is none; that ends this connection and no other.
    let mut socket = begin(&served);
    socket.write_all(b"p\0\0\0\x09wrong").unwrap();
    let _closed = told(&mut socket);
    let mut first = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    first.write_all(&[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0]).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    let _closed = told(&mut first);
    goes_on(&served).await;
}
