//! The model's gateway against the product's: the same observations, sends and receipts lead both to the same numbers.

use carebed_contract::pack::{ContentType, Sealed};
use carebed_contract::receipt::Receipt as RealReceipt;
use carebed_contract::time::Timestamp;
use carebed_gateway::spool::{Limits, Memory, Released, Span, Spool};
use carebed_gateway::uplink::session::{Session, Window};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Takes an observation; the spool syncs it before it can be sent.
    Take(Lane),
    Send(Lane),
    Reconnect,
    /// One of the batches on the disk turns out to be damaged.
    Damage(Lane, u64),
    /// Hears a receipt for a number up to two beyond the lane's end, with the gateway's own digest or another's.
    Hear {
        lane: Lane,
        next: u64,
        own: bool,
        this_epoch: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let lane = prop_oneof![Just(Lane::Urgent), Just(Lane::Routine)];
    prop_oneof![
        3 => lane.clone().prop_map(Op::Take),
        3 => lane.clone().prop_map(Op::Send),
        1 => Just(Op::Reconnect),
        1 => (lane.clone(), 0_u64..6).prop_map(|(lane, ahead)| Op::Damage(lane, ahead)),
        4 => (lane, 0_u64..8, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
            .prop_map(|(lane, next, own, this_epoch)| Op::Hear { lane, next, own, this_epoch }),
    ]
}

/// The product's spool and session, put together as its uplink does.
struct Real {
    spool: Spool,
    session: Session,
    /// Per lane, batches taken.
    taken: [u64; 2],
    /// Per lane, the digest before each number of this epoch.
    digests: [Vec<Digest>; 2],
}

fn place(lane: Lane) -> usize {
    usize::from(lane.code())
}

impl Real {
    fn new() -> Self {
        let spool = Spool::open(Box::new(Memory::default()), Limits::default()).unwrap().spool;
        let window = Window { batches: WINDOW, bytes: u64::MAX };
        let mut session = Session::new(window, |lane| spool.base(lane));
        session.connected();
        Self { spool, session, taken: [0; 2], digests: [vec![Digest::ORIGIN], vec![Digest::ORIGIN]] }
    }

    fn note(&mut self, lane: Lane, seq: u64) {
        let epoch = self.spool.epoch();
        let batch = self.spool.batch(lane, seq).unwrap().unwrap();
        let content = batch.sealed.content_type.as_str();
        self.digests[place(lane)].push(Digest::of_batch(epoch, lane, seq, batch.prev, content, &batch.sealed.bytes));
    }

    fn take(&mut self, lane: Lane, obs: Obs) {
        let sealed = Sealed { content_type: ContentType::Cbor, bytes: vec![obs] };
        let time = Timestamp::from_millis(obs.into());
        let origin = Origin { run: 0, number: self.taken[place(lane)] };
        self.taken[place(lane)] += 1;
        let appended = self.spool.append(lane, &sealed, Span { from: time, complete_to: time }, origin).unwrap();
        self.note(lane, appended.seq);
    }

    fn send(&mut self, lane: Lane) -> Option<u64> {
        // The product prefers the urgent lane; here each is asked for alone.
        let end = |of: Lane| if of == lane { self.spool.end(of) } else { 0 };
        let (_, seq) = self.session.next(end)?;
        self.session.sent(lane, 1, Instant::now(), 0.5);
        Some(seq)
    }

    fn hear(&mut self, receipt: &RealReceipt) {
        let RealReceipt { lane, next, digest, .. } = *receipt;
        match self.spool.release(receipt).unwrap() {
            Released::OtherEpoch => {}
            Released::Upto { next, .. } => {
                self.session.receipted(lane, next, digest, Instant::now(), 0.5);
                self.session.given_up(lane, self.spool.base(lane));
            }
            Released::Below => self.session.asked_for_less(lane, next, digest),
            Released::ForeignDigest | Released::Ahead => {
                self.spool.begin_epoch().unwrap();
                self.session.new_epoch(|lane| self.spool.base(lane));
                for lane in Lane::ALL {
                    let missing = self.spool.base(lane);
                    self.digests[place(lane)] = vec![Digest::ORIGIN; usize::try_from(missing).unwrap() + 1];
                    (missing..self.spool.next(lane)).for_each(|seq| self.note(lane, seq));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_model_is_the_product(ops in prop::collection::vec(op(), 0..40)) {
        let (mut real, mut model) = (Real::new(), Gateway::new(Epoch::new(1)));
        let rules = Delivery::default();
        let (mut next_epoch, mut obs, mut epochs) = (2, 0, 0);
        for op in ops {
            match op {
                Op::Take(lane) => {
                    real.take(lane, obs);
                    model.take(lane, obs);
                    model.sync();
                    obs += 1;
                }
                Op::Send(lane) => {
                    let modelled = if model.may_send(lane, &rules) { model.send(lane, &rules) } else { None };
                    let sent = real.send(lane);
                    prop_assert_eq!(sent, modelled.map(|message| message.seq), "{:?}", op);
                    if let Some((seq, message)) = sent.zip(modelled) {
                        let batch = real.spool.batch(lane, seq).unwrap().unwrap();
                        prop_assert_eq!(batch.sealed.bytes, [message.obs]);
                        prop_assert_eq!(real.spool.base(lane), message.base);
                        prop_assert_eq!(batch.origin, message.origin);
                        let calls = real.spool.calls().filter(|_| lane == Lane::Routine).map(|calls| calls.base);
                        prop_assert_eq!(calls, message.calls.map(|(base, _)| base));
                    }
                }
                Op::Reconnect => {
                    real.session.connected();
                    Lane::ALL.into_iter().for_each(|lane| model.go_back(lane));
                }
                Op::Damage(lane, ahead) => {
                    let seq = real.spool.base(lane) + ahead;
                    real.spool.give_up(lane, seq).unwrap();
                    real.session.given_up(lane, real.spool.base(lane));
                    model.damage(lane, seq);
                }
                Op::Hear { lane, next, own, this_epoch } => {
                    let next = next.min(real.spool.next(lane) + 2);
                    let foreign = Digest::of_bytes(&[u8::from(own)]);
                    let known = real.digests[place(lane)].get(usize::try_from(next).unwrap()).filter(|_| own);
                    let digest = known.copied().unwrap_or(foreign);
                    let epoch = if this_epoch { real.spool.epoch() } else { Epoch::new(0) };
                    let centre_time = Timestamp::from_millis(0);
                    let before = real.spool.epoch();
                    real.hear(&RealReceipt { epoch, lane, next, digest, centre_time });
                    epochs += u64::from(real.spool.epoch() != before);

                    let known = model.queue(lane).digest_before(next).filter(|_| own);
                    let digest = known.unwrap_or(foreign);
                    let epoch = if this_epoch { model.epoch } else { Epoch::new(0) };
                    model.hear(&Receipt { epoch, lane, next, digest }, &mut next_epoch, &mut Few::default(), &rules);
                    model.sync();
                }
            }
            prop_assert_eq!(next_epoch, 2 + epochs, "{:?}", op);
            for lane in Lane::ALL {
                let numbers = (real.spool.base(lane), real.spool.next(lane));
                prop_assert_eq!(numbers, (model.queue(lane).base, model.queue(lane).next()), "{:?} {}", op, lane);
            }
        }
    }
}
