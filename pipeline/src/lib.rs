//! Broker to Parquet: what homes send becomes rows that are committed exactly once.
//!
//! The way of the data through this crate: [`mqtt`] receives messages and sends receipts; [`ingest`] puts each batch
//! before [`accept`], which says whether it is the next one of its lane; [`rows`] makes observations of its payload;
//! [`schema`] says what they look like in the lake; [`store`] commits them together with the watermark that remembers
//! them; and [`view`] is what a reader sees: committed files and the rows that are still on their way, in one swap.
//!
//! What is lost is written down as a [`gap::Gap`]; what cannot be used as a [`dead_letter::DeadLetter`].
//!
//! The crate does not know SQL, detections or alerts. Its consumer gets [`event::Event`]s as they are accepted and
//! reads [`view::View`]s.

pub mod mqtt;

pub mod accept;
pub mod event;
pub mod ingest;
pub mod memory;
pub mod message;
pub mod rows;
mod streak;

pub mod dead_letter;
pub mod gap;

pub mod hot;
pub mod schema;
pub mod store;
pub mod view;
