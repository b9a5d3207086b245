use super::*;

const GOOD: &str = include_str!("../../../deploy/gateway/home.toml");

fn mistakes(text: &str) -> Vec<String> {
    let list = HomeFile::parse("home.toml", text).err().map(|mistakes| mistakes.list).unwrap_or_default();
    list.iter().map(|m| format!("{}:{} {} | {}", m.line, m.column, m.message, m.hint)).collect()
}

#[test]
fn the_example_reads_and_makes_an_inventory() {
    let home = HomeFile::parse("home.toml", GOOD).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let board = &home.boards[0];
    assert_eq!(board.link, Address::ModbusTcp(("192.168.1.50".to_owned(), 502)));
    assert_eq!((board.unit, board.inputs.len(), board.outputs.len()), (1, 4, 1));
    let call = board.inputs.iter().find(|input| input.quantity.as_str() == "call_button").unwrap();
    assert_eq!((call.lane, call.bed.as_ref().unwrap().as_str()), (Lane::Urgent, "h1-bed"));
    assert_eq!(call.room.as_ref().unwrap().as_str(), "bedroom", "a device at a bed is in the bed's room");

    let inventory = home.inventory(Timestamp::from_millis(7));
    let lamp = inventory.devices.iter().find(|device| device.id.as_str() == "lamp-1").unwrap();
    assert_eq!(
        (lamp.actions.join(" "), lamp.quantities[0].as_str(), home.shows()),
        ("set warn".to_owned(), "lamp_on", vec![Some(Shows::Answer)])
    );
    assert_eq!((inventory.devices.len(), inventory.beds.len(), inventory.version.len()), (5, 1, 64));
}

#[test]
fn what_an_installer_gets_wrong_is_told_all_at_once_with_a_fix() {
    let text = r#"[home]
id = "h1"
area = "360702"
time_zone = "Asia/Shanghia"
residents = 0
[gateway]
id = "gw 1"
[[room]]
id = "bedroom"
[[room]]
id = "bedroom"
[[bed]]
id = "bed-1"
room = "bedrom"
[[device]]
id = "board-1"
profile = "waveshare/modbus-di9"
link = "tcp://192.168.1.50"
[[device]]
id = "board-1"
profile = "waveshare/modbus-di8"
link = "tcp://192.168.1.50:502"
evry = "50ms"
[device.inputs.1]
device = "call-1"
quantity = "call_buton"
bed = "bed-2"
[device.inputs.9]
device = "mat-1"
quantity = "bed_occupancy"
[device.inputs.2]
device = "mat-1"
quantity = "bed_occupancy"
[device.outputs.1]
device = "lamp-1"
actions = ["blink"]
"#;
    assert_eq!(
        mistakes(text),
        [
            "4:13 time_zone: \"Asia/Shanghia\" is not an IANA time zone | did you mean \"Asia/Shanghai\"?",
            "5:13 residents is 0 | say how many people live in the home",
            "7:6 id: id \"gw 1\" must start with a letter or digit and hold only A-Z a-z 0-9 . _ : - | correct the value",
            "11:6 room \"bedroom\" is there twice | give each room its own id",
            "14:8 there is no room \"bedrom\" | did you mean \"bedroom\"?, or add [[room]] with this id",
            "17:11 there is no profile \"waveshare/modbus-di9\" | did you mean \"waveshare/modbus-di8\"?; see carebed-gateway profiles list",
            "20:6 device \"board-1\" is there twice | give each device its own id",
            "23:1 [[device]] knows no \"evry\" | did you mean \"every\"?",
            "26:12 there is no quantity \"call_buton\" | did you mean \"call_button\"?",
            "27:7 there is no bed \"bed-2\" | did you mean \"bed-1\"?, or add [[bed]] with this id",
            "28:16 waveshare/modbus-di8 has no input \"9\" | did you mean \"1\"?",
            "32:10 observation \"mat-1 bed_occupancy\" is there twice | give each observation its own id",
            "36:11 the profile does not allow action \"blink\" on output \"1\" | known: set",
        ]
    );
}

#[test]
fn what_was_not_agreed_to_is_not_even_decoded() {
    let text = GOOD.replace("activity = true", "activity = false");
    let home = HomeFile::parse("home.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let left: Vec<&str> = home.boards[0].inputs.iter().map(|input| input.quantity.as_str()).collect();
    assert_eq!(left, ["call_button"], "a call needs no consent");
    let inventory = home.inventory(Timestamp::from_millis(7));
    assert_eq!(inventory.withheld, ["activity"]);
    assert!(inventory.devices.iter().all(|device| device.id.as_str() != "mat-1"));

    // A table that does not speak of a class withholds it; without the table all was agreed to elsewhere.
    let (before, _) = GOOD.rsplit_once("[consent]").unwrap();
    assert_eq!(HomeFile::parse("home.toml", before).unwrap().boards[0].inputs.len(), 4);
    let some = HomeFile::parse("home.toml", &format!("{before}[consent]\nvitals = true\n")).unwrap();
    assert_eq!(some.consent.withheld().len(), 3);
    let wrong = format!("{before}[consent]\nvitls = true\n");
    assert!(mistakes(&wrong)[0].contains("did you mean \"vitals\"?"), "{:?}", mistakes(&wrong));
}

#[test]
fn what_an_output_shows_is_checked() {
    let text = GOOD.replace("shows = \"answer\"", "shows = \"answr\"");
    assert!(
        mistakes(&text)[0].contains("shows: \"answr\" is unknown | did you mean \"answer\"?"),
        "{:?}",
        mistakes(&text)
    );
}

/// Rate, time-out, retries and unit of one device.
#[test]
fn how_a_device_is_asked_is_checked() {
    let told = |device: &str| {
        let rooms = "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"g1\"\n";
        mistakes(&format!("{rooms}[[device]]\nid = \"d1\"\n{device}"))
    };
    let on_bus = "profile = \"waveshare/modbus-di8\"\nlink = \"serial:/dev/ttyUSB0\"\n";
    let cases = [
        (on_bus, "unit = 7\nevery = \"20ms\"\ntimeout = \"150ms\"\nretries = 0\n", ""),
        (on_bus, "every = \"1ms\"\n", "10:9 every is 1ms | give 5ms to 86400s"),
        (on_bus, "timeout = \"1ms\"\n", "10:11 timeout is 1ms | give 10ms to 10s"),
        (on_bus, "timeout = \"1min\"\n", "10:11 timeout is 60s | give 10ms to 10s"),
        (on_bus, "retries = 6\n", "10:11 retries is 6 | give 0 to 5; on a line that damages more, mend the line"),
        (
            on_bus,
            "unit = 0\n",
            "10:8 unit 0 is every device of the line | give the number that is set on the device, 1 to 247",
        ),
        (
            "profile = \"micradar/r60abd1\"\nlink = \"serial:/dev/ttyUSB0\"\n",
            "retries = 2\n",
            "10:11 micradar/r60abd1 is not polled by Modbus | leave retries out: what a device of this kind does not \
             answer is asked again in its next turn",
        ),
        (
            "profile = \"tasmota/switch\"\nlink = \"mqtt\"\naddress = \"hall\"\n",
            "timeout = \"1s\"\n",
            "11:11 tasmota/switch is not asked: it speaks to a broker by itself | leave timeout out; silent_after in the \
             profile says after how long without a word a device is silent",
        ),
    ];
    for (device, lines, expected) in cases {
        assert_eq!(told(&format!("{device}{lines}")).join("\n"), expected, "{lines}");
    }
}
