//! Statements that their clients may end: Ctrl-C in psql is a connection of its own that brings a number and a secret.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use carebed_contract::Shutdown;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::SecretKey;

/// The connections with statements under way, by their number.
#[derive(Debug, Default)]
pub(super) struct Stops(Mutex<HashMap<i32, Busy>>);

#[derive(Debug)]
struct Busy {
    secret: SecretKey,
    /// Ends all of its statements: one runs, others wait to be asked for more of their rows. PostgreSQL ends those with the
    /// transaction.
    stop: Shutdown,
    n_statements: usize,
}

/// A statement under way, from its first wait to its last row.
#[derive(Debug)]
pub(super) struct Stop {
    stops: Arc<Stops>,
    connection: i32,
    asked: Shutdown,
}

impl Stops {
    /// A statement begins. It is under way until this is dropped.
    pub(super) fn begin(self: &Arc<Self>, (connection, secret): (i32, SecretKey)) -> Stop {
        let mut busy = self.lock();
        let busy = busy.entry(connection).or_insert_with(|| Busy { secret, stop: Shutdown::new(), n_statements: 0 });
        busy.n_statements += 1;
        Stop { stops: Arc::clone(self), connection, asked: busy.stop.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stop {
    /// Cancelled when the client wants the statement to end.
    pub(super) fn asked(&self) -> &Shutdown {
        &self.asked
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let mut busy = self.stops.lock();
        if let Some(of_connection) = busy.get_mut(&self.connection) {
            of_connection.n_statements -= 1;
            if of_connection.n_statements == 0 {
                busy.remove(&self.connection);
            }
        }
    }
}

#[async_trait]
impl CancelHandler for Stops {
    async fn on_cancel_request(&self, asked: CancelRequest) {
        if let Some(busy) = self.lock().get_mut(&asked.pid)
            && busy.secret.eq_value(&asked.secret_key)
        {
            // What begins after it is not meant.
            mem::take(&mut busy.stop).cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn cancel(stops: &Stops, pid: i32, secret_key: SecretKey) {
        stops.on_cancel_request(CancelRequest::new(pid, secret_key)).await;
    }

    #[tokio::test]
    async fn whoever_knows_the_secret_ends_what_is_under_way_and_nothing_later() {
        let stops = Arc::new(Stops::default());
        let secret = || SecretKey::I32(7);
        let waiting = stops.begin((1, secret()));
        let ended = stops.begin((1, secret()));
        let other = stops.begin((2, SecretKey::I32(8)));
        drop(ended);
        cancel(&stops, 1, SecretKey::I32(8)).await;
        assert!(!waiting.asked().is_cancelled());
        cancel(&stops, 1, secret()).await;
        assert!(waiting.asked().is_cancelled() && !other.asked().is_cancelled());

        let next = stops.begin((1, secret()));
        assert!(!next.asked().is_cancelled());
        drop(waiting);
        cancel(&stops, 1, secret()).await;
        assert!(next.asked().is_cancelled());
        drop((next, other));
        assert!(stops.lock().is_empty());
    }
}
