//! Findings become alerts that people act on.
//!
//! The way through this crate: a detection's [`Finding`](carebed_contract::finding::Finding) and the detection's
//! [`rule::Rule`] go into [`Alerts::apply`], which answers with [`transition::Transition`]s: numbered, append-only
//! facts such as "raised", "acknowledged by …", "resolved". Timers that are data ([`policy::Escalation`]) add their
//! own through [`Alerts::due`], people theirs through [`Alerts::act`]. An [`alert::Alert`] is nothing but the sum of
//! its transitions, so [`Alerts::replay`] of the log gives back the same state.
//!
//! The crate opens no file and no socket, knows no SQL and no names of people, and takes the time as an argument.

pub mod policy;
pub mod rule;
pub mod wording;

pub mod alert;
pub mod transition;

mod alerts;
pub mod refused;

pub use alerts::{Act, Alerts, Evaluated, HAPPENED_AGAIN_AT, MEMORY, PRIORITY, REPEATS_MAX, ReplayError, UPDATE_EVERY};
