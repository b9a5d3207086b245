//! Calls from a gateway whose clock is far behind. Pure.
//!
//! A press that is said to be days old is history, unless it is on its way from a spool: then its gateway was out of reach until a moment ago.
//! One that comes from a gateway which has been in contact all the while happened just now, whatever its clock says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::time::{ClockQuality, Timestamp};

/// Urgent data is sent within a second; so much later something else is the matter.
const LATE: Duration = Duration::from_secs(3_600);
/// A gateway that is back sends its calls before anything else: by then they are here.
const EMPTIED: Duration = Duration::from_secs(600);
/// Batches remembered per home: they may come again until they are receipted. Of an older one each coming is a call of its own.
const BATCHES_MAX: usize = 64;

/// When batches with a wrong time came first. Only homes whose clock was wrong take room.
#[derive(Debug, Default)]
pub(crate) struct WrongClocks(BTreeMap<HomeId, VecDeque<(Epoch, u64, Timestamp)>>);

impl WrongClocks {
    /// The row as it is to be looked at, when its own time cannot be right: it was so when it came first. `contact_since` says since when
    /// its gateway has been heard without a break.
    pub(crate) fn correct(&mut self, row: &Observation, contact_since: Option<Timestamp>) -> Option<Observation> {
        let in_contact = contact_since.is_some_and(|since| row.received_time.since(since) > EMPTIED);
        let is_wrong = row.lane == Lane::Urgent
            && row.clock == ClockQuality::Synchronised
            && row.received_time.since(row.event_time) > LATE
            && in_contact;
        if !is_wrong {
            return None;
        }
        let batches = self.0.entry(row.home.clone()).or_default();
        let known = batches.iter().find(|(epoch, seq, _)| (*epoch, *seq) == (row.epoch, row.seq));
        let event_time = known.map_or(row.received_time, |(.., first)| *first);
        if known.is_none() {
            if batches.len() >= BATCHES_MAX {
                batches.pop_front();
            }
            batches.push_back((row.epoch, row.seq, event_time));
        }
        let quality = match &row.quality {
            Quality::Good => Quality::Uncertain("clock".into()),
            doubted => doubted.clone(),
        };
        Some(Observation { event_time, quality, ..row.clone() })
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quantity::Quantity;
    use carebed_contract::value::Value;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(1_000 * HOUR + hour * HOUR)
    }

    fn press(seq: u64, event: Timestamp, received: Timestamp) -> Observation {
        Observation {
            area: "a1".parse().unwrap(),
            home: "h1".parse().unwrap(),
            bed: None,
            device: "call-1".parse().unwrap(),
            room: None,
            quantity: Quantity::new("call_button").unwrap(),
            unit: "1".into(),
            event_time: event,
            value: Value::Number(1.0),
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway: "gw-1".parse().unwrap(),
            boot: None,
            epoch: Epoch::new(1),
            lane: Lane::Urgent,
            seq,
            gateway_time: event,
            received_time: received,
        }
    }

    #[test]
    fn a_press_of_days_ago_from_a_gateway_that_was_there_all_the_while_is_one_of_now() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let of_now = press(1, at(-72), at(0));
        for (case, row, contact_since, is_corrected) in [
            ("a clock three days behind", of_now.clone(), Some(at(-200)), true),
            ("on its way from a spool: back for a minute", of_now.clone(), Some(at(0) - minutes(1)), false),
            ("never heard before", of_now.clone(), None, false),
            ("in time", press(1, at(0) - minutes(50), at(0)), Some(at(-200)), false),
            ("routine", Observation { lane: Lane::Routine, ..of_now.clone() }, Some(at(-200)), false),
            (
                "a clock that is known to be unknown",
                Observation { clock: ClockQuality::Unsynchronised, ..of_now.clone() },
                Some(at(-200)),
                false,
            ),
        ] {
            let corrected = WrongClocks::default().correct(&row, contact_since);
            assert_eq!(corrected.as_ref().map(|row| row.event_time), is_corrected.then(|| at(0)), "{case}");
        }
    }

    #[test]
    fn a_batch_that_comes_again_is_no_further_press() {
        let mut clocks = WrongClocks::default();
        let mut time = |seq, received| {
            clocks.correct(&press(seq, at(-72), received), Some(at(-200))).map(|row| (row.event_time, row.quality))
        };
        let uncertain = || Quality::Uncertain("clock".into());
        assert_eq!(time(1, at(0)), Some((at(0), uncertain())));
        assert_eq!(time(1, at(2)), Some((at(0), uncertain())), "sent again");
        assert_eq!(time(2, at(2)), Some((at(2), uncertain())), "another press");
        for seq in 3..1_000 {
            time(seq, at(3));
        }
        assert_eq!(clocks.0.values().map(VecDeque::len).collect::<Vec<_>>(), [BATCHES_MAX]);
    }
}
