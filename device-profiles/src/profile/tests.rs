use super::*;
use crate::field::Field;

const GOOD: &str = r#"
[identification]
vendor = "V"
model = "M"
title = { zh = "型号", en = "model" }
source = "manual"
confidence = "A"
tested_on_hardware = false

[link]
kinds = ["modbus_tcp"]
unit = 1

[[poll]]
name = "inputs"
function = "read_discrete_inputs"
address = 0
count = 8
every = "20ms"

[input.1]
poll = "inputs"
bit = 0

[[deny]]
first_coil = 256
last_coil = 65535
reason = "settings"

[output.1]
coil = 0

[report]
heartbeat = "10min"
"#;

fn mistakes(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from:?} is not in the text");
    let mistakes = Profile::parse("v/m", &GOOD.replacen(from, to, 1)).err().map(|m| m.list).unwrap_or_default();
    mistakes.iter().map(|m| format!("{}:{} {} | {}", m.line, m.column, m.message, m.hint)).collect()
}

#[test]
fn a_good_profile_reads() {
    let profile = Profile::parse("v/m", GOOD).unwrap();
    assert_eq!(profile.input("1").unwrap().field, Field::Bit(0));
    assert_eq!(profile.output("1").unwrap().actions, ["set"]);
    assert_eq!(profile.polls[0].request().pdu(), [2, 0, 0, 0, 8]);
    assert!(profile.denies(256).is_some() && profile.denies(255).is_none());
    assert_eq!((profile.link.port, profile.report.on_change), (502, true));
}

#[test]
fn what_a_profile_author_gets_wrong_is_told_with_a_fix() {
    let cases = [
        ("bit = 0", "bit = 8", "23:7 bit 8 lies outside poll \"inputs\" | use 0 to 7"),
        ("poll = \"inputs\"", "poll = \"input\"", "22:8 no [[poll]] is named \"input\" | did you mean \"inputs\"?"),
        ("count = 8", "count = 2001", "18:9 count 2001 is not between 1 and 2000 | split it into several [[poll]]"),
        ("coil = 0", "coil = 300", "31:8 coil 300 is denied: settings | remove the output"),
        ("heartbeat =", "heartbeet =", "34:1 [report] knows no \"heartbeet\" | did you mean \"heartbeat\"?"),
        (
            "kinds = [\"modbus_tcp\"]",
            "kinds = []",
            "11:9 kinds is empty | name at least one of modbus_tcp, modbus_rtu, serial, mqtt, http",
        ),
        ("coil = 0", "coil = 0\nactions = [\"sett\"]", "32:11 unknown action \"sett\" | did you mean \"set\"?"),
        (
            "read_discrete_inputs",
            "read_input_registers",
            "21:1 poll \"inputs\" reads registers; which one is not said | add register = 0",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(mistakes(from, to), [expected]);
    }
    assert_eq!(
        mistakes(
            "[report]",
            "[[poll]]\nname = \"inputs\"\nfunction = \"read_coils\"\naddress = 0\ncount = 1\n[report]"
        )
        .len(),
        1
    );
}
