//! Where a recording has holes: what it lacks says nothing of the people. Pure.

use std::time::Duration;

use carebed_contract::time::Timestamp;

use crate::episodes::{Seen, Watch};
use crate::home::HomeFacts;

/// A home that a gateway of ours watches is heard of every few minutes, and a gateway that was off says so by its boot. A recording has
/// neither: where nothing at all came for longer than this, its recorder was off or its people were on a journey. (So do the studies that
/// detectors of silence are compared by; people at home are quiet for twelve hours at most.)
const HOLE: Duration = Duration::from_secs(86_400);

/// The holes of one home, found row by row.
#[derive(Debug, Default)]
pub(super) struct Holes<'a> {
    /// Known ones.
    outages: &'a [(Timestamp, Timestamp)],
    last: Option<Timestamp>,
    /// A hole that no row has told of yet, or only rows of this instant.
    since: Option<Timestamp>,
    told_at: Option<Timestamp>,
}

impl<'a> Holes<'a> {
    /// Of one of these homes, before its first row.
    pub(super) fn of(homes: &'a [HomeFacts], home: &str) -> Self {
        let facts = homes.iter().find(|facts| facts.home.as_str() == home);
        Self { outages: facts.map(|facts| facts.outages.as_slice()).unwrap_or_default(), ..Self::default() }
    }

    /// The first row after a hole says since when nothing was observed, and so does each of the same instant: any of them may be taken first.
    /// A row that comes late says nothing of holes.
    pub(super) fn mark(&mut self, at: Timestamp, seen: &mut Option<Seen>) {
        if self.last.is_some_and(|last| at < last) {
            return;
        }
        if self.told_at.is_some_and(|told_at| told_at < at) {
            (self.since, self.told_at) = (None, None);
        }
        if let Some(last) = self.last.replace(at) {
            let was_down = |(from, to): &&(Timestamp, Timestamp)| *from < at && *to > last;
            let down = self.outages.iter().filter(was_down).map(|(from, _)| last.max(*from)).min();
            let hole = (at.since(last) > HOLE).then_some(last);
            self.since = [self.since, hole, down].into_iter().flatten().min();
        }
        if let Some(seen) = seen.as_mut().filter(|seen| seen.watch == Watch::Unsaid)
            && let Some(since) = self.since
        {
            seen.watch = Watch::NotSince(since);
            self.told_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_rows_after_a_hole_or_an_outage_tell_of_it() {
        let at = |hour: i64| Timestamp::from_millis(hour * 3_600_000);
        let outages = [(at(50), at(52)), (at(60), at(61))];
        let mut holes = Holes { outages: &outages, ..Holes::default() };
        let mut mark = |hour: i64, watch: Option<Watch>| {
            let mut seen = watch.map(|watch| Seen {
                time: at(hour),
                quantity: carebed_contract::quantity::Quantity::new("motion_event").unwrap(),
                device: "pir".parse().unwrap(),
                bed: None,
                room: None,
                value: 1.0,
                watch,
            });
            holes.mark(at(hour), &mut seen);
            seen.map(|seen| seen.watch)
        };
        let plain = Some(Watch::Unsaid);
        let since = |hour: i64| Some(Watch::NotSince(at(hour)));
        assert_eq!(mark(10, plain), plain, "nothing is known of before");
        assert_eq!(mark(34, plain), plain, "a day is no hole");
        // Unusable rows say nothing; of two rows of one instant either may be taken first.
        assert_eq!([mark(59, None), mark(59, plain), mark(59, plain)], [None, since(34), since(34)]);
        assert_eq!(
            [mark(62, plain), mark(62, plain), mark(63, plain)],
            [since(60), since(60), plain],
            "a known outage"
        );
        assert_eq!(mark(40, plain), plain, "late");
        assert_eq!(mark(90, Some(Watch::Boot(1))), Some(Watch::Boot(1)), "a gateway knows better");
    }
}
