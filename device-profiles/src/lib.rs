//! How devices talk, as data.
//!
//! A device is one folder, `profiles/<vendor>/<model>/`, with a `profile.toml` and the captures it was checked against;
//! all of them are compiled in. [`profile::Profile`] is such a file, checked; [`decoder::Decoder`] turns what a link hears
//! of one device into named points. On the way lie [`framing`] (frames in a stream), [`documents`] (JSON, text, lines),
//! [`field`] (where a value stands), [`meaning`] (what it says), and [`presses`] (from a counter to presses);
//! [`report`] decides which points are worth telling. [`modbus`] is the one protocol that has its own code; [`deny`] holds
//! what is never sent. [`capture`] replays recorded exchanges; [`document`] reads TOML so that all mistakes are told at
//! once with file, line, column and fix.
//!
//! Everything here is pure: the crate opens no port, waits for nothing, and knows no home. Which input is a call button is
//! said in the home file.

pub mod document;
pub mod hex;

pub mod folder;
pub mod profile;
pub mod shipped;

pub mod deny;
pub mod framing;
pub mod modbus;
pub mod reject;

pub mod decoder;
pub mod documents;
pub mod field;
pub mod meaning;
pub mod presses;
pub mod report;

pub mod capture;
