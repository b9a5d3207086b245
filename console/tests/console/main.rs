//! The console through its public face: a real loopback port, a real database, a clock moved by hand.

#![expect(clippy::unwrap_used, reason = "all of it is test code: a failed unwrap is a failed test")]

mod api;
mod crash;
mod events;
mod guard;
mod harness;
mod homes;
mod intervals;
mod pages;
mod restart;
