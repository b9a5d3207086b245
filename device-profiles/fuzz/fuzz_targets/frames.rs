#![no_main]
//! Any bytes as the stream of any shipped device that speaks in frames: every framing there is. Cutting the stream changes
//! no point, what is bad is no number, and every frame that was found can be built again.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::value::Value;
use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::shipped;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, cut, bytes @ ..] = data else { return };
    let framed: Vec<_> = shipped::all().iter().filter(|shipped| !shipped.profile.framings.is_empty()).collect();
    let profile = &framed[usize::from(*which) % framed.len()].profile;
    let hear = |pieces: &[&[u8]]| {
        let mut decoder = Decoder::new(Arc::clone(profile));
        let (mut points, mut frames) = (Vec::new(), Vec::new());
        for piece in pieces {
            let decoded = decoder.push(piece, Duration::ZERO);
            points.extend(decoded.points);
            frames.extend(decoded.frames);
        }
        let decoded = decoder.push(&[], Duration::from_secs(2));
        points.extend(decoded.points);
        frames.extend(decoded.frames);
        (points, frames)
    };
    let (head, tail) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let (points, frames) = hear(&[bytes]);
    assert_eq!(hear(&[head, tail]), (points.clone(), frames.clone()));
    for point in points {
        assert!(point.quality.is_usable() || point.value == Value::Missing);
    }
    for frame in frames {
        let framing = &profile.framings[frame.framing];
        let _same_or_refused = framing.build(frame.address.as_deref(), &frame.key, &frame.data);
    }
});
