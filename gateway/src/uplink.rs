//! From the spool to the centre: what to send when ([`session`]), what became of it ([`delivery`]), and the MQTT
//! connection itself ([`mqtt`]).

pub mod backoff;
pub mod delivery;
pub mod keeper;
pub mod mqtt;
pub mod session;
