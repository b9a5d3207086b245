//! One client's socket: what it may send before it has signed in, how large a message may be, and what it is told when it is one
//! too many.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo as _, ClientPortalStore as _, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::server::{MaybeTls, negotiate_tls, process_error, process_message};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, FramedParts};

use super::Shared;
use super::guard::TOO_MUCH;
use super::prepared::{Prepared, Step};
use super::service::Connection;

/// How long signing in may take.
const SIGNING_IN: Duration = Duration::from_secs(30);
/// Longest message taken, of anyone; a client that sends a longer one is told so and is gone.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// `too_many_connections`
const TOO_MANY: &str = "53300";

/// Serves one client until it leaves.
pub(super) async fn serve(socket: TcpStream, tls: Option<TlsAcceptor>, shared: &Arc<Shared>) -> io::Result<()> {
    let signing_in = tokio::time::sleep(SIGNING_IN);
    tokio::pin!(signing_in);
    let negotiated = tokio::select! {
        () = &mut signing_in => return Ok(()),
        negotiated = negotiate_tls(socket, tls) => negotiated?,
    };
    // None: it began with TLS where there is none.
    let Some(negotiated) = negotiated else { return Ok(()) };
    let FramedParts { io, codec, read_buf, write_buf, .. } = negotiated.into_parts();
    let mut measured = Measured { io, measure: Measure::default() };
    let begun = measured.measure.take(&read_buf);
    let mut parts = FramedParts::new::<datafusion_postgres::pgwire::messages::PgWireBackendMessage>(measured, codec);
    (parts.read_buf, parts.write_buf) = (read_buf, write_buf);
    let mut socket = Framed::from_parts(parts);
    if let Err(error) = begun {
        return process_error(&mut socket, last_word(error.into(), TOO_MUCH), false).await;
    }

    let connection = Connection::new(shared);
    let (mut place, mut prepared) = (None, Prepared::default());
    loop {
        let is_signing_in = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let message = tokio::select! {
            () = &mut signing_in, if is_signing_in => return Ok(()),
            message = socket.next() => message,
        };
        let message = match message {
            Some(Ok(PgWireFrontendMessage::Terminate(_))) | None => return Ok(()),
            Some(Ok(message)) => bounded(message, shared.config.rows_max),
            Some(Err(error)) => return process_error(&mut socket, last_word(error, TOO_MUCH), false).await,
        };
        // Who only wants a statement of another connection to end needs no place.
        if place.is_none() && !matches!(message, PgWireFrontendMessage::CancelRequest(_)) {
            place = Arc::clone(&shared.room).try_acquire_owned().ok();
            if place.is_none() {
                let max = shared.config.connections_max;
                tracing::warn!(peer = %socket.socket_addr(), max, "a SQL connection was turned away: too many");
                let told = format!("all {max} connections are taken: try again later, or close one that is not used");
                return process_error(&mut socket, last_word(io::Error::other(told).into(), TOO_MANY), false).await;
            }
        }
        let is_extended = message.is_extended_query();
        let Connection { session, startup, cancel } = &connection;
        let (simple, extended) = (Arc::clone(session), Arc::clone(session));
        let (startup, no_copy, cancel) = (Arc::clone(startup), Arc::new(NoopHandler), Arc::clone(cancel));
        // After an error, everything up to the next Sync is passed over.
        let is_passed_over = matches!(socket.state(), PgWireConnectionState::AwaitingSync) && !is_sync(&message);
        let step = if is_passed_over { Step::Nothing } else { prepared.step(&message) };
        let done = match prepared.check(&step) {
            Ok(()) => process_message(message, &mut socket, startup, simple, extended, no_copy, cancel).await,
            Err(full) => Err(full),
        };
        match done {
            Ok(()) => {
                let is_in_transaction = !matches!(socket.transaction_status(), TransactionStatus::Idle);
                prepared.done(step, is_in_transaction, socket.portal_store());
            }
            // Whoever could not sign in holds no place any longer.
            Err(error) if is_signing_in => return process_error(&mut socket, last_word(error, "28000"), false).await,
            Err(error) => process_error(&mut socket, error, is_extended).await?,
        }
    }
}

fn is_sync(message: &PgWireFrontendMessage) -> bool {
    matches!(message, PgWireFrontendMessage::Sync(_))
}

/// The same message; of one that asks for rows of a portal, so many at once as an answer may have. pgwire 0.42 makes room for as
/// many as are asked for before there is one: for 2^31 the process would end, for fewer than none the connection.
fn bounded(message: PgWireFrontendMessage, rows_max: usize) -> PgWireFrontendMessage {
    match message {
        PgWireFrontendMessage::Execute(mut execute) => {
            // One more, so that the bound is told and not taken for the end of the portal.
            let most = i32::try_from(rows_max.saturating_add(1)).unwrap_or(i32::MAX).min(1 << 20);
            execute.max_rows = execute.max_rows.clamp(0, most);
            PgWireFrontendMessage::Execute(execute)
        }
        other => other,
    }
}

/// An error after which the connection is closed. One of the socket bears a code of its own.
fn last_word(error: PgWireError, code: &str) -> PgWireError {
    let is_of_socket = matches!(error, PgWireError::IoError(_));
    let mut info = ErrorInfo::from(error);
    "FATAL".clone_into(&mut info.severity);
    if is_of_socket {
        code.clone_into(&mut info.code);
    }
    PgWireError::UserError(Box::new(info))
}

/// A stream whose messages are measured before anything is kept of them.
struct Measured {
    io: MaybeTls,
    measure: Measure,
}

/// Where in the stream of messages it is.
#[derive(Debug, Default)]
struct Measure {
    /// The first message has no kind before its length.
    has_begun: bool,
    head: Vec<u8>,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Measure {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            let kind = usize::from(self.has_begun);
            let Some(&[a, b, c, d]) = self.head.get(kind..) else { continue };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if length > MESSAGE_BYTES_MAX {
                let told = format!("a message of {length} bytes is not taken: {MESSAGE_BYTES_MAX} are the most");
                return Err(io::Error::new(io::ErrorKind::InvalidData, told));
            }
            self.left = length.saturating_sub(4);
            self.has_begun = true;
            self.head.clear();
        }
        Ok(())
    }
}

impl AsyncRead for Measured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        Poll::Ready(self.measure.take(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Measured {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A startup message of `first` bytes and a query of `second`, in pieces.
    fn is_taken(first: u32, second: u32, piece: usize) -> bool {
        let mut stream = first.to_be_bytes().to_vec();
        stream.resize(first as usize, 0);
        stream.push(b'Q');
        stream.extend(second.to_be_bytes());
        // Only as much as shows whether the rest would be waited for.
        stream.resize(stream.len() + (second as usize).min(100).saturating_sub(4), b'Q');
        let mut measure = Measure::default();
        stream.chunks(piece).all(|piece| measure.take(piece).is_ok())
    }

    #[test]
    fn a_message_that_is_too_long_is_known_by_its_head() {
        let max = u32::try_from(MESSAGE_BYTES_MAX).unwrap();
        for piece in [1, 3, 4, 7, 4_096] {
            assert!(is_taken(8, 100, piece) && is_taken(80, max, piece), "{piece}");
            assert!(!is_taken(8, max + 1, piece) && !is_taken(80, u32::MAX, piece), "{piece}");
            // Heads of no length do not stop it.
            assert!(is_taken(8, 0, piece), "{piece}");
        }
        assert!(Measure::default().take(&u32::MAX.to_be_bytes()).is_err());
    }
}
