use super::*;

/// Reads a small file of one table and one list, and gives every mistake as `line:column message | hint`.
fn check(text: &str) -> Vec<String> {
    let result = read("f.toml", text, |fields| {
        let home = fields.need_table("home").map(|mut home| {
            let every = home.take_duration("every");
            (home.need::<String>("id"), home.take::<u8>("residents"), every)
        });
        for mut room in fields.tables("room") {
            room.need::<String>("id");
        }
        home
    });
    match result {
        Ok(_) => Vec::new(),
        Err(mistakes) => {
            let row = |m: &Mistake| format!("{}:{} {} | {}", m.line, m.column, m.message, m.hint);
            mistakes.list.iter().map(row).collect()
        }
    }
}

#[test]
fn every_mistake_is_told_with_place_and_fix() {
    assert_eq!(check("[home]\nid = \"h1\"\n[[room]]\nid = \"bed\"\n"), [""; 0]);
    let cases: &[(&str, &[&str])] = &[
        ("", &["1:1 the file lacks the table [home] | add [home]"]),
        ("[home]\n", &["1:1 [home] lacks id | add id = …"]),
        (
            "[home]\nid = 7\nresidnts = 1\n\n[[room]]\nname = \"x\"\n",
            &[
                "2:6 id: invalid type: integer `7`, expected a string | correct the value",
                "3:1 [home] knows no \"residnts\" | did you mean \"residents\"?",
                "5:1 [[room]] lacks id | add id = …",
                "6:1 [[room]] knows no \"name\" | known: id",
            ],
        ),
        (
            "[home]\nid = \"家\"\nresidents = 300\nevery = \"often\"\n",
            &[
                "3:13 residents: invalid value: integer `300`, expected u8 | correct the value",
                "4:9 every: \"often\" is not a duration above zero | write a number and a unit, as in \"20ms\", \
                 \"5s\", \"10min\", \"12h\"",
            ],
        ),
        ("room = 1\n[home]\nid = \"h\"\n", &["1:8 room is of type integer, not a table | write [[room]]"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&check(text), expected, "{text}");
    }
    assert!(check("[home\n")[0].starts_with("1:6 "), "{:?}", check("[home\n"));
}

#[test]
fn the_message_reads_without_colour() {
    let mistakes = read("homes/h1.toml", "[hme]\n", |f| f.need_table("home").map(drop)).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "homes/h1.toml:1:1: the file lacks the table [home]\n  hint: add [home]\n\
         homes/h1.toml:1:2: the file knows no \"hme\"\n  hint: did you mean \"home\"?"
    );
}

#[test]
fn durations() {
    for (text, millis) in [("20ms", 20), ("1.5s", 1_500), ("10min", 600_000), ("12h", 43_200_000), ("1 d", 86_400_000)]
    {
        assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "5", "s", "-1s", "0s", "1e400s", "NaNs", "5 minutes", "床"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
