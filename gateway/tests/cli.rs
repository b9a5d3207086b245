//! The program as installers meet it: what it prints, and the codes it ends with.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where an assumption does")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carebed_contract::labels::Lane;
use carebed_contract::topic::Channel;
use carebed_simulator::bus::line::PtyLine;
use carebed_simulator::bus::{Bus, Station};
use carebed_simulator::radar::BedRadar;
use support::{Board, Centre};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PROGRAM: &str = env!("CARGO_BIN_EXE_carebed-gateway");

/// What the program said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// That it ended so, and that each of these stands on stdout.
    #[track_caller]
    fn holds(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.out.contains(word), "{word:?} is missing in\n{}\n{}", self.out, self.err);
        }
        self
    }

    /// That each of these stands on stderr.
    #[track_caller]
    fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in\n{}", self.err);
        }
        self
    }
}

fn said(arguments: &[&str]) -> Said {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A gateway's files in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A configuration for a broker at this address, with a spool in the folder.
    fn config(&self, broker: std::net::SocketAddr) -> String {
        let spool = self.path("spool");
        format!(
            "clock = \"trusted\"\n[broker]\nurl = \"mqtt://{broker}\"\n[spool]\ndirectory = \"{}\"\nbytes_max = 1048576\n\
             [send]\nroutine_every = \"50ms\"\ncomplete_every = \"300ms\"\n",
            spool.display()
        )
    }
}

/// A home with these devices.
fn home(devices: &str) -> String {
    format!(
        "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"gw-h1\"\n[[room]]\nid = \"bedroom\"\n\
         [[bed]]\nid = \"b1\"\nroom = \"bedroom\"\n{devices}"
    )
}

/// A board at a link, and what is wired to it.
fn board(link: &str, wired: &str) -> String {
    format!(
        "[[device]]\nid = \"board-1\"\nprofile = \"waveshare/modbus-di8\"\nlink = \"{link}\"\nevery = \"50ms\"\n{wired}"
    )
}

const MAT: &str = "[device.inputs.1]\ndevice = \"mat-1\"\nquantity = \"bed_occupancy\"\nbed = \"b1\"\n";
const PIR: &str = "[device.inputs.2]\ndevice = \"pir-1\"\nquantity = \"motion\"\nroom = \"bedroom\"\n";

/// An address on which nobody listens.
fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn check_tells_the_mistakes_of_all_files_in_one_pass() {
    let files = Files::new();
    let config = files.write("gateway.toml", &files.config(nobody()));
    let good = files.write("home.toml", &home(&board("tcp://127.0.0.1:502", MAT)));
    said(&["check", "--config", &config, "--home", &good])
        .holds(0, &["home h1, gateway gw-h1, 1 rooms, 1 beds, 1 boards, 1 inputs, 0 outputs", "spool"]);

    let bad_config =
        files.write("bad.toml", "clock = \"sytem\"\n[broker]\nurl = \"http://x\"\n[spool]\ndirectory = \"s\"\n");
    let wired = MAT.replace("\"bed_occupancy\"", "\"bed_ocupancy\"").replace("\"b1\"", "\"b9\"");
    let bad_home = files.write("bad-home.toml", &home(&board("tcp://127.0.0.1:502", &wired).replace("di8", "di9")));
    said(&["check", "--config", &bad_config, "--home", &bad_home]).holds(2, &[]).complains(&[
        "bad.toml:1:9: clock: \"sytem\" is unknown",
        "bad.toml:3:7: ",
        "\"http://x\" is neither mqtts://host:port",
        "bad-home.toml:13:11: there is no profile",
        "did you mean \"waveshare/modbus-di8\"?",
        "bad-home.toml:18:12: there is no quantity",
        "did you mean \"bed_occupancy\"?",
        "bad-home.toml:19:7: there is no bed \"b9\"",
    ]);
    said(&["check", "--config", &config, "--home", "/nowhere/home.toml"]).holds(1, &[]).complains(&["failed to read"]);
}

#[test]
fn profiles_are_listed_shown_and_checked() {
    said(&["profiles", "list"]).holds(0, &["waveshare/modbus-di8", "micradar/r60abd1", "无线按钮"]);
    said(&["profiles", "show", "china/dlt645-2007"]).holds(0, &["link      serial", "2400 8E1", "input     "]);
    said(&["profiles", "show", "china/dlt645"]).holds(1, &[]).complains(&["did you mean \"china/dlt645-2007\"?"]);
    let shipped = said(&["profiles", "check"]).holds(0, &["waveshare/modbus-di8: "]);
    assert!(shipped.out.lines().all(|line| line.ends_with("exchanges hold")), "{}", shipped.out);

    let files = Files::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../device-profiles/profiles/xy/md02");
    let text = std::fs::read_to_string(shipped.join("profile.toml")).unwrap();
    let captures = std::fs::read_dir(shipped.join("captures")).unwrap().next().unwrap().unwrap();
    let captures = std::fs::read_to_string(captures.path()).unwrap();
    let folder = files.path("own/sensor").display().to_string();
    files.write("own/sensor/profile.toml", &text);
    said(&["profiles", "check", &folder]).holds(2, &[]).complains(&["own/sensor has no captures"]);
    let first = captures.split("\n\n").next().unwrap();
    files.write("own/sensor/captures/a.txt", first);
    said(&["profiles", "check", &folder]).holds(2, &[]).complains(&["no exchange that is refused"]);
    files.write("own/sensor/captures/a.txt", &captures);
    said(&["profiles", "check", &folder]).holds(0, &["own/sensor: 1 captures, "]);
    said(&["profiles", "check", &files.path("own").display().to_string()]).holds(0, &["own/sensor: 1 captures, "]);
    let broken = text.replace("confidence = \"A\"", "confidence = \"Z\"").replace("count =", "cuont =");
    files.write("own/sensor/profile.toml", &broken);
    said(&["profiles", "check", &folder]).holds(2, &[]).complains(&[
        "profile.toml:",
        "confidence: unknown variant `Z`",
        "did you mean \"count\"?",
    ]);
    said(&["profiles", "check", &files.path("").display().to_string()]).holds(2, &[]);
}

/// The four orders of one number stand side by side, because makers disagree.
#[test]
fn decode_shows_every_word_order_and_what_a_profile_makes_of_it() {
    let table = said(&["decode", "43", "66", "33", "34"]).holds(0, &["bits"]).out;
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        line.split_whitespace().skip(usize::from(name != "abcd")).map(str::to_owned).collect()
    };
    assert_eq!(row("abcd"), ["abcd", "cdab", "badc", "dcba"]);
    let orders = [0x4366_3334_u32, 0x3334_4366, 0x6643_3433, 0x3433_6643];
    assert_eq!(row("u32"), orders.map(|order| order.to_string()));
    let floats: Vec<f32> = row("f32").iter().map(|shown| shown.parse().unwrap()).collect();
    assert_eq!(floats, orders.map(f32::from_bits));

    said(&["decode", "--profile", "eastron/sdm120", "01 04 04 43 66 33 34 1B 38"])
        .holds(0, &["voltage", "230.20001 V", "good"]);
    said(&["decode", "--profile", "micradar/r60abd1", "53 59 80 01 00 01 01 2E 54 43"]).holds(1, &["refused: "]);
    said(&["decode", "not hex"]).holds(1, &[]).complains(&["this is not hex"]);
}

#[test]
fn replay_shows_what_each_exchange_means_and_what_does_not_hold() {
    said(&["replay", "--profile", "micradar/r60abd1"]).holds(0, &["(published: ", "    = "]);
    let files = Files::new();
    let capture = "from made\n> 01 02 00 00 00 08 79 CC\n< 01 02 01 20 A0 50\n= on 5\n";
    let capture = files.write("mine.txt", capture);
    said(&["replay", "--profile", "waveshare/modbus-di8", &capture])
        .holds(1, &["line 4 (made)", "    = on 6", "    ! the capture says: on 5"]);
    let capture = files.write("mine.txt", "from hearsay\n");
    said(&["replay", "--profile", "waveshare/modbus-di8", &capture])
        .holds(1, &[])
        .complains(&["line 1: write \"from made\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_prints_what_a_board_says_and_ends_with_5_when_nobody_answers() {
    let (wired, files) = (Board::start().await, Files::new());
    wired.set(|terminals| terminals.inputs = 1);
    let home_file = files.write("home.toml", &home(&board(&format!("tcp://{}", wired.address), MAT)));
    let table = said(&["read", "--home", &home_file]).holds(0, &["mat-1 bed_occupancy"]).out;
    let first: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["board-1", "1", "on", "good", "mat-1", "bed_occupancy"]);
    assert_eq!(table.lines().count(), 8, "{table}");
    said(&["read", "--home", &home_file, "--device", "board-2"]).holds(1, &[]).complains(&["no such device"]);

    let nobody = files.write("nobody.toml", &home(&board(&format!("tcp://{}", nobody()), MAT)));
    said(&["read", "--home", &nobody])
        .holds(5, &[])
        .complains(&["board-1 at tcp://127.0.0.1:", "hint: check power, cable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_says_who_answers_at_which_speed_and_unit() {
    let files = Files::new();
    let bus = Bus::new(vec![Station::climate(7, 21.5, 48.0)], 1);
    let mut line = PtyLine::plug(&files.path("ttyBUS"), bus).unwrap();
    line.only_at(19_200);
    let port = format!("serial:{}", line.path().display());
    let speeds = ["--serial", "9600 8N1", "--serial", "19200 8N1", "--timeout", "500ms"];
    let found = said(&[&["scan", &port, "--units", "7"], &speeds[..]].concat()).holds(0, &["xy/md02"]);
    let first: Vec<&str> = found.out.split_whitespace().take(4).collect();
    assert_eq!(first, ["19200", "8N1", "unit", "7"], "{found:#?}");
    let all = said(&["scan", &port, "--all", "--units", "7", "--serial", "19200 8N1", "--serial", "19200 8E1"]);
    let settings: Vec<&str> = all.out.lines().filter_map(|line| line.split("  ").next()).collect();
    // A pseudo-terminal knows no parity: somebody answers at both.
    assert_eq!(settings, ["19200 8N1", "19200 8E1"], "{all:#?}");
    said(&["scan", &port, "--units", "8", "--serial", "9600 8N1", "--timeout", "50ms"])
        .holds(5, &[])
        .complains(&["nobody answers", "hint: check power and the two wires"]);
    said(&["scan", "ttyUSB0"]).holds(1, &[]).complains(&["is no link that can be searched"]);
    said(&["scan", &port, "--units", "0"]).holds(2, &[]).complains(&["is not units from 1 to 255"]);

    let wired = Board::start().await;
    said(&[
        "scan",
        &format!("tcp://{}", wired.address),
        "--units",
        "1",
        "--profile",
        "waveshare/modbus-di8",
        "--timeout",
        "2s",
    ])
    .holds(0, &["unit 1    waveshare/modbus-di8"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_what_is_wrong_and_the_next_step() {
    let (centre, files) = (Centre::start("360702", "gw-h1").await, Files::new());
    let line = PtyLine::plug(&files.path("ttyBUS"), Bus::new(vec![Station::board(1)], 1)).unwrap();
    let port = line.path().display().to_string();
    let config = files.write("gateway.toml", &files.config(centre.address));
    let home_file = files.write("home.toml", &home(&board(&format!("serial:{port}"), MAT)));
    let page = said(&["doctor", "--config", &config, "--home", &home_file]).holds(
        0,
        &[
            "ok    files: ",
            "trusted as the configuration says",
            "ok    spool: ",
            "ok    disk: ",
            "lets this gateway in, without TLS",
            &format!("ok    port {port}: there"),
            "ok    device board-1 at ",
            "answers (8 values)",
        ],
    );
    assert!(!page.out.contains("WRONG"), "{}", page.out);

    // Nothing of it: no broker, no room, no port, no directory.
    let spool = files.write("a-file", "");
    let wrong = files
        .config(nobody())
        .replace(&files.path("spool").display().to_string(), &format!("{spool}/spool"))
        .replace("1048576", "1125899906842624")
        .replace("\"trusted\"", "\"system\"");
    let config = files.write("wrong.toml", &wrong);
    let absent = board(&format!("serial:{}", files.path("ttyNONE").display()), MAT);
    let no_port = board(&format!("serial:{spool}"), PIR).replace("board-1", "board-2");
    let home_file = files.write("home.toml", &home(&format!("{absent}{no_port}")));
    let page = said(&["doctor", "--config", &config, "--home", &home_file]).holds(
        6,
        &[
            "WRONG spool: ",
            "next: give the directory to the user that runs the gateway",
            "WRONG disk: ",
            "next: make room, or lower bytes_max",
            "WRONG broker 127.0.0.1:",
            "next: the broker does not run, or listens on another port",
            &format!("WRONG port {}: it is not there", files.path("ttyNONE").display()),
            "next: plug the adapter in",
            &format!("WRONG port {spool}: it is no serial port"),
            "WRONG device board-1 at ",
            "not asked: its port cannot be used",
        ],
    );
    // Whether something keeps this machine's clock right is for the machine to say.
    assert!(page.out.lines().any(|line| line.contains(" clock: ")), "{}", page.out);
}

/// A gateway that runs as a program, and its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Running {
    fn start(config: &str, home: &str) -> Self {
        Self::start_with(config, home, &[])
    }

    fn start_with(config: &str, home: &str, more: &[&str]) -> Self {
        let run = ["run", "--config", config, "--home", home];
        Self(
            Command::new(PROGRAM).args(run).args(more).env("CAREBED_LOG", "warn").stdin(Stdio::null()).spawn().unwrap(),
        )
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_holds_its_spool_and_its_ports() {
    let (mut centre, files) = (Centre::start("360702", "gw-h1").await, Files::new());
    let line = PtyLine::plug(&files.path("ttyBUS"), Bus::new(vec![Station::board(1)], 1)).unwrap();
    let config = files.write("gateway.toml", &files.config(centre.address));
    let home_file = files.write("home.toml", &home(&board(&format!("serial:{}", line.path().display()), MAT)));
    let gateway = Running::start(&config, &home_file);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["mat-1 Some(0.0) good"]);

    said(&["run", "--config", &config, "--home", &home_file]).holds(4, &[]).complains(&["error: "]);
    // The scripted endpoint serves one client at a time: the doctor asks another one.
    let other = Centre::start("360702", "gw-h1").await;
    let beside = files.write("beside.toml", &files.config(other.address));
    let page = said(&["doctor", "--config", &beside, "--home", &home_file]).holds(
        0,
        &[
            "is in use by the running gateway",
            &format!("ok    port {}: held by the running gateway", line.path().display()),
            "not asked: its port is held by the running gateway",
        ],
    );
    assert!(!page.out.contains("WRONG"), "{}", page.out);
    gateway.stop();
}

/// The page that Prometheus reads, over HTTP: one device answers, one is dead, of one every answer is damaged, and a radar
/// is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_say_what_became_of_each_device() {
    let (centre, files, metrics) = (Centre::start("360702", "gw-h1").await, Files::new(), nobody());
    let mut stations = [1, 2, 3].map(Station::board);
    stations[1].manners.silent = true;
    stations[2].manners.damages = 1.0;
    let line = PtyLine::plug(&files.path("ttyBUS"), Bus::new(stations.to_vec(), 1)).unwrap();
    let radar = PtyLine::plug(&files.path("ttyRADAR"), BedRadar::new(true, Duration::from_millis(50), 1)).unwrap();
    let config = files.write("gateway.toml", &files.config(centre.address));
    let port = format!("serial:{}", line.path().display());
    let on_bus = |unit: u8| {
        format!(
            "[[device]]\nid = \"board-{unit}\"\nprofile = \"waveshare/modbus-di8\"\nlink = \"{port}\"\nunit = {unit}\n\
             every = \"100ms\"\ntimeout = \"40ms\"\nretries = 2\n\
             [device.inputs.1]\ndevice = \"pir-{unit}\"\nquantity = \"motion\"\nroom = \"bedroom\"\n"
        )
    };
    let radar = format!(
        "[[device]]\nid = \"radar-1\"\nprofile = \"micradar/r60abd1\"\nlink = \"serial:{}\"\n[device.inputs.heart_rate]\nbed = \"b1\"\n",
        radar.path().display()
    );
    let home_file = files.write("home.toml", &home(&format!("{}{}{}{radar}", on_bus(1), on_bus(2), on_bus(3))));
    let _gateway = Running::start_with(&config, &home_file, &["--metrics", &metrics.to_string()]);

    // Each row, and the least it must come to.
    let wanted = [
        ("polls_total{device=\"board-1\",outcome=\"answered\"}", 10.0),
        ("polls_total{device=\"board-2\",outcome=\"timed_out\"}", 3.0),
        // Each is asked three times at once.
        ("polls_total{device=\"board-3\",outcome=\"damaged\"}", 6.0),
        ("circuit_open{device=\"board-2\"}", 1.0),
        ("device_live{device=\"board-1\"}", 1.0),
        ("device_last_good_age_seconds{device=\"board-1\"}", 0.0),
        ("heard_total{device=\"radar-1\"}", 10.0),
        ("connected", 1.0),
    ];
    let mut page = String::new();
    let row = |page: &str, name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("carebed_gateway_{name} ")));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    let all_told = async {
        while !wanted.iter().all(|(name, least)| row(&page, name).is_some_and(|value| value >= *least)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Ok(told) = get(metrics).await {
                page = told;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(15), all_told).await.is_ok();
    assert!(in_time, "{page}");
    assert_eq!(row(&page, "circuit_open{device=\"board-1\"}"), Some(0.0), "{page}");
    assert_eq!(row(&page, "polls_total{device=\"board-1\",outcome=\"damaged\"}"), Some(0.0), "{page}");
    assert!(row(&page, &format!("drained_bytes_total{{link={port:?}}}")).is_some(), "{page}");
}

async fn get(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: home\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// Nobody restarts a gateway to change a name: the watcher takes up an edited file, SIGHUP takes up what is there at once,
/// and a broken file changes nothing but the status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_home_file_is_taken_up_by_itself_and_on_sighup() {
    let (wired, mut centre, files) = (Board::start().await, Centre::start("360702", "gw-h1").await, Files::new());
    let link = format!("tcp://{}", wired.address);
    let config = files.write("gateway.toml", &files.config(centre.address));
    let home_file = files.write("home.toml", &home(&board(&link, MAT)));
    let gateway = Running::start(&config, &home_file);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["mat-1 Some(0.0) good"]);

    files.write("home.toml", &home(&board(&link, &format!("{MAT}{PIR}"))));
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["pir-1 Some(0.0) good"]);

    // The file is as it was, so that only the signal can be why the inventory is told again.
    gateway.signal("-HUP");
    let inventory = centre.json(Channel::Inventory, |_| true).await;
    assert!(inventory.to_string().contains("pir-1"), "{inventory}");

    files.write("home.toml", &home(&board(&link, &MAT.replace("bed_occupancy", "bed_ocupancy"))));
    gateway.signal("-HUP");
    let status =
        centre.json(Channel::Status, |status| status.to_string().contains("changed files cannot be used")).await;
    assert!(status.to_string().contains("bed_ocupancy"), "{status}");
    wired.set(|terminals| terminals.inputs = 1);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["mat-1 Some(1.0) good"]);
    gateway.stop();
}
