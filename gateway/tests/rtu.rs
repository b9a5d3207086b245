//! No wrong value on a bus that does everything a bus may do. `cargo bench -p carebed-gateway --bench rtu` runs the same for longer.
#![expect(clippy::cast_possible_truncation, reason = "mixing bits drops some")]
#![expect(clippy::indexing_slicing, reason = "helpers of tests fail where an assumption does")]

mod adversary;

use adversary::Trial;

#[test]
fn an_adversarial_bus_gives_no_wrong_value() {
    let mut right = 0;
    for seed in 0..100 {
        let mut trial = Trial::new(seed);
        while trial.tally.total() < 300 {
            trial.step();
        }
        assert_eq!(trial.tally.wrong, 0, "seed {seed}: {:?}", trial.tally);
        right += trial.tally.right;
    }
    assert!(right > 5_000, "only {right} answers were taken");
}
