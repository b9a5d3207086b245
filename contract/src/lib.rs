//! What a home and the service centre agree on.
//!
//! The way of the data through this crate: a device's value becomes a [`record::Record`], records are sealed into a
//! [`pack::Pack`] (SenML, RFC 8428, as CBOR), a pack travels as one batch under [`labels::Labels`] on a
//! [`topic::Topic`], the centre answers with a [`receipt::Receipt`], and what it accepted is an
//! [`observation::Observation`]. What detections find is a [`finding::Finding`].
//!
//! The crate holds formats and small types only: it opens no socket, and no file but certificates ([`security`]), and knows
//! neither devices nor SQL.

pub mod clock;
pub mod id;
pub mod time;

pub mod pack;
pub mod quality;
pub mod quantity;
pub mod record;
pub mod value;

pub mod digest;
pub mod labels;
pub mod receipt;
pub mod topic;

pub mod command;
pub mod inventory;
pub mod status;

pub mod finding;
pub mod interval;
pub mod observation;
pub mod text;

pub mod crash;
pub mod security;

/// Ordered shutdown: every service watches one and stops cleanly when it is cancelled.
pub use tokio_util::sync::CancellationToken as Shutdown;
