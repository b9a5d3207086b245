//! A gateway that lives on: changed files while it runs, what the home does by itself, what the centre asks of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where an assumption does")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::labels::Lane;
use carebed_contract::topic::Channel;
use carebed_gateway::config::{Broker, Config};
use carebed_gateway::home::HomeFile;
use carebed_gateway::link::LocalBroker;
use carebed_gateway::metrics::Metrics;
use carebed_gateway::stamp::ClockTrust;
use carebed_gateway::{Error, Outside, Reload, run_with};
use support::{Board, Centre};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

struct Running {
    config: Config,
    reloads: mpsc::Sender<Reload>,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(centre: &Centre, spool: &Path, home: &str, devices_broker: Option<LocalBroker>) -> Self {
        let broker = Broker::plain(centre.address.ip().to_string(), centre.address.port());
        let mut config = Config::new(broker, spool.join("spool"));
        (config.routine_every, config.complete_every) = (Duration::from_millis(50), Duration::from_millis(300));
        config.clock = ClockTrust::Trusted;
        config.devices_broker = devices_broker.unwrap_or(config.devices_broker);
        let (reloads, reloaded) = mpsc::channel(1);
        let outside = Outside { reloads: reloaded, metrics: watch::Sender::new(Metrics::default()) };
        let shutdown = Shutdown::new();
        let (clock, home) = (Arc::new(SystemClock::new()), parse(spool, home));
        let task = tokio::spawn(run_with(config.clone(), home, clock, shutdown.clone(), outside));
        Self { config, reloads, shutdown, task }
    }

    async fn reload(&self, folder: &Path, home: &str) {
        let read = Box::new((self.config.clone(), parse(folder, home)));
        self.reloads.send(Reload::Read(read)).await.unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn parse(folder: &Path, home: &str) -> HomeFile {
    let file = folder.join("home.toml").display().to_string();
    HomeFile::parse(&file, home).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A board and what is wired to it.
fn board(id: &str, board: &Board, every: &str, wired: &str) -> String {
    format!(
        "[[device]]\nid = \"{id}\"\nprofile = \"waveshare/modbus-di8\"\nlink = \"tcp://{}\"\nevery = \"{every}\"\n{wired}",
        board.address
    )
}

fn home(devices: &[String]) -> String {
    format!(
        "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"gw-h1\"\n[[room]]\nid = \"bedroom\"\n\
         [[bed]]\nid = \"b1\"\nroom = \"bedroom\"\n{}",
        devices.concat()
    )
}

const MAT: &str = "[device.inputs.1]\ndevice = \"mat-1\"\nquantity = \"bed_occupancy\"\nbed = \"b1\"\n";
const PIR: &str = "[device.inputs.2]\ndevice = \"pir-1\"\nquantity = \"motion\"\nroom = \"bedroom\"\n";

/// Every state that a board showed for two polls is told once, whatever is changed meanwhile: beside it, or on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_lose_no_sample() {
    const TURNS: u32 = 30;
    let (mat, other) = (Board::start().await, Board::start().await);
    let (mut centre, folder) = (Centre::start("360702", "gw-h1").await, tempfile::tempdir().unwrap());
    let alone = home(&[board("board-1", &mat, "20ms", MAT)]);
    let beside = home(&[board("board-1", &mat, "20ms", MAT), board("board-2", &other, "50ms", PIR)]);
    let rewired = home(&[board("board-1", &mat, "20ms", &format!("{MAT}{PIR}"))]);
    let gateway = Running::start(&centre, folder.path(), &alone, None);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["mat-1 Some(0.0) good"]);

    let turning = {
        let mat = mat.clone();
        tokio::spawn(async move {
            for turn in 1..=TURNS {
                mat.set(|terminals| (terminals.inputs, terminals.reads) = (u8::from(turn % 2 == 1), 0));
                mat.until(|terminals| terminals.reads >= 2).await;
            }
        })
    };
    let changing = async {
        for files in [&beside, &alone, &rewired, &alone].into_iter().cycle() {
            gateway.reload(folder.path(), files).await;
            // As quick as an installer never is.
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    };
    let mut told = Vec::new();
    let hearing = async {
        while told.len() < TURNS as usize {
            let rows = centre.batch(Lane::Routine).await.rows();
            told.extend(rows.into_iter().filter(|row| row.starts_with("mat-1")));
        }
    };
    tokio::select! {
        () = changing => {}
        () = hearing => {}
    }
    turning.await.unwrap();
    let expected: Vec<String> = (1..=TURNS).map(|turn| format!("mat-1 Some({}.0) good", turn % 2)).collect();
    assert_eq!(told, expected);
    gateway.stop().await;
}

/// A module that counts presses by itself: what was pressed while files were taken up is told once, whatever they change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_lose_no_press_that_a_module_counts() {
    const PRESSES: u16 = 40;
    let (module, folder) = (Board::start().await, tempfile::tempdir().unwrap());
    let mut centre = Centre::start("360702", "gw-h1").await;
    let own = folder.path().join("profiles/own/bell");
    std::fs::create_dir_all(&own).unwrap();
    let profile = "[identification]\nvendor = \"own\"\nmodel = \"bell\"\ntitle = { zh = \"呼叫器\", en = \"bell\" }\nsource = \"own\"\n\
         confidence = \"C\"\ntested_on_hardware = false\n[link]\nkinds = [\"modbus_tcp\"]\nunit = 1\n[report]\nheartbeat = \"10min\"\n\
         [[poll]]\nname = \"presses\"\nfunction = \"read_input_registers\"\naddress = 464\ncount = 1\nevery = \"20ms\"\n\
         [[startup]]\nsend = { register = 9, value = 1 }\n[[startup]]\nsend = { register = 10, value = 1 }\n\
         [input.press]\npoll = \"presses\"\nregister = 464\ncounts = \"presses\"\n";
    std::fs::write(own.join("profile.toml"), profile).unwrap();
    let bell = |every: &str, more: &str| {
        let device = format!(
            "[[device]]\nid = \"bell-1\"\nprofile = \"./profiles/own/bell\"\nlink = \"tcp://{}\"\nevery = \"{every}\"\n\
             [device.inputs.press]\ndevice = \"call-1\"\nquantity = \"call_button\"\nroom = \"bedroom\"\n{more}",
            module.address
        );
        home(&[device])
    };
    let files = [bell("20ms", ""), bell("30ms", ""), bell("30ms", "bed = \"b1\"\n")];
    let gateway = Running::start(&centre, folder.path(), &files[0], None);
    // It counts when it is told to, and again after it was away: perhaps it lost its power.
    module.until(|terminals| terminals.written == [(9, 1), (10, 1)]).await;
    module.set(|terminals| (terminals.written, terminals.refuses) = (Vec::new(), true));
    module.until(|terminals| terminals.refused >= 3).await;
    module.set(|terminals| terminals.refuses = false);
    module.until(|terminals| terminals.written == [(9, 1), (10, 1)]).await;

    let pressing = {
        let module = module.clone();
        tokio::spawn(async move {
            for press in 1..=PRESSES {
                module.set(|terminals| (terminals.presses, terminals.reads) = (press, 0));
                // Some fall between two readings, some while the line is made anew.
                module.until(|terminals| terminals.reads >= u32::from(press % 3)).await;
            }
        })
    };
    let changing = async {
        for files in files.iter().cycle() {
            gateway.reload(folder.path(), files).await;
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    };
    let mut told = 0;
    let hearing = async {
        while told < usize::from(PRESSES) {
            let batch = centre.batch(Lane::Urgent).await;
            centre.receipt(&batch);
            let rows = batch.rows();
            assert!(rows.iter().all(|row| row == "call-1 Some(1.0) good"), "{rows:?}");
            told += rows.len();
        }
    };
    tokio::select! {
        () = changing => {}
        () = hearing => {}
    }
    pressing.await.unwrap();
    assert_eq!(told, usize::from(PRESSES), "no press twice");

    // It lost its power and was pressed since: one call, not as many as the counter shows, and the restart is told.
    module.set(|terminals| terminals.presses = 5);
    let batch = centre.batch(Lane::Urgent).await;
    assert_eq!(batch.rows(), ["call-1 Some(1.0) good"]);
    centre.receipt(&batch);
    let anew = "bell-1 has started anew: its counters began again at 0";
    centre.json(Channel::Status, |status| status["troubles"].to_string().contains(anew)).await;
    module.set(|terminals| terminals.presses = 6);
    assert_eq!(centre.batch(Lane::Urgent).await.rows(), ["call-1 Some(1.0) good"]);
    gateway.stop().await;
}

/// A device is one folder, also one that did not come with the gateway; a changed profile is taken up, a broken one is
/// told and changes nothing. What it says stands beside what it means where that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_beside_the_home_file_is_a_device() {
    let (counter, folder) = (Board::start().await, tempfile::tempdir().unwrap());
    let mut centre = Centre::start("360702", "gw-h1").await;
    let profile = |invert: bool| {
        let values = if invert { "{ true = false, false = true }" } else { "{ true = true, false = false }" };
        format!(
            "[identification]\nvendor = \"own\"\nmodel = \"chair\"\ntitle = {{ zh = \"座椅垫\", en = \"chair pad\" }}\nsource = \"own\"\n\
             confidence = \"C\"\ntested_on_hardware = false\n[link]\nkinds = [\"modbus_tcp\"]\nunit = 1\n[report]\nheartbeat = \"10min\"\n\
             [[poll]]\nname = \"pads\"\nfunction = \"read_discrete_inputs\"\naddress = 0\ncount = 8\nevery = \"20ms\"\n\
             [input.seat]\npoll = \"pads\"\nbit = 0\nvalues = {values}\nquantity = \"seat_occupancy\"\n"
        )
    };
    let own = folder.path().join("profiles/own/chair");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("profile.toml"), profile(false)).unwrap();
    let device = format!(
        "[[device]]\nid = \"chair-1\"\nprofile = \"./profiles/own/chair\"\nlink = \"tcp://{}\"\nraw = true\n\
         [device.inputs.seat]\nroom = \"bedroom\"\n",
        counter.address
    );
    let home = home(&[device]);
    let gateway = Running::start(&centre, folder.path(), &home, None);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["chair-1 Some(0.0) good", "chair-1 None good"]);
    counter.set(|terminals| terminals.inputs = 1);
    let batch = centre.batch(Lane::Routine).await;
    assert_eq!(batch.rows(), ["chair-1 Some(1.0) good", "chair-1 None good"]);
    let raw = &batch.pack.records[1];
    assert_eq!((raw.series.to_string().as_str(), raw.value.text()), ("h1/-/chair-1/raw_frame", Some("pads 01")));
    let decoded = std::process::Command::new(env!("CARGO_BIN_EXE_carebed-gateway"))
        .args(["decode", "--profile", &own.display().to_string(), raw.value.text().unwrap()])
        .output()
        .unwrap();
    let decoded = String::from_utf8_lossy(&decoded.stdout).into_owned();
    assert!(decoded.contains("seat") && decoded.contains("on"), "{decoded}");

    std::fs::write(own.join("profile.toml"), profile(true)).unwrap();
    gateway.reload(folder.path(), &home).await;
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["chair-1 Some(0.0) good", "chair-1 None good"]);
    std::fs::write(own.join("profile.toml"), "[identification]\n").unwrap();
    let file = folder.path().join("home.toml").display().to_string();
    let mistakes = HomeFile::parse(&file, &home).unwrap_err().to_string();
    assert!(mistakes.contains("profiles check") && mistakes.contains("lacks"), "{mistakes}");
    gateway.reloads.send(Reload::Refused(mistakes)).await.unwrap();
    let told =
        |status: &serde_json::Value| status["troubles"][0].as_str().is_some_and(|t| t.contains("goes on as before"));
    centre.json(Channel::Status, told).await;
    counter.set(|terminals| terminals.inputs = 0);
    assert_eq!(centre.batch(Lane::Routine).await.rows()[0], "chair-1 Some(1.0) good");
    gateway.stop().await;
}

/// A light by the home's own action, a warning by the centre that a cancel ends, and a command that came too late; the
/// outputs hang on Modbus and on MQTT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_obey_the_home_the_call_and_the_centre() {
    let (wired, folder) = (Board::start().await, tempfile::tempdir().unwrap());
    let mut centre = Centre::start("360702", "gw-h1").await;
    let [v4, v5] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let program = env!("CARGO_BIN_EXE_carebed-gateway").into();
    let own_broker = LocalBroker::Embedded { program, v4, v5 };
    let call = "[device.inputs.3]\ndevice = \"call-1\"\nquantity = \"call_button\"\nbed = \"b1\"\n\
                [device.inputs.4]\ndevice = \"cancel-1\"\nquantity = \"call_cancel\"\nbed = \"b1\"\n\
                [device.outputs.1]\ndevice = \"light-1\"\n[device.outputs.2]\ndevice = \"lamp-1\"\nactions = [\"set\", \"warn\"]\n";
    let plug = "[[device]]\nid = \"plug-1\"\nprofile = \"tasmota/switch\"\nlink = \"mqtt\"\naddress = \"plug\"\n\
                [device.outputs.relay]\ndevice = \"answer-1\"\nshows = \"answer\"\n";
    let action = "[[action]]\nwhen = \"mat-1\"\nquantity = \"bed_occupancy\"\nbecomes = false\nset = \"light-1\"\n";
    let home = home(&[board("board-1", &wired, "20ms", &format!("{MAT}{call}")), plug.to_owned(), action.to_owned()]);
    wired.set(|terminals| terminals.inputs = 1);
    centre.gives_receipts = false;
    let gateway = Running::start(&centre, folder.path(), &home, Some(own_broker));
    let mut plug = support::Ears::at(v4, "cmnd/plug/Power").await;
    centre.batch(Lane::Routine).await;

    // Somebody leaves the bed, and comes back.
    wired.set(|terminals| terminals.inputs = 0);
    wired.until(|terminals| terminals.coils & 1 == 1).await;
    wired.set(|terminals| terminals.inputs = 1);
    wired.until(|terminals| terminals.coils & 1 == 0).await;

    // A call blinks slowly while it is under way, and quickly once the centre has it.
    wired.set(|terminals| terminals.inputs = 0b101);
    let press = centre.batch(Lane::Urgent).await;
    assert_eq!(plug.next().await, "ON");
    assert_eq!(plug.next().await, "OFF");
    centre.receipt(&press);
    let mut quick = 0;
    while quick < 3 {
        let before = tokio::time::Instant::now();
        plug.next().await;
        // Slow turns come a second apart, quick ones 0.3 s.
        quick = if before.elapsed() < Duration::from_millis(900) { quick + 1 } else { 0 };
    }

    // The centre warns; cancel in the home ends that.
    let command = |id: &str, action: &str, value: serde_json::Value, expires_in: i64| {
        let now = SystemClock::new().now().millis();
        let expires = carebed_contract::time::Timestamp::from_millis(now + expires_in);
        serde_json::json!({ "id": id, "device": "lamp-1", "action": action, "value": value, "expires_at": expires })
            .to_string()
            .into_bytes()
    };
    centre.send(Channel::Command, command("w1", "warn", 600.into(), 60_000));
    assert_eq!(centre.json(Channel::Result, |_| true).await["outcome"], "done");
    wired.until(|terminals| terminals.coils & 2 == 2).await;
    wired.until(|terminals| terminals.coils & 2 == 0).await;
    wired.until(|terminals| terminals.coils & 2 == 2).await;
    wired.set(|terminals| terminals.inputs = 0b1101);
    let cancel = centre.batch(Lane::Urgent).await;
    assert_eq!(cancel.rows(), ["cancel-1 Some(1.0) good"]);
    wired.until(|terminals| terminals.coils & 2 == 0).await;

    centre.send(Channel::Command, command("s1", "set", true.into(), -1));
    assert_eq!(centre.json(Channel::Result, |result| result["id"] == "s1").await["outcome"], "expired");
    assert_eq!(wired.terminals.lock().unwrap().coils & 2, 0);
    gateway.stop().await;
}
