//! Signing in: TLS where it must be, SCRAM always; then the user's tables are opened.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::ScramAuth;
use datafusion_postgres::pgwire::api::auth::{DefaultServerParameterProvider, StartupHandler};
use datafusion_postgres::pgwire::api::{ClientInfo, METADATA_USER, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;

use super::Shared;
use super::guard::error;
use super::service::Session;

/// A wrong password costs this much before it is told, on each connection.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Startup {
    shared: Arc<Shared>,
    session: Arc<Session>,
    sasl: SASLAuthStartupHandler<DefaultServerParameterProvider>,
}

impl Startup {
    pub(super) fn new(shared: &Arc<Shared>, session: &Arc<Session>) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        let sasl = SASLAuthStartupHandler::new(Arc::new(parameters))
            .with_scram(ScramAuth::new(Arc::new(shared.users.clone())))
            .with_connection_manager(Arc::clone(&shared.connections));
        Self { shared: Arc::clone(shared), session: Arc::clone(session), sasl }
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.shared.config.tls.is_some() && !client.is_secure() {
            return Err(error(
                "28000",
                "this server takes connections under TLS only: use sslmode=require or verify-full",
            ));
        }
        let answered = matches!(message, PgWireFrontendMessage::PasswordMessageFamily(_));
        // The tables are opened before the client is told that it is signed in, so that its first statement finds them.
        if answered
            && let Some(user) = client.metadata().get(METADATA_USER).and_then(|name| self.shared.users.get(name))
        {
            self.session.open(user.clone(), client.socket_addr()).await?;
        }
        let outcome = self.sasl.on_startup(client, message).await;
        if answered && outcome.is_err() {
            tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
        }
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            self.session.sign_in();
        }
        outcome
    }
}
