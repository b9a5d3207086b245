//! Absences, visits, hospital stays and maintenance, as people say them. None lasts for ever.
//!
//! What survives: an entry outlives a power cut once it is answered. Nothing is deleted; ending one early notes when, and by whom.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use carebed_alerts::alert::OperatorId;
use carebed_contract::id::{BedId, HomeId};
use carebed_contract::interval::{Interval, IntervalKind, Source};
use carebed_contract::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use tokio::sync::watch;

use crate::database::{Database, DatabaseError};

/// How long past entries are kept in memory: detections ask for the last quarter's visits. Older ones stay in the database.
const KEPT: Duration = Duration::from_secs(100 * 86_400);

/// Entries kept in memory per home; beyond it the oldest are left to the database.
const PER_HOME_MAX: usize = 400;

/// How far ahead an entry may begin: a planned stay in hospital, a holiday.
const AHEAD_MAX: Duration = Duration::from_secs(366 * 86_400);

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// The home.
    pub home: HomeId,
    /// What was said.
    #[serde(flatten)]
    pub interval: Interval,
    /// By whom.
    pub by: OperatorId,
    /// How it came to be known.
    pub source: Source,
    /// In the words of whoever entered it.
    pub note: Option<String>,
}

/// What somebody wants entered.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The home.
    pub home: HomeId,
    /// The bed whose person it is about; none for the whole home.
    pub bed: Option<BedId>,
    /// What.
    pub kind: IntervalKind,
    /// From when on; now when nobody says.
    pub from: Option<Timestamp>,
    /// Until when; the usual length when nobody says.
    pub until: Option<Timestamp>,
    /// By whom.
    pub by: OperatorId,
    /// How it came to be known.
    pub source: Source,
    /// More about it.
    pub note: Option<String>,
}

/// Why an entry was not made.
#[derive(Debug, thiserror::Error)]
pub enum IntervalError {
    /// It would end before it begins, or lasts too long, or begins too far ahead.
    #[error("a {kind} lasts more than nothing and at most {hours} hours, and begins within a year", kind = .0.as_str(), hours = .0.longest().as_secs() / 3_600)]
    Length(IntervalKind),
    /// There is no such entry that still lasts.
    #[error("there is no entry {0} that still lasts")]
    Unknown(i64),
    /// The database failed.
    #[error("failed to keep the entry")]
    Database(#[from] DatabaseError),
}

/// All entries; clones share them.
#[derive(Debug, Clone)]
pub struct Intervals {
    database: Database,
    known: Arc<RwLock<BTreeMap<HomeId, Vec<Entry>>>>,
    changed: watch::Sender<u64>,
}

fn query(doing: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Query { doing, source }
}

impl Intervals {
    /// Reads what the database holds of the time since `now` less a quarter.
    pub async fn load(database: &Database, now: Timestamp) -> Result<Self, DatabaseError> {
        let failed = query("read absences and visits");
        let mut known: BTreeMap<HomeId, Vec<Entry>> = BTreeMap::new();
        let select = "SELECT id, home, bed, kind, started_at, ended_at, entered_at, entered_by, source, note
            FROM intervals WHERE ended_at >= ? ORDER BY id";
        for row in sqlx::query(select).bind((now - KEPT).millis()).fetch_all(&database.pool).await.map_err(&failed)? {
            let entry = read(&row)?;
            known.entry(entry.home.clone()).or_default().push(entry);
        }
        let (known, changed) = (Arc::new(RwLock::new(known)), watch::Sender::new(0));
        Ok(Self { database: database.clone(), known, changed })
    }

    /// Enters one. It counts from now on, also when it began earlier: what was not known cannot have explained anything.
    pub async fn enter(&self, wanted: Wanted, now: Timestamp) -> Result<Entry, IntervalError> {
        let Wanted { home, bed, kind, from, until, by, source, note } = wanted;
        let started_at = from.unwrap_or(now);
        let ended_at = until.unwrap_or(started_at + kind.usual());
        if ended_at <= started_at || ended_at.since(started_at) > kind.longest() || started_at > now + AHEAD_MAX {
            return Err(IntervalError::Length(kind));
        }
        let insert =
            "INSERT INTO intervals (home, bed, kind, started_at, ended_at, entered_at, entered_by, source, note)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let done = sqlx::query(insert)
            .bind(home.as_str())
            .bind(bed.as_ref().map(|bed| bed.as_str()))
            .bind(kind.as_str())
            .bind(started_at.millis())
            .bind(ended_at.millis())
            .bind(now.millis())
            .bind(by.as_str())
            .bind(source.as_str())
            .bind(&note)
            .execute(&self.database.pool)
            .await
            .map_err(query("enter an absence or visit"))?;
        let interval = Interval { bed, kind, started_at, ended_at, entered_at: now };
        let entry = Entry { id: done.last_insert_rowid(), home: home.clone(), interval, by, source, note };
        self.change(|known| {
            let entries = known.entry(home).or_default();
            entries.retain(|old| now.since(old.interval.ended_at) <= KEPT);
            if entries.len() >= PER_HOME_MAX {
                entries.remove(0);
            }
            entries.push(entry.clone());
        });
        Ok(entry)
    }

    /// Ends one now: the person is back, the visitor has left.
    pub async fn end(&self, id: i64, by: &OperatorId, now: Timestamp) -> Result<Entry, IntervalError> {
        let lasting = self.read(|known| {
            let mut all = known.values().flatten();
            all.find(|entry| entry.id == id && entry.interval.ended_at > now).cloned()
        });
        let mut entry = lasting.ok_or(IntervalError::Unknown(id))?;
        entry.interval.ended_at = now.max(entry.interval.started_at);
        sqlx::query("UPDATE intervals SET ended_at = ?, closed_at = ?, closed_by = ? WHERE id = ?")
            .bind(entry.interval.ended_at.millis())
            .bind(now.millis())
            .bind(by.as_str())
            .bind(id)
            .execute(&self.database.pool)
            .await
            .map_err(query("end an absence or visit"))?;
        self.change(|known| {
            let entries = known.get_mut(&entry.home).into_iter().flatten();
            for old in entries.filter(|old| old.id == id) {
                old.interval.ended_at = entry.interval.ended_at;
            }
        });
        Ok(entry)
    }

    /// A home's entries of the last quarter and of what is to come, oldest first.
    #[must_use]
    pub fn of(&self, home: &HomeId) -> Vec<Entry> {
        self.read(|known| known.get(home).cloned().unwrap_or_default())
    }

    /// Changes whenever an entry is made or ended.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn read<T>(&self, f: impl FnOnce(&BTreeMap<HomeId, Vec<Entry>>) -> T) -> T {
        f(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, f: impl FnOnce(&mut BTreeMap<HomeId, Vec<Entry>>)) {
        f(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|n| *n += 1);
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Entry, DatabaseError> {
    let wrong =
        |what: &str| DatabaseError::Row { what: format!("an interval's {what}"), source: what.to_owned().into() };
    let text = |column: usize| row.get::<Option<String>, _>(column);
    let time = |column: usize| Timestamp::from_millis(row.get(column));
    let named = |word: Option<String>, words: &[&'static str]| words.iter().position(|w| word.as_deref() == Some(*w));
    let kind =
        named(text(3), &IntervalKind::ALL.map(IntervalKind::as_str)).and_then(|n| IntervalKind::ALL.get(n).copied());
    let sources = [Source::Api, Source::Page, Source::Hotline, Source::Import];
    let source = named(text(8), &sources.map(Source::as_str)).and_then(|n| sources.get(n).copied());
    let bed = text(2).map(|bed| bed.parse().map_err(|_| wrong("bed"))).transpose()?;
    Ok(Entry {
        id: row.get(0),
        home: text(1).and_then(|home| home.parse().ok()).ok_or_else(|| wrong("home"))?,
        interval: Interval {
            bed,
            kind: kind.ok_or_else(|| wrong("kind"))?,
            started_at: time(4),
            ended_at: time(5),
            entered_at: time(6),
        },
        by: text(7).and_then(|by| OperatorId::new(by).ok()).ok_or_else(|| wrong("operator"))?,
        source: source.ok_or_else(|| wrong("source"))?,
        note: text(9),
    })
}
