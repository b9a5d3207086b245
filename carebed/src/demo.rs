//! `carebed demo`: the whole system in front of your eyes.
//!
//! Simulated residents on real Modbus TCP boards, the first of them also with a bed radar, a serial bus and Zigbee
//! devices; a real gateway for each, a real broker (a child process) and the whole centre, all on one fast clock that
//! starts in the evening ([`ScaledClock`]). One resident calls for help, another leaves the bed at night and does not
//! come back; nothing else about it is arranged.

mod devices;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_alerts::transition::Change;
use carebed_console::desk::{Desk, Told};
use carebed_console::registry::{Bed, Home, Person, Registry};
use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, ScaledClock};
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use carebed_gateway::config::{Broker, Config as GatewayConfig};
use carebed_gateway::home::HomeFile;
use carebed_simulator::home::{Hold, SimulatedHome, SimulatedHomeConfig};
use chrono::{Duration as Days, TimeZone as _};
use tokio::task::JoinSet;

use self::devices::Devices;
use crate::broker::EmbeddedBroker;
use crate::centre::Centre;
use crate::cli::{DemoArguments, complain, say};
use crate::config::Config;
use crate::exit::Exit;
use crate::serve::{cancel_on_signal, program};

/// Local time at which the demo's evening starts: people are about to go to bed.
const EVENING: (u32, u32) = (21, 40);
/// Product time from the start until the resident of the first home calls.
const CALL_AFTER: Duration = Duration::from_secs(15 * 60);
/// Product time from the start until the resident of the second home gets up for good: 22:12, so the exit is at night.
const LEAVE_BED_AFTER: Duration = Duration::from_secs(32 * 60);
/// Detections whose alerts a whole demo shows.
const EXPECTED: [&str; 2] = ["call_for_help", "bed_exit_no_return"];
/// The area the demo's homes are enrolled in (Zhanggong district of Ganzhou, GB/T 2260).
const AREA: &str = "360702";

/// One simulated household.
struct Household {
    number: usize,
    name: &'static str,
    person: &'static str,
}

const HOUSEHOLDS: [Household; 3] = [
    Household { number: 1, name: "演示一户", person: "王奶奶（模拟）" },
    Household { number: 2, name: "演示二户", person: "李爷爷（模拟）" },
    Household { number: 3, name: "演示三户", person: "陈奶奶（模拟）" },
];

/// Runs the demo until Ctrl-C, or for as long as it was told.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<Exit> {
    // Gateways find their buses by it, from wherever.
    let data = arguments.data.as_ref().map(std::path::absolute).transpose().context("the folder cannot be named")?;
    let temporary = Temporary::new(data)?;
    let data = temporary.path();
    if data.join("centre").exists() {
        bail!("{} holds an earlier demo, and its evening would begin again: name another folder", data.display());
    }
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(evening()?, arguments.speed));
    let shutdown = Shutdown::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));

    let broker = EmbeddedBroker::start(&program()?, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let mut config = Config::at(data.join("centre"));
    config.console.listen = arguments.listen;
    // On a fast clock two real seconds would be two minutes of the residents' evening.
    config.detection.every = Duration::from_secs(u64::from(arguments.speed).div_ceil(2).max(2));
    config.ingest.commit_every = Duration::from_secs(u64::from(arguments.speed).max(2));
    let opening = Centre::open(&config, broker.address().to_string(), Arc::clone(&clock), arguments.speed);
    let centre = tokio::select! {
        opened = opening => opened.context("the demo's centre did not open; with --listen 127.0.0.1:0 it takes any free port")?,
        // Planning all detections takes a while in a build without optimisation.
        () = shutdown.cancelled() => return Ok(Exit::Done),
    };
    register(centre.registry(), clock.now()).await?;

    say("carebed demo · 家庭养老床位演示");
    say(&format!("  page / 页面       http://{}/   (English: http://{}/?lang=en)", centre.address(), centre.address()));
    say(&format!(
        "  clock / 时钟      {} 开始，{speed} 倍速 · starts there, {speed} times as fast as life",
        local(clock.now()),
        speed = arguments.speed
    ));
    say(&format!("  data / 数据       {}", config.data.display()));
    say("  Ctrl-C ends it    按 Ctrl-C 结束");

    let mut homes = Vec::new();
    let mut gateways = JoinSet::new();
    for household in &HOUSEHOLDS {
        let seed = arguments.seed.wrapping_add(household.number as u64);
        let id = HomeId::new(home_name(household.number))?;
        let home = SimulatedHome::start(SimulatedHomeConfig::new(id, seed, Arc::clone(&clock))).await?;
        let mut text = home_file(household.number, home.addr());
        let devices = if household.number == 1 {
            let devices = Devices::start(data, &home, arguments.speed, seed)?;
            text.push_str(&devices.home_file(&home_name(household.number)));
            Some(devices)
        } else {
            None
        };
        let file = HomeFile::parse("demo", &text)
            .map_err(|mistakes| anyhow::anyhow!("{:?}", miette::Report::new(mistakes)))?;
        let (host, port) = (broker.address().ip().to_string(), broker.address().port());
        let mut gateway =
            GatewayConfig::new(Broker::plain(host, port), data.join(format!("spool-{}", household.number)));
        if let Some(devices) = devices {
            gateway.devices_broker = devices.broker.clone();
            tokio::spawn(devices.follow(home.changes(), Arc::clone(&clock), shutdown.clone()));
        }
        gateways.spawn(carebed_gateway::run(gateway, file, Arc::clone(&clock), shutdown.clone()));
        homes.push(home);
    }

    let desk = centre.desk();
    let running = tokio::spawn(centre.run(shutdown.clone()));
    let watching = tokio::spawn(watch(desk, Arc::clone(&clock), shutdown.clone()));
    let playing = tokio::spawn(play(homes, Arc::clone(&clock), shutdown.clone()));

    tokio::select! {
        () = shutdown.cancelled() => say("stopping · 正在停止"),
        () = wire_time(arguments.length) => shutdown.cancel(),
        Some(ended) = gateways.join_next() => {
            shutdown.cancel();
            ended?.context("a gateway stopped")?;
        }
    }
    while let Some(ended) = gateways.join_next().await {
        ended?.context("a gateway stopped badly")?;
    }
    playing.await?;
    running.await?.context("the centre stopped badly")?;
    let seen = watching.await?;

    let missed: Vec<&str> = EXPECTED.into_iter().filter(|d| !seen.contains_key(*d)).collect();
    if arguments.length.is_some() && !missed.is_empty() {
        complain(&format!("error: these alerts did not come: {}", missed.join(", ")));
        return Ok(Exit::Missed);
    }
    Ok(Exit::Done)
}

/// Real time until the demo ends by itself; for ever when it was not told.
async fn wire_time(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

/// Says each alert and step on the terminal. Returns how many alerts each detection raised.
async fn watch(desk: Desk, clock: Arc<dyn Clock>, shutdown: Shutdown) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let Ok(mut subscription) = desk.subscribe(None).await else { return seen };
    loop {
        let told = tokio::select! {
            told = subscription.live.recv() => told,
            () = shutdown.cancelled() => return seen,
        };
        match told {
            Ok(told) => {
                if matches!(told.transition.change, Change::Raised(_)) {
                    *seen.entry(told.alert.detection.clone()).or_default() += 1;
                }
                if let Some(line) = line(&told, clock.now()) {
                    say(&line);
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return seen,
        }
    }
}

/// What a step is on the terminal; none for those that say nothing new, such as reminders every few real seconds.
fn line(told: &Told, now: Timestamp) -> Option<String> {
    let Told { transition, alert } = told;
    let step = match &transition.change {
        Change::Raised { .. } => {
            format!("新告警 new alert\n         {}\n         {}", alert.sentence.zh, alert.sentence.en)
        }
        Change::Cleared { .. } => "触发信号已消失 no longer detected".to_owned(),
        Change::Repeated { .. } => "再次发生 again".to_owned(),
        Change::Escalated { to } => format!("无人确认，升级为 not acknowledged, escalated to {}", to.as_str()),
        Change::Acknowledged { by } => format!("{by} 已确认 acknowledged"),
        other => other.leads_to().map(|state| format!("{} {}", state.text().zh, state.text().en))?,
    };
    let (priority, title) = (alert.priority.as_str(), &alert.title);
    Some(format!("{} {priority} {} {} · {}: {step}", local(now), alert.home, title.zh, title.en))
}

/// Tells the residents what to do, and says what becomes of their lamps.
async fn play(homes: Vec<SimulatedHome>, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    let [caller, leaver, ..] = homes.as_slice() else { return };
    let script = async {
        clock.sleep(CALL_AFTER).await;
        say(&format!("{} home-1 按下紧急呼叫 presses the call button", local(clock.now())));
        caller.press(Hold::UntilPolled);
        clock.sleep(LEAVE_BED_AFTER - CALL_AFTER).await;
        say(&format!("{} home-2 离床 leaves the bed and stays out", local(clock.now())));
        leaver.stay_out();
        std::future::pending::<()>().await;
    };
    let lamps = homes.iter().enumerate().map(|(index, home)| {
        let mut coils = home.coils();
        let clock = Arc::clone(&clock);
        async move {
            while coils.changed().await.is_ok() {
                let on = coils.borrow_and_update().first().copied().unwrap_or_default();
                let state = if on { "亮 on: help has seen the call" } else { "灭 off" };
                say(&format!("{} home-{} 指示灯 lamp {state}", local(clock.now()), index + 1));
            }
        }
    });
    tokio::select! {
        () = script => {}
        _ = futures::future::join_all(lamps) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn register(registry: &Registry, now: Timestamp) -> anyhow::Result<()> {
    let area = Area::new(AREA)?;
    registry.put_area(area.clone(), Text::new("章贡区（演示）", "Zhanggong (demo)")).await?;
    for household in &HOUSEHOLDS {
        let name = home_name(household.number);
        let person =
            Person { name: household.person.to_owned(), phone: String::new(), address: household.name.to_owned() };
        registry
            .put_home(
                Home {
                    id: HomeId::new(&name)?,
                    area: area.clone(),
                    gateway: Some(GatewayId::new(format!("gw-{name}"))?),
                    name: household.name.to_owned(),
                    time_zone: carebed_console::registry::TIME_ZONE,
                    residents: 1,
                    lamp: Some(DeviceId::new(format!("{name}-lamp"))?),
                    beds: vec![Bed {
                        id: BedId::new(format!("{name}-bed"))?,
                        name: "主卧床位".to_owned(),
                        person: Some(person),
                    }],
                },
                now,
            )
            .await?;
    }
    Ok(())
}

fn home_name(number: usize) -> String {
    format!("home-{number}")
}

/// The home file of a simulated home with the standard wiring, its board listening on `board`.
#[must_use]
pub fn home_file(number: usize, board: SocketAddr) -> String {
    let home = home_name(number);
    format!(
        r#"[home]
id = "{home}"
area = "{AREA}"
time_zone = "Asia/Shanghai"
residents = 1

[gateway]
id = "gw-{home}"

[[room]]
id = "bedroom"

[[room]]
id = "bathroom"

[[room]]
id = "living"

[[room]]
id = "entrance"

[[bed]]
id = "{home}-bed"
room = "bedroom"

[[device]]
id = "{home}-board"
profile = "waveshare/modbus-di8"
link = "tcp://{board}"

[device.inputs.1]
device = "{home}-call"
quantity = "call_button"
bed = "{home}-bed"
room = "bedroom"

[device.inputs.2]
device = "{home}-door"
quantity = "door_open"
room = "entrance"
invert = true

[device.inputs.3]
device = "{home}-mat"
quantity = "bed_occupancy"
bed = "{home}-bed"
room = "bedroom"

[device.inputs.4]
device = "{home}-pir-bedroom"
quantity = "motion"
room = "bedroom"

[device.inputs.5]
device = "{home}-pir-bathroom"
quantity = "motion"
room = "bathroom"

[device.inputs.6]
device = "{home}-pir-living"
quantity = "motion"
room = "living"

[device.inputs.7]
device = "{home}-fridge"
quantity = "cabinet_open"
room = "living"

[device.inputs.8]
device = "{home}-cord"
quantity = "call_button"
bed = "{home}-bed"
room = "bathroom"

[device.outputs.1]
device = "{home}-lamp"
quantity = "lamp_on"
room = "bedroom"
"#
    )
}

/// Yesterday evening in the homes' time zone, so that no product time lies in the machine's future for long.
fn evening() -> anyhow::Result<Timestamp> {
    let now = carebed_contract::clock::SystemClock::new().now();
    let zone = carebed_console::registry::TIME_ZONE;
    let today = chrono::DateTime::from_timestamp_millis(now.millis()).context("the machine's clock shows no date")?;
    let day = today.with_timezone(&zone).date_naive() - Days::days(1);
    let evening = day.and_hms_opt(EVENING.0, EVENING.1, 0).context("the evening is a time of day")?;
    match zone.from_local_datetime(&evening).earliest() {
        Some(start) => Ok(Timestamp::from_millis(start.timestamp_millis())),
        None => bail!("{evening} does not exist in {zone}"),
    }
}

fn local(time: Timestamp) -> String {
    let zone = carebed_console::registry::TIME_ZONE;
    chrono::DateTime::from_timestamp_millis(time.millis())
        .map_or_else(|| time.to_string(), |t| t.with_timezone(&zone).format("%H:%M:%S").to_string())
}

/// A folder that goes with the demo, or one that stays.
enum Temporary {
    Kept(PathBuf),
    Gone(PathBuf),
}

impl Temporary {
    fn new(kept: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = kept {
            return Ok(Self::Kept(path));
        }
        let path = std::env::temp_dir().join(format!("carebed-demo-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self::Gone(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Gone(path) => path,
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Self::Gone(path) = self {
            // What cannot be removed stays in the folder for temporary files.
            let _left = std::fs::remove_dir_all(path);
        }
    }
}
