//! `run`: until told to stop. Changed files are taken up while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{Exit, Files, config_file, home_file, runtime};
use crate::home::HomeFile;
use crate::metrics;
use crate::run::{Outside, Reload};

/// How often the files are looked at. SIGHUP looks at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Give metrics for Prometheus here, on loopback only, e.g. 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

pub(super) fn run(arguments: Arguments, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    let Arguments { files, metrics } = arguments;
    // Before they are read: a change in between is then seen as one.
    let seen = changed([&files.config, &files.home]);
    let (config, home) = (config_file(&files.config)?, home_file(&files.home)?);
    let seen = with_profiles(&files, &seen, &home);
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        let hangup = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
        });
        let (said, hears) = watch::channel(metrics::Metrics::default());
        match metrics {
            Some(address) => drop(tokio::spawn(metrics::serve(metrics::listen(address).await?, hears))),
            None => drop(hears),
        }
        let (reloads_in, reloads) = mpsc::channel(1);
        tokio::spawn(look(files, seen, hangup, reloads_in));
        let outside = Outside { reloads, metrics: said };
        // A task of its own: to wake the future that the runtime was entered with takes a write to an event file each time.
        tokio::spawn(crate::run_with(config, home, clock, shutdown, outside))
            .await
            .context("the gateway panicked")??;
        Ok(Exit::Ok)
    })
}

/// When each file that a running gateway goes by was changed, and its length: two changes within the same tick of a coarse
/// file system still show.
type Changed = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

fn changed<'a>(watched: impl IntoIterator<Item = &'a PathBuf>) -> Changed {
    let of =
        |path: &PathBuf| std::fs::metadata(path).ok().and_then(|about| Some((about.modified().ok()?, about.len())));
    watched.into_iter().map(|path| (path.clone(), of(path))).collect()
}

/// Files that were as in `before` when they were read; those of profiles are known only afterwards.
fn with_profiles(files: &Files, before: &Changed, home: &HomeFile) -> Changed {
    let mut all = changed(&home.profile_files);
    for path in [&files.config, &files.home].into_iter().chain(&home.profile_files) {
        if let Some(known) = before.get(path) {
            all.insert(path.clone(), *known);
        }
    }
    all
}

/// Reads the files again whenever they have changed and stayed so for one look: an editor may be in the midst of writing.
async fn look(files: Files, mut used: Changed, mut hangup: tokio::signal::unix::Signal, reloads: mpsc::Sender<Reload>) {
    let mut last = used.clone();
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            asked = hangup.recv() => asked.is_some(),
        };
        let now = changed(used.keys());
        let is_settled = asked || now == last;
        last.clone_from(&now);
        if now == used && !asked || !is_settled {
            continue;
        }
        let read = config_file(&files.config).and_then(|config| Ok((config, home_file(&files.home)?)));
        used = match &read {
            Ok((_, home)) => with_profiles(&files, &now, home),
            Err(_) => now,
        };
        last.clone_from(&used);
        let reload = match read {
            Ok(read) => Reload::Read(Box::new(read)),
            Err(mistakes) => Reload::Refused(format!("{mistakes:#}")),
        };
        if reloads.send(reload).await.is_err() {
            return;
        }
    }
}
