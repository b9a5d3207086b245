#![no_main]
//! Any bytes at any times on an RTU line: every transaction ends, and what is taken is exactly as long as was asked.
//!
//! Each input byte below 0xF0 stands on the line; the others let time pass, so that cuts and silences are found, too.

use std::time::Duration;

use carebed_device_profiles::modbus::{Function, Request};
use carebed_gateway::link::rtu::{Ask, Timing, Transactions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let requests = [
        Request::Read { function: Function::ReadHoldingRegisters, address: 0x0301, count: 2 },
        Request::Read { function: Function::ReadCoils, address: 0, count: 24 },
        Request::WriteCoil { address: 1, value: true },
    ];
    let mut bus = Transactions::new(Timing::new(9_600, 10), None);
    let mut now = Duration::ZERO;
    let mut bytes = data.iter();
    for request in requests.into_iter().cycle().take(16) {
        now = now.max(bus.ready_at(1, request, now));
        let Some(_sent) = bus.begin(Ask { unit: 1, request, timeout: Duration::from_millis(200) }, now) else { continue };
        let began = now;
        let outcome = loop {
            let outcome = match bytes.next() {
                Some(byte @ 0..0xF0) => bus.received(&[*byte], now),
                Some(byte) => {
                    now += Duration::from_millis(u64::from(byte & 0x0F) * 8);
                    bus.tick(now)
                }
                None => {
                    now = now.max(bus.due().expect("a transaction runs"));
                    bus.tick(now)
                }
            };
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        assert!(now - began < Duration::from_secs(1));
        let expected = match request {
            Request::Read { function, count, .. } => function.answer_length(count),
            _ => 0,
        };
        assert!(outcome.is_err() || outcome.is_ok_and(|data| data.len() == expected));
    }
});
