//! Links on real ports: pseudo-terminals, TCP, and what breaks on them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail where an assumption does")]

mod bench;
#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::time::Duration;

use bench::{Bench, board_on, climate_on, no_broker, serial};
use carebed_gateway::link::address::Address;
use carebed_gateway::link::scan::Search;
use carebed_gateway::link::{LocalBroker, Write, reading};
use carebed_simulator::bus::line::{PtyLine, TcpLine};
use carebed_simulator::bus::{Bus, Station};
use carebed_simulator::fact::Fact;
use carebed_simulator::meter::{Dialect, Meter};
use carebed_simulator::radar::BedRadar;
use carebed_simulator::zigbee::ZigbeeBridge;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_of_several_devices_is_polled_commanded_unplugged_and_plugged_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(vec![Station::board(1), Station::climate(2, 21.5, 48.0)], 1);
    let mut line = PtyLine::plug(&folder.path().join("ttyBUS"), bus).unwrap();
    let link = serial(line.path());
    let mut bench = Bench::start(&[board_on(&link, 1), climate_on(&link, 2)].concat(), &no_broker());
    bench.hears(&["call-1 call_button 0 good", "climate-2 temperature 21.5 good", "climate-2 humidity 48 good"]).await;
    line.speaker().station(1).unwrap().inputs.insert(0, true);
    bench.hears(&["call-1 call_button 1 good"]).await;
    bench
        .links
        .write(Write { id: "w1".to_owned(), board: 0, output: 0, value: true, within: Duration::from_secs(5) })
        .unwrap();
    bench.hears(&["w1 done"]).await;
    assert!(line.speaker().station(1).unwrap().coils[&0]);

    line.unplug();
    bench.hears(&["call-1 call_button - bad:no_answer", "climate-2 temperature - bad:no_answer"]).await;
    line.speaker().station(1).unwrap().inputs.insert(0, false);
    line.replug().unwrap();
    bench.hears(&["call-1 call_button 0 good", "climate-2 temperature 21.5 good"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manners_of_one_station_change_nothing_of_the_others() {
    let mut bus = Bus::new(vec![Station::board(1), Station::board(2), Station::board(3), Station::board(4)], 2);
    bus.echoes = true;
    bus.station(2).unwrap().manners.silent = true;
    // Another answers what the silent one is asked. It has no inputs, so all it can say is that.
    bus.stations.push(Station::climate(5, 21.5, 48.0));
    bus.station(5).unwrap().manners.answers_for = Some(2);
    // Its answers come when others are asked.
    bus.station(3).unwrap().manners.delay = Duration::from_millis(900);
    (bus.station(4).unwrap().manners.damages, bus.station(4).unwrap().manners.noise) = (0.4, 0.6);
    for unit in 2..=4 {
        bus.station(unit).unwrap().inputs.insert(0, true);
    }
    let line = TcpLine::start(bus).await.unwrap();
    let link = format!("serial+tcp://{}", line.address());
    let devices: String = (1..=4).map(|unit| board_on(&link, unit)).collect();
    let mut bench = Bench::start(&devices, &no_broker());
    // The late one was asked and answered, but never in time: it says nothing, and nobody says its words.
    bench
        .hears(&[
            "call-1 call_button 0 good",
            "call-4 call_button 1 good",
            "call-2 call_button - bad:no_answer",
            "call-3 call_button - bad:no_answer",
        ])
        .await;
    line.speaker().station(1).unwrap().inputs.insert(0, true);
    let pressed = Instant::now();
    let told = bench.hears(&["call-1 call_button 1 good"]).await;
    assert!(told - pressed < Duration::from_secs(2), "{:?}", told - pressed);
    assert!(line.speaker().station(5).unwrap().answered > 0, "it had its say");
}

/// Neighbouring values travel in one block with the holes between them. A meter that answers a hole with an exception gets
/// smaller blocks, and every value of it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_refuses_holes_is_asked_in_smaller_blocks() {
    let inputs = ["voltage", "current", "power", "power_factor", "frequency", "energy"];
    let wired: String = inputs.iter().map(|name| format!("[device.inputs.{name}]\nroom = \"bedroom\"\n")).collect();
    for refuses in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut meter = Station::meter(1, 230.0, 460.0, 12.5);
        meter.manners.refuses_holes = refuses;
        let line = PtyLine::plug(&folder.path().join("ttyMETER"), Bus::new(vec![meter], 1)).unwrap();
        let link = serial(line.path());
        let device = format!(
            "[[device]]\nid = \"meter-1\"\nprofile = \"eastron/sdm120\"\nlink = \"{link}\"\nevery = \"1s\"\n{wired}"
        );
        let mut bench = Bench::start(&device, &no_broker());
        bench
            .hears(&[
                "meter-1 voltage 230 good",
                "meter-1 current 2 good",
                "meter-1 power 460 good",
                "meter-1 frequency 50 good",
                "meter-1 energy 12.5 good",
            ])
            .await;
        let refused = line.speaker().station(1).unwrap().refused;
        assert_eq!(refused > 0, refuses, "{refused} blocks were refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_radar_is_set_up_heard_and_set_up_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut line =
        PtyLine::plug(&folder.path().join("ttyRADAR"), BedRadar::new(true, Duration::from_millis(100), 3)).unwrap();
    let device = format!(
        "[[device]]\nid = \"radar-1\"\nprofile = \"micradar/r60abd1\"\nlink = \"{}\"\n\
         [device.inputs.bed_occupancy]\nbed = \"b1\"\n[device.inputs.heart_rate]\nbed = \"b1\"\n",
        serial(line.path())
    );
    let mut bench = Bench::start(&device, &no_broker());
    bench.hears(&["radar-1 bed_occupancy 1 good"]).await;
    let heart = loop {
        let rows = bench.next().await;
        if let Some(row) =
            rows.into_iter().find(|row| row.text.starts_with("radar-1 heart_rate") && !row.text.contains("bad"))
        {
            break row.text;
        }
    };
    assert!(heart.ends_with(" good"), "{heart}");
    assert!(line.speaker().is_set_up());
    line.speaker().set_in_bed(false);
    bench.hears(&["radar-1 bed_occupancy 0 good"]).await;
    line.unplug();
    line.speaker().restart();
    bench.hears(&["radar-1 bed_occupancy - bad:no_answer"]).await;
    line.replug().unwrap();
    bench.hears(&["radar-1 bed_occupancy 0 good"]).await;
    assert!(line.speaker().is_set_up());
}

/// Meters are asked by their number, and found again after the adapter was pulled out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn household_meters_are_asked_over_a_serial_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut power = PtyLine::plug(&path("ttyPOWER"), Meter::new(Dialect::Dlt645, 2_241_020_208, 1_234_567)).unwrap();
    let water = PtyLine::plug(&path("ttyWATER"), Meter::new(Dialect::Cjt188, 78_330_011_223_344, 4_321)).unwrap();
    let devices = format!(
        "[[device]]\nid = \"power-1\"\nprofile = \"china/dlt645-2007\"\nlink = \"{}\"\naddress = \"002241020208\"\nevery = \"200ms\"\n\
         [device.inputs.energy]\nroom = \"bedroom\"\n\
         [[device]]\nid = \"water-1\"\nprofile = \"china/cjt188-2004\"\nlink = \"{}\"\naddress = \"78330011223344\"\nevery = \"200ms\"\n\
         [device.inputs.volume]\nroom = \"bedroom\"\n",
        serial(power.path()),
        serial(water.path())
    );
    let mut bench = Bench::start(&devices, &no_broker());
    bench.hears(&["power-1 energy 12345.67 good", "water-1 water_volume 43.21 good"]).await;
    water.speaker().hundredths += 1;
    bench.hears(&["water-1 water_volume 43.22 good"]).await;
    power.unplug();
    bench.hears(&["power-1 energy - bad:no_answer"]).await;
    power.speaker().hundredths += 100;
    power.replug().unwrap();
    bench.hears(&["power-1 energy 12346.67 good"]).await;
}

/// A line is searched at each speed; on a pseudo-terminal the other end sees which one was set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_who_answers_at_which_speed_and_unit() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(vec![Station::climate(7, 21.5, 48.0), Station::board(9)], 1);
    let mut line = PtyLine::plug(&folder.path().join("ttyBUS"), bus).unwrap();
    line.only_at(19_200);
    let settings = ["9600 8N1", "19200 8N1"].map(|text| text.to_owned().try_into().unwrap()).to_vec();
    let place = Address::Serial { path: line.path().to_owned(), line: settings[0] };
    let profiles = Search::all_profiles();
    let search =
        Search { place, settings, units: (6..=9).collect(), timeout: Duration::from_millis(100), profiles, all: false };
    let found = search.run(drop).await.unwrap();
    let rows: Vec<_> = found.iter().map(|found| (found.setting.unwrap().to_string(), found.unit.unwrap())).collect();
    assert_eq!(rows, [("19200 8N1".to_owned(), 7), ("19200 8N1".to_owned(), 9)]);
    assert!(found[0].fits.contains(&"xy/md02".to_owned()), "{found:?}");
    assert!(found[1].fits.contains(&"waveshare/modbus-di8".to_owned()), "{found:?}");

    let radar = BedRadar::new(true, Duration::from_millis(100), 3);
    let line = PtyLine::plug(&folder.path().join("ttyRADAR"), radar).unwrap();
    let place = Address::Serial { path: line.path().to_owned(), line: "115200 8N1".to_owned().try_into().unwrap() };
    let settings = vec!["115200 8N1".to_owned().try_into().unwrap()];
    let search = Search { place, settings, ..search };
    let found = search.run(drop).await.unwrap();
    assert!(found[0].unit.is_none() && found[0].fits.contains(&"micradar/r60abd1".to_owned()), "{found:?}");
    assert!(!line.speaker().is_set_up(), "a search only asks");
}

/// `read` uses the links themselves: each kind gives its table, and who does not answer is named with the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_a_home_is_read_once_whatever_it_hangs_on() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(vec![Station::board(1), Station::climate(2, 21.5, 48.0)], 1);
    let line = PtyLine::plug(&folder.path().join("ttyBUS"), bus).unwrap();
    let radar = BedRadar::new(true, Duration::from_millis(100), 3);
    let radar = PtyLine::plug(&folder.path().join("ttyRADAR"), radar).unwrap();
    let link = serial(line.path());
    let radar = format!(
        "[[device]]\nid = \"radar-1\"\nprofile = \"micradar/r60abd1\"\nlink = \"{}\"\n\
         [device.inputs.bed_occupancy]\nbed = \"b1\"\n",
        serial(radar.path())
    );
    let absent = climate_on("serial:/dev/nothing-is-here", 9);
    let home = bench::home(&[board_on(&link, 1), climate_on(&link, 2), climate_on(&link, 3), radar, absent].concat());
    let boards: Vec<_> = home.boards.into_iter().map(std::sync::Arc::new).collect();
    let clock: std::sync::Arc<dyn carebed_contract::clock::Clock> =
        std::sync::Arc::new(carebed_contract::clock::SystemClock::new());
    let readings = reading::read(&boards, &no_broker(), &clock, Duration::from_secs(8)).await;
    let whole: Vec<bool> = readings.iter().map(|reading| reading.is_whole).collect();
    assert_eq!(whole, [true, true, false, true, false], "{readings:?}");
    assert_eq!((readings[0].points.len(), readings[1].points.len()), (8, 2));
    assert!(readings[2].failure.as_ref().unwrap().contains("no answer within"), "{readings:?}");
    assert!(readings[4].failure.as_ref().unwrap().contains("No such file"), "{readings:?}");
}

/// A lamp that blinks costs the line a time-out once, not at every turn; a command of the centre is always tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_lamp_is_left_alone_by_what_the_gateway_shows_itself() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(vec![Station::board(1), Station::board(2)], 7);
    let line = PtyLine::plug(&folder.path().join("ttyBUS"), bus).unwrap();
    let link = serial(line.path());
    let mut bench = Bench::start(&[board_on(&link, 1), board_on(&link, 2)].concat(), &no_broker());
    bench.hears(&["call-1 call_button 0 good", "call-2 call_button 0 good"]).await;
    line.speaker().station(2).unwrap().manners.silent = true;
    let show = Write { id: String::new(), board: 1, output: 0, value: true, within: Duration::from_secs(5) };
    let command = Write { id: "w".to_owned(), ..show.clone() };
    bench.links.write(show.clone()).unwrap();
    bench.hears(&[" failed: no answer within 500ms"]).await;
    for _ in 0..3 {
        bench.links.write(show.clone()).unwrap();
        bench.hears(&[" failed: it did not answer the last time"]).await;
    }
    bench.links.write(command.clone()).unwrap();
    bench.hears(&["w failed: no answer within 500ms"]).await;
    line.speaker().station(2).unwrap().manners.silent = false;
    bench.links.write(command).unwrap();
    bench.hears(&["w done"]).await;
    bench.links.write(show).unwrap();
    bench.hears(&[" done"]).await;
}

/// The gateway's own broker is this crate's program, started when a device needs it, and again after it was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_speak_to_the_home_s_own_broker_also_after_it_was_killed() {
    let [v4, v5] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let broker = LocalBroker::Embedded { program: env!("CARGO_BIN_EXE_carebed-gateway").into(), v4, v5 };
    let devices = "[[device]]\nid = \"door-1\"\nprofile = \"zigbee2mqtt/aqara-door\"\nlink = \"mqtt\"\naddress = \"front\"\n\
                   [device.inputs.door_open]\nroom = \"bedroom\"\n\
                   [[device]]\nid = \"sos-1\"\nprofile = \"zigbee2mqtt/tuya-sos\"\nlink = \"mqtt\"\naddress = \"sos\"\n\
                   [device.inputs.call]\nbed = \"b1\"\n";
    let mut bench = Bench::start(devices, &broker);
    let bridge =
        ZigbeeBridge::start(v4, vec![("front".to_owned(), Fact::DoorOpen), ("sos".to_owned(), Fact::CallPressed)]);
    let speaking = async {
        loop {
            bridge.show(Fact::DoorOpen, true);
            bridge.show(Fact::CallPressed, true);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = speaking => {}
        _ = bench.hears(&["door-1 door_open 1 good", "sos-1 call_event 1 good"]) => {}
    }
    // MQTT 5 is served, too.
    let listens = tokio::net::TcpStream::connect(v5).await;
    assert!(listens.is_ok(), "{listens:?}");

    let own = std::process::id().to_string();
    let found =
        std::process::Command::new("pgrep").args(["-P", &own, "-f", &format!("home-broker --v4 {v4}")]).output();
    let broker_id = String::from_utf8(found.unwrap().stdout).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", broker_id.trim()]).status().unwrap().success());
    let speaking = async {
        loop {
            bridge.show(Fact::DoorOpen, false);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = speaking => {}
        _ = bench.hears(&["door-1 door_open 0 good"]) => {}
    }
}

/// A counting module is told to count by its start-up steps, and no press is missed however short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counting_module_is_set_up_and_its_presses_are_calls() {
    let folder = tempfile::tempdir().unwrap();
    let line = PtyLine::plug(&folder.path().join("ttyBUS"), Bus::new(vec![Station::counter(5)], 1)).unwrap();
    let module = format!(
        "[[device]]\nid = \"module-5\"\nprofile = \"wirenboard/wb-mcm8\"\nlink = \"{}\"\nunit = 5\n\
         [device.inputs.press2]\ndevice = \"call-2\"\nquantity = \"call_button\"\nbed = \"b1\"\n\
         [device.inputs.1]\ndevice = \"door-1\"\nquantity = \"door_open\"\nroom = \"bedroom\"\n",
        serial(line.path())
    );
    let mut bench = Bench::start(&module, &no_broker());
    bench.hears(&["door-1 door_open 0 good"]).await;
    let modes = || line.speaker().station(5).unwrap().holding_registers.values().copied().collect::<Vec<_>>();
    let set_up = async {
        while modes() != [1; 8] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(15), set_up).await;
    assert!(in_time.is_ok(), "{:?}", modes());
    line.speaker().station(5).unwrap().press(1);
    bench.hears(&["call-2 call_button 1 good"]).await;
}

/// The broker's word is not the device's: a relay that says what it does confirms, one that says nothing leaves the command
/// unconfirmed when it expires.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_over_mqtt_is_done_when_the_device_says_so() {
    let [v4, v5] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let broker = LocalBroker::Embedded { program: env!("CARGO_BIN_EXE_carebed-gateway").into(), v4, v5 };
    let device = |name: &str| {
        format!(
            "[[device]]\nid = \"plug-{name}\"\nprofile = \"tasmota/switch\"\nlink = \"mqtt\"\naddress = \"{name}\"\n\
             [device.inputs.switch1]\ndevice = \"switch-{name}\"\nquantity = \"motion\"\nroom = \"bedroom\"\n\
             [device.outputs.relay]\ndevice = \"lamp-{name}\"\nroom = \"bedroom\"\n"
        )
    };
    let mut bench = Bench::start(&[device("good"), device("mute")].concat(), &broker);
    let mut commands = support::Ears::at(v4, "cmnd/+/Power").await;
    let (client, mut events) = AsyncClient::new(MqttOptions::new("good", "127.0.0.1", v4.port()), 8);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    // Connected as soon as it hears of a device.
    let speaking = async {
        loop {
            let said = client.publish("tele/good/SENSOR", QoS::AtLeastOnce, false, "{\"Switch1\":\"ON\"}");
            said.await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = speaking => {}
        _ = bench.hears(&["switch-good motion 1 good"]) => {}
    }
    let set = |id: &str, board, within| Write { id: id.to_owned(), board, output: 0, value: true, within };
    bench.links.write(set("w1", 0, Duration::from_secs(60))).unwrap();
    assert_eq!(commands.next().await, "ON");
    // Not what was set, then what was set.
    for state in ["OFF", "ON"] {
        let said = format!("{{\"POWER\":\"{state}\"}}");
        client.publish("stat/good/RESULT", QoS::AtLeastOnce, false, said).await.unwrap();
    }
    bench.hears(&["w1 done"]).await;
    bench.links.write(set("w2", 1, Duration::from_millis(500))).unwrap();
    assert_eq!(commands.next().await, "ON");
    bench.hears(&["w2 sent: the device did not say so before the command expired"]).await;
}

/// Our own broker without its listener for MQTT 5, as after an accident: that is found out, told, and mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_serves_only_one_protocol_is_started_again() {
    let [v4, v5, elsewhere] =
        [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (program, real) = (folder.path().join("broker"), env!("CARGO_BIN_EXE_carebed-gateway"));
    // The first start serves MQTT 5 at another port.
    let script = format!(
        "#!/bin/sh\nif mkdir {0}/started 2>/dev/null; then exec {real} home-broker --v4 {v4} --v5 {elsewhere}; fi\nexec {real} \"$@\"\n",
        folder.path().display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let broker = LocalBroker::Embedded { program, v4, v5 };
    let door = "[[device]]\nid = \"door-1\"\nprofile = \"zigbee2mqtt/aqara-door\"\nlink = \"mqtt\"\naddress = \"front\"\n\
                [device.inputs.door_open]\nroom = \"bedroom\"\n";
    let mut bench = Bench::start(door, &broker);
    let told = format!("the home's broker did not answer MQTT 5 on {v5}; it was started again");
    let told = async { while bench.next().await.iter().all(|row| row.text != told) {} };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("nobody tells it");
    let serves = async {
        while tokio::net::TcpStream::connect(v5).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), serves).await.expect("MQTT 5 is not served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_asked_for_and_a_device_that_refuses_is_told_as_silent() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (show, page) = tokio::sync::watch::channel("HTTP/1.1 200 OK\r\n\r\nPRES=1<br>\r\nHR=63<br>\r\nRR=---<br>\r\n");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 1_024];
            let n_bytes = stream.read(&mut asked).await.unwrap_or(0);
            assert!(asked[..n_bytes].starts_with(b"GET /dvmstatus.htm HTTP/1.1\r\n"), "{asked:?}");
            let answer = *page.borrow();
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    let device = format!(
        "[[device]]\nid = \"mat-1\"\nprofile = \"emfit/qs\"\nlink = \"http://{address}\"\nevery = \"200ms\"\n\
         [device.inputs.bed_occupancy]\nbed = \"b1\"\n[device.inputs.heart_rate]\nbed = \"b1\"\n\
         [device.inputs.respiratory_rate]\nbed = \"b1\"\n"
    );
    let mut bench = Bench::start(&device, &no_broker());
    let first = ["mat-1 bed_occupancy 1 good", "mat-1 heart_rate 63 good", "mat-1 respiratory_rate - bad:sentinel"];
    bench.hears(&first).await;
    show.send_replace("HTTP/1.1 500 Oops\r\n\r\nPRES=0<br>\r\n");
    bench.hears(&["mat-1 bed_occupancy - bad:no_answer"]).await;
    show.send_replace("HTTP/1.1 200 OK\r\n\r\nPRES=0<br>\r\n");
    bench.hears(&["mat-1 bed_occupancy 0 good"]).await;
}
