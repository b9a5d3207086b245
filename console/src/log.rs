//! The append-only log of transitions, and how far it was told.

use carebed_alerts::alert::AlertId;
use carebed_alerts::transition::Transition;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::database::{Database, DatabaseError};

/// The log; clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    database: Database,
}

fn query(doing: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Query { doing, source }
}

impl Log {
    /// The log that a database holds.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes all or none. When it returns, they outlive a power cut.
    pub(crate) async fn append(&self, transitions: &[Transition]) -> Result<(), DatabaseError> {
        let failed = query("append to the alert log");
        let mut all = self.database.pool.begin().await.map_err(&failed)?;
        for transition in transitions {
            let json = serde_json::to_string(transition)
                .map_err(|source| DatabaseError::Row { what: "a transition".to_owned(), source: source.into() })?;
            sqlx::query("INSERT INTO transitions (number, at, alert, transition) VALUES (?, ?, ?, ?)")
                .bind(transition.number.cast_signed())
                .bind(transition.at.millis())
                .bind(transition.alert.as_str())
                .bind(json)
                .execute(&mut *all)
                .await
                .map_err(&failed)?;
        }
        all.commit().await.map_err(&failed)
    }

    /// Everything, in order.
    pub(crate) async fn all(&self) -> Result<Vec<Transition>, DatabaseError> {
        self.since(0).await
    }

    /// What was logged after the transition of this number, in order.
    ///
    /// # Errors
    /// When the database cannot be read, or a row is no transition.
    pub async fn since(&self, number: u64) -> Result<Vec<Transition>, DatabaseError> {
        let rows = sqlx::query("SELECT number, transition FROM transitions WHERE number > ? ORDER BY number")
            .bind(number.cast_signed())
            .fetch_all(&self.database.pool)
            .await
            .map_err(query("read the alert log"))?;
        rows.iter().map(transition).collect()
    }

    /// What happened to one alert, in order.
    pub(crate) async fn of(&self, alert: &AlertId) -> Result<Vec<Transition>, DatabaseError> {
        let rows = sqlx::query("SELECT number, transition FROM transitions WHERE alert = ? ORDER BY number")
            .bind(alert.as_str())
            .fetch_all(&self.database.pool)
            .await
            .map_err(query("read the alert log"))?;
        rows.iter().map(transition).collect()
    }

    /// Up to which transition everybody was told.
    pub(crate) async fn told(&self) -> Result<u64, DatabaseError> {
        let number: i64 = sqlx::query_scalar("SELECT number FROM told")
            .fetch_one(&self.database.pool)
            .await
            .map_err(query("read how far alerts were told"))?;
        Ok(number.cast_unsigned())
    }

    /// Everybody was told up to this transition.
    pub(crate) async fn set_told(&self, number: u64) -> Result<(), DatabaseError> {
        sqlx::query("UPDATE told SET number = ?")
            .bind(number.cast_signed())
            .execute(&self.database.pool)
            .await
            .map_err(query("note how far alerts were told"))?;
        Ok(())
    }
}

fn transition(row: &SqliteRow) -> Result<Transition, DatabaseError> {
    let (number, json): (i64, String) = (row.get(0), row.get(1));
    serde_json::from_str(&json)
        .map_err(|source| DatabaseError::Row { what: format!("transition {number}"), source: source.into() })
}
