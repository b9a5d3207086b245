use carebed_contract::labels::{Origin, UrgentBase};
use proptest::prelude::*;

use super::*;
use crate::gap::Reason;

const CONTENT: &str = "application/senml+cbor";
const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

/// Batches of one lane as a spool makes them: each names the digest of the one before.
#[derive(Debug, Clone)]
struct Spool {
    epoch: Epoch,
    lane: Lane,
    payloads: Vec<Vec<u8>>,
    digests: Vec<Digest>,
}

impl Spool {
    fn new(epoch: u64, lane: Lane, contents: impl IntoIterator<Item = String>) -> Self {
        let mut this = Self { epoch: Epoch::new(epoch), lane, payloads: Vec::new(), digests: Vec::new() };
        for payload in contents {
            let (seq, prev) = (this.payloads.len() as u64, this.prev(this.payloads.len()));
            this.digests.push(Digest::of_batch(this.epoch, lane, seq, prev, CONTENT, payload.as_bytes()));
            this.payloads.push(payload.into_bytes());
        }
        this
    }

    fn routine(epoch: u64, n: usize) -> Self {
        Self::new(epoch, Lane::Routine, (0..n).map(|i| format!("{epoch} {i}")))
    }

    fn prev(&self, seq: usize) -> Digest {
        if seq == 0 { Digest::ORIGIN } else { self.digests[seq - 1] }
    }

    fn labels(&self, seq: usize, base: usize) -> Labels {
        Labels {
            base: base as u64,
            complete_to: Timestamp::from_millis(seq as i64),
            ..Labels::of(self.epoch, self.lane, seq as u64, self.prev(seq))
        }
    }

    fn offer(&self, accept: &mut Accept, seq: usize, base: usize) -> Verdict {
        accept.offer(&gateway(), &self.labels(seq, base), CONTENT, &self.payloads[seq], NOW)
    }

    fn next(&self, accept: &Accept) -> u64 {
        accept.committed(&gateway(), self.epoch, self.lane).next
    }
}

fn commit(accept: &mut Accept) -> Vec<LaneKey> {
    let changes = accept.begin();
    accept.finish(changes)
}

fn next(gaps: Vec<Missing>) -> Verdict {
    Verdict::Next { gaps, repeats: false }
}

fn missing(spool: &Spool, from_seq: u64, to_seq: Option<u64>, reason: Reason) -> Missing {
    Missing { epoch: spool.epoch, lane: spool.lane, from_seq, to_seq, reason }
}

#[test]
fn exactly_the_next_batch_is_taken() {
    let spool = Spool::routine(1, 9);
    let taken = next(vec![]);
    let jump = next(vec![missing(&spool, 3, Some(5), Reason::Released)]);
    let mut accept = Accept::default();
    // (seq, base, verdict), one after the other
    for (step, (seq, base, verdict)) in [
        (1, 0, Verdict::Hole),
        (0, 0, taken.clone()),
        (0, 0, Verdict::Duplicate),
        (2, 0, Verdict::Hole),
        (1, 0, taken.clone()),
        (2, 2, taken.clone()),
        // The spool overflowed: batches 3 to 5 are gone.
        (7, 6, Verdict::Hole),
        (6, 6, jump),
        // They come late after all: declared lost, not taken.
        (4, 3, Verdict::Duplicate),
        (7, 6, taken),
        (8, 7, next(vec![])),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(spool.offer(&mut accept, seq, base), verdict, "step {step}");
    }
}

#[test]
fn a_batch_of_another_chain_is_a_fork() {
    let (one, clone) = (Spool::routine(1, 3), Spool::new(1, Lane::Routine, ["x".into(), "y".into(), "z".into()]));
    let mut accept = Accept::default();
    one.offer(&mut accept, 0, 0);
    assert_eq!(clone.offer(&mut accept, 0, 0), Verdict::Fork, "same number, other contents");
    assert_eq!(clone.offer(&mut accept, 1, 0), Verdict::Fork, "next number, other past");
    assert_eq!(one.offer(&mut accept, 1, 0), next(vec![]), "the first goes on");
    // Across a gap nobody can know.
    assert_eq!(clone.offer(&mut accept, 2, 2), Verdict::Fork, "the base is what is expected: the chain is checked");
}

#[test]
fn a_jump_does_not_check_the_chain_it_cannot_know() {
    let (one, other) = (Spool::routine(1, 5), Spool::new(1, Lane::Routine, (0..5).map(|i| format!("o{i}"))));
    let mut accept = Accept::default();
    one.offer(&mut accept, 0, 0);
    let gaps = vec![missing(&one, 1, Some(2), Reason::Released)];
    assert_eq!(other.offer(&mut accept, 3, 3), next(gaps));
}

fn left(spool: &Spool, next: [u64; 2]) -> Vec<Missing> {
    let of = |(lane, from_seq)| Missing { lane, ..missing(spool, from_seq, None, Reason::EpochLeft) };
    Lane::ALL.into_iter().zip(next).map(of).collect()
}

#[test]
fn an_epoch_that_is_left_is_declared_and_two_boxes_of_one_name_do_not_flood() {
    let mut accept = Accept::default();
    let old = Spool::routine(1, 5);
    assert_eq!(old.offer(&mut accept, 0, 0), next(vec![]), "an unknown gateway left nothing");
    let new = Spool::routine(2, 5);
    let gaps = [left(&old, [0, 1]), vec![missing(&new, 0, Some(0), Reason::Released)]].concat();
    assert_eq!(new.offer(&mut accept, 1, 1), next(gaps));
    // The box goes back from an epoch in memory to the one on its disk: the rest of the memory is gone.
    assert_eq!(old.offer(&mut accept, 1, 0), next(left(&new, [0, 2])));
    // Or it was another box all the time: they take turns, and everything was declared.
    assert_eq!(new.offer(&mut accept, 2, 1), next(vec![]));
    assert_eq!(old.offer(&mut accept, 2, 0), next(vec![]));
    // What happens again a day later is told again.
    let later = NOW + std::time::Duration::from_secs(24 * 3600);
    let again = accept.offer(&gateway(), &new.labels(3, 1), CONTENT, &new.payloads[3], later);
    assert_eq!(again, next(left(&old, [0, 3])));
}

#[test]
fn an_epoch_that_was_closed_leaves_nothing() {
    let old = Spool::routine(1, 3);
    let offer = |accept: &mut Accept, seq: usize, closes, urgent| {
        let labels = Labels { closes, urgent, ..old.labels(seq, 0) };
        accept.offer(&gateway(), &labels, CONTENT, &old.payloads[seq], NOW)
    };
    let call = Spool::new(1, Lane::Urgent, ["call".to_owned()]);
    let calls = Some(UrgentBase { base: 1, prev: call.digests[0] });
    let new = Spool::routine(2, 1);

    let mut accept = Accept::default();
    call.offer(&mut accept, 0, 0);
    offer(&mut accept, 0, true, calls);
    let mut closed = accept.clone();
    assert_eq!(new.offer(&mut closed, 0, 0), next(vec![]));
    // It went on after all.
    offer(&mut accept, 1, false, calls);
    assert_eq!(new.offer(&mut accept.clone(), 0, 0), next(left(&old, [1, 2])));
    // It says that it has no more calls, but one is not there: that is declared, too.
    let gone = Some(UrgentBase { base: 3, prev: Digest::of_bytes(b"a call") });
    let gap = Missing { lane: Lane::Urgent, ..missing(&old, 1, Some(2), Reason::Released) };
    assert_eq!(offer(&mut accept, 2, true, gone), next(vec![gap]));
    assert_eq!(new.offer(&mut accept, 0, 0), next(vec![]));
}

#[test]
fn calls_that_were_forgotten_are_missed_at_the_next_heartbeat() {
    let (beats, calls) = (Spool::routine(1, 3), Spool::new(1, Lane::Urgent, (0..4).map(|i| format!("call {i}"))));
    let mut accept = Accept::default();
    calls.offer(&mut accept, 0, 0);
    let beat = |accept: &mut Accept, seq: usize, base: usize| {
        let urgent = Some(UrgentBase { base: base as u64, prev: calls.prev(base) });
        let labels = Labels { urgent, ..beats.labels(seq, 0) };
        accept.offer(&gateway(), &labels, CONTENT, &beats.payloads[seq], NOW)
    };
    assert_eq!(beat(&mut accept, 0, 1), next(vec![]));
    assert_eq!(beat(&mut accept, 1, 3), next(vec![missing(&calls, 1, Some(2), Reason::Released)]));
    assert_eq!(beat(&mut accept, 2, 3), next(vec![]), "once");
    assert_eq!(calls.offer(&mut accept, 2, 0), Verdict::Duplicate, "it comes late after all: declared lost, not taken");
    assert_eq!(calls.offer(&mut accept, 3, 3), next(vec![]), "the chain goes on");
    let mut moved = commit(&mut accept);
    moved.sort();
    assert_eq!(moved.len(), 2, "both lanes get a receipt");
}

#[test]
fn a_batch_is_known_again_under_another_number() {
    let (old, new) = (Spool::routine(1, 4), Spool::routine(2, 5));
    let mut accept = Accept::default();
    let mut offer = |spool: &Spool, seq: usize, run, number| {
        let labels = Labels { origin: Some(Origin { run, number }), ..spool.labels(seq, 0) };
        match accept.offer(&gateway(), &labels, CONTENT, &spool.payloads[seq], NOW) {
            Verdict::Next { repeats, .. } => Some(repeats),
            _ => None,
        }
    };
    assert_eq!([offer(&old, 0, 9, 0), offer(&old, 1, 9, 1)], [Some(false); 2]);
    // The receipt for 1 was lost, and a new epoch numbers it anew with what was taken since.
    assert_eq!([offer(&new, 0, 9, 1), offer(&new, 1, 9, 2)], [Some(true), Some(false)]);
    // The old number of 2 was still on its way. Another run's batch of that number is another batch.
    assert_eq!([offer(&old, 2, 9, 2), offer(&old, 3, 8, 2)], [Some(true), Some(false)]);
    // From memory while the disk was gone, and then, older, from the disk.
    assert_eq!(
        [offer(&new, 2, 9, 7), offer(&new, 3, 9, 5), offer(&new, 4, 9, 7)],
        [Some(false), Some(false), Some(true)]
    );
}

#[test]
fn epochs_are_bounded() {
    let mut accept = Accept::default();
    for epoch in 0..=EPOCHS_MAX as u64 {
        Spool::routine(epoch, 1).offer(&mut accept, 0, 0);
    }
    let marks = accept.marks(&gateway()).unwrap();
    assert_eq!((marks.epochs.len(), marks.epochs[0].epoch), (EPOCHS_MAX, Epoch::new(1)));
}

#[test]
fn receipts_say_only_what_is_committed() {
    let spool = Spool::routine(1, 4);
    let mut accept = Accept::default();
    spool.offer(&mut accept, 0, 0);
    assert_eq!((spool.next(&accept), accept.is_settled(&gateway(), spool.epoch, spool.lane)), (0, false));
    let changes = accept.begin();
    spool.offer(&mut accept, 1, 0);
    assert_eq!(accept.finish(changes), [(gateway(), spool.epoch, spool.lane)]);
    assert_eq!((spool.next(&accept), accept.is_settled(&gateway(), spool.epoch, spool.lane)), (1, false));
    assert_eq!(accept.committed(&gateway(), spool.epoch, spool.lane).digest, spool.digests[0]);
    let changes = accept.begin();
    assert_eq!(accept.roll_back(), [gateway()], "the second commit failed");
    drop(changes);
    assert_eq!(spool.offer(&mut accept, 2, 0), Verdict::Hole);
    assert_eq!(spool.offer(&mut accept, 1, 0), next(vec![]));
    commit(&mut accept);
    assert_eq!((spool.next(&accept), accept.is_settled(&gateway(), spool.epoch, spool.lane)), (2, true));
    assert_eq!(accept.roll_back(), [], "nothing is ahead");
}

#[test]
fn completeness_comes_from_the_routine_lane_and_never_goes_back_or_beyond_now() {
    let mut accept = Accept::default();
    let mut offer = |lane, seq: u64, prev, complete_to| {
        let labels = Labels { complete_to, ..Labels::of(Epoch::new(1), lane, seq, prev) };
        accept.offer(&gateway(), &labels, CONTENT, b"", NOW);
        let marks = accept.marks(&gateway()).unwrap();
        (marks.complete_to, marks.lane(Epoch::new(1), lane).digest)
    };
    let at = Timestamp::from_millis;
    let (complete, urgent) = offer(Lane::Urgent, 0, Digest::ORIGIN, at(500));
    assert_eq!(complete, Timestamp::MIN);
    let (complete, routine) = offer(Lane::Routine, 0, Digest::ORIGIN, at(400));
    assert_eq!(complete, at(400));
    let (complete, routine) = offer(Lane::Routine, 1, routine, at(300));
    assert_eq!(complete, at(400));
    offer(Lane::Urgent, 1, urgent, at(900));
    assert_eq!(offer(Lane::Routine, 2, routine, NOW + std::time::Duration::from_secs(9)).0, NOW);
}

/// One thing that happens between a home and the centre.
#[derive(Debug, Clone)]
enum Step {
    /// A batch arrives: an index into all batches of all spools. In any order, any number of times.
    Arrives(usize),
    Begins,
    Finishes,
    Fails,
    /// The centre restarts from what is committed.
    Restarts,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..24_usize).prop_map(Step::Arrives),
        2 => Just(Step::Begins),
        2 => Just(Step::Finishes),
        1 => Just(Step::Fails),
        1 => Just(Step::Restarts),
    ];
    proptest::collection::vec(step, 0..120)
}

/// The centre and its table, as the ingest loop drives them.
#[derive(Default)]
struct Centre {
    accept: Accept,
    pending: Vec<String>,
    flight: Option<(Changes, Vec<String>)>,
    table: Vec<String>,
    durable: BTreeMap<GatewayId, Marks>,
}

impl Centre {
    fn take(&mut self, gateway: &GatewayId, spool: &Spool, seq: usize) {
        let payload = &spool.payloads[seq];
        match self.accept.offer(gateway, &spool.labels(seq, 0), CONTENT, payload, NOW) {
            Verdict::Next { gaps, repeats } => {
                assert_eq!((gaps, repeats), (vec![], false));
                self.pending.push(format!("{gateway} {} {}", spool.lane, String::from_utf8_lossy(payload)));
            }
            other => assert!(matches!(other, Verdict::Duplicate | Verdict::Hole), "{other:?}"),
        }
    }

    fn step(&mut self, step: &Step, batches: &[(GatewayId, Spool, usize)]) {
        match step {
            Step::Arrives(i) => {
                let (gateway, spool, seq) = &batches[i % batches.len()];
                self.take(gateway, spool, *seq);
            }
            Step::Begins if self.flight.is_none() => {
                self.flight = Some((self.accept.begin(), std::mem::take(&mut self.pending)));
            }
            Step::Finishes => {
                if let Some((changes, rows)) = self.flight.take() {
                    self.durable.extend(changes.clone());
                    self.table.extend(rows);
                    self.accept.finish(changes);
                }
            }
            Step::Fails => {
                if self.flight.take().is_some() {
                    self.accept.roll_back();
                    self.pending.clear();
                }
            }
            Step::Restarts => {
                self.flight = None;
                self.pending.clear();
                self.accept = Accept::resume(self.durable.clone());
            }
            Step::Begins => {}
        }
    }
}

proptest! {
    #[test]
    fn any_interleaving_repetition_and_delay_commits_the_same_rows_once(steps in steps()) {
        let gateways = ["gw-1", "gw-2", "gw-3"].map(|g| GatewayId::new(g).unwrap());
        let mut batches = Vec::new();
        for gateway in &gateways {
            for lane in Lane::ALL {
                let spool = Spool::new(7, lane, (0..4).map(|i| format!("row {i}")));
                batches.extend((0..4).map(|seq| (gateway.clone(), spool.clone(), seq)));
            }
        }
        let mut centre = Centre::default();
        for step in &steps {
            centre.step(step, &batches);
        }
        // In the end every gateway sends what was not receipted, in order, and a commit succeeds.
        centre.step(&Step::Fails, &batches);
        for i in 0..batches.len() {
            centre.step(&Step::Arrives(i), &batches);
        }
        centre.step(&Step::Begins, &batches);
        centre.step(&Step::Finishes, &batches);

        let mut expected: Vec<String> =
            batches.iter().map(|(g, s, seq)| format!("{g} {} row {seq}", s.lane)).collect();
        expected.sort();
        centre.table.sort();
        prop_assert_eq!(centre.table, expected);
        for (gateway, spool, _) in &batches {
            prop_assert!(centre.accept.is_settled(gateway, spool.epoch, spool.lane));
        }
    }
}

/// Everything one gateway with two batches a lane, one lost batch, a spool that may drop its first batch, and a commit that
/// may fail can lead to: explored to the end, not sampled.
#[test]
fn every_short_history_declares_or_commits_each_batch_once() {
    type State = (Accept, Vec<(Lane, usize)>, Option<(Changes, usize)>, Vec<(Lane, usize)>, BTreeSet<Missing>);
    let spools = Lane::ALL.map(|lane| Spool::new(1, lane, (0..2).map(|i| format!("{lane} {i}"))));
    let mut seen: std::collections::HashSet<State> = std::collections::HashSet::new();
    let mut open: Vec<State> = vec![State::default()];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let (accept, pending, flight, table, gaps) = state;
        let once: BTreeSet<_> = table.iter().collect();
        assert_eq!(once.len(), table.len(), "a batch was committed twice: {table:?}");
        for spool in &spools {
            let next = spool.next(&accept);
            for seq in 0..next {
                let there = table.iter().any(|(lane, taken)| (*lane, *taken as u64) == (spool.lane, seq));
                let declared = gaps
                    .iter()
                    .any(|g| g.lane == spool.lane && g.from_seq <= seq && g.to_seq.is_some_and(|to| seq <= to));
                assert!(there || declared, "receipted up to {next}, but {seq} is neither committed nor declared");
            }
            for (seq, base) in [(0, 0), (1, 0), (1, 1)] {
                let mut next: State = (accept.clone(), pending.clone(), flight.clone(), table.clone(), gaps.clone());
                if let Verdict::Next { gaps, .. } = spool.offer(&mut next.0, seq, base) {
                    next.1.push((spool.lane, seq));
                    next.4.extend(gaps);
                    open.push(next);
                }
            }
        }
        match flight {
            None if !pending.is_empty() => {
                let mut accept = accept;
                let changes = accept.begin();
                let flying = pending.len();
                open.push((accept, pending, Some((changes, flying)), table, gaps));
            }
            None => {}
            Some((changes, flying)) => {
                let (mut good, mut bad) = (accept.clone(), accept);
                good.finish(changes);
                let (done, left) = pending.split_at(flying);
                let table_after = [table.clone(), done.to_vec()].concat();
                open.push((good, left.to_vec(), None, table_after, gaps.clone()));
                bad.roll_back();
                open.push((bad, Vec::new(), None, table, gaps));
            }
        }
    }
    assert!(seen.len() > 500, "only {} states", seen.len());
}
