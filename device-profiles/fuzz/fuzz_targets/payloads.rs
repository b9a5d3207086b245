#![no_main]
//! Any bytes as a payload, and as the answer to a poll, of any shipped device.

use std::sync::Arc;

use carebed_contract::value::Value;
use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::shipped;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, part, bytes @ ..] = data else { return };
    let profile = &shipped::all()[usize::from(*which) % shipped::all().len()].profile;
    let mut decoder = Decoder::new(Arc::clone(profile));
    let (message, retained) = (usize::from(*part >> 1), part & 1 == 1);
    let decoded = [decoder.payload(message, bytes, retained), decoder.answer(message, bytes)];
    for point in decoded.iter().flat_map(|decoded| &decoded.points) {
        assert!(point.quality.is_usable() || point.value == Value::Missing);
        assert!(point.value.number().is_none_or(f64::is_finite));
    }
});
