use carebed_device_profiles::modbus::Function;
use proptest::prelude::*;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const READ: Request = Request::Read { function: Function::ReadHoldingRegisters, address: 0, count: 2 };
const OTHER: Request = Request::Read { function: Function::ReadHoldingRegisters, address: 9, count: 2 };
const WRITE: Request = Request::WriteCoil { address: 1, value: true };

fn frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
    rtu_frame(unit, pdu)
}

fn ask(request: Request) -> Ask {
    Ask { unit: 1, request, timeout: MS(200) }
}

fn good() -> Vec<u8> {
    frame(1, &[3, 4, 1, 2, 3, 4])
}

/// What came, in pieces of (ms after the request, bytes) → the outcome, and at which ms.
fn run(bus: &mut Transactions, from: Duration, request: Request, pieces: &[(u64, Vec<u8>)]) -> (String, u64) {
    let from = from.max(bus.ready_at(1, request, from));
    bus.begin(ask(request), from).expect("it may be sent");
    let mut pieces = pieces.iter().peekable();
    loop {
        let due = bus.due().expect("a transaction runs");
        let (at, outcome) = match pieces.peek() {
            Some((at, bytes)) if from + MS(*at) <= due => {
                pieces.next();
                (from + MS(*at), bus.received(bytes, from + MS(*at)))
            }
            _ => (due, bus.tick(due)),
        };
        if let Some(outcome) = outcome {
            let told = match outcome {
                Ok(data) => format!("{data:?}"),
                Err(failure) => failure.to_string(),
            };
            return (told, u64::try_from((at - from).as_millis()).unwrap());
        }
    }
}

fn bus() -> Transactions {
    Transactions::new(Timing::new(9_600, 10), None)
}

#[test]
fn only_the_exact_answer_is_taken_and_everything_else_is_skipped() {
    let data = "[1, 2, 3, 4]";
    let sent = frame(1, &READ.pdu());
    let foreign = frame(7, &[3, 4, 9, 9, 9, 9]);
    // Another unit's answer that holds, as its data, an answer of ours.
    let inside = frame(7, &[&[3, 10][..], &good(), &[0]].concat());
    let damaged = {
        let mut damaged = good();
        damaged[4] ^= 1;
        damaged
    };
    let all = |parts: &[&[u8]]| parts.concat();
    let late = "no answer within 200ms";
    type Case<'a> = (&'a str, Vec<(u64, Vec<u8>)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("plain", vec![(20, good())], data),
        ("in pieces", vec![(20, good()[..1].to_vec()), (30, good()[1..5].to_vec()), (60, good()[5..].to_vec())], data),
        ("echoed", vec![(1, all(&[&sent, &good()]))], data),
        ("only echoed", vec![(1, sent.clone())], late),
        ("behind a foreign answer", vec![(20, all(&[&foreign, &good()]))], data),
        ("behind noise", vec![(20, all(&[&[0xFF, 0x00, 0xA5], &good()]))], data),
        ("behind noise that begins like a frame", vec![(20, all(&[&[7, 3, 200], &good()]))], data),
        ("inside a foreign answer", vec![(20, inside)], late),
        ("damaged", vec![(20, damaged)], "9 bytes came that are not the answer"),
        (
            "broken by a silence",
            vec![(20, good()[..5].to_vec()), (90, good()[5..].to_vec())],
            "9 bytes came that are not the answer",
        ),
        ("cut off", vec![(20, good()[..8].to_vec())], "8 bytes came that are not the answer"),
        ("an exception", vec![(20, frame(1, &[0x83, 2]))], "the device answered with exception 2"),
        ("too many registers", vec![(20, frame(1, &[3, 6, 1, 2, 3, 4, 5, 6]))], late),
        ("another function", vec![(20, frame(1, &[4, 4, 1, 2, 3, 4]))], late),
        ("another master", vec![(20, frame(1, &OTHER.pdu()))], "another master asks on this bus"),
        ("nothing", vec![], late),
    ];
    for (name, pieces, expected) in cases {
        assert_eq!(run(&mut bus(), Duration::ZERO, READ, &pieces).0, expected, "{name}");
    }
}

#[test]
fn noise_costs_a_silence_and_not_the_timeout() {
    let noisy = [&[7, 3, 200][..], &good()].concat();
    let (_, at) = run(&mut bus(), Duration::ZERO, READ, &[(20, noisy)]);
    assert!((20..60).contains(&at), "{at} ms");
    let mut damaged = good();
    damaged[4] ^= 1;
    let (_, at) = run(&mut bus(), Duration::ZERO, READ, &[(20, damaged)]);
    assert!((20..60).contains(&at), "{at} ms");
}

#[test]
fn after_a_failure_the_unit_is_asked_only_the_same_until_the_late_answer_must_have_come() {
    let mut bus = bus();
    let good_before = vec![(5, good())];
    assert_eq!(run(&mut bus, MS(0), OTHER, &good_before).0, "[1, 2, 3, 4]");
    let ready = |bus: &Transactions, unit, request, now| bus.ready_at(unit, request, now);
    assert_eq!(run(&mut bus, MS(100), READ, &[]).0, "no answer within 200ms");
    let failed = ready(&bus, 1, READ, MS(330));
    let quarantine = bus.timing.quarantine;
    let over = ready(&bus, 1, OTHER, failed);
    assert!((failed + quarantine - MS(20)..failed + quarantine + MS(20)).contains(&over), "{over:?}");
    assert!(bus.begin(ask(OTHER), failed).is_none(), "its answer could be the late one");
    // Another unit, another function: nobody can take their answers for it.
    assert!(ready(&bus, 2, OTHER, failed) <= failed && ready(&bus, 1, WRITE, failed) <= failed);
    // The late answer is thrown away, and asking the same is right whichever answer comes.
    assert_eq!(bus.received(&good(), failed + MS(100)), None);
    assert_eq!(bus.drained(), 9);
    assert_eq!(run(&mut bus, failed + MS(120), READ, &[(5, good())]).0, "[1, 2, 3, 4]");
    // What came may have been the late answer: then the last one's own is still owed.
    let later = ready(&bus, 1, OTHER, failed + MS(200));
    assert!(later > over + MS(100), "{later:?}");
    // And it is not repeated for ever, or the other would never be asked.
    assert_eq!(ready(&bus, 1, READ, failed + quarantine), later);
    assert!(bus.begin(ask(OTHER), later).is_some());
}

#[test]
fn a_unit_that_is_asked_one_thing_only_is_asked_it_again_at_once() {
    let mut bus = bus();
    for _ in 0..20 {
        assert_eq!(run(&mut bus, MS(0), READ, &[]).0, "no answer within 200ms");
    }
    assert!(bus.quiet_at < MS(20 * 240), "{:?}", bus.quiet_at);
    // Something else by the same function has to wait for the last of them.
    assert!(bus.ready_at(1, OTHER, bus.quiet_at) > bus.quiet_at + MS(900));
}

#[test]
fn a_write_is_confirmed_by_the_device_and_not_by_the_adapter() {
    let copy = frame(1, &WRITE.pdu());
    let echo = [frame(1, &READ.pdu()), good()].concat();
    let unconfirmed = "the write may only have been echoed by the adapter";
    // Before anything was read nobody knows whether the adapter echoes.
    assert_eq!(run(&mut bus(), MS(0), WRITE, &[(20, copy.clone())]).0, unconfirmed);
    assert_eq!(run(&mut bus(), MS(0), WRITE, &[(2, copy.clone()), (20, copy.clone())]).0, "[]");
    for (read, pieces, expected) in [
        (good(), vec![(20, copy.clone())], "[]"),
        (echo.clone(), vec![(20, copy.clone())], "no answer within 200ms"),
        (echo, vec![(2, copy.clone()), (20, copy.clone())], "[]"),
    ] {
        let mut bus = bus();
        assert_eq!(run(&mut bus, MS(0), READ, &[(20, read)]).0, "[1, 2, 3, 4]");
        assert_eq!(run(&mut bus, MS(300), WRITE, &pieces).0, expected);
    }
    let mut set = Transactions::new(Timing::new(9_600, 10), Some(false));
    assert_eq!(run(&mut set, MS(0), WRITE, &[(20, copy.clone())]).0, "[]");
    // Another write's confirmation is none.
    let other = frame(1, &Request::WriteCoil { address: 1, value: false }.pdu());
    assert_eq!(run(&mut set, MS(500), WRITE, &[(20, other)]).0, "no answer within 200ms");
}

#[test]
fn nobody_answers_a_broadcast() {
    let mut bus = bus();
    bus.begin(Ask { unit: BROADCAST, request: WRITE, timeout: MS(200) }, MS(0)).unwrap();
    let due = bus.due().unwrap();
    assert!((MS(150)..MS(170)).contains(&due), "{due:?}");
    assert_eq!(bus.tick(due), Some(Ok(Vec::new())));
}

#[test]
fn a_line_that_never_falls_silent_ends_the_transaction() {
    let mut bus = bus();
    bus.begin(ask(READ), MS(0)).unwrap();
    let ended = (0..100).find_map(|n| bus.received(&[0xFF; 64], MS(n)));
    assert!(matches!(ended, Some(Err(Failure::Damaged(1_088)))), "{ended:?}");
    assert!(bus.current.is_none());
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same(cuts in proptest::collection::vec(1_usize..12, 0..12), noise in proptest::collection::vec(any::<u8>(), 0..6)) {
        let stream = [&noise[..], &frame(7, &[3, 2, 0, 1]), &good()].concat();
        let whole = run(&mut bus(), MS(0), READ, &[(20, stream.clone())]).0;
        let (mut pieces, mut rest) = (Vec::new(), &stream[..]);
        for cut in cuts.into_iter().filter(|cut| *cut > 0) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push((20 + pieces.len() as u64, piece.to_vec()));
            rest = after;
        }
        pieces.push((40, rest.to_vec()));
        prop_assert_eq!(run(&mut bus(), MS(0), READ, &pieces).0, whole);
    }

    #[test]
    fn no_bytes_panic_and_every_transaction_ends(bytes in proptest::collection::vec((0_u64..300, proptest::collection::vec(any::<u8>(), 0..300)), 0..8)) {
        let mut sorted = bytes;
        sorted.sort_by_key(|(at, _)| *at);
        let (_, at) = run(&mut bus(), MS(0), READ, &sorted);
        prop_assert!(at <= 260);
    }
}
