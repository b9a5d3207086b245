//! How the gateway is, for Prometheus: a page of text on loopback.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use carebed_contract::id::DeviceId;
use carebed_contract::status::{DeviceStatus, Health};
use carebed_contract::time::{ClockQuality, Timestamp};
#[cfg(doc)]
use carebed_device_profiles::reject::Reject;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::link::Tally;

/// Readers served at once; more wait to be accepted.
const READERS_MAX: usize = 4;
/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request that are looked at; nothing in it matters.
const REQUEST_MAX: usize = 4096;

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Not loopback.
    #[error("metrics have no access control: they are given on loopback only, not on {0}; write 127.0.0.1:9464")]
    OffLoopback(SocketAddr),
    /// The port is taken.
    #[error("failed to listen on {0} for metrics")]
    Listen(SocketAddr, #[source] io::Error),
}

/// What is told.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Observations taken since the start, by lane: urgent, routine.
    pub observations: [u64; 2],
    /// What came of asking and listening, by device.
    pub counts: BTreeMap<DeviceId, DeviceCounts>,
    /// Batches and bytes in the spool.
    pub spool: (u64, u64),
    /// Whether there is a connection to the broker.
    pub is_connected: bool,
    /// How far the clock can be trusted.
    pub clock: ClockQuality,
    /// Up to when everything is known and in batches.
    pub complete_to: Option<Timestamp>,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// Now, by the machine's clock.
    pub now: Option<Timestamp>,
}

/// What came of asking and listening to one device, since the start.
#[derive(Debug, Clone, Default)]
pub struct DeviceCounts {
    /// Where it is reached.
    pub link: String,
    /// Of polled devices: requests by what came of them.
    pub asked: Tally,
    /// Of devices that speak by themselves, or answer in messages of their own: times something was heard.
    pub heard: u64,
    /// Frames and payloads of such devices that were not used, by [`Reject::word`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Whether it has failed for so long that it is only probed.
    pub is_given_up: bool,
}

impl Metrics {
    /// The counts of a device; they begin at 0.
    pub fn of(&mut self, device: &DeviceId, link: impl FnOnce() -> String) -> &mut DeviceCounts {
        self.counts.entry(device.clone()).or_insert_with(|| DeviceCounts { link: link(), ..DeviceCounts::default() })
    }

    /// Forgets devices that are no longer there where they were: id and link of those that are.
    pub fn keep_only(&mut self, devices: &BTreeMap<&DeviceId, String>) {
        self.counts.retain(|device, counts| devices.get(device) == Some(&counts.link));
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut tell = |name: &str, kind: &str, help: &str, rows: &[(String, f64)]| {
            let _never = writeln!(page, "# HELP carebed_gateway_{name} {help}\n# TYPE carebed_gateway_{name} {kind}");
            for (labels, value) in rows {
                let _never = writeln!(page, "carebed_gateway_{name}{labels} {value}");
            }
        };
        let [urgent, routine] = self.observations.map(as_f64);
        let lanes = [("{lane=\"urgent\"}".to_owned(), urgent), ("{lane=\"routine\"}".to_owned(), routine)];
        tell("observations_total", "counter", "Observations taken from devices.", &lanes);
        let of_each = |count: fn(&DeviceCounts) -> f64| {
            let row = |(device, counts)| (format!("{{device=\"{device}\"}}"), count(counts));
            self.counts.iter().map(row).collect::<Vec<_>>()
        };
        let outcomes = |(device, counts): (&DeviceId, &DeviceCounts)| {
            let Tally { answered, refused, timed_out, damaged, unreached, drained: _ } = counts.asked;
            let rows = [
                ("answered", answered),
                ("refused", refused),
                ("timed_out", timed_out),
                ("damaged", damaged),
                ("unreached", unreached),
            ];
            rows.map(|(outcome, count)| (format!("{{device=\"{device}\",outcome=\"{outcome}\"}}"), as_f64(count)))
        };
        let polls: Vec<_> = self.counts.iter().flat_map(outcomes).collect();
        tell(
            "polls_total",
            "counter",
            "Requests to polled devices, each attempt; damaged: a wrong checksum, noise, or a frame of others.",
            &polls,
        );
        tell(
            "heard_total",
            "counter",
            "Times a device that speaks by itself was understood.",
            &of_each(|c| as_f64(c.heard)),
        );
        let refused = |(device, counts): (&DeviceId, &DeviceCounts)| {
            let row = |(word, n): (&&str, &u64)| (format!("{{device=\"{device}\",reason=\"{word}\"}}"), as_f64(*n));
            counts.refused.iter().map(row).collect::<Vec<_>>()
        };
        let refused: Vec<_> = self.counts.iter().flat_map(refused).collect();
        let help = "Frames and payloads of such devices that were not used; checksum: damaged on the way.";
        tell("refused_total", "counter", help, &refused);
        let help = "1 while a device has failed for so long that it is only probed.";
        tell("circuit_open", "gauge", help, &of_each(|c| f64::from(c.is_given_up)));
        let mut drained: BTreeMap<&str, u64> = BTreeMap::new();
        for counts in self.counts.values() {
            *drained.entry(&counts.link).or_default() += counts.asked.drained;
        }
        let drained: Vec<_> = drained.into_iter().map(|(link, n)| (format!("{{link={link:?}}}"), as_f64(n))).collect();
        let help = "Bytes that no request waited for: late answers, other masters, noise.";
        tell("drained_bytes_total", "counter", help, &drained);
        let one = |value: f64| [(String::new(), value)];
        tell("spool_batches", "gauge", "Batches that the centre does not have yet.", &one(as_f64(self.spool.0)));
        tell("spool_bytes", "gauge", "Bytes of the spool.", &one(as_f64(self.spool.1)));
        tell("connected", "gauge", "1 while there is a connection to the broker.", &one(f64::from(self.is_connected)));
        let clock =
            |quality: ClockQuality| (format!("{{quality=\"{}\"}}", quality.as_str()), f64::from(quality == self.clock));
        let clocks = [ClockQuality::Synchronised, ClockQuality::Corrected, ClockQuality::Unsynchronised].map(clock);
        tell("clock", "gauge", "How far the clock can be trusted.", &clocks);
        if let Some(complete_to) = self.complete_to {
            tell(
                "complete_to_seconds",
                "gauge",
                "Up to when everything is known, unix time.",
                &one(seconds(complete_to)),
            );
        }
        let live = |d: &DeviceStatus| (format!("{{device=\"{}\"}}", d.device), f64::from(d.health == Health::Live));
        let live: Vec<_> = self.devices.iter().map(live).collect();
        tell("device_live", "gauge", "1 while a device answers.", &live);
        let age = |d: &DeviceStatus| {
            let age = self.now?.since(d.last_good?);
            Some((format!("{{device=\"{}\"}}", d.device), age.as_secs_f64()))
        };
        let ages: Vec<_> = self.devices.iter().filter_map(age).collect();
        tell("device_last_good_age_seconds", "gauge", "Since a device last gave a good value.", &ages);
        page
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers; counts stay far below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this century need 41 bits")]
fn seconds(time: Timestamp) -> f64 {
    time.millis() as f64 / 1000.0
}

/// Listens, on loopback only.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    if !address.ip().is_loopback() {
        return Err(MetricsError::OffLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| MetricsError::Listen(address, source))
}

/// Answers every request with the page, until dropped.
pub async fn serve(listener: TcpListener, metrics: watch::Receiver<Metrics>) {
    let readers = std::sync::Arc::new(Semaphore::new(READERS_MAX));
    loop {
        let Ok(place) = std::sync::Arc::clone(&readers).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file handles, perhaps: a moment later there may be some.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let page = metrics.borrow().page();
        tokio::spawn(async move {
            let _slow_or_gone = tokio::time::timeout(PATIENCE, answer(stream, page)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, page: String) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let length = page.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_is_given_on_loopback_only() {
        let far = listen("192.0.2.1:9464".parse().unwrap()).await.unwrap_err();
        assert!(far.to_string().contains("loopback only"), "{far}");
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let device = DeviceStatus {
            device: "board-1".parse().unwrap(),
            health: Health::Live,
            since: Timestamp::from_millis(0),
            last_good: Some(Timestamp::from_millis(1_000)),
        };
        let metrics = Metrics {
            observations: [1, 41],
            is_connected: true,
            devices: vec![device],
            now: Some(Timestamp::from_millis(3_500)),
            ..Metrics::default()
        };
        let (_sender, receiver) = watch::channel(metrics);
        let serving = tokio::spawn(serve(listener, receiver));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        for line in [
            "HTTP/1.1 200 OK",
            "carebed_gateway_observations_total{lane=\"routine\"} 41",
            "carebed_gateway_connected 1",
            "carebed_gateway_clock{quality=\"synchronised\"} 1",
            "carebed_gateway_device_last_good_age_seconds{device=\"board-1\"} 2.5",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
        serving.abort();
    }
}
