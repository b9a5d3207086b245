#![no_main]
//! Any text as a profile and as a capture of it: mistakes are told, and nothing that reads panics when it is used.

use std::sync::Arc;
use std::time::Duration;

use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::profile::Profile;
use carebed_device_profiles::{capture, shipped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Profile::parse("fuzz/fuzz", text) {
        Ok(profile) => {
            let mut decoder = Decoder::new(Arc::new(profile));
            decoder.push(data, Duration::ZERO);
            decoder.push(&[], Duration::from_secs(2));
            for index in 0..4 {
                decoder.payload(index, data, false);
                decoder.answer(index, data);
            }
        }
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
    let known = &shipped::all()[data.len() % shipped::all().len()].profile;
    let _told = capture::run(known, text);
});
