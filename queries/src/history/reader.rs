//! Rows in order of home and event time become episodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use carebed_contract::id::{DeviceId, HomeId};
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;

use super::Span;
use super::holes::Holes;
use super::rows::each_row;
use crate::episodes::{Definitions, Episodes, Seen};
use crate::home::HomeFacts;

/// After how many rows of a home its episodes are brought up to date; it keeps memory flat.
pub(super) const ROWS_BETWEEN_ADVANCES: usize = 256;

pub(super) struct Reader<'a> {
    window: Span,
    view: &'a View,
    homes: &'a [HomeFacts],
    definitions: Arc<Definitions>,
    /// Whose rows come.
    home: Option<(HomeId, Known<'a>)>,
    /// The other homes, over windows.
    known: BTreeMap<HomeId, Known<'a>>,
    since_advance: usize,
    /// What was pressed before the span and not let go.
    held: BTreeMap<(DeviceId, Quantity), Seen>,
}

/// The last row of a home, and its holes up to there.
struct Known<'a> {
    last: Timestamp,
    holes: Holes<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(view: &'a View, homes: &'a [HomeFacts], definitions: Arc<Definitions>) -> Self {
        Self {
            window: Span { from: Timestamp::MIN, to: Timestamp::MIN },
            view,
            homes,
            definitions,
            home: None,
            known: BTreeMap::new(),
            since_advance: 0,
            held: BTreeMap::new(),
        }
    }

    /// The rows of this window come next. Windows follow each other in time.
    pub(super) fn begin(&mut self, window: Span) {
        self.window = window;
    }

    pub(super) fn take(&mut self, batch: &RecordBatch, episodes: &mut Episodes) -> Result<(), String> {
        let definitions = Arc::clone(&self.definitions);
        each_row(batch, &definitions, |_, home, time, mut seen| {
            if self.home.as_ref().is_none_or(|(current, _)| current.as_str() != home) {
                self.leave(episodes);
                let home = HomeId::new(home).map_err(|e| e.to_string())?;
                let begin = || Known { last: Timestamp::MIN, holes: Holes::of(self.homes, home.as_str()) };
                let known = self.known.remove(&home).unwrap_or_else(begin);
                self.home = Some((home, known));
            }
            if time < self.window.from {
                self.hold(seen);
                return Ok(());
            }
            self.release(episodes);
            let Some((home, known)) = &mut self.home else { return Ok(()) };
            known.holes.mark(time, &mut seen);
            known.last = time;
            if let Some(seen) = seen {
                episodes.push_seen(home, seen);
            }
            self.since_advance += 1;
            if self.since_advance >= ROWS_BETWEEN_ADVANCES {
                self.since_advance = 0;
                self.seal(episodes);
            }
            Ok(())
        })
    }

    /// The first press since it was let go.
    fn hold(&mut self, seen: Option<Seen>) {
        let Some(seen) = seen else { return };
        let key = (seen.device.clone(), seen.quantity.clone());
        if seen.value > 0.0 {
            self.held.entry(key).or_insert(seen);
        } else {
            self.held.remove(&key);
        }
    }

    fn release(&mut self, episodes: &mut Episodes) {
        let mut held: Vec<Seen> = std::mem::take(&mut self.held).into_values().collect();
        held.sort_by(Seen::order);
        let Some((home, _)) = &self.home else { return };
        for seen in held {
            episodes.push_seen(home, seen);
        }
    }

    /// As far as rows of the home have come, all have.
    fn seal(&self, episodes: &mut Episodes) {
        let Some((home, Known { last, .. })) = self.home.as_ref().filter(|(_, known)| known.last > Timestamp::MIN)
        else {
            return;
        };
        let before = *last - Duration::from_millis(1);
        episodes.seal(home, self.said(home).map_or(before, |said| said.min(before)));
    }

    /// No more rows of this home in this window.
    pub(super) fn leave(&mut self, episodes: &mut Episodes) {
        self.release(episodes);
        self.known.extend(self.home.take());
    }

    /// No more rows at all.
    pub(super) fn finish(&self, episodes: &mut Episodes) {
        for (home, known) in &self.known {
            self.complete(home, known.last, episodes);
        }
    }

    /// A home is known as far as its gateway said, and no further than the window: rows before its last one may still be on
    /// their way. Of a home whose gateway never said anything, the last row is all there is.
    pub(super) fn complete(&self, home: &HomeId, last: Timestamp, episodes: &mut Episodes) {
        episodes.advance(home, self.said(home).unwrap_or(last).min(self.window.to));
    }

    fn said(&self, home: &HomeId) -> Option<Timestamp> {
        self.view.complete.get(home).map(|complete| complete.complete_to)
    }
}
