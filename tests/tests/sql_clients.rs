//! Analysts' own tools against the centre's SQL: psql, psycopg, JDBC.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carebed_contract::clock::SystemClock;
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::{Config as StoreConfig, Store};
use carebed_queries::postgres::{Config, Error, Server, Tls, UsersFile};
use carebed_tests::sql_server::{Growing, PASSWORD, config, err, out, output, serve};
use carebed_tests::{lake, real};

#[tokio::test(flavor = "multi_thread")]
async fn psql_reads_its_areas_and_changes_nothing() {
    let served = serve(|_| ()).await;
    let count = "SELECT home_id, count(*) FROM observations GROUP BY 1 ORDER BY 1";
    let Some(all) = served.psql("analyst", &["-c", count]).await else { return };
    assert_eq!(out(&all), "h1|10\nh2|10");
    for (sql, expected) in [
        (count, "h1|10"),
        ("SELECT count(*) FROM latest", "1"),
        ("SELECT home_id FROM homes", "h1"),
        ("SELECT count(*) FROM observations WHERE home_id = 'h2' OR area = '310105' OR 1 = 1", "10"),
    ] {
        assert_eq!(out(&served.psql("street", &["-c", sql]).await.unwrap()), expected, "{sql}");
    }
    for sql in
        ["DELETE FROM observations", "CREATE TABLE t AS SELECT 1", "SELECT 1 INTO t", "COPY observations TO '/tmp/x'"]
    {
        let refused = err(&served.psql("analyst", &["-c", sql]).await.unwrap());
        assert!(refused.contains("nothing can be changed here"), "{sql}: {refused}");
    }
    // What people type first.
    let tables = out(&served.psql("analyst", &["-c", "\\dt"]).await.unwrap());
    let names: BTreeSet<_> = tables.lines().filter_map(|line| line.split('|').nth(1)).collect();
    assert!(names.is_superset(&BTreeSet::from(["observations", "gaps", "episodes", "homes"])), "{tables}");
    let columns = out(&served.psql("analyst", &["-c", "\\d observations"]).await.unwrap());
    assert!(columns.contains("event_time") && columns.contains("value"), "{columns}");
    let explained = out(&served.psql("analyst", &["-c", "\\d+ episodes"]).await.unwrap());
    assert!(
        explained.contains("when its end could be known") && explained.contains("最早可知其结束的时间"),
        "{explained}"
    );
    for (list, name, meaning) in [
        ("\\dt+", "latest", "last value of every device"),
        ("\\dv+", "sleep_nights", "Nights in bed"),
        ("\\dv", "visits", "view"),
    ] {
        let told = out(&served.psql("analyst", &["-c", list]).await.unwrap());
        assert!(told.lines().any(|line| line.contains(name) && line.contains(meaning)), "{list}: {told}");
    }
    let near = err(&served.psql("analyst", &["-c", "SELECT * FROM obsevations"]).await.unwrap());
    assert!(near.contains("HINT:  did you mean observations?"), "{near}");

    let audit = std::fs::read_to_string(served.data.path().join("audit/sql.jsonl")).unwrap();
    let line = audit.lines().find(|line| line.contains("DELETE FROM observations")).unwrap();
    assert!(line.contains("\"user\":\"analyst\"") && line.contains("nothing can be changed"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_password() {
    let served = serve(|_| ()).await;
    let Some(psql) = real::program(&["psql"], "postgresql-client") else { return };
    for (user, password) in [("analyst", "wrong"), ("nobody", PASSWORD), ("analyst", "")] {
        let mut command = served.client(&psql, user);
        command.env("PGPASSWORD", password).args(["-w", "-c", "SELECT 1"]);
        let refused = err(&output(command).await);
        assert!(refused.contains("assword"), "{user}: {refused}");
    }
    assert_eq!(out(&served.psql("analyst", &["-c", "SELECT 1"]).await.unwrap()), "1", "the server goes on");
    let audit = std::fs::read_to_string(served.data.path().join("audit/sql.jsonl")).unwrap();
    let sign_ins = |user: &str, outcome: &str| {
        let line = format!("\"user\":\"{user}\",\"peer\":\"127.0.0.1:");
        audit.lines().filter(|told| told.contains(&line) && told.contains(outcome)).count()
    };
    let (refused, done) = ("\"sign_in\":\"refused: ", "\"sign_in\":\"done\"");
    assert!(sign_ins("analyst", refused) >= 1 && sign_ins("nobody", refused) == 1, "{audit}");
    assert_eq!((sign_ins("analyst", done), sign_ins("nobody", done)), (1, 0), "{audit}");
}

/// The file of users counts as it is, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_is_out_and_who_is_added_is_in() {
    let served = serve(|_| ()).await;
    let count = ["observations", "latest", "homes"]
        .map(|table| format!("(SELECT count(*) FROM {table}) AS {table}"))
        .join(", ");
    let count = format!("SELECT {count}");
    let ask = async |user: &str| served.psql(user, &["-c", &count]).await;
    let Some(first) = ask("street").await else { return };
    assert_eq!(out(&first), "10|1|1");
    let file = served.data.path().join("users.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    // A connection that is open sees nothing any more, either.
    let remove = format!("\\! sed -i s/street/nobody/ {}", file.display());
    let open = ["-c", "SELECT 1 AS one", "-c", &remove, "-c", "SELECT 2 AS two"];
    let open = served.psql("street", &open).await.unwrap();
    assert!(err(&open).contains("connect again"), "{}{}", String::from_utf8_lossy(&open.stdout), err(&open));
    for (text, street, newcomer) in [
        (before.replace("\"street\"", "\"newcomer\""), None, Some("10|1|1")),
        // While there are mistakes in it, those who were in it before.
        ("[[user]]\nnam = \"street\"\n".to_owned(), None, Some("10|1|1")),
        // A district's analyst sees its communities.
        (before.replace("\"310104\"", "\"3101\""), Some("20|2|2"), None),
    ] {
        std::fs::write(&file, &text).unwrap();
        for (user, expected) in [("street", street), ("newcomer", newcomer)] {
            let answer = ask(user).await.unwrap();
            match expected {
                Some(expected) => assert_eq!(out(&answer), expected, "{user}: {text}"),
                None => assert!(err(&answer).contains("assword"), "{user}: {text}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_reads_with_parameters_and_binary_values_and_grafana_finds_its_way() {
    let served = serve(|_| ()).await;
    let Some(python) = real::python(&["psycopg"]) else { return };
    let mut command = served.client(&python, "analyst");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/sql_clients.py")).arg(served.port.to_string());
    let asked = output(command).await;
    assert!(
        asked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&asked.stdout),
        String::from_utf8_lossy(&asked.stderr)
    );
    // Who looked at whom can be told, and what was refused before it ran.
    let audit = std::fs::read_to_string(served.data.path().join("audit/sql.jsonl")).unwrap();
    assert!(audit.lines().any(|line| line.contains("\"parameters\":[\"h1\"")), "{audit}");
    assert!(!audit.contains("ErrorInfo"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn java_reads_with_parameters_and_finds_the_tables() {
    const DRIVER: &str = "/usr/share/java/postgresql.jar";
    let Some(java) = real::program(&["java"], "openjdk-17-jdk-headless") else { return };
    if !Path::new(DRIVER).exists() {
        return real::absent(DRIVER, "install the Debian package libpostgresql-jdbc-java");
    }
    let served = serve(|_| ()).await;
    let mut command = served.client(&java, "analyst");
    command.args(["-cp", DRIVER, concat!(env!("CARGO_MANIFEST_DIR"), "/java/SqlClient.java")]);
    command.arg(served.port.to_string());
    let asked = output(command).await;
    let said = [asked.stdout, asked.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(asked.status.success(), "{said}");
}

/// An error tells the value it failed on: a statement must not be made to fail on rows of other areas.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_tells_nothing_of_other_areas() {
    let served = serve(|_| ()).await;
    let ask = async |sql: &str| served.psql("street", &["-c", sql]).await;
    for filter in [
        "home_id = 'h2' AND CAST(concat('says ', home_id) AS int) > 0",
        "CASE WHEN home_id = 'h2' THEN CAST(concat('says ', value) AS int) > 0 ELSE false END",
        "home_id = 'h2' AND 1 / (seq - seq) > 0",
    ] {
        for sql in [
            format!("SELECT count(*) FROM observations WHERE {filter}"),
            format!("SELECT value FROM (SELECT * FROM observations WHERE {filter}) ORDER BY 1 LIMIT 1"),
        ] {
            let Some(answer) = ask(&sql).await else { return };
            assert!(["", "0"].contains(&&*out(&answer)), "{sql}");
        }
    }
    // Of their own rows people are told.
    let own =
        err(&ask("SELECT count(*) FROM observations WHERE CAST(concat('says ', home_id) AS int) > 0").await.unwrap());
    assert!(own.contains("says h1"), "{own}");
    assert_eq!(out(&ask("SELECT count(*), max(value) FROM observations WHERE value > 3.5").await.unwrap()), "7|10.0");
    assert_eq!(out(&ask("SELECT value FROM observations ORDER BY value DESC LIMIT 2").await.unwrap()), "10.0\n9.0");
}

/// What would take memory that no bound sees is not there.
#[tokio::test(flavor = "multi_thread")]
async fn no_function_fills_the_memory_with_one_answer() {
    let served = serve(|_| ()).await;
    for sql in ["SELECT repeat('x', 2000000000)", "SELECT lpad('x', 2000000000)", "SELECT range(0, 2000000000)"] {
        let Some(answer) = served.psql("analyst", &["-c", sql]).await else { return };
        assert!(err(&answer).contains("Invalid function"), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_session_sees_what_is_committed_later() {
    let served = serve(|_| ()).await;
    let Some(psql) = real::program(&["psql"], "postgresql-client") else { return };
    let mut command = served.client(&psql, "analyst");
    command.args(["--no-psqlrc", "-At"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut session = command.spawn().unwrap();
    let mut input = session.stdin.take().unwrap();
    let lines = Arc::new(Mutex::new(std::io::BufReader::new(session.stdout.take().unwrap())));
    let mut ask = async |text: &str| {
        use std::io::{BufRead as _, Write as _};
        writeln!(input, "{text}").unwrap();
        input.flush().unwrap();
        let lines = Arc::clone(&lines);
        let answer = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            lines.lock().unwrap().read_line(&mut line).unwrap();
            line
        });
        answer.await.unwrap().trim_end().to_owned()
    };
    assert_eq!(ask("PREPARE n AS SELECT count(*) FROM observations; SELECT count(*) FROM observations;").await, "20");
    lake::commit(&served.store, lake::hourly("h3", "310104", 5)).await;
    assert_eq!(ask("SELECT count(*) FROM observations;").await, "25");
    drop(input);
    session.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_its_limits_ends_and_the_service_goes_on() {
    let served = serve(|config| {
        config.rows_max = 12;
        config.limits.time = Duration::from_millis(1_500);
    })
    .await;
    let Some(many) = served.psql("analyst", &["-c", "SELECT value FROM observations"]).await else { return };
    assert!(err(&many).contains("more rows than this server gives"));
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000)";
    assert!(err(&served.psql("analyst", &["-c", endless]).await.unwrap()).contains("took longer than"));
    let wrong = err(&served.psql("analyst", &["-c", "SELECT valeu FROM observations"]).await.unwrap());
    assert!(wrong.contains("valeu"), "{wrong}");
    assert_eq!(out(&served.psql("analyst", &["-c", "SELECT count(*) FROM observations"]).await.unwrap()), "20");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_only_tls_is_taken_and_off_loopback_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("users.toml");
    std::fs::write(&file, "").unwrap();
    let users = UsersFile::open(&file).unwrap();
    let store = Store::open(StoreConfig::local(&data.path().join("lake")).unwrap()).await.unwrap();
    let open = Config { listen: ([0, 0, 0, 0], 0).into(), ..config(data.path()) };
    let refused = Server::bind(open, users, Arc::new(Growing { store }), Arc::new(SystemClock::new())).await;
    assert!(matches!(refused, Err(Error::OffLoopback(_))));

    let Some(openssl) = real::program(&["openssl"], "openssl") else { return };
    let (certificate, key) = (data.path().join("server.crt"), data.path().join("server.key"));
    let mut make = Command::new(openssl);
    make.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1".split(' '));
    make.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    out(&output(make).await);
    let tls = Tls { certificate: certificate.clone(), key };
    let served = serve(|config| config.tls = Some(tls)).await;
    let Some(psql) = real::program(&["psql"], "postgresql-client") else { return };
    let ask = async |mode: &str| {
        let mut command = served.client(&psql, "analyst");
        command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", &certificate).args(["-At", "-c", "SELECT 1"]);
        output(command).await
    };
    assert_eq!(out(&ask("verify-full").await), "1");
    assert!(err(&ask("disable").await).contains("TLS"), "a connection without TLS was taken");
}

#[test]
fn timestamps_of_the_lake_are_read_as_they_were_written() {
    assert_eq!(lake::START, Timestamp::parse("2026-05-01T12:00:00Z").unwrap());
}
