//! Rows leave the lake by their age.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray};
use arrow::error::ArrowError;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;

use super::spoiled::is_of_file;
use super::{is_stale, revised_name};
use crate::store::strip::{Hit, strip};
use crate::store::table::{Change, FilesAt};
use crate::store::{Store, StoreError};
use crate::view::DataFile;

/// How long observations are kept. Nothing said: for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Quantities that are not named.
    pub others: Option<Duration>,
    /// Quantities with a time of their own; none: for ever.
    pub quantities: BTreeMap<Quantity, Option<Duration>>,
}

impl Retention {
    /// Whether rows of a quantity on a day that ended so long ago are to go.
    fn is_over(&self, quantity: &str, age: Duration) -> bool {
        let own = self.quantities.iter().find(|(name, _)| name.as_str() == quantity).map(|(_, keep)| *keep);
        own.unwrap_or(self.others).is_some_and(|keep| age > keep)
    }

    /// Whether all rows of such a day are to go, whatever their quantity.
    fn is_all_over(&self, age: Duration) -> bool {
        let over = |keep: &Option<Duration>| keep.is_some_and(|keep| age > keep);
        over(&self.others) && self.quantities.values().all(over)
    }

    /// Whether some row of such a day may have to go.
    fn is_some_over(&self, age: Duration) -> bool {
        self.quantities.values().chain([&self.others]).flatten().any(|keep| age > *keep)
    }
}

impl Store {
    /// Takes rows away whose time is over, by whole days of event time. Returns how many rows. A file that changes meanwhile is
    /// looked at in the next round.
    pub async fn retain(&self, retention: &Retention, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0;
        let (_, view) = self.files_now().await?;
        let days: BTreeSet<i32> = view.observations.files.iter().filter_map(|file| file.day).collect();
        for day in days {
            let age = now.since(Timestamp::from_millis((i64::from(day) + 1) * 86_400_000));
            if !retention.is_some_over(age) {
                // Later days are younger.
                break;
            }
            let files: Vec<Arc<DataFile>> =
                view.observations.files.iter().filter(|file| file.day == Some(day)).cloned().collect();
            let done = if retention.is_all_over(age) {
                let rows = files.iter().filter_map(|file| file.rows).sum();
                self.replace(Vec::new(), Change::Erase(&files), now).await.map(|()| rows)
            } else {
                self.retain_some(&files, retention, age, now).await
            };
            match done {
                Ok(rows) => gone += rows,
                Err(error) if is_stale(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    async fn retain_some(
        &self,
        files: &[Arc<DataFile>],
        retention: &Retention,
        age: Duration,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let _rewriting = self.inner.rewriting.read().await;
        let (at, _) = self.files_now().await?;
        let mut gone = 0;
        for file in self.inner.spoiled.others(files) {
            match self.retain_some_of(&file, &at, retention, age, now).await {
                Ok(rows) => gone += rows,
                Err(error) if is_of_file(&error) && self.note_spoiled(std::slice::from_ref(&file)).await? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    async fn retain_some_of(
        &self,
        file: &Arc<DataFile>,
        at: &FilesAt,
        retention: &Retention,
        age: Duration,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (bytes, retention) = (at.read(&file.path).await?, retention.clone());
        let over = move |batch: &arrow::array::RecordBatch| -> Result<BooleanArray, ArrowError> {
            let quantities = batch.column_by_name("quantity").and_then(|c| c.as_string_opt::<i32>());
            let quantities = quantities.ok_or_else(|| ArrowError::SchemaError("no quantity".to_owned()))?;
            Ok(quantities.iter().map(|quantity| quantity.map(|q| retention.is_over(q, age))).collect())
        };
        let stripped =
            tokio::task::spawn_blocking(move || strip(&bytes, &Hit { columns: &["quantity"], rows: &over })).await;
        let Some(stripped) = stripped.map_err(|_| StoreError::Stopped)?? else { return Ok(0) };
        let mut adds = Vec::new();
        if let Some(left) = &stripped.file {
            adds.push(at.put(left, file.day, &revised_name(file), now).await?);
        }
        self.replace(adds, Change::Erase(std::slice::from_ref(file)), now).await?;
        Ok(stripped.gone)
    }
}
