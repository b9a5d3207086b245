//! The service centre: where alerts are kept, shown and worked through.
//!
//! The way through this crate: findings enter at the [`desk`], one task that owns the alerts and their append-only
//! log; what happened is written to the [`database`] first and told afterwards, to pages and programs over [`http`]
//! and to the homes as [`home_action`]s. The [`registry`] knows areas, homes, beds and the people in them (nothing
//! else in carebed knows people), [`intervals`] what people said about absences and visits, the [`board`] knows how each home's gateway is.
//!
//! The crate plans no SQL over observations, opens no connection to a broker, and listens on loopback only: there is
//! no authentication and no TLS in it yet, so [`Console::bind`] refuses anything else.

pub mod database;
pub mod registry;

pub mod intervals;

pub mod board;
pub mod home_action;
pub mod log;

pub mod desk;

pub mod evidence;
pub mod http;
mod pages;
mod texts;

mod console;
pub use console::{Config, Console, Error};
