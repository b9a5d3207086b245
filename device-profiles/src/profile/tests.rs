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

const FRAMED: &str = r#"
[identification]
vendor = "V"
model = "M"
title = { zh = "雷达", en = "radar" }
source = "manual"
confidence = "B"
tested_on_hardware = false

[link]
kinds = ["serial"]
serial = ["115200 8N1"]

[report]
heartbeat = "10min"

[[framing]]
start = "01"
length = { at = 3, type = "u16", add = 9, empty = 8 }
length_max = 64
checks = [{ kind = "not_xor8", at = 7, to = 7 }]
key = { at = 5, size = 2 }
data = { from = 8, after = 1 }

[[startup]]
send = { key = "0E 08", data = "01" }

[[message]]
name = "heart"
keys = ["0A 15"]
length = 4

[input.heart_rate]
message = "heart"
at = 0
type = "f32"
quantity = "heart_rate"
"#;

#[test]
fn what_the_author_of_a_framed_device_gets_wrong_is_told_with_a_fix() {
    let cases = [
        ("[\"115200 8N1\"]", "[\"115200 8X1\"]", "serial: \"115200 8X1\" is not a serial setting such as \"9600 8N1\""),
        ("start = \"01\"", "start = \"1\"", "start: \"1\" is not bytes in hex, such as \"53 59\""),
        ("length_max = 64", "length_max = 9999", "length_max 9999 is not between 1 and 2048"),
        ("keys = [\"0A 15\"]", "keys = [\"0A\"]", "the message does not say by which keys its frames are known"),
        ("at = 0\ntype", "at = 2\ntype", "the value reaches beyond the message's 4 bytes"),
        ("\"heart_rate\"\n", "\"hart_rate\"\n", "there is no quantity \"hart_rate\""),
        ("message = \"heart\"", "message = \"hart\"", "no [[message]] is named \"hart\""),
        ("\"0E 08\"", "\"30 00\"", "the frame cannot be sent: it is never sent: TinyFrame 0x3000"),
        ("kind = \"not_xor8\"", "kind = \"md5\"", "kind: unknown variant `md5`"),
        ("type = \"f32\"", "type = \"bcd\"", "how many bytes the digits take is not said"),
    ];
    assert!(Profile::parse("v/m", FRAMED).is_ok(), "{}", Profile::parse("v/m", FRAMED).unwrap_err());
    for (from, to, expected) in cases {
        assert!(FRAMED.contains(from), "{from:?} is not in the text");
        let mistakes = Profile::parse("v/m", &FRAMED.replacen(from, to, 1)).unwrap_err();
        assert!(mistakes.list.iter().any(|mistake| mistake.message.starts_with(expected)), "{expected}: {mistakes}");
        assert!(mistakes.list.iter().all(|mistake| mistake.line > 1 && !mistake.hint.is_empty()), "{mistakes}");
    }
}

/// However a profile cuts a frame into start, key and data, and wherever it hides its first bytes: what goes out is judged.
#[test]
fn no_profile_can_send_what_is_never_sent() {
    let framed = |framing: &str, data: &str| {
        let at = FRAMED.find("[[framing]]").unwrap();
        format!("{}[[framing]]\n{framing}\n[[startup]]\nsend = {{ key = \"30\", data = \"{data}\" }}\n", &FRAMED[..at])
    };
    let fixed = |rest: &str| format!("fixed_length = 8\n{rest}");
    let cases = [
        (framed(&fixed("start = \"01 00\"\nkey = { at = 5, size = 1 }\ndata = { from = 6 }"), "00 CE"), "0x3000"),
        (
            framed(&fixed("start = \"01 00 00 00 00\"\nkey = { at = 5, size = 1 }\ndata = { from = 6 }"), "00 CE"),
            "0x3000",
        ),
        (
            framed(
                "start = \"00 00 00\"\npreamble = \"01 00\"\nfixed_length = 6\nkey = { at = 3, size = 1 }\ndata = { from = 4 }",
                "00 CE",
            ),
            "0x3000",
        ),
        (
            framed(
                "start = \"00 00 00 00\"\nfixed_length = 7\nkey = { at = 4, size = 1 }\ndata = { from = 5 }",
                "00 CE",
            )
            .replace("[link]", "[link]\nwake = \"01\""),
            "0x3000",
        ),
        (FRAMED.replace("[link]", "[link]\nwake = \"01 00 00 00 00 30 00 CE\""), "0x3000"),
        (FRAMED.replace("[link]", "[link]\nwake = \"F8 42 C2 41\""), "function 42"),
        // Coil 256, which the profile itself denies.
        (GOOD.replace("[link]", "[link]\nwake = \"01 05 01 00 FF 00 8D C6\""), "settings"),
        (
            FRAMED
                .replace(
                    "[[startup]]",
                    "[[framing]]\nname = \"m\"\nstart = \"F8 42\"\nfixed_length = 4\n\
                checks = [{ kind = \"crc16_modbus\", at = 2, to = 2 }]\n\n[[startup]]",
                )
                .replace("start = \"01\"", "name = \"t\"\nstart = \"01\"")
                .replace("send = { key = \"0E 08\", data = \"01\" }", "send = { framing = \"m\", key = \"\" }")
                .replace("name = \"heart\"", "name = \"heart\"\nframing = \"t\""),
            "function 42",
        ),
        (FRAMED.replace("length = 4\n", "length = 4\nquery = { key = \"40 00\" }\n"), "0x4000"),
    ];
    for (text, reason) in cases {
        let told = Profile::parse("v/m", &text).map_err(|mistakes| mistakes.to_string());
        let told = told.expect_err(&text);
        assert!(told.contains("never sent") && told.contains(reason), "{reason}: {told}\n{text}");
    }
}

/// What the home file says is judged too: an address can turn harmless bytes into others.
#[test]
fn an_address_of_the_home_cannot_make_a_denied_frame() {
    let text = FRAMED
        .replace(
            "start = \"01\"\nlength = { at = 3, type = \"u16\", add = 9, empty = 8 }\n",
            "start = \"01\"\nfixed_length = 8\n",
        )
        .replace(
            "checks = [{ kind = \"not_xor8\", at = 7, to = 7 }]\n",
            "checks = [{ kind = \"not_xor8\", at = 7, to = 7 }]\naddress = { at = 5, size = 1 }\n",
        )
        .replace(
            "key = { at = 5, size = 2 }\ndata = { from = 8, after = 1 }",
            "key = { at = 1, size = 2 }\ndata = { from = 8 }",
        )
        .replace("data = \"01\"", "data = \"\"");
    let profile = Profile::parse("v/m", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let send = profile.startup[0].send.as_ref().unwrap();
    assert!(send.encode(&profile, Some("11")).is_ok());
    let denied = send.encode(&profile, Some("30")).unwrap_err();
    assert!(matches!(&denied, crate::framing::BuildError::Denied(reason) if reason.contains("0x3000")), "{denied}");
}

/// One run tells everything that is wrong, in the order of the file.
#[test]
fn all_mistakes_are_told_at_once() {
    let broken = FRAMED
        .replace("confidence = \"B\"", "confidence = \"Z\"")
        .replace("length_max = 64", "length_max = 6400")
        .replace("heartbeat", "hartbeat")
        .replace("type = \"f32\"", "type = \"f33\"")
        .replace("\"heart_rate\"\n", "\"hart_rate\"\n");
    let mistakes = Profile::parse("v/m", &broken).unwrap_err();
    let lines: Vec<usize> = mistakes.list.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [7, 15, 20, 36, 37], "{mistakes}");
}

/// What is wrong with one table makes no other one wrong.
#[test]
fn a_mistake_in_one_table_is_none_in_the_next() {
    let more = "[input.2]\npoll = \"inputs\"\nbit = 9\n[input.3]\npoll = \"inputs\"\nbit = 3\n\
                [output.2]\ncoil = 301\n[output.3]\ncoil = 3\n[report]";
    let broken = GOOD.replace("bit = 0", "bit = 8").replace("coil = 0", "coil = 300").replace("[report]", more);
    let mistakes = Profile::parse("v/m", &broken).unwrap_err();
    let told: Vec<&str> = mistakes.list.iter().map(|mistake| mistake.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "bit 8 lies outside poll \"inputs\"",
            "coil 300 is denied: settings",
            "bit 9 lies outside poll \"inputs\"",
            "coil 301 is denied: settings",
        ]
    );
}

#[test]
fn a_row_of_inputs_is_one_table() {
    let many = GOOD.replace("[input.1]", "[input.X1-8]").replace("[output.1]", "[output.K0-3]");
    let profile = Profile::parse("v/m", &many).unwrap();
    let names: Vec<&str> = profile.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["X1", "X2", "X3", "X4", "X5", "X6", "X7", "X8"]);
    assert_eq!(profile.inputs[7].field, Field::Bit(7));
    assert_eq!(profile.output("K3").unwrap().coil(), Some(3));
    let too_many = Profile::parse("v/m", &GOOD.replace("[input.1]", "[input.1-9]")).unwrap_err();
    assert_eq!(too_many.list[0].message, "bit 8 lies outside poll \"inputs\"");
}

#[test]
fn addresses_and_moved_blocks_are_checked() {
    let meter = crate::shipped::find("china/dlt645-2007").unwrap();
    for (address, good) in [("000000000001", true), ("1", true), ("AAAAAAAAAAAA", true), ("12x", false), ("", false)] {
        assert_eq!(meter.check_address(address).is_ok(), good, "{address}");
    }
    let moxa = crate::shipped::find("moxa/iologik-e1210").unwrap();
    let moved = moxa.with_poll_at("inputs", 48).unwrap();
    assert_eq!(moved.polls[0].request().pdu(), [2, 0, 48, 0, 16]);
    assert!(moxa.with_poll_at("inputs", 65_530).is_none() && moxa.with_poll_at("nothing", 1).is_none());
    assert!(crate::shipped::find("waveshare/modbus-di8").unwrap().with_poll_at("inputs", 1).is_none());
}

/// `carebed-gateway profiles schema > device-profiles/profile.schema.json`
#[test]
fn the_schema_in_the_tree_is_what_the_reader_reads() {
    let kept: serde_json::Value = serde_json::from_str(include_str!("../../profile.schema.json")).unwrap();
    assert_eq!(kept, Profile::schema(), "print it anew: carebed-gateway profiles schema");
    assert_eq!(kept["properties"]["poll"]["items"]["properties"]["count"]["maximum"], 65_535);
    assert_eq!(kept["properties"]["report"]["properties"]["heartbeat"]["type"], "string");
    assert!(kept["properties"]["input"]["additionalProperties"]["properties"]["type"]["enum"].is_array());
}

/// A schema that refuses what the reader takes would teach authors to ignore it.
#[test]
fn the_schema_accepts_every_shipped_profile_and_refuses_other_keys() {
    let schema = Profile::schema();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    for folder in crate::folder::find(&root).unwrap() {
        let text = std::fs::read_to_string(folder.join("profile.toml")).unwrap();
        let value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
        assert_eq!(refused(&schema, &value), None, "{}", folder.display());
    }
    let wrong = serde_json::to_value(toml::from_str::<toml::Table>("[link]\nkinds = [\"modbus\"]").unwrap()).unwrap();
    assert!(refused(&schema, &wrong).is_some());
}

/// As much of JSON Schema as ours uses: where a value is refused, if it is.
fn refused(schema: &serde_json::Value, value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    };
    match schema["type"].as_str() {
        Some(wanted) if wanted != kind && !(wanted == "number" && kind == "integer") => {
            return Some(format!("{value} is no {wanted}"));
        }
        _ => {}
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Some(format!("{value} is not among the words"));
    }
    if let Some(missing) =
        schema["required"].as_array().into_iter().flatten().find(|key| value.get(key.as_str().unwrap()).is_none())
    {
        return Some(format!("{missing} is missing"));
    }
    if let Value::Array(items) = value {
        return items.iter().find_map(|item| refused(&schema["items"], item));
    }
    value.as_object()?.iter().find_map(|(key, value)| {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("nobody knows {key}")),
            (Value::Null, other) => refused(other, value),
            (known, _) => refused(known, value),
        }
    })
}
