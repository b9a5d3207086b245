//! Statements that their clients may end: Ctrl-C in psql is a connection of its own that brings a number and a secret.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use carebed_contract::Shutdown;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::SecretKey;

/// What runs, by the number of its connection: one statement each.
#[derive(Debug, Default)]
pub(super) struct Stops(Mutex<HashMap<i32, (SecretKey, Shutdown)>>);

impl Stops {
    /// A statement begins; it is to end when this is cancelled.
    pub(super) fn begin(&self, (connection, secret): (i32, SecretKey)) -> Shutdown {
        let stop = Shutdown::new();
        self.lock().insert(connection, (secret, stop.clone()));
        stop
    }

    /// It has ended.
    pub(super) fn end(&self, connection: i32) {
        self.lock().remove(&connection);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, (SecretKey, Shutdown)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CancelHandler for Stops {
    async fn on_cancel_request(&self, asked: CancelRequest) {
        if let Some((secret, stop)) = self.lock().get(&asked.pid)
            && secret.eq_value(&asked.secret_key)
        {
            stop.cancel();
        }
    }
}
