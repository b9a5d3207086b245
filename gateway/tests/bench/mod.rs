//! The links of a home without the rest of the gateway: what they tell, as rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::time::Timestamp;
use carebed_gateway::config::Broker;
use carebed_gateway::device::{Device, Heard};
use carebed_gateway::home::HomeFile;
use carebed_gateway::link::{LinkEvent, Links, LocalBroker, NotConfirmed};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long a test waits for anything before it fails: longer than a broker may be dead before that is told.
const PATIENCE: Duration = Duration::from_secs(20);

/// The links of a home, and what they tell.
pub(crate) struct Bench {
    pub(crate) links: Links,
    devices: Vec<Device>,
    events: mpsc::Receiver<LinkEvent>,
    stop: Shutdown,
}

/// What was told: `device quantity value quality`, and when.
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) at: Instant,
}

pub(crate) fn home(devices: &str) -> HomeFile {
    let text = format!(
        "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"g1\"\n[[room]]\nid = \"bedroom\"\n\
         [[bed]]\nid = \"b1\"\nroom = \"bedroom\"\n{devices}"
    );
    HomeFile::parse("home.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

impl Bench {
    pub(crate) fn start(devices: &str, broker: &LocalBroker) -> Self {
        let home = home(devices);
        let (sender, events) = mpsc::channel(256);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let stop = Shutdown::new();
        let boards: Vec<_> = home.boards.iter().cloned().map(Arc::new).collect();
        let links = Links::start(&boards, broker, &sender, &clock, &stop);
        let device = |board: &Arc<_>| Device::new(&home.home, Arc::clone(board), None, Timestamp::from_millis(0));
        Self { links, devices: boards.iter().map(device).collect(), events, stop }
    }

    /// The next rows that are told.
    pub(crate) async fn next(&mut self) -> Vec<Row> {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("an event in time").unwrap();
            let told = match event {
                LinkEvent::Polled { board, poll, sample, result, .. } => match &result {
                    Ok(data) => self.devices[board].hear(Heard::Answer { poll, data }, sample),
                    Err(silence) => self.devices[board].hear(silence.into(), sample),
                },
                LinkEvent::Heard { board, sample, result } => match &result {
                    Ok(decoded) => self.devices[board].hear(Heard::Said(decoded), sample),
                    Err(silence) => self.devices[board].hear(silence.into(), sample),
                },
                LinkEvent::Trouble(what) => return vec![Row { text: what, at: Instant::now() }],
                LinkEvent::Written { id, result, .. } => {
                    let text = result.map_or_else(|why| missed(&id, &why), |()| format!("{id} done"));
                    return vec![Row { text, at: Instant::now() }];
                }
                LinkEvent::NotShown { why, .. } => {
                    return vec![Row { text: missed("", &why), at: Instant::now() }];
                }
            };
            let row = |told: carebed_gateway::device::Told| {
                let observed = told.observed;
                let value = observed.value.number().map_or("-".to_owned(), |number| number.to_string());
                let series = &observed.series;
                let text = format!("{} {} {value} {}", series.device, series.quantity, observed.quality);
                Row { text, at: Instant::now() }
            };
            let rows: Vec<Row> = told.into_iter().map(row).collect();
            if !rows.is_empty() {
                return rows;
            }
        }
    }

    /// Waits until each of these was told, in any order; returns when the last was.
    pub(crate) async fn hears(&mut self, expected: &[&str]) -> Instant {
        let mut missing: Vec<&str> = expected.to_vec();
        let mut told = Vec::new();
        let all = async {
            loop {
                for row in self.next().await {
                    missing.retain(|expected| *expected != row.text);
                    told.push(row.text);
                    if missing.is_empty() {
                        return row.at;
                    }
                }
            }
        };
        let done = timeout(PATIENCE, all).await;
        done.unwrap_or_else(|_| panic!("{missing:?} was not told, but {told:?}"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn no_broker() -> LocalBroker {
    LocalBroker::At(Broker::plain("127.0.0.1", 1))
}

pub(crate) fn board_on(link: &str, unit: u8) -> String {
    format!(
        "[[device]]\nid = \"board-{unit}\"\nprofile = \"waveshare/modbus-di8\"\nlink = \"{link}\"\nunit = {unit}\nevery = \"100ms\"\n\
         [device.inputs.1]\ndevice = \"call-{unit}\"\nquantity = \"call_button\"\nbed = \"b1\"\n\
         [device.outputs.1]\ndevice = \"lamp-{unit}\"\nroom = \"bedroom\"\n"
    )
}

pub(crate) fn climate_on(link: &str, unit: u8) -> String {
    format!(
        "[[device]]\nid = \"climate-{unit}\"\nprofile = \"xy/md02\"\nlink = \"{link}\"\nunit = {unit}\nevery = \"200ms\"\n{}",
        climate_inputs()
    )
}

fn climate_inputs() -> String {
    let profile = carebed_device_profiles::shipped::find("xy/md02").unwrap();
    let input = |input: &carebed_device_profiles::profile::Input| {
        format!("[device.inputs.{}]\nroom = \"bedroom\"\n", input.name)
    };
    profile.inputs.iter().map(input).collect()
}

pub(crate) fn serial(path: &Path) -> String {
    format!("serial:{}", path.display())
}

fn missed(id: &str, why: &NotConfirmed) -> String {
    match why {
        NotConfirmed::Failed(why) => format!("{id} failed: {why}"),
        NotConfirmed::Sent(why) => format!("{id} sent: {why}"),
    }
}
