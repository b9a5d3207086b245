//! The console through its public face: a real loopback port, a real database, a clock moved by hand.

mod api;
mod crash;
mod events;
mod guard;
mod harness;
mod homes;
mod pages;
mod restart;
