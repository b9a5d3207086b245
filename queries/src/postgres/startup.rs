//! Signing in: TLS where it must be, SCRAM always; then the user's tables are opened.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::ScramAuth;
use datafusion_postgres::pgwire::api::auth::{DefaultServerParameterProvider, StartupHandler};
use datafusion_postgres::pgwire::api::{ClientInfo, METADATA_USER, PgWireConnectionState, RandomPidSecretKeyGenerator};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;

use super::guard::error;
use super::service::Session;
use super::users::Users;
use super::{Shared, audit};

/// A wrong password costs this much before it is told, on each connection.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Startup {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// Who may ask, as it was when the client came: password and areas are those of one reading.
    users: Arc<Users>,
    sasl: SASLAuthStartupHandler<DefaultServerParameterProvider>,
}

impl Startup {
    pub(super) fn new(shared: &Arc<Shared>, session: &Arc<Session>) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        let users = shared.users.now();
        let sasl = SASLAuthStartupHandler::new(Arc::new(parameters))
            .with_scram(ScramAuth::new(Arc::<Users>::clone(&users)))
            .with_pid_secret_key_generator(Arc::<RandomPidSecretKeyGenerator>::clone(&shared.numbers));
        Self { shared: Arc::clone(shared), session: Arc::clone(session), users, sasl }
    }
}

impl Startup {
    fn write_down(&self, client: &impl ClientInfo, sign_in: &str) {
        let user = client.metadata().get(METADATA_USER).map_or("", String::as_str);
        let (time, peer) = (self.shared.clock.now(), client.socket_addr().to_string());
        self.shared.audit.write_sign_in(&audit::SignIn { time, user: audit::cut(user), peer: &peer, sign_in });
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
        if answered && let Some(user) = client.metadata().get(METADATA_USER).and_then(|name| self.users.get(name)) {
            self.session.open(user.clone(), client.socket_addr()).await?;
        }
        let outcome = self.sasl.on_startup(client, message).await;
        if answered && let Err(refused) = &outcome {
            self.write_down(client, &format!("refused: {refused}"));
            tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
        }
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            self.write_down(client, "done");
            self.session.sign_in();
        }
        outcome
    }
}
