//! What one home's sensors said over a span, kept to ask what would have been known had they fallen silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::{DeviceId, HomeId};
use carebed_contract::quantity::{Activity, Kind, Quantity};
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use futures::StreamExt;

use super::reader::ROWS_BETWEEN_ADVANCES;
use super::rows::{each_row, rows};
use super::{HistoryError, Span};
use crate::engine::{EngineError, Limits};
use crate::episodes::{Definitions, Episode, Episodes, Seen};
use crate::home::HomeFacts;
use crate::sql::Lake;

/// Somebody did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at: Timestamp,
    /// In the home, or at an outer door.
    pub place: Activity,
}

/// What was known of a home after it had fallen silent.
#[derive(Debug, Clone)]
pub struct Silenced {
    /// From then on nothing came.
    pub from: Timestamp,
    /// The episodes at the end of the silence.
    pub episodes: Vec<Episode>,
}

/// One home's observations in event order. Its holes are left as they are: the protocol that it is for leaves them out itself, minute by
/// minute.
#[derive(Debug)]
pub struct Recording {
    home: HomeFacts,
    seen: Vec<Seen>,
}

impl Recording {
    /// Reads one home.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn read(
        lake: &Lake,
        view: &Arc<View>,
        span: Span,
        home: &HomeFacts,
        limits: Limits,
    ) -> Result<Self, HistoryError> {
        let definitions = Definitions::learning().map_err(EngineError::from)?;
        let rows = rows(lake, view, span, true, std::slice::from_ref(home), &definitions, limits).await?;
        let mut stream = rows.execute_stream().await?;
        let mut read = Vec::new();
        while let Some(batch) = stream.next().await {
            let keep = |_, _: &str, _, seen: Option<Seen>| {
                read.extend(seen);
                Ok(())
            };
            each_row(&batch?, &definitions, keep).map_err(HistoryError::Row)?;
        }
        read.sort_by(Seen::order);
        read.dedup_by(|a, b| a.order(b).is_eq());
        Ok(Self { home: home.clone(), seen: read })
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &HomeFacts {
        &self.home
    }

    /// Everything that was activity: each event, each change of a state.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        let mut levels: BTreeMap<(&Quantity, &DeviceId), f64> = BTreeMap::new();
        let activity = |seen: &Seen| seen.quantity.definition().and_then(|d| Some((d.activity?, d.kind)));
        let mut moves = Vec::new();
        for seen in self.seen.iter().filter(|seen| !seen.is_unknown()) {
            let Some((place, kind)) = activity(seen) else { continue };
            let before = levels.insert((&seen.quantity, &seen.device), seen.value);
            if kind == Kind::Event || before.is_none_or(|before| before.total_cmp(&seen.value).is_ne()) {
                moves.push(Move { at: seen.time, place });
            }
        }
        moves
    }

    /// All episodes, known to the end of `span`.
    #[must_use]
    pub fn episodes(&self, definitions: &Arc<Definitions>, to: Timestamp) -> Vec<Episode> {
        let mut episodes = self.none_yet(definitions);
        self.feed(&mut episodes, 0, to);
        episodes.advance(&self.home.home, to);
        episodes.of(&self.home.home)
    }

    /// What would have been known `lasting` after each of these moments, had nothing come from then on: the episodes that began
    /// since `window` before it. The moments are in order.
    pub fn silenced<'a>(
        &'a self,
        definitions: &Arc<Definitions>,
        moments: &'a [Timestamp],
        window: Duration,
        lasting: Duration,
    ) -> impl Iterator<Item = Silenced> + use<'a> {
        let mut episodes = self.none_yet(definitions);
        let mut place = 0;
        let home: &HomeId = &self.home.home;
        moments.iter().map(move |moment| {
            place = self.feed(&mut episodes, place, *moment);
            episodes.seal(home, *moment);
            episodes.forget(home, *moment - window);
            let mut silent = episodes.clone();
            silent.seal(home, *moment + lasting);
            Silenced { from: *moment, episodes: silent.of(home) }
        })
    }

    fn none_yet(&self, definitions: &Arc<Definitions>) -> Episodes {
        let mut episodes = Episodes::new(Arc::clone(definitions));
        episodes.set_residents(&self.home.home, self.home.residents);
        episodes
    }

    /// Gives what came up to `to`, from the place on at which the last feeding ended.
    fn feed(&self, episodes: &mut Episodes, from: usize, to: Timestamp) -> usize {
        let home = &self.home.home;
        let mut place = from;
        for seen in self.seen.iter().skip(from).take_while(|seen| seen.time <= to) {
            episodes.push_seen(home, seen.clone());
            place += 1;
            if place.is_multiple_of(ROWS_BETWEEN_ADVANCES) {
                episodes.seal(home, seen.time - Duration::from_millis(1));
            }
        }
        place
    }
}
