//! `run`: until told to stop.

use std::sync::Arc;

use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::SystemClock;

use super::{Exit, Files, config_file, home_file, runtime};

pub(super) fn run(files: &Files) -> anyhow::Result<Exit> {
    let (config, home) = (config_file(&files.config)?, home_file(&files.home)?);
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("failed to listen for SIGTERM")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
        });
        crate::run(config, home, Arc::new(SystemClock::new()), shutdown).await?;
        Ok(Exit::Ok)
    })
}
