//! SQL as it is served to analysts' tools, over a small lake.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carebed_contract::Shutdown;
use carebed_contract::clock::SystemClock;
use carebed_pipeline::store::{Config as StoreConfig, Store};
use carebed_queries::engine::Limits;
use carebed_queries::home::HomeFacts;
use carebed_queries::postgres::{self, Config, Server, UsersFile, password_line};
use carebed_queries::sql::{Lake, Snapshot, Source, SqlError};

use tokio::sync::oneshot;

use crate::{lake, real};

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery";

/// A lake that grows while it is read.
pub struct Growing {
    /// The lake.
    pub store: Store,
}

#[async_trait]
impl Source for Growing {
    async fn snapshot(&self) -> Result<Snapshot, SqlError> {
        let home = |home: &str, area: &str| HomeFacts::unregistered(home.parse().unwrap(), area.parse().unwrap());
        let homes = [home("h1", "310104"), home("h2", "310105")];
        Ok(Snapshot::new(&Lake::of(&self.store), self.store.view(), &homes))
    }
}

/// A running server.
pub struct Served {
    /// Its lake.
    pub store: Store,
    /// Where it listens.
    pub port: u16,
    /// Ends it.
    pub shutdown: Shutdown,
    /// Where everything of it lies.
    pub data: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// How it is served, unless a test wants it otherwise.
pub fn config(data: &Path) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        limits: Limits { time: Duration::from_secs(20), ..Limits::default() },
        rows_max: 1_000,
        connections_max: 8,
        statements_max: 2,
        audit: Some(data.join("audit/sql.jsonl")),
    }
}

/// Ten observations of each of two homes in two areas, 1.0, 2.0, … an hour apart.
pub async fn serve(change: impl FnOnce(&mut Config)) -> Served {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::local(&data.path().join("lake")).unwrap()).await.unwrap();
    lake::commit(&store, lake::hourly("h1", "310104", 10)).await;
    lake::commit(&store, lake::hourly("h2", "310105", 10)).await;
    let users = data.path().join("users.toml");
    let user = |name: &str, areas: &str| {
        format!("[[user]]\nname = \"{name}\"\npassword = \"{}\"\nareas = [{areas}]\n", password_line(PASSWORD))
    };
    std::fs::write(&users, user("analyst", "\"*\"") + &user("street", "\"310104\"")).unwrap();
    let mut config = config(data.path());
    change(&mut config);
    let source = Arc::new(Growing { store: store.clone() });
    let (users, shutdown) = (UsersFile::open(&users).unwrap(), Shutdown::new());
    let (told, address) = oneshot::channel();
    let stop = shutdown.clone();
    // On threads as the centre has them.
    std::thread::spawn(move || {
        let threads = postgres::threads(2).unwrap();
        threads.block_on(async {
            let server = Server::bind(config, users, source, Arc::new(SystemClock::new())).await.unwrap();
            told.send(server.address()).unwrap();
            server.run(stop).await;
        });
        threads.shutdown_background();
    });
    let port = address.await.unwrap().port();
    Served { store, port, shutdown, data }
}

impl Served {
    /// A client's command, which knows where to connect and as whom.
    pub fn client(&self, program: &Path, user: &str) -> Command {
        let mut command = Command::new(program);
        let port = self.port.to_string();
        command.envs([
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &port),
            ("PGUSER", user),
            ("PGPASSWORD", PASSWORD),
            ("PGDATABASE", "carebed"),
            ("PGCONNECT_TIMEOUT", "10"),
        ]);
        command
    }

    /// What psql says to these arguments; none when it is not installed.
    pub async fn psql(&self, user: &str, arguments: &[&str]) -> Option<Output> {
        let psql = real::program(&["psql"], "postgresql-client")?;
        let mut command = self.client(&psql, user);
        command.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-At"]).args(arguments);
        Some(output(command).await)
    }
}

/// Runs a command to its end.
pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a command that went well said.
pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

/// What a command that failed said.
pub fn err(output: &Output) -> String {
    let said: String = String::from_utf8_lossy(&output.stdout).chars().take(200).collect();
    assert!(!output.status.success(), "it was taken: {said}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
