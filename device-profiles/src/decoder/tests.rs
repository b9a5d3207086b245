use super::*;
use crate::shipped;

#[test]
fn bits_become_inputs_and_other_lengths_nothing() {
    let mut decoder = Decoder::new(shipped::find("waveshare/modbus-di8").unwrap());
    let mut on = |data: &[u8]| -> Vec<usize> {
        let points = decoder.answer(0, data).points;
        assert_eq!(points.len(), 8);
        points.into_iter().filter(|p| p.value == Value::Flag(true)).map(|p| p.input + 1).collect()
    };
    assert_eq!(on(&[0x20]), [6]);
    assert_eq!(on(&[0x81]), [1, 8]);
    for (poll, wrong) in [(0, &[][..]), (0, &[0, 0]), (7, &[0]), (7, &[])] {
        let decoded = decoder.answer(poll, wrong);
        assert!(decoded.points.is_empty() && matches!(decoded.rejects[..], [Reject::Length { .. }]), "{wrong:?}");
    }
}
