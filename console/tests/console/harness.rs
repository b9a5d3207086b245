//! A service centre of its own for each test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_alerts::Evaluated;
use carebed_alerts::alert::AlertId;
use carebed_alerts::policy::Policy;
use carebed_alerts::rule::Rule;
use carebed_console::board::Board;
use carebed_console::database::Database;
use carebed_console::desk::Desk;
use carebed_console::home_action::HomeAction;
use carebed_console::registry::{Bed, Home, Person, Registry};
use carebed_console::{Config, Console, Error};
use carebed_contract::Shutdown;
use carebed_contract::clock::ManualClock;
use carebed_contract::finding::{Class, Finding, Priority, Subject};
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use futures::StreamExt as _;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// 2026-03-01 22:00 in Shanghai.
pub(crate) fn start() -> Timestamp {
    Timestamp::parse("2026-03-01T14:00:00Z").unwrap()
}

fn rule(detection: &str, priority: Priority, class: Class, title: Text, wording: Text) -> Rule {
    let suppressible = detection != "call_for_help";
    Rule {
        detection: detection.to_owned(),
        priority,
        class,
        title,
        wording,
        words: std::collections::BTreeMap::new(),
        suppressible,
        wait: Duration::ZERO,
    }
}

pub(crate) fn policy() -> Policy {
    let text = |zh: &str, en: &str| Text::new(zh, en);
    Policy::new([
        rule(
            "call_for_help",
            Priority::P1,
            Class::Care,
            text("一键呼叫", "Call for help"),
            text("{pressed_at} 按下呼叫按钮。", "The call button was pressed at {pressed_at}."),
        ),
        rule(
            "bed_exit_no_return",
            Priority::P2,
            Class::Care,
            text("离床未归", "Not back in bed"),
            text(
                "{exit_at} 离床，已 {minutes} 分钟未归。",
                "Left the bed at {exit_at}, not back for {minutes} minutes.",
            ),
        ),
        Rule {
            wait: Duration::from_secs(300),
            ..rule(
                "inactivity_cap",
                Priority::P1,
                Class::Care,
                text("长时间无活动", "No activity"),
                text("家中长时间无活动。", "No activity for a long time."),
            )
        },
        rule(
            "gateway_offline",
            Priority::P3,
            Class::Technical,
            text("网关离线", "Gateway offline"),
            text("网关离线。", "The gateway is offline."),
        ),
    ])
}

/// A finding about bed `b1` of home `h1`, raised so many seconds after the start.
pub(crate) fn finding(detection: &str, seconds: u64) -> Finding {
    let raised_at = start() + Duration::from_secs(seconds);
    let evidence = json!({"pressed_at": raised_at.to_string(), "exit_at": raised_at.to_string(), "minutes": 31});
    Finding {
        detection: detection.to_owned(),
        subject: Subject::Bed(BedId::new("b1").unwrap()),
        home: HomeId::new("h1").unwrap(),
        area: Area::new("a1").unwrap(),
        raised_at,
        cleared_at: None,
        evidence: evidence.as_object().unwrap().clone(),
    }
}

pub(crate) fn home(id: &str) -> Home {
    let n = &id[1..];
    Home {
        id: HomeId::new(id).unwrap(),
        area: Area::new("a1").unwrap(),
        gateway: Some(GatewayId::new(format!("g{n}")).unwrap()),
        name: format!("{n} 号住户"),
        time_zone: chrono_tz::Asia::Shanghai,
        residents: 1,
        lamp: Some(DeviceId::new("lamp-1").unwrap()),
        beds: vec![Bed {
            id: BedId::new(format!("b{n}")).unwrap(),
            name: "主卧床".to_owned(),
            person: Some(Person {
                name: "陈<桂>英".to_owned(),
                phone: "0797-5550101".to_owned(),
                address: "健康路 8 号".to_owned(),
            }),
        }],
    }
}

pub(crate) struct Centre {
    pub(crate) addr: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) desk: Desk,
    pub(crate) board: Board,
    pub(crate) registry: Registry,
    pub(crate) actions: mpsc::Receiver<HomeAction>,
    pub(crate) client: Client,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

impl Centre {
    /// A centre over the files in `dir`, which may have been used before.
    pub(crate) async fn open(dir: &Path) -> Self {
        let database = Database::open(&dir.join("console.sqlite")).await.unwrap();
        let registry = Registry::load(&database).await.unwrap();
        registry.put_area(Area::new("a1").unwrap(), Text::new("健康社区", "Jiankang community")).await.unwrap();
        registry.put_home(home("h1"), start()).await.unwrap();
        let clock = Arc::new(ManualClock::new(start()));
        let (sender, actions) = mpsc::channel(8);
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), policy: policy(), speed: 1 };
        let shared: Arc<ManualClock> = Arc::clone(&clock);
        let console = Console::bind(config, database, registry.clone(), sender, shared).await.unwrap();
        let (addr, desk, board, shutdown) = (console.addr(), console.desk(), console.board(), Shutdown::new());
        let task = tokio::spawn(console.run(shutdown.clone()));
        // A stream that hangs fails the test instead of stopping it.
        let client = Client::builder().no_proxy().read_timeout(Duration::from_secs(10)).build().unwrap();
        Self { addr, clock, desk, board, registry, actions, client, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Hands findings over as a full evaluation of home `h1` does.
    pub(crate) async fn findings(&self, findings: &[Finding]) -> usize {
        use carebed_contract::clock::Clock as _;
        let evaluated = Evaluated {
            detections: policy().rules.keys().cloned().collect(),
            homes: [(HomeId::new("h1").unwrap(), self.clock.now())].into(),
            since: Timestamp::MIN,
        };
        self.desk.findings(findings.to_vec(), evaluated).await.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.client.get(self.url(path)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn step(&self, alert: &AlertId, step: &str, body: Value) -> (StatusCode, Value) {
        let url = self.url(&format!("/api/v1/alerts/{alert}/{step}"));
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// What the home is asked next; a test that waits for nothing fails.
    pub(crate) async fn action(&mut self) -> HomeAction {
        tokio::time::timeout(Duration::from_secs(10), self.actions.recv()).await.unwrap().unwrap()
    }

    pub(crate) async fn events(&self, after: Option<u64>) -> Events {
        let request = self.client.get(self.url("/api/v1/events"));
        let request = match after {
            Some(number) => request.header("last-event-id", number.to_string()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Events { answer: Box::new(answer.bytes_stream().map(|chunk| chunk.unwrap().to_vec())), read: String::new() }
    }
}

/// One event of a stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

/// Reads an event stream as its specification says (lines, blank line between events).
pub(crate) struct Events {
    answer: Box<dyn futures::Stream<Item = Vec<u8>> + Send + Unpin>,
    read: String,
}

impl Events {
    /// The next event; none when the stream ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let (mut kind, mut id, mut data) = (String::new(), None, Value::Null);
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("event", text)) => text.clone_into(&mut kind),
                        Some(("id", text)) => id = Some(text.parse().unwrap()),
                        Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                        _ => {}
                    }
                }
                self.read = rest.to_owned();
                return Some(Event { kind, id, data });
            }
            self.read.push_str(&String::from_utf8(self.answer.next().await?).unwrap());
        }
    }

    /// The next event of a kind, others passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event.kind == kind {
                return event;
            }
        }
    }
}

/// For whoever has an answer and wants its parts.
pub(crate) async fn parts(answer: Response) -> (StatusCode, Value) {
    (answer.status(), answer.json().await.unwrap())
}
