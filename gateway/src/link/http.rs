//! Devices with a web server of their own: their pages are asked for, one after the other.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::documents::PAYLOAD_LENGTH_MAX;
use carebed_device_profiles::profile::Transport;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::Host;
use super::line::connect;
use super::{LinkEvent, Silence, told};
use crate::home::Board;
use crate::stamp::Sample;

/// How often a page is asked for, unless the profile says otherwise.
const EVERY: Duration = Duration::from_secs(2);
/// A device that does not answer is asked at most this often.
const FAILING_EVERY: Duration = Duration::from_secs(5);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum NoPage {
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("failed to ask")]
    Ask(#[source] hyper::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("failed to read the answer, or it is longer than {PAYLOAD_LENGTH_MAX} bytes")]
    Read,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// One page of one device.
struct Page {
    /// Index into the boards given.
    board: usize,
    /// Index into the profile's messages.
    message: usize,
    path: String,
    every: Duration,
    due: Instant,
}

/// Asks until nobody takes events any more.
pub(super) async fn run(
    host: Host,
    boards: &[(usize, Arc<Board>)],
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
) {
    let mut pages: Vec<Page> = Vec::new();
    for (at, (_, board)) in boards.iter().enumerate() {
        for (message, said) in board.profile.messages.iter().enumerate() {
            if let Transport::Page(path) = &said.transport {
                let every = board.every.or(said.every).unwrap_or(EVERY);
                pages.push(Page {
                    board: at,
                    message,
                    path: format!("/{}", path.trim_start_matches('/')),
                    every,
                    due: Instant::now(),
                });
            }
        }
    }
    let decoder = |(_, board): &(usize, Arc<Board>)| Decoder::at(Arc::clone(&board.profile), board.address.as_deref());
    let mut decoders: Vec<Decoder> = boards.iter().map(decoder).collect();
    let mut failed: Option<(u32, Instant)> = None;
    while let Some(page) = pages.iter_mut().min_by_key(|page| page.due) {
        sleep_until(page.due).await;
        let (Some((board, wired)), Some(decoder)) = (boards.get(page.board), decoders.get_mut(page.board)) else {
            return;
        };
        let limit = wired.timeout();
        let answer = match timeout(limit, get(&host, &page.path)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoPage::Timeout(limit)),
        };
        let now = Instant::now();
        let decoded = answer.map(|body| decoder.payload(page.message, &body, false));
        let result = match decoded {
            Ok(decoded) if !decoded.messages.is_empty() => {
                failed = None;
                Ok(decoded)
            }
            other => {
                let (cycles, since) = failed.unwrap_or((0, now));
                let why = match &other {
                    Ok(decoded) => format!("the page cannot be used: {:?}", decoded.rejects),
                    Err(error) => told(error),
                };
                if cycles == 0 {
                    tracing::debug!(device = %wired.id, why, "no page");
                }
                failed = Some((cycles.saturating_add(1), since));
                Err(Silence { cycles: cycles.saturating_add(1), lasted: now - since, why })
            }
        };
        // What was missed meanwhile is left out.
        let every = if result.is_ok() { page.every } else { page.every.max(FAILING_EVERY) };
        page.due = (page.due + every).max(now);
        let sample = Sample::take(&*clock);
        if events.send(LinkEvent::Heard { board: *board, sample, result }).await.is_err() {
            return;
        }
    }
}

/// One page, by a connection of its own: such devices close them anyway.
async fn get(host: &Host, path: &str) -> Result<Bytes, NoPage> {
    let stream = connect(host).await.map_err(NoPage::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(NoPage::Ask)?;
    let exchange = async {
        let request = Request::get(path)
            .header(header::HOST, host.0.as_str())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|_| NoPage::Read)?;
        let response = sender.send_request(request).await.map_err(NoPage::Ask)?;
        if !response.status().is_success() {
            return Err(NoPage::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), PAYLOAD_LENGTH_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|_| NoPage::Read)
    };
    tokio::pin!(exchange);
    tokio::select! {
        page = &mut exchange => page,
        // The connection may end before all of it is read; what was read stays readable.
        _ended = connection => exchange.await,
    }
}
