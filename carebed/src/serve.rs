//! `carebed serve`: the centre, with an embedded broker when none is named.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::SystemClock;

use crate::analysts::Analysts;
use crate::broker::EmbeddedBroker;
use crate::centre::Centre;
use crate::config::Config;
use crate::exit::Exit;

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(config: &Path) -> anyhow::Result<Exit> {
    let config = Config::load(config)?;
    let (broker, embedded) = match &config.broker.address {
        Some(address) => (address.clone(), None),
        None => {
            let embedded = EmbeddedBroker::start(&program()?, config.broker.listen).await?;
            (embedded.address().to_string(), Some(embedded))
        }
    };
    let centre = Centre::open(&config, broker.clone(), Arc::new(SystemClock::new()), 1).await?;
    tracing::info!(console = format!("http://{}/", centre.address()), broker, data = %config.data.display(), "the centre is open");
    let analysts = match &config.sql {
        Some(sql) => {
            let analysts = Analysts::start(&config, sql, centre.tables()?, Arc::new(SystemClock::new())).await?;
            tracing::info!(address = %analysts.address(), "SQL is served");
            Some(analysts)
        }
        None => None,
    };
    let shutdown = Shutdown::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    let broker_stop = Shutdown::new();
    let embedded = embedded.map(|embedded| tokio::spawn(embedded.keep_alive(broker_stop.clone())));
    let ended = centre.run(shutdown).await;
    if let Some(analysts) = analysts {
        analysts.stop().await;
    }
    broker_stop.cancel();
    if let Some(embedded) = embedded {
        embedded.await?;
    }
    ended?;
    tracing::info!("the centre is closed; everything accepted is committed");
    Ok(Exit::Done)
}

/// This program, to be started again as the broker.
pub fn program() -> anyhow::Result<std::path::PathBuf> {
    std::env::current_exe().context("failed to find this program's own file")
}

/// Cancels on Ctrl-C or SIGTERM.
pub async fn cancel_on_signal(shutdown: Shutdown) {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
        }
        // Without the handler SIGTERM ends the process as it does by default; Ctrl-C still stops it in order.
        Err(_) => drop(interrupted.await),
    }
    shutdown.cancel();
}
