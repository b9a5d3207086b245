//! `cargo bench -p carebed-gateway --bench rtu [-- transactions]`: how many values a hostile bus can make wrong.
//!
//! First as many adversarial transactions as asked for (ten million by default): late answers within the quarantine,
//! echoes, frames of other units and masters, our own answers inside other units' data, damaged, cut and split answers,
//! noise. Then noise alone, in the shape of the answer, against the checksum's bound of one in 65,536.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a benchmark says what it measured, and fails where an assumption does"
)]

#[path = "../tests/adversary/mod.rs"]
mod adversary;

use std::time::Duration;

use adversary::{Tally, Trial};
use carebed_device_profiles::modbus::{Function, Request};
use carebed_gateway::link::rtu::{Ask, Timing, Transactions};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const TRANSACTIONS: u64 = 10_000_000;
/// Each trial is a bus of its own: echoing or not, with a history of its own.
const PER_TRIAL: u64 = 2_000;
const NOISE_FRAMES: u64 = 20_000_000;

fn main() {
    let wanted = std::env::args().skip(1).find_map(|n| n.parse().ok()).unwrap_or(TRANSACTIONS);
    let began = tokio::time::Instant::now();
    let mut all = Tally::default();
    let mut seed = 0;
    while all.total() < wanted {
        let mut trial = Trial::new(seed);
        while trial.tally.total() < PER_TRIAL {
            trial.step();
        }
        let Tally { right, wrong, timeouts, damaged, refused } = trial.tally;
        if wrong > 0 {
            println!("seed {seed}: {:?}", trial.tally);
        }
        all = Tally {
            right: all.right + right,
            wrong: all.wrong + wrong,
            timeouts: all.timeouts + timeouts,
            damaged: all.damaged + damaged,
            refused: all.refused + refused,
        };
        seed += 1;
    }
    let Tally { right, wrong, timeouts, damaged, refused } = all;
    println!("{} adversarial transactions on {seed} buses in {:.1?}", all.total(), began.elapsed());
    println!("  right {right}, no answer {timeouts}, damaged {damaged}, refused {refused}");
    println!("  wrong values: {wrong}");

    let (taken, frames) = noise();
    let expected = frames as f64 / 65_536.0;
    println!("{frames} frames of noise with the answer's own unit, function and byte count:");
    println!("  taken {taken}; the checksum's bound is {expected:.0} (1 in 65,536)");
    if wrong > 0 || (taken as f64) > expected + 6.0 * expected.sqrt() {
        std::process::exit(1);
    }
}

/// Random data and checksum behind the right header: the worst that noise can be.
fn noise() -> (u64, u64) {
    let mut chance = StdRng::seed_from_u64(1);
    let timing = Timing::new(9_600, 10);
    let mut transactions = Transactions::new(timing, Some(false));
    let request = Request::Read { function: Function::ReadHoldingRegisters, address: 0, count: 2 };
    let ask = Ask { unit: 1, request, timeout: Duration::from_millis(200) };
    let (mut now, mut taken) = (Duration::ZERO, 0);
    for _ in 0..NOISE_FRAMES {
        now = now.max(transactions.ready_at(1, request, now));
        if transactions.begin(ask, now).is_none() {
            continue;
        }
        let mut frame = [1, 3, 4, 0, 0, 0, 0, 0, 0];
        chance.fill(&mut frame[3..]);
        let mut outcome = transactions.received(&frame, now);
        while outcome.is_none() {
            now = transactions.due().unwrap_or(now);
            outcome = transactions.tick(now);
        }
        taken += u64::from(matches!(outcome, Some(Ok(_))));
    }
    (taken, NOISE_FRAMES)
}
