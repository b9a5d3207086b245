//! Parquet to findings, the only crate that plans SQL.
//!
//! The data's way: a stream of observations becomes [`episodes`] (intervals: in bed, out of bed, quiet, away, …);
//! [`detection`]s are SQL files over those intervals and the homes' facts; the [`engine`] plans and runs them and returns
//! findings. [`live`] does that while data arrives, [`history`] over what a view of the lake holds: the same episodes,
//! the same SQL. [`sql`] is for analysts: read-only statements over a view; [`postgres`] serves it to their tools.
//!
//! [`baselines`] are what is usual in a home, learnt every night from its last weeks by SQL too.
//!
//! What to look for is data, beside `src/`: `episodes/*.toml`, `baselines/<name>/`, `detections/<name>/` and views that they share
//! (`shared/*.sql`); `views/*.sql` are for analysts.
//!
//! The crate knows beds and homes, never persons, and decides nothing about who is told.

pub mod home;
mod span;

pub mod baselines;
pub mod detection;
pub mod engine;
pub mod episodes;

pub mod coverage;
pub mod signs;

pub mod history;
pub mod live;

pub mod sql;

pub mod postgres;

pub mod export;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
