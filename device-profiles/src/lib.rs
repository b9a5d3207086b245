//! How devices talk, as data.
//!
//! A device is one folder, `profiles/<vendor>/<model>/`, with a `profile.toml` and the captures it was checked against;
//! all of them are compiled in. [`profile::Profile`] is such a file, checked; [`decoder::Decoder`] turns the bytes that
//! answer one of its polls into named points; [`modbus`] is the protocol below, as bytes; [`capture`] replays recorded
//! frames; [`document`] reads TOML so that all mistakes are told at once with file, line, column and fix.
//!
//! The crate opens no port and knows no home: which input is a call button is said in the home file.

pub mod document;

pub mod profile;
pub mod shipped;

pub mod decoder;
pub mod modbus;

pub mod capture;
