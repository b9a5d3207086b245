//! The service centre's program, as a library so that the whole of it runs inside a test.
//!
//! The data's way: [`broker`] (embedded, for loopback) → ingest → [`live`] detection → the desk and its pages, joined in
//! [`centre`]; [`import`] brings recordings in by the same door; [`sql`] and [`backtest`] look back, [`evaluate`] says how good a detection is; [`analysts`] serves SQL to their tools, to whom [`users`] lets in. [`maintain`] and [`erase`] change the lake, [`export`] and [`backup`] copy it. [`demo`] shows all of
//! it with simulated homes.
//!
//! The crate joins the others and decides nothing itself.

mod checksum;
pub mod cli;
pub mod config;
mod exit;
pub mod storage;

mod alert_times;
pub mod broker;
pub mod centre;
pub mod detections;
pub mod facts;
mod failing;
pub mod live;
mod notices;
pub mod serve;
mod wrong_clocks;

pub mod backup;
pub mod erase;
pub mod export;
mod fresh;
pub mod maintain;
mod purges;

pub mod backtest;
pub mod check;
pub mod evaluate;
pub mod explain;
pub mod import;
pub mod nights;
mod outages;
pub mod sql;

pub mod analysts;
pub mod users;

pub mod demo;

pub use cli::main;
pub use exit::Exit;
