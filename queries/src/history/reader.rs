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
    span: Span,
    view: &'a View,
    homes: &'a [HomeFacts],
    definitions: Arc<Definitions>,
    home: Option<HomeId>,
    last: Timestamp,
    holes: Holes<'a>,
    since_advance: usize,
    /// What was pressed before the span and not let go.
    held: BTreeMap<(DeviceId, Quantity), Seen>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(span: Span, view: &'a View, homes: &'a [HomeFacts], definitions: Arc<Definitions>) -> Self {
        Self {
            span,
            view,
            homes,
            definitions,
            home: None,
            last: Timestamp::MIN,
            holes: Holes::default(),
            since_advance: 0,
            held: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, batch: &RecordBatch, episodes: &mut Episodes) -> Result<(), String> {
        let definitions = Arc::clone(&self.definitions);
        each_row(batch, &definitions, |_, home, time, mut seen| {
            if self.home.as_ref().is_none_or(|current| current.as_str() != home) {
                self.finish(episodes);
                self.home = Some(HomeId::new(home).map_err(|e| e.to_string())?);
                self.last = Timestamp::MIN;
                self.holes = Holes::of(self.homes, home);
            }
            if time < self.span.from {
                self.hold(seen);
                return Ok(());
            }
            self.release(episodes);
            self.holes.mark(time, &mut seen);
            let Some(home) = &self.home else { return Ok(()) };
            self.last = time;
            if let Some(seen) = seen {
                episodes.push_seen(home, seen);
            }
            self.since_advance += 1;
            if self.since_advance >= ROWS_BETWEEN_ADVANCES {
                self.since_advance = 0;
                let before = self.last - Duration::from_millis(1);
                let known = self.view.complete.get(home).map_or(before, |complete| complete.complete_to.min(before));
                episodes.seal(home, known);
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
        let Some(home) = &self.home else { return };
        for seen in held {
            episodes.push_seen(home, seen);
        }
    }

    pub(super) fn finish(&mut self, episodes: &mut Episodes) {
        self.release(episodes);
        if let Some(home) = self.home.take() {
            self.complete(&home, self.last, episodes);
        }
    }

    /// A home is known as far as its gateway said, and no further than the span: rows before its last one may still be on
    /// their way. Of a home whose gateway never said anything, the last row is all there is.
    pub(super) fn complete(&self, home: &HomeId, last: Timestamp, episodes: &mut Episodes) {
        episodes.advance(home, self.said(home).unwrap_or(last).min(self.span.to));
    }

    fn said(&self, home: &HomeId) -> Option<Timestamp> {
        self.view.complete.get(home).map(|complete| complete.complete_to)
    }
}
