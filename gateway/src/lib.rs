//! The program in each home.
//!
//! The way of the data: a [`link`] polls devices; [`device`] turns answers into records; urgent ones go at once and
//! routine ones are gathered ([`gather`]) into batches; the [`spool`] keeps every batch until the centre says it has it;
//! the [`uplink`] sends them over MQTT. [`command`] is the way back: the centre asks, an output is set, the result is told.
//! [`status`] says how everything is; [`mod@run`] puts it together.
//!
//! The gateway knows beds, not people; it knows neither SQL nor alerts.

pub mod config;
pub mod home;

pub mod device;
pub mod gather;
pub mod link;
pub mod stamp;

pub mod boots;
pub mod known;

pub mod spool;

pub mod actions;
pub mod command;
pub mod metrics;
pub mod signals;
pub mod status;
pub mod uplink;

mod cli;
pub mod run;
pub use cli::{main, main_with};
pub use run::{Error, Outside, Reload, run, run_with};
